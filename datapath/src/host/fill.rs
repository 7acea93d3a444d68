//! Filling the tables: services, servers, pools, next hops to clients.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::atomic::Ordering;

use crate::table::endpoint::{Endpoint, place};
use crate::table::entry::{
    BACK, Hop, OriginKey, POOL_HEAD, PoolWord, SLOT_LIMITED, Server, Service, Ways, endpoint_word,
    fate, kind, method, nat, pool_slot, server_flag, service_flag, standing, wide, wide_flag,
};
use crate::wire::checksum;

use crate::table::translation::place as place_of_local;

use super::HostTables;

/// A real server to be added to a service.
#[derive(Clone, Copy, Debug)]
pub struct NewServer {
    /// [`crate::table::entry::method`].
    pub method: u8,
    /// The server's address.
    pub address: IpAddr,
    /// The server's port in host order; 0 for every port.
    pub port: u16,
    /// Tunnel: the outer source address, of the same family as `address`.
    pub outer_source: IpAddr,
    /// GUE: the tunnel's destination port.
    pub tunnel_port: u16,
    /// GUE, GRE: whether the tunnel's header has a checksum.
    pub tunnel_checksum: bool,
    /// Translated: whether the server sees a local address.
    pub full_nat: bool,
    /// The next hop.
    pub ways: Ways,
}

/// An address as the tables have it.
#[must_use]
pub fn words(address: IpAddr) -> [u64; 2] {
    match address {
        IpAddr::V4(address) => [u64::from(u32::from_le_bytes(address.octets())), 0],
        IpAddr::V6(address) => {
            let number = u128::from_le_bytes(address.octets());
            [number as u64, (number >> 64) as u64]
        }
    }
}

/// A MAC address that ends with this number.
#[must_use]
pub fn mac(number: u16) -> [u8; 6] {
    let [a, b] = number.to_be_bytes();
    [2, 0, 0, 0, a, b]
}

fn sum([a, b]: [u64; 2]) -> u32 {
    checksum::add(checksum::of_u64(a), checksum::of_u64(b))
}

impl HostTables {
    /// Adds a service without servers; [`HostTables::set_pool`] gives it a pool.
    pub fn add_service(&mut self, address: IpAddr, port: u16, protocol: u8, flags: u8) -> u32 {
        let id = self.next[0];
        self.next[0] += 1;
        let family = if address.is_ipv6() {
            service_flag::IPV6
        } else {
            0
        };
        self.services[id as usize] = Service {
            address: words(address),
            port: port.to_be(),
            protocol,
            flags: flags | family | service_flag::PRESENT,
            ..Service::default()
        };
        // The endpoint of a service of every port has the range of ids with the service's number.
        let endpoint = if port == 0 { wide(id) } else { id };
        if port == 0 {
            self.settings.wide |= wide_flag::EVERY_PORT;
            self.wide_services[id as usize] = id;
        }
        self.add_endpoint(address, port, protocol, kind::SERVICE, endpoint);
        self.add_endpoint(address, 0, protocol, kind::ADDRESS, id);
        id
    }

    /// Puts an endpoint where the walk looks for it.
    pub fn add_endpoint(&mut self, address: IpAddr, port: u16, protocol: u8, kind: u8, id: u32) {
        let endpoint = Endpoint {
            address: words(address),
            word: endpoint_word(port.to_be(), protocol, kind),
            id,
        };
        let seed = self.shape.seed;
        let placed = match address {
            IpAddr::V4(_) => place(&mut self.endpoints4[..], seed, endpoint),
            IpAddr::V6(_) => place(&mut self.endpoints6[..], seed, endpoint),
        };
        placed.expect("the table of endpoints is large enough");
    }

    /// Adds an endpoint for packets from a network (address and prefix length; `None` is any) and
    /// by an interface (0 is any).
    pub fn add_origin(
        &mut self,
        target: (IpAddr, u16),
        protocol: u8,
        network: Option<(IpAddr, u8)>,
        interface: u32,
        id: u32,
    ) {
        let word = endpoint_word(target.1.to_be(), protocol, kind::SERVICE);
        let family = if target.0.is_ipv6() { OriginKey::V6 } else { 0 };
        let (source, length) = network.map_or(([0, 0], 0), |(source, length)| {
            (words(source), u32::from(length))
        });
        let key = OriginKey {
            bits: OriginKey::BITS,
            word,
            interface: interface | family,
            reserved: 0,
            target: words(target.0),
            source,
        };
        self.origins.push((key, length, id));
        self.settings.wide |= match target.1 {
            0 => wide_flag::ORIGIN_EVERY_PORT,
            _ => wide_flag::ORIGIN_PORT,
        };
        if interface != 0 {
            self.settings.wide |= wide_flag::ORIGIN_DEVICE;
        }
        self.add_endpoint(target.0, 0, protocol, kind::ADDRESS, 1);
    }

    /// Adds a server to a service; the server gets no connection before it is in the pool.
    pub fn add_server(&mut self, service: u32, server: &NewServer) -> u32 {
        let id = self.next[1];
        self.next[1] += 1;
        let of = self.services[service as usize];
        let (address, outer) = (words(server.address), words(server.outer_source));
        let port = server.port.to_be();
        let family = if server.address.is_ipv6() {
            server_flag::IPV6
        } else {
            0
        };
        let checksum = if server.tunnel_checksum {
            server_flag::CHECKSUM
        } else {
            0
        };
        let mut entry = Server {
            ways: server.ways,
            address,
            port,
            method: server.method,
            flags: server_flag::PRESENT | family | checksum,
            service: if of.port == 0 { wide(service) } else { service },
            outer_source: outer,
            outer_sum: checksum::fold(checksum::add(sum(outer), sum(address))),
            virtual_address: of.address,
            virtual_port: of.port,
            tunnel_port: server.tunnel_port.to_be(),
            fate: fate::REUSED,
            ..Server::default()
        };
        // Servers with the same address, port and protocol share one NAT endpoint.
        let answers = |other: &&Server| {
            other.has_way_back()
                && (other.address, other.port) == (address, port)
                && self.protocol_of(other) == of.protocol
        };
        let shared = self.servers.iter().find(answers);
        let shared = shared.map(|other| other.endpoint);
        if entry.has_way_back() {
            let number = self.next[2];
            entry.endpoint = shared.unwrap_or(BACK | if port == 0 { wide(number) } else { number });
            self.next[2] += 1;
            entry.address_delta = checksum::fold(checksum::change(sum(of.address), sum(address)));
            entry.port_delta = checksum::fold(checksum::change_u16(of.port, port));
            self.settings.masquerades |= nat::MASQUERADES;
            if server.method == method::HERE {
                self.settings.masquerades |= nat::HERE;
            }
            let (kind, id) = (kind::MASQUERADED, entry.endpoint);
            if shared.is_none() {
                self.add_endpoint(server.address, server.port, of.protocol, kind, id);
            }
            self.add_endpoint(server.address, 0, of.protocol, kind::ADDRESS, id);
        }
        if server.method == method::TRANSLATE {
            if server.full_nat {
                entry.flags |= server_flag::FULL_NAT;
            }
            self.settings.masquerades |= nat::MASQUERADES | nat::TRANSLATES;
            self.settings.wide |= u32::from(server.port == 0);
            let kind = kind::MASQUERADED;
            if shared.is_none() {
                self.add_endpoint(server.address, server.port, of.protocol, kind, BACK);
            }
            self.add_endpoint(server.address, 0, of.protocol, kind::ADDRESS, BACK);
        }
        self.servers[id as usize] = entry;
        id
    }

    fn protocol_of(&self, server: &Server) -> u8 {
        let service = server.service & 0xffff;
        self.services[service as usize].protocol
    }

    /// Gives a server thresholds; must come before [`HostTables::set_pool`].
    pub fn limit(&mut self, server: u32, upper: u32, lower: u32) {
        self.servers[server as usize].flags |= server_flag::LIMITED;
        let at = server as usize * standing::WORDS + standing::BOUNDS;
        self.standings[at].store(standing::bounds(upper, lower), Ordering::SeqCst);
    }

    /// Gives a service a pool of these slots (server and weight, in order) and a scheduler.
    pub fn set_pool(&mut self, service: u32, scheduler: u8, slots: &[(u32, u32)]) {
        let base = self.next[3];
        self.next[3] += POOL_HEAD + slots.len() as u32;
        for (index, (server, weight)) in slots.iter().enumerate() {
            let at = (base + POOL_HEAD) as usize + index;
            let entry = self.servers[*server as usize];
            let limited = if entry.flags & server_flag::LIMITED != 0 {
                SLOT_LIMITED
            } else {
                0
            };
            self.pools[at].store(pool_slot(*server, *weight) | limited, Ordering::SeqCst);
            let at = *server as usize * standing::WORDS + standing::WEIGHT;
            self.standings[at].store(u64::from(*weight), Ordering::SeqCst);
        }
        let pool = PoolWord::new(base, slots.len() as u32, scheduler);
        self.services[service as usize].pool = pool.0;
    }

    /// Adds a local address for full NAT, with this number of ports from the first one on.
    pub fn add_local(&mut self, address: IpAddr, first: u16, ports: u32) {
        let v6 = address.is_ipv6();
        let head = place_of_local(v6, 0) as usize;
        let number = self.locals[head].count;
        let at = place_of_local(v6, number) as usize;
        self.locals[at].address = words(address);
        self.locals[at].first = u32::from(first);
        self.locals[at].ports = ports;
        self.locals[head].count = number + 1;
    }

    /// Prepares the hop to clients in a network.
    pub fn add_route(&mut self, network: IpAddr, prefix: u8, hop: u32, ways: Ways) {
        self.hops[hop as usize] = Hop { ways };
        match network {
            IpAddr::V4(_) => self.routes4.push((words(network)[0] as u32, prefix, hop)),
            IpAddr::V6(_) => self.routes6.push((words(network), prefix, hop)),
        }
    }
}

impl Default for NewServer {
    /// Direct routing to 10.1.0.7:80 by interface 2.
    fn default() -> Self {
        Self {
            method: method::ROUTE,
            address: IpAddr::V4(Ipv4Addr::new(10, 1, 0, 7)),
            port: 80,
            outer_source: IpAddr::V6(Ipv6Addr::UNSPECIFIED),
            tunnel_port: 0,
            tunnel_checksum: false,
            full_nat: false,
            ways: Ways::new(mac(7), mac(2), 2, 1500),
        }
    }
}
