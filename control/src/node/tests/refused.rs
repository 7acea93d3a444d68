//! A table that is full: the last good state stays in force in the tables, in the control model
//! and in the journal.

use shunt_model::change::mark;
use shunt_model::mark::{MarkRule, Ports, Target};
use shunt_model::{Family, Protocol, Wanted};

use super::*;
use crate::director::{Recollection, Record, records};

/// The tables of a packet path that can be full, and the journal.
#[derive(Default)]
pub(super) struct Path {
    /// The endpoints, and how many there may be if there is a limit.
    endpoints: BTreeMap<(IpAddr, u32), u32>,
    pub room: Option<usize>,
    servers: BTreeMap<u32, entry::Server>,
    services: BTreeMap<u32, entry::Service>,
    routes: BTreeMap<Prefix, u32>,
    pub takes_no_routes: bool,
    records: Vec<Record>,
}

impl Path {
    pub(super) fn write(&mut self, write: &Write) -> Result<(), String> {
        match write {
            Write::EndpointAdd { address, word, id } => {
                let at = (*address, *word);
                if !self.endpoints.contains_key(&at)
                    && self.room.is_some_and(|room| self.endpoints.len() >= room)
                {
                    return Err(format!("no room for the endpoint of {address}"));
                }
                self.endpoints.insert(at, *id);
            }
            Write::EndpointRemove { address, word } => {
                self.endpoints.remove(&(*address, *word));
            }
            Write::Server { id, entry } => drop(self.servers.insert(*id, *entry)),
            Write::Service { id, entry } => drop(self.services.insert(*id, *entry)),
            Write::Route { .. } if self.takes_no_routes => return Err("E2BIG".to_owned()),
            Write::Route { prefix, number } => match number {
                Some(number) => drop(self.routes.insert(*prefix, *number)),
                None => drop(self.routes.remove(prefix)),
            },
            _ => {}
        }
        Ok(())
    }

    /// Begins a fresh journal.
    pub(super) fn begin(&mut self, snapshot: &Snapshot) {
        self.records = snapshot.records();
    }

    pub(super) fn remember(&mut self, output: &Output) {
        match output {
            Output::Remember { step, .. } => self.records.extend(step.clone().records()),
            Output::WriteDown { changes } => self.records.extend(records(changes)),
            _ => {}
        }
    }
}

/// What is in force, as far as an operator or a packet sees it.
#[derive(Debug, PartialEq)]
struct State {
    wanted: Wanted,
    written_down: Wanted,
    /// Without those from which servers in the table answer or answered: they stay with the server.
    endpoints: BTreeMap<(IpAddr, u32), u32>,
    /// The entries of the servers in the table, whatever their ids are. A server that masqueraded
    /// once keeps the id of the endpoint that it answered from.
    servers: Vec<entry::Server>,
    /// The entries of the services that are there, without pools: a pool that is compiled again
    /// lies elsewhere.
    services: BTreeMap<u32, entry::Service>,
}

fn state(world: &World) -> State {
    let in_order = |mut wanted: Wanted| {
        wanted.services.sort_by_key(|pool| pool.service.key);
        for pool in &mut wanted.services {
            pool.servers.sort_by_key(|server| server.at);
        }
        wanted
    };
    let mut journal = Recollection::new(Table::new(Limits::default()));
    for record in &world.path.records {
        journal.take(record.clone()).unwrap();
    }
    let mut kept = Table::new(Limits::default());
    kept.apply_all(&journal.snapshot().changes).unwrap();
    let forward = world.node.forward();
    let listed = forward.table().wanted().services.into_iter();
    let listed = listed.flat_map(|pool| {
        let key = pool.service.key;
        pool.servers.into_iter().map(move |server| (key, server.at))
    });
    let listed: BTreeSet<(ServiceKey, ServerAddress)> = listed.collect();
    let answers = |address| listed.iter().any(|(_, at)| at.address == address);
    let endpoints = world.path.endpoints.clone().into_iter();
    let endpoints = endpoints.filter(|((address, _), _)| !answers(*address));
    let ids = listed
        .iter()
        .map(|(key, at)| forward.server_ids(key, *at)[0]);
    let services = world.path.services.clone().into_iter();
    State {
        wanted: in_order(world.node.forward().table().wanted()),
        written_down: in_order(kept.wanted()),
        endpoints: endpoints.collect(),
        servers: ids
            .map(|id| entry::Server {
                endpoint: 0,
                ..world.path.servers[&id]
            })
            .collect(),
        services: services
            .filter(|(_, entry)| entry.flags & entry::service_flag::PRESENT != 0)
            .map(|(id, entry)| (id, entry::Service { pool: 0, ..entry }))
            .collect(),
    }
}

/// Sweeps until no id of a deleted server or service is held. Returns the events.
fn sweep(world: &mut World) -> Vec<Fact> {
    let sweeps = (0..8).flat_map(|_| world.take(Input::Swept(Box::default())));
    let facts = sweeps.filter_map(|output| match output {
        Output::Event(fact) => Some(fact),
        _ => None,
    });
    facts.collect()
}

/// Numbers of servers by route of the first service.
const ROUTED: u32 = 18;
const OTHER_ROUTED: u32 = 21;

/// The service of a mark that no rule has.
fn marked() -> Service {
    Service {
        key: ServiceKey::Mark {
            mark: 7.try_into().unwrap(),
            family: Family::Ipv4,
        },
        ..service(0)
    }
}

/// A service with a routed server, and the service of a mark.
fn world() -> World {
    let mut world = World::connected();
    world.change(1, add_service(0));
    for number in [3, ROUTED, OTHER_ROUTED] {
        world.take(Input::Network(neighbour(number)));
    }
    world.change(2, add_server(ROUTED));
    world.change(
        3,
        Change::Service(service::Change::Add { service: marked() }),
    );
    sweep(&mut world);
    world
}

fn masqueraded(number: u32) -> Server {
    Server {
        method: Method::Masquerade,
        ..server(number)
    }
}

fn add_mark() -> Change {
    let ports = Ports {
        first: 443,
        last: 450,
    };
    let target = Target {
        protocol: Protocol::Udp,
        address: "192.0.2.9".parse().unwrap(),
        ports,
    };
    let rule = MarkRule {
        mark: 7.try_into().unwrap(),
        target,
        origin: Default::default(),
    };
    Change::Mark(mark::Change::Add { rule })
}

/// Changes that need endpoints.
fn changes() -> Vec<Change> {
    let key = key(0);
    let edited = masqueraded(ROUTED);
    let added = masqueraded(3);
    vec![
        add_service(1),
        Change::Server(server::Change::Add { key, server: added }),
        Change::Server(server::Change::Edit {
            key,
            server: edited,
        }),
        add_mark(),
    ]
}

fn is_full(refusal: &Refusal) -> bool {
    refusal.reason == Reason::NoRoom && refusal.text.contains("no room for the endpoint")
}

#[test]
fn a_change_whose_write_is_refused_is_refused_and_undone() {
    for change in changes() {
        for room in 0..3 {
            let mut world = world();
            let before = state(&world);
            assert_eq!(before.wanted, before.written_down);
            world.path.room = Some(world.path.endpoints.len() + room);
            let outputs = world.change(7, change.clone());
            let answer = outputs.iter().find_map(|output| match output {
                Output::Answer {
                    ticket: 7,
                    reply: Reply::Change(result),
                } => Some(result.clone()),
                _ => None,
            });
            if let Some(Ok(_)) | None = answer {
                assert!(room > 0, "{change}: {outputs:?}");
                continue;
            }
            assert!(is_full(&answer.unwrap().unwrap_err()), "{change}");
            let is_changed =
                |output: &Output| matches!(output, Output::Event(Fact::TableChanged { .. }));
            assert!(!outputs.iter().any(is_changed), "{change}: {outputs:?}");
            let facts = sweep(&mut world);
            assert_eq!(facts, [], "nobody misses what was undone");
            assert_eq!(state(&world), before, "{change}, with room for {room}");

            // With room, the same change is made whole.
            let mut other = self::world();
            for world in [&mut world, &mut other] {
                world.path.room = None;
                world.change(8, change.clone());
                sweep(world);
            }
            let keys = |world: &World| world.path.endpoints.keys().copied().collect::<Vec<_>>();
            assert_eq!(keys(&world), keys(&other), "{change}");
            let (is, right) = (state(&world), state(&other));
            assert_eq!(
                (&is.wanted, &is.written_down),
                (&right.wanted, &right.wanted)
            );
        }
    }
}

#[test]
fn a_change_that_comes_again_at_once_is_refused_again() {
    for change in changes() {
        let mut world = world();
        let before = state(&world);
        world.path.room = Some(before.endpoints.len());
        for ticket in 7..10 {
            let outputs = world.change(ticket, change.clone());
            let is_refused = |output: &Output| match output {
                Output::Answer {
                    reply: Reply::Change(Err(refusal)),
                    ..
                } => is_full(refusal),
                _ => false,
            };
            assert!(outputs.iter().any(is_refused), "{change}: {outputs:?}");
        }
        sweep(&mut world);
        assert_eq!(state(&world), before, "{change}");
    }
}

#[test]
fn a_whole_batch_with_a_refused_write_is_undone_whole() {
    for last in changes() {
        let mut world = world();
        let before = state(&world);
        world.path.room = Some(before.endpoints.len());
        let (key, at) = (key(0), at(ROUTED));
        let setting = Setting::SloppyTcp(true);
        let mut batch = vec![
            Change::Setting(setting::Change::Set { setting }),
            Change::Server(server::Change::Add {
                key,
                server: server(OTHER_ROUTED),
            }),
            last.clone(),
            Change::Service(service::Change::Flush),
        ];
        if !matches!(last, Change::Server(server::Change::Edit { .. })) {
            batch.insert(0, Change::Server(server::Change::Delete { key, at }));
        }
        let wrong = batch.len() - 2;
        let outputs = world.batch(7, Mode::Whole, batch);
        let Some(Output::Answer {
            reply: Reply::Batch(Ok(answer)),
            ..
        }) = outputs.last()
        else {
            panic!("{outputs:?}");
        };
        let [refused] = &answer.refused[..] else {
            panic!("{answer:?}");
        };
        assert_eq!(refused.index, wrong);
        assert!(is_full(&refused.refusal));
        sweep(&mut world);
        assert_eq!(state(&world), before, "{last}");
    }
}

#[test]
fn a_batch_of_single_changes_loses_only_those_whose_writes_are_refused() {
    let mut world = world();
    let before = state(&world);
    world.path.room = Some(before.endpoints.len());
    let routed = server(OTHER_ROUTED);
    let (key, gone) = (key(0), at(ROUTED));
    let batch = vec![
        add_service(1),
        Change::Server(server::Change::Add {
            key,
            server: routed.clone(),
        }),
        add_mark(),
        Change::Server(server::Change::Delete { key, at: gone }),
    ];
    let outputs = world.batch(7, Mode::Each, batch);
    assert_eq!(refused_of(&outputs), [0, 2]);
    sweep(&mut world);
    let after = state(&world);
    assert_eq!(after.endpoints, before.endpoints);
    assert_eq!(after.wanted, after.written_down);
    let servers = after
        .wanted
        .services
        .into_iter()
        .flat_map(|pool| pool.servers);
    assert_eq!(servers.collect::<Vec<_>>(), [routed]);
}

#[test]
fn what_the_network_asks_is_kept_and_tried_again() {
    let mut world = world();
    // The packet path prepares ways back only while a service masquerades.
    world.change(4, add_server(3));
    world.path.takes_no_routes = true;
    let route = |host: u8| {
        let inputs = network().into_iter();
        inputs.filter_map(move |input| match input {
            network::Input::RouteAdded { route, replace } => Some(network::Input::RouteAdded {
                route: RouteEntry {
                    prefix: Prefix::new([198, 51, host, 0].into(), 24),
                    ..route
                },
                replace,
            }),
            _ => None,
        })
    };
    for input in route(1).chain(route(2)) {
        world.take(Input::Network(input));
    }
    let why = "E2BIG".to_owned();
    assert_eq!(sweep(&mut world), [Fact::WritesRefused { why }]);
    assert_eq!(world.node.forward().table().servers(), 2);

    world.path.takes_no_routes = false;
    let facts: Vec<Fact> = (0..20).flat_map(|_| sweep(&mut world)).collect();
    assert_eq!(facts, [Fact::WritesDone]);
    let written = world.path.routes.keys().filter(|prefix| !prefix.is_host());
    let written = written.map(|prefix| prefix.address());
    let wanted = ["198.51.1.0", "198.51.2.0"].map(|text| text.parse::<IpAddr>().unwrap());
    assert_eq!(written.collect::<Vec<_>>(), wanted);
}
