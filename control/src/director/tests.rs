//! The director as a whole: what a change or the network makes it write.

use std::collections::BTreeSet;

use shunt_datapath::entry::{POOL_HEAD, PoolWord};
use shunt_model::api::Reason;
use shunt_model::change::{Change, mark, server, service};
use shunt_model::mark::{MarkRule, Targets};
use shunt_model::next_hop::OutOfReach;
use shunt_model::service::Granularity;
use shunt_model::{Method, Persistence, Protocol, Scheduler, SchedulerFlags, Service};

use super::*;
use crate::network::neighbours::State;
use crate::network::routes::{Kind, Path, Prefix, RouteEntry};
use crate::network::{Input, Link, Neighbour};
use crate::table::Limits;

/// A packet path without entries.
pub(super) struct Empty;

impl Running for Empty {
    fn counters(&self, _: u32) -> shunt_model::Counters {
        shunt_model::Counters::default()
    }

    fn is_overloaded(&self, _: u32) -> bool {
        false
    }

    fn counts(&self, _: u32) -> u64 {
        0
    }

    fn pool_word(&self, _at: u32) -> u64 {
        0
    }

    fn server(&self, _id: u32) -> Option<entry::Server> {
        None
    }
}

/// What each factor leaves of a server's weight.
fn effective(director: &Director, last: u8) -> Vec<String> {
    let entry = director.table.service(&key(80)).unwrap();
    let server = entry.server(at(last)).unwrap();
    let shown = director.eligibility(&key(80), server, &Empty);
    let shown = shunt_model::api::Eligibility::from(shown)
        .factors
        .into_iter();
    shown
        .map(|factor| format!("{} {}", factor.name, factor.weight))
        .collect()
}

/// Time stands still.
fn now() -> Instant {
    static NOW: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
    *NOW.get_or_init(Instant::now)
}

pub(super) fn director(sizes: Sizes) -> Director {
    let table = Table::new(Limits::default());
    let tick_ns = 1_000_000_000;
    let mut director = Director::new(table, sizes, Clock { tick_ns }, now());
    for input in link() {
        director.network_event(input, now());
    }
    director.network_known();
    outputs(&mut director);
    director
}

pub(super) const SMALL: Sizes = Sizes {
    services: 16,
    servers: 16,
    pool_words: 1024,
};

/// A link with a network on it.
fn link() -> [Input; 2] {
    let link = Link::card(2, "eth0", [2, 0, 0, 0, 0, 1]);
    let path = Path {
        interface: 2,
        gateway: None,
    };
    let route = RouteEntry::unicast(Prefix::new("10.1.0.0".parse().unwrap(), 16), vec![path]);
    let replace = false;
    [
        Input::LinkChanged(link),
        Input::RouteAdded { route, replace },
    ]
}

fn key(port: u16) -> ServiceKey {
    ServiceKey::Address {
        protocol: Protocol::Tcp,
        address: "192.0.2.1".parse().unwrap(),
        port,
    }
}

fn address(last: u8) -> IpAddr {
    [10, 1, 0, last].into()
}

fn at(last: u8) -> ServerAddress {
    ServerAddress {
        address: address(last),
        port: 80,
    }
}

fn add_service(key: ServiceKey) -> Change {
    let service = Service {
        key,
        scheduler: Scheduler::Rr,
        flags: SchedulerFlags::default(),
        persistence: None,
        one_packet: false,
        settings: Default::default(),
        idle_engine: None,
        announce: None,
    };
    Change::Service(service::Change::Add { service })
}

fn server(last: u8, weight: u32) -> Server {
    Server {
        at: at(last),
        method: Method::Masquerade,
        weight,
        upper_threshold: 0,
        lower_threshold: 0,
    }
}

fn add_server(key: ServiceKey, last: u8) -> Change {
    let server = server(last, 1);
    Change::Server(server::Change::Add { key, server })
}

/// Carries out a change; the outputs that follow.
fn change(director: &mut Director, change: &Change) -> Vec<Output> {
    director.change(change, &Empty, now()).unwrap();
    outputs(director)
}

/// All outputs, with pools recompiled where the director asks for it.
pub(super) fn outputs(director: &mut Director) -> Vec<Output> {
    let mut all = Vec::new();
    while let Some(output) = director.poll() {
        match output {
            Output::Pool(key) => director.renew(&key, &Empty),
            output => all.push(output),
        }
    }
    all
}

fn hear(director: &mut Director, last: u8, mac: Option<u8>) -> Vec<Output> {
    let neighbour = Neighbour {
        interface: 2,
        address: address(last),
        mac: mac.map(|mac| [2, 0, 0, 0, 1, mac]),
        state: mac.map_or(State::Failed, |_| State::Reachable),
    };
    director.network_event(Input::NeighbourChanged(neighbour), now());
    outputs(director)
}

/// The servers of the last pool that was written.
fn pool(outputs: &[Output]) -> Option<Vec<u32>> {
    let pool = |output: &Output| match output {
        Output::Write(Write::Pool { words, .. }) => {
            let slots = words.iter().skip(POOL_HEAD as usize);
            Some(slots.map(|slot| *slot as u32).collect())
        }
        _ => None,
    };
    outputs.iter().filter_map(pool).next_back()
}

fn word(outputs: &[Output]) -> Option<PoolWord> {
    let word = |output: &Output| match output {
        Output::Write(Write::Service { entry, .. }) => Some(PoolWord(entry.pool)),
        _ => None,
    };
    outputs.iter().filter_map(word).next_back()
}

#[test]
fn among_65_536_services_a_change_of_one_writes_what_it_writes_alone() {
    let sizes = Sizes {
        services: 1 << 17,
        servers: 1 << 17,
        pool_words: 1 << 20,
    };
    let mut director = director(sizes);
    for last in 1..=4 {
        hear(&mut director, last, Some(last));
    }
    let ports = 1..=u16::MAX;
    let keys = ports.map(key).chain([ServiceKey::Address {
        protocol: Protocol::Udp,
        address: "192.0.2.1".parse().unwrap(),
        port: 1,
    }]);
    let mut most = 0;
    for (key, last) in keys.zip([1, 2, 3, 4].into_iter().cycle()) {
        most = most.max(change(&mut director, &add_service(key)).len());
        most = most.max(change(&mut director, &add_server(key, last)).len());
    }
    assert_eq!(director.table().len(), 65_536);
    // The journal record, the reset of counters, an entry, its thresholds, two endpoints, a pool,
    // its switch, and once the settings.
    assert!(most <= 9, "{most} outputs for one change");

    let edit = Change::Server(server::Change::Edit {
        key: key(80),
        server: server(4, 7),
    });
    let outputs = change(&mut director, &edit);
    assert!((2..=4).contains(&outputs.len()), "{outputs:?}");
    let delete = Change::Service(service::Change::Delete { key: key(81) });
    let outputs = change(&mut director, &delete);
    assert!((2..=4).contains(&outputs.len()), "{outputs:?}");
    let used = BTreeSet::new();
    // Two consecutive scans must find it idle.
    director.unused(&used, &used);
    director.unused(&used, &used);
    let outputs = self::outputs(&mut director);
    assert!((1..=3).contains(&outputs.len()), "{outputs:?}");
    // A client: its journal record, its hop, and its route.
    let outputs = hear(&mut director, 99, Some(99));
    assert_eq!(outputs.len(), 3, "{outputs:?}");
}

#[test]
fn a_server_joins_its_pool_when_its_next_hop_is_known() {
    let mut director = director(SMALL);
    hear(&mut director, 1, Some(1));
    change(&mut director, &add_service(key(80)));
    let first = change(&mut director, &add_server(key(80), 1));
    assert_eq!(pool(&first), Some(vec![1]));

    let second = change(&mut director, &add_server(key(80), 2));
    assert_eq!(pool(&second), None, "{second:?}");
    assert_eq!(word(&second), word(&first));
    assert!(second.contains(&Output::Probe {
        interface: 2,
        neighbour: address(2),
    }));
    assert!(director.is_awaited(&key(80), at(2)));
    assert_eq!(
        director.out_of_reach(&key(80), at(2)),
        Some(OutOfReach::NotPicked)
    );
    assert_eq!(
        effective(&director, 2),
        ["configured 1", "reach 0", "overload 0"]
    );
    assert_eq!(director.warnings().len(), 1);

    let known = hear(&mut director, 2, Some(2));
    assert_eq!(pool(&known), Some(vec![2, 1]));
    let entry = |output: &Output| matches!(output, Output::Write(Write::Server { id: 2, .. }));
    let pool = |output: &Output| matches!(output, Output::Write(Write::Pool { .. }));
    assert!(known.iter().position(entry) < known.iter().position(pool));
    assert!(!director.is_awaited(&key(80), at(2)));
    assert_eq!(director.warnings(), []);
}

#[test]
fn a_server_that_falls_silent_stays_in_its_pool() {
    let mut director = director(SMALL);
    change(&mut director, &add_service(key(80)));
    for last in [1, 2] {
        hear(&mut director, last, Some(last));
        change(&mut director, &add_server(key(80), last));
    }
    assert_eq!(pool(&hear(&mut director, 2, None)), None);
    assert_eq!(director.out_of_reach(&key(80), at(2)), None);
}

#[test]
fn where_no_server_can_be_reached_all_stay_and_drops_are_reported() {
    let mut director = director(SMALL);
    change(&mut director, &add_service(key(80)));
    change(&mut director, &add_server(key(80), 1));
    let second = change(&mut director, &add_server(key(80), 2));
    assert_eq!(pool(&second), Some(vec![2, 1]));
    let fate = director.out_of_reach(&key(80), at(2));
    assert_eq!(fate, Some(OutOfReach::Dropped));
    // A quiesced server is not picked. That it can be reached is no reason to leave other servers
    // out.
    hear(&mut director, 3, Some(3));
    let key = key(80);
    let server = server(3, 0);
    let third = change(
        &mut director,
        &Change::Server(server::Change::Add { key, server }),
    );
    assert_eq!(pool(&third), Some(vec![2, 1]));
    assert_eq!(pool(&hear(&mut director, 1, Some(1))), Some(vec![1]));
}

#[test]
fn many_servers_that_become_known_at_once_are_one_pool() {
    let mut director = director(SMALL);
    change(&mut director, &add_service(key(80)));
    for last in 1..=8 {
        change(&mut director, &add_server(key(80), last));
    }
    for last in 1..=8 {
        let neighbour = Neighbour {
            interface: 2,
            address: address(last),
            mac: Some([2, 0, 0, 0, 1, last]),
            state: State::Reachable,
        };
        director.network_event(Input::NeighbourChanged(neighbour), now());
    }
    let outputs = outputs(&mut director);
    let pools = |output: &&Output| matches!(output, Output::Write(Write::Pool { .. }));
    assert!(outputs.iter().filter(pools).count() <= 1, "{outputs:?}");
}

#[test]
fn a_deleted_service_with_flows_hides_one_of_every_port_only_for_a_moment() {
    let mut director = director(SMALL);
    let Change::Service(service::Change::Add { mut service }) = add_service(key(0)) else {
        unreachable!("it adds a service");
    };
    service.persistence = Some(Persistence {
        timeout_s: 300,
        granularity: Granularity::Mask([255; 4].into()),
        engine: None,
    });
    change(
        &mut director,
        &Change::Service(service::Change::Add { service }),
    );
    change(&mut director, &add_service(key(53)));
    let wanted = entry::endpoint_word(53u16.to_be(), 6, entry::kind::SERVICE);
    let is_removed = |outputs: Vec<Output>| {
        let mut writes = outputs.iter();
        writes.any(|output| match output {
            Output::Write(Write::EndpointRemove { word, .. }) => *word == wanted,
            _ => false,
        })
    };
    let look = |director: &mut Director| {
        director.unused(&BTreeSet::from([1, 2]), &BTreeSet::new());
        is_removed(outputs(director))
    };
    let delete = Change::Service(service::Change::Delete { key: key(53) });

    // An operator deletes the service and adds it again, as in a reload.
    assert!(!is_removed(change(&mut director, &delete)));
    assert!(!look(&mut director));
    change(&mut director, &add_service(key(53)));
    assert!(!look(&mut director));

    change(&mut director, &delete);
    assert!(!look(&mut director), "it may come back yet");
    assert!(look(&mut director));
    assert!(!look(&mut director), "once is enough");

    let outputs = change(&mut director, &add_service(key(53)));
    let is_added = |output: &Output| match output {
        Output::Write(Write::EndpointAdd { word, .. }) => *word == wanted,
        _ => false,
    };
    assert!(outputs.iter().any(is_added));
}

/// Whether the packet path has an endpoint at the virtual address after these outputs.
fn is_known(was: bool, outputs: &[Output]) -> bool {
    let wanted = entry::endpoint_word(0, 6, entry::kind::ADDRESS);
    outputs.iter().fold(was, |was, output| match output {
        Output::Write(Write::EndpointAdd { word, .. }) if *word == wanted => true,
        Output::Write(Write::EndpointRemove { word, .. }) if *word == wanted => false,
        _ => was,
    })
}

fn forget_all(director: &mut Director) -> Vec<Output> {
    for _ in 0..2 {
        director.unused(&BTreeSet::new(), &BTreeSet::new());
    }
    outputs(director)
}

#[test]
fn an_address_is_known_until_the_last_of_its_services_is_forgotten() {
    let mut director = director(SMALL);
    let delete = |port| Change::Service(service::Change::Delete { key: key(port) });
    assert!(is_known(
        false,
        &change(&mut director, &add_service(key(80)))
    ));
    change(&mut director, &delete(80));
    // A script adds the service again before its ids are freed.
    change(&mut director, &add_service(key(80)));
    change(&mut director, &add_service(key(81)));

    change(&mut director, &delete(80));
    assert!(is_known(true, &forget_all(&mut director)));
    change(&mut director, &delete(81));
    assert!(!is_known(true, &forget_all(&mut director)));
}

#[test]
fn an_address_is_known_while_a_rule_or_a_service_needs_it() {
    let mut director = director(SMALL);
    let Targets(targets) = "tcp/192.0.2.1:90".parse().unwrap();
    let rule = MarkRule {
        mark: 7.try_into().unwrap(),
        target: targets[0],
        origin: Default::default(),
    };
    let mark = "mark 7".parse().unwrap();
    change(&mut director, &Change::Mark(mark::Change::Add { rule }));
    change(&mut director, &add_service(mark));
    change(&mut director, &add_service(key(80)));

    let deleted = change(&mut director, &Change::Mark(mark::Change::Delete { rule }));
    assert!(is_known(true, &deleted), "the service needs it");
    change(&mut director, &Change::Mark(mark::Change::Add { rule }));
    change(
        &mut director,
        &Change::Service(service::Change::Delete { key: key(80) }),
    );
    assert!(is_known(true, &forget_all(&mut director)), "the rule does");
    change(
        &mut director,
        &Change::Service(service::Change::Delete { key: mark }),
    );
    assert!(!is_known(true, &forget_all(&mut director)));
}

fn refusal(director: &mut Director, change: &Change) -> Reason {
    director.change(change, &Empty, now()).unwrap_err().reason
}

// `ip_vs_genl_set_cmd` looks for the service before it looks at the server.
#[test]
fn a_service_that_is_not_there_is_named_before_what_is_wrong_with_its_server() {
    let mut director = director(SMALL);
    let route = |last, kind| Input::RouteAdded {
        route: RouteEntry {
            table: 255,
            kind,
            ..RouteEntry::unicast(
                Prefix::host(address(last)),
                vec![Path {
                    interface: 2,
                    gateway: None,
                }],
            )
        },
        replace: false,
    };
    director.network_event(route(255, Kind::Broadcast), now());
    outputs(&mut director);
    let add = |last| add_server(key(80), last);
    assert_eq!(refusal(&mut director, &add(255)), Reason::NoSuchService);
    change(&mut director, &add_service(key(80)));

    // `inet_addr_type`, in `ip_vs_new_dest`.
    assert_eq!(refusal(&mut director, &add(255)), Reason::BadAddress);
    let edit = Change::Server(server::Change::Edit {
        key: key(80),
        server: server(255, 1),
    });
    assert_eq!(refusal(&mut director, &edit), Reason::NoSuchServer);
    change(&mut director, &add(254));
    assert_eq!(refusal(&mut director, &add(254)), Reason::ServerExists);
}

// `__ip_vs_update_dest`: a server that is added again has no earlier weight.
#[test]
fn a_server_that_is_added_again_quiesced_has_no_place_in_mh() {
    let mut director = director(Sizes {
        pool_words: 1 << 16,
        ..SMALL
    });
    hear(&mut director, 1, Some(1));
    hear(&mut director, 2, Some(2));
    let Change::Service(service::Change::Add { mut service }) = add_service(key(80)) else {
        unreachable!("it adds a service");
    };
    service.scheduler = Scheduler::Mh;
    change(
        &mut director,
        &Change::Service(service::Change::Add {
            service: service.clone(),
        }),
    );
    let (key, at) = (key(80), at(1));
    let quiesced = server(1, 0);
    change(&mut director, &add_server(key, 1));
    change(&mut director, &add_server(key, 2));
    let weight = |director: &Director| director.ids.services[&key].servers[&at].last_weight;

    let server = quiesced.clone();
    change(
        &mut director,
        &Change::Server(server::Change::Edit { key, server }),
    );
    assert_eq!(weight(&director), 1, "quiesced by an edit");
    change(
        &mut director,
        &Change::Server(server::Change::Delete { key, at }),
    );
    let server = quiesced.clone();
    change(
        &mut director,
        &Change::Server(server::Change::Add { key, server }),
    );
    assert_eq!(weight(&director), 0, "added again");

    change(
        &mut director,
        &Change::Service(service::Change::Delete { key }),
    );
    change(
        &mut director,
        &Change::Service(service::Change::Add { service }),
    );
    change(&mut director, &add_server(key, 1));
    assert_eq!(weight(&director), 1, "with its service");
}

// `ip_vs_edit_service`: another scheduler begins at the head, though its ring may be the same.
#[test]
fn another_scheduler_begins_at_the_head_of_its_list() {
    let mut director = director(SMALL);
    for last in [1, 2] {
        hear(&mut director, last, Some(last));
    }
    change(&mut director, &add_service(key(80)));
    for last in [1, 2] {
        change(&mut director, &add_server(key(80), last));
    }
    let mut edited = |scheduler| {
        let Change::Service(service::Change::Add { mut service }) = add_service(key(80)) else {
            unreachable!("it adds a service");
        };
        service.scheduler = scheduler;
        pool(&change(
            &mut director,
            &Change::Service(service::Change::Edit { service }),
        ))
        .is_some()
    };
    assert!(!edited(Scheduler::Rr), "the same one goes on");
    assert!(edited(Scheduler::Wrr));
    assert!(!edited(Scheduler::Wrr), "the same one goes on");
    assert!(edited(Scheduler::Rr));
}

// Connections keep their templates (`cp->control`).
#[test]
fn templates_are_known_by_what_they_were_where_persistence_has_ended() {
    let mut director = director(SMALL);
    let Change::Service(service::Change::Add { mut service }) = add_service(key(80)) else {
        unreachable!("it adds a service");
    };
    let entry = |outputs: &[Output]| {
        let of_service = |output: &Output| match output {
            Output::Write(Write::Service { entry, .. }) => Some(*entry),
            _ => None,
        };
        outputs.iter().filter_map(of_service).next_back().unwrap()
    };
    let plain = Change::Service(service::Change::Add {
        service: service.clone(),
    });
    service.persistence = Some(Persistence {
        timeout_s: 300,
        granularity: Granularity::Mask([255, 255, 255, 0].into()),
        engine: None,
    });
    let persistent = entry(&change(
        &mut director,
        &Change::Service(service::Change::Add { service }),
    ));
    assert_eq!(persistent.persistence, 300);
    change(&mut director, &Change::Service(service::Change::Flush));

    let after = entry(&change(&mut director, &plain));

    assert_eq!(after.persistence, 0);
    let known_by = |entry: entry::Service| (entry.template, entry.granularity);
    assert_eq!(known_by(after), known_by(persistent));
}
