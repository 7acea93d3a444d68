//! The classic test bed of a virtual server: clients, a router, directors, real servers.
//!
//! ```text
//!  clients ── router ──── front ──── directors
//!               |                        |
//!               └────────── back ────────┴── real servers
//!                                        └── gateway ── far ── real servers (if asked for)
//! ```
//!
//! Each segment is a switch. The router sends packets for virtual addresses and real servers to a
//! director. Its leg on the back segment is only a way out, for answers that do not pass the
//! director. Every segment has both families. Devices: `eth0` of clients and servers; `front` and
//! `back` of directors; `clients`, `front` and `back` of the router; `near` and `far` of the
//! gateway.

use std::net::{IpAddr, SocketAddr};

use anyhow::{Result, ensure};

use crate::addresses::{
    CLIENTS_FROM, DIRECTORS_FROM, Family, GATEWAY_BACK, GATEWAY_FAR, ROUTER, ROUTER_BACK,
    SERVERS_FROM, Segment,
};
use crate::host::Host;
use crate::link::veth;
use crate::route::Route;

const CLIENTS: usize = 16;
const DIRECTORS: usize = 8;
const SERVERS: usize = 64;

/// The first hop of the real servers' answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplyVia {
    /// Masquerading: back through the director with this index.
    Director(usize),
    /// Direct routing and tunnels: to the client without the director.
    Router,
}

/// How the router finds virtual addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VirtualVia {
    /// By a route to the director with this index.
    Director(usize),
    /// By ARP and neighbour discovery on the front segment: the host that answers gets the packets.
    OnLink,
}

/// The description of a bed, from which `build` builds it.
#[derive(Clone, Debug)]
pub struct TopologyBuilder {
    clients: usize,
    directors: usize,
    servers: usize,
    gateway: bool,
    offloads: bool,
    client_mtu: Option<u32>,
    back_mtu: Option<u32>,
}

impl TopologyBuilder {
    /// Sets the number of clients.
    pub fn clients(mut self, clients: usize) -> TopologyBuilder {
        self.clients = clients;
        self
    }

    /// Sets the number of directors.
    pub fn directors(mut self, directors: usize) -> TopologyBuilder {
        self.directors = directors;
        self
    }

    /// Sets the number of servers.
    pub fn servers(mut self, servers: usize) -> TopologyBuilder {
        self.servers = servers;
        self
    }

    /// Puts the servers on their own segment, behind a gateway on the back segment.
    pub fn behind_gateway(mut self) -> TopologyBuilder {
        self.gateway = true;
        self
    }

    /// Leaves the offloads of all devices at the kernel's defaults. Otherwise every device is a
    /// wire (see [`Host::wire`]), and a director may answer by XDP_TX (see [`Host::pass_xdp`]).
    pub fn offloads(mut self) -> TopologyBuilder {
        self.offloads = true;
        self
    }

    /// Limits the MTU from the router to clients. The router reports it to senders of larger
    /// packets.
    pub fn client_mtu(mut self, mtu: u32) -> TopologyBuilder {
        self.client_mtu = Some(mtu);
        self
    }

    /// Sets the MTU of all devices on the back segment, or with a gateway on the far segment.
    pub fn back_mtu(mut self, mtu: u32) -> TopologyBuilder {
        self.back_mtu = Some(mtu);
        self
    }

    /// Makes the hosts, wires them and waits until their addresses are usable.
    pub fn build(self) -> Result<Topology> {
        ensure!(
            (1..=CLIENTS).contains(&self.clients),
            "a bed has 1 to {CLIENTS} clients"
        );
        ensure!(
            (1..=DIRECTORS).contains(&self.directors),
            "a bed has 1 to {DIRECTORS} directors"
        );
        ensure!(
            (1..=SERVERS).contains(&self.servers),
            "a bed has 1 to {SERVERS} servers"
        );
        let topology = Topology {
            switch: Host::new("switch")?,
            router: Host::new("router")?,
            clients: hosts("client", self.clients)?,
            directors: hosts("director", self.directors)?,
            servers: hosts("server", self.servers)?,
            gateway: if self.gateway {
                Some(Host::new("gateway")?)
            } else {
                None
            },
        };
        topology.plug(&self)?;
        topology.route()?;
        Ok(topology)
    }

    fn mtu_of(&self, segment: Segment) -> Option<u32> {
        match (segment, self.gateway) {
            (Segment::Back, false) | (Segment::Far, true) => self.back_mtu,
            _ => None,
        }
    }
}

fn hosts(kind: &str, count: usize) -> Result<Vec<Host>> {
    (1..=count)
        .map(|number| Host::new(format!("{kind}{number}")))
        .collect()
}

/// The bed, wired and routed. Directors and servers are as the kernel makes them, without services.
/// The bed ends with the last clone of its hosts.
#[derive(Debug)]
pub struct Topology {
    /// The bridges of all segments.
    pub switch: Host,
    /// The router between clients and directors.
    pub router: Host,
    /// Hosts on the clients' segment, whose default route is the router.
    pub clients: Vec<Host>,
    /// Hosts on the front and the back segment.
    pub directors: Vec<Host>,
    /// Hosts on the back segment, or on the far one behind the gateway.
    pub servers: Vec<Host>,
    /// The gateway between the back segment and the far one.
    pub gateway: Option<Host>,
}

impl Topology {
    /// One client, one director, two servers, wires without offloads.
    pub fn builder() -> TopologyBuilder {
        TopologyBuilder {
            clients: 1,
            directors: 1,
            servers: 2,
            gateway: false,
            offloads: false,
            client_mtu: None,
            back_mtu: None,
        }
    }

    /// The first client.
    pub fn client(&self) -> &Host {
        &self.clients[0]
    }

    /// The first director.
    pub fn director(&self) -> &Host {
        &self.directors[0]
    }

    /// A virtual address, by its number: `192.0.2.NUMBER`.
    pub fn vip(&self, family: Family, number: u8) -> IpAddr {
        Segment::Virtual.host(family, number)
    }

    /// The address and port of a service.
    pub fn service(&self, family: Family, number: u8, port: u16) -> SocketAddr {
        SocketAddr::new(self.vip(family, number), port)
    }

    /// The address of the client with this index.
    pub fn client_address(&self, family: Family, index: usize) -> IpAddr {
        Segment::Clients.host(family, CLIENTS_FROM + index as u8)
    }

    /// The real address of the server with this index.
    pub fn server_address(&self, family: Family, index: usize) -> IpAddr {
        self.server_segment()
            .host(family, SERVERS_FROM + index as u8)
    }

    /// The address on the front segment of the director with this index.
    pub fn director_front(&self, family: Family, index: usize) -> IpAddr {
        Segment::Front.host(family, DIRECTORS_FROM + index as u8)
    }

    /// The address on the back segment of the director with this index.
    pub fn director_back(&self, family: Family, index: usize) -> IpAddr {
        Segment::Back.host(family, DIRECTORS_FROM + index as u8)
    }

    /// The router's address on the front segment.
    pub fn router_front(&self, family: Family) -> IpAddr {
        Segment::Front.host(family, ROUTER)
    }

    /// Switches the default route of the servers, or of the gateway in front of them.
    pub fn servers_reply_via(&self, via: ReplyVia) -> Result<()> {
        for family in Family::BOTH {
            let gateway = match via {
                ReplyVia::Director(index) => self.director_back(family, index),
                ReplyVia::Router => Segment::Back.host(family, ROUTER_BACK),
            };
            let nearest = match &self.gateway {
                Some(gateway) => std::slice::from_ref(gateway),
                None => &self.servers,
            };
            for host in nearest {
                host.route(&Route::default_via(gateway))?;
            }
        }
        Ok(())
    }

    /// Switches the router's route to all virtual addresses.
    pub fn route_virtual(&self, via: VirtualVia) -> Result<()> {
        for family in Family::BOTH {
            let route = Route::to(Segment::Virtual.prefix(family));
            self.router.route(&match via {
                VirtualVia::Director(index) => route.via(self.director_front(family, index)),
                VirtualVia::OnLink => route.device("front"),
            })?;
        }
        Ok(())
    }

    /// Switches the router's route to the real servers' own addresses.
    pub fn route_servers(&self, director: usize) -> Result<()> {
        for family in Family::BOTH {
            for segment in [Segment::Back, Segment::Far] {
                let via = self.director_front(family, director);
                self.router
                    .route(&Route::to(segment.prefix(family)).via(via))?;
            }
        }
        Ok(())
    }

    /// Gives a director a virtual address of both families on a device: `lo` or `front`.
    pub fn director_holds(&self, director: usize, device: &str, number: u8) -> Result<()> {
        self.hold(&self.directors[director], device, number)
    }

    /// Gives all servers a virtual address of both families on their loopback device, as direct
    /// routing and tunnels need. The servers never answer ARP for it.
    pub fn servers_hold(&self, number: u8) -> Result<()> {
        self.servers
            .iter()
            .try_for_each(|server| self.hold(server, "lo", number))
    }

    fn hold(&self, host: &Host, device: &str, number: u8) -> Result<()> {
        Family::BOTH
            .into_iter()
            .try_for_each(|family| host.address(device, self.vip(family, number)))
    }

    fn server_segment(&self) -> Segment {
        if self.gateway.is_some() {
            Segment::Far
        } else {
            Segment::Back
        }
    }

    fn plug(&self, plan: &TopologyBuilder) -> Result<()> {
        use Segment::{Back, Clients, Far, Front};
        for bridge in ["clients", "front", "back", "far"] {
            self.switch.bridge(bridge)?;
        }
        for (index, client) in (0..).zip(&self.clients) {
            self.cable(plan, client, "eth0", Clients, CLIENTS_FROM + index)?;
        }
        self.cable(plan, &self.router, "clients", Clients, ROUTER)?;
        self.cable(plan, &self.router, "front", Front, ROUTER)?;
        self.cable(plan, &self.router, "back", Back, ROUTER_BACK)?;
        for (index, director) in (0..).zip(&self.directors) {
            self.cable(plan, director, "front", Front, DIRECTORS_FROM + index)?;
            self.cable(plan, director, "back", Back, DIRECTORS_FROM + index)?;
        }
        if let Some(gateway) = &self.gateway {
            self.cable(plan, gateway, "near", Back, GATEWAY_BACK)?;
            self.cable(plan, gateway, "far", Far, GATEWAY_FAR)?;
        }
        for (index, server) in (0..).zip(&self.servers) {
            self.cable(
                plan,
                server,
                "eth0",
                self.server_segment(),
                SERVERS_FROM + index,
            )?;
        }
        // The router's prefix routes are written one by one: the route to clients has an MTU, and
        // the router must not reach the back segment by its own leg.
        for family in Family::BOTH {
            let clients = Route::to(Clients.prefix(family)).device("clients");
            self.router.route(&match plan.client_mtu {
                Some(mtu) => clients.mtu(mtu),
                None => clients,
            })?;
        }
        Ok(())
    }

    /// Connects a device to a segment's switch and gives it its addresses.
    fn cable(
        &self,
        plan: &TopologyBuilder,
        host: &Host,
        device: &str,
        segment: Segment,
        number: u8,
    ) -> Result<()> {
        let bridge = match segment {
            Segment::Clients => "clients",
            Segment::Front | Segment::Virtual => "front",
            Segment::Back => "back",
            Segment::Far => "far",
        };
        let port = format!("{bridge}-{number}");
        veth(host, device, &self.switch, &port)?;
        self.switch.bridge_port(bridge, &port)?;
        if let Some(mtu) = plan.mtu_of(segment) {
            host.set_mtu(device, mtu)?;
            self.switch.set_mtu(&port, mtu)?;
        }
        if !plan.offloads {
            host.wire(device)?;
            self.switch.wire(&port)?;
            if self
                .directors
                .iter()
                .any(|director| director.inode() == host.inode())
            {
                self.switch.pass_xdp(&port)?;
            }
        }
        for family in Family::BOTH {
            if host.inode() == self.router.inode() && segment != Segment::Front {
                host.address(device, segment.host(family, number))?;
            } else {
                host.address(device, segment.with_length(family, number))?;
            }
        }
        Ok(())
    }

    fn route(&self) -> Result<()> {
        let between = self
            .directors
            .iter()
            .chain([&self.router])
            .chain(&self.gateway);
        for host in between {
            host.sysctls(&[
                ("net.ipv4.ip_forward", "1"),
                ("net.ipv6.conf.all.forwarding", "1"),
            ])?;
        }
        for server in &self.servers {
            server.sysctls(&[
                ("net.ipv4.conf.all.arp_ignore", "1"),
                ("net.ipv4.conf.all.arp_announce", "2"),
            ])?;
        }
        for family in Family::BOTH {
            for client in &self.clients {
                let router = Segment::Clients.host(family, ROUTER);
                client.route(&Route::default_via(router))?;
            }
            for director in &self.directors {
                director.route(&Route::default_via(self.router_front(family)))?;
                if self.gateway.is_some() {
                    let gateway = Segment::Back.host(family, GATEWAY_BACK);
                    director.route(&Route::to(Segment::Far.prefix(family)).via(gateway))?;
                }
            }
            if self.gateway.is_some() {
                let gateway = Segment::Far.host(family, GATEWAY_FAR);
                for server in &self.servers {
                    server.route(&Route::default_via(gateway))?;
                }
            }
        }
        self.route_virtual(VirtualVia::Director(0))?;
        self.route_servers(0)?;
        self.servers_reply_via(ReplyVia::Director(0))
    }
}
