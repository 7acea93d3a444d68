//! A director of one's own: its packet path loaded, pinned nowhere, with services and servers in
//! its tables as the daemon writes them.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::atomic::Ordering;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use aya::Ebpf;
use aya::maps::xdp::DevMapHash;
use aya::maps::{Map, MapData};
use aya::programs::{ProgramFd, Xdp};
use shunt_control::director::{Clock, Director as Mind, Output, Sizes, Snapshot, Write};
use shunt_control::network::neighbours::State;
use shunt_control::network::routes::{Path, Prefix, RouteEntry};
use shunt_control::network::{Address, Input, Link, Neighbour};
use shunt_control::table::Table;
use shunt_daemon::kernel::clock;
use shunt_daemon::kernel::object::{self, Capacity};
use shunt_daemon::kernel::tables::Tables;
use shunt_datapath::entry::{PoolWord, Ways};
use shunt_model::change::{Change, server, service};
use shunt_model::{
    Encapsulation, Method as Forwarding, Protocol, Scheduler, SchedulerFlags, Server,
    ServerAddress, Service, ServiceKey,
};

/// The port of services and servers.
pub(super) const PORT: u16 = 80;
/// Servers of a service.
const SERVERS: u16 = 100;
/// The only server of the service whose answers are measured.
const ALONE: u16 = 60_000;
const MTU: u16 = 1500;
const OURS: [u8; 6] = [2, 0, 0, 0, 0, 2];
const THEIRS: [u8; 6] = [2, 0, 0, 0, 0, 1];

/// How a director forwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Method {
    Route,
    /// The way back to clients found by routes or learned, as each client comes.
    Masquerade,
    /// The way back to clients prepared.
    MasqueradeByHop,
    Tunnel,
}

impl Method {
    pub(super) const ALL: [Method; 4] = [
        Method::Route,
        Method::Masquerade,
        Method::MasqueradeByHop,
        Method::Tunnel,
    ];

    pub(super) fn name(self) -> &'static str {
        match self {
            Method::Route => "route",
            Method::Masquerade => "masquerade",
            Method::MasqueradeByHop => "masquerade, hop prepared",
            Method::Tunnel => "tunnel",
        }
    }

    pub(super) fn masquerades(self) -> bool {
        matches!(self, Method::Masquerade | Method::MasqueradeByHop)
    }

    fn forwarding(self) -> Forwarding {
        match self {
            Method::Route => Forwarding::Route,
            Method::Masquerade | Method::MasqueradeByHop => Forwarding::Masquerade,
            Method::Tunnel => Forwarding::Tunnel(Encapsulation::Ipip),
        }
    }
}

/// The services of a director.
#[derive(Clone, Copy, Debug)]
pub(super) struct Farm {
    pub scheduler: Scheduler,
    pub flags: SchedulerFlags,
    pub servers: u16,
    pub weight: u32,
    /// Whether IPv6, for each family that has services.
    pub families: &'static [bool],
}

impl Farm {
    /// As most measurements have them.
    pub(super) fn usual(scheduler: Scheduler) -> Self {
        Self {
            scheduler,
            flags: SchedulerFlags::default(),
            servers: SERVERS,
            weight: 1,
            families: &[false, true],
        }
    }
}

/// The virtual address of all servers.
pub(super) fn service(v6: bool) -> IpAddr {
    address(v6, [192, 0, 2, 1], [0, 1])
}

/// That of the service with one server.
pub(super) fn lone_service(v6: bool) -> IpAddr {
    address(v6, [192, 0, 2, 2], [0, 2])
}

/// That server.
pub(super) fn lone_server(v6: bool) -> IpAddr {
    server(v6, ALONE)
}

/// An address that has no service.
pub(super) fn foreign(v6: bool) -> IpAddr {
    address(v6, [192, 0, 2, 77], [0, 77])
}

fn server(v6: bool, number: u16) -> IpAddr {
    let [high, low] = number.to_be_bytes();
    address(v6, [10, 1, high, low], [1, number])
}

fn address(v6: bool, v4: [u8; 4], [net, host]: [u16; 2]) -> IpAddr {
    if v6 {
        Ipv6Addr::new(0x2001, 0xdb8, net, 0, 0, 0, 0, host).into()
    } else {
        Ipv4Addr::from(v4).into()
    }
}

/// A loaded packet path with its tables.
pub(super) struct Director {
    pub method: Method,
    ebpf: Ebpf,
    tables: Tables,
    mind: Mind,
    tick_shift: u32,
}

impl Director {
    /// Loads one for `flows` flows of each family whose servers are reached by `interface`.
    pub(super) fn new(method: Method, farm: Farm, flows: u32, interface: u32) -> Result<Self> {
        let sizes = Sizes {
            services: 64,
            servers: 1 << 15,
            pool_words: 1 << 19,
        };
        let capacity = Capacity {
            translations: 2048,
            calls: 1024,
            flows4: flows,
            flows6: flows,
            sizes,
        };
        let (mut ebpf, made) = object::unpinned(capacity)?;
        let ports = ebpf.map_mut("PORTS").context("no map PORTS")?;
        let mut ports = DevMapHash::try_from(ports).context("the map PORTS")?;
        ports
            .insert(interface, interface, None, 0)
            .context("cannot enter the device")?;
        let tick_ns = clock::tick_ns(made.jiffies_rate);
        let tick_shift = made.tick_shift;
        let ebpf = RefCell::new(ebpf);
        let mut tables = Tables::of(made, |name| take(&ebpf, name))?;
        let now = Instant::now();
        // All at once, as from the notes of an earlier daemon: each pool is compiled once.
        let snapshot = Snapshot {
            changes: changes(method, farm),
            services: BTreeMap::new(),
            endpoints: BTreeMap::new(),
            hops: BTreeMap::new(),
            clients: BTreeMap::new(),
            orphans: Vec::new(),
            ..Snapshot::default()
        };
        let (table, clock) = (Table::default(), Clock { tick_ns });
        let nowhere = |_| PoolWord(0);
        let mut mind = Mind::resume(snapshot, table, sizes, clock, &tables, nowhere, now)?;
        for event in network(interface, farm.servers) {
            mind.network_event(event, now);
        }
        mind.network_known();
        carry_out(&mut mind, &mut tables)?;
        // After what the director says of the routes to clients: there are none on this network.
        if method == Method::MasqueradeByHop {
            prepare_hop(&mut tables, interface)?;
        }
        Ok(Self {
            method,
            ebpf: ebpf.into_inner(),
            tables,
            mind,
            tick_shift,
        })
    }

    /// What the daemon does every few milliseconds.
    pub(super) fn compile_short_lists(&mut self) -> Result<()> {
        let program: &Xdp = self
            .ebpf
            .program("director_clock")
            .context("no program director_clock")?
            .try_into()?;
        let tick = clock::tick(clock::jiffies(program)?, self.tick_shift);
        for write in self.mind.short_lists(&self.tables, tick) {
            self.tables.write(&write)?;
        }
        Ok(())
    }

    pub(super) fn xdp(&self) -> Result<&Xdp> {
        let program = self
            .ebpf
            .program("director_xdp")
            .context("no program director_xdp")?;
        Ok(program.try_into()?)
    }

    pub(super) fn xdp_mut(&mut self) -> Result<&mut Xdp> {
        let program = self
            .ebpf
            .program_mut("director_xdp")
            .context("no program director_xdp")?;
        Ok(program.try_into()?)
    }

    pub(super) fn program(&self) -> Result<&ProgramFd> {
        Ok(self.xdp()?.fd()?)
    }

    /// How often each outcome was had, by name.
    pub(super) fn outcomes(&self) -> Vec<(String, u64)> {
        let statistics = self.tables.statistics();
        statistics
            .verdicts
            .into_iter()
            .chain(statistics.drops)
            .collect()
    }

    /// Forgets every flow of a family.
    pub(super) fn forget(&self, v6: bool) {
        let shared = &self.tables.shared;
        let flows = if v6 { &shared.flows6 } else { &shared.flows4 };
        for bucket in (0..flows.len()).filter_map(|at| flows.value(at)) {
            for word in bucket
                .iter()
                .filter(|word| word.load(Ordering::Relaxed) != 0)
            {
                word.store(0, Ordering::Relaxed);
            }
        }
    }
}

fn carry_out(mind: &mut Mind, tables: &mut Tables) -> Result<()> {
    while let Some(output) = mind.poll() {
        if let Output::Write(write) = output {
            tables.write(&write)?;
        }
    }
    Ok(())
}

fn take(ebpf: &RefCell<Ebpf>, name: &str) -> Result<MapData> {
    match ebpf.borrow_mut().take_map(name) {
        Some(
            Map::Array(data) | Map::PerCpuArray(data) | Map::LpmTrie(data) | Map::HashMap(data),
        ) => Ok(data),
        Some(_) => bail!("the map {name} is of another kind"),
        None => bail!("no map {name}"),
    }
}

/// One hop for every client.
fn prepare_hop(tables: &mut Tables, interface: u32) -> Result<()> {
    let ways = Ways::new(THEIRS, OURS, interface, MTU);
    tables.write(&Write::Hop { number: 1, ways })?;
    let every = ["0.0.0.0".parse()?, "::".parse()?];
    let routes = every.map(|address| (Prefix::new(address, 0), 1));
    tables.write(&Write::Routes(routes.to_vec()))?;
    Ok(())
}

/// One link with every server on it.
fn network(interface: u32, servers: u16) -> Vec<Input> {
    let mut events = vec![Input::LinkChanged(Link {
        mtu: u32::from(MTU),
        ..Link::card(interface, "bench", OURS)
    })];
    for v6 in [false, true] {
        let length = if v6 { 64 } else { 16 };
        let own = server(v6, 60_001);
        let address = Address {
            interface,
            address: own,
            length,
            preferred: true,
            narrow: false,
        };
        events.push(Input::AddressAdded(address));
        let path = Path {
            interface,
            gateway: None,
        };
        let route = RouteEntry {
            source: Some(own),
            ..RouteEntry::unicast(Prefix::new(own, length), vec![path])
        };
        events.push(Input::RouteAdded {
            route,
            replace: false,
        });
        for number in (1..=servers).chain([ALONE]) {
            events.push(Input::NeighbourChanged(Neighbour {
                interface,
                address: server(v6, number),
                mac: Some(THEIRS),
                state: State::Permanent,
            }));
        }
    }
    events
}

fn changes(method: Method, farm: Farm) -> Vec<Change> {
    let mut changes = Vec::new();
    for &v6 in farm.families {
        for protocol in [Protocol::Tcp, Protocol::Udp] {
            let all = (1..=farm.servers).collect::<Vec<_>>();
            for (at, servers) in [(service(v6), &all[..]), (lone_service(v6), &[ALONE][..])] {
                let key = ServiceKey::Address {
                    protocol,
                    address: at,
                    port: PORT,
                };
                changes.push(Change::Service(service::Change::Add {
                    service: Service {
                        key,
                        scheduler: farm.scheduler,
                        flags: farm.flags,
                        persistence: None,
                        one_packet: false,
                        settings: Default::default(),
                        idle_engine: None,
                        announce: None,
                    },
                }));
                changes.extend(servers.iter().map(|number| {
                    Change::Server(server::Change::Add {
                        key,
                        server: Server {
                            at: ServerAddress {
                                address: server(v6, *number),
                                port: PORT,
                            },
                            method: method.forwarding(),
                            weight: farm.weight,
                            upper_threshold: 0,
                            lower_threshold: 0,
                        },
                    })
                }));
            }
        }
    }
    changes
}
