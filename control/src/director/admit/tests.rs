//! An accepted change is in force, whatever the order of changes.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use proptest::prelude::*;
use shunt_datapath::entry::{
    BACK, Server as ServerEntry, WIDE, WIDES, endpoint_word, kind, wide_number,
};
use shunt_model::mark::{Ports, Target};
use shunt_model::service::Granularity;
use shunt_model::{
    Method, Origin, Persistence, Protocol, Scheduler, SchedulerFlags, ServerAddress,
};

use super::super::tests::{Empty, director};
use super::super::{Output, Sizes};
use super::*;

const SIZES: Sizes = Sizes {
    services: 24,
    servers: 32,
    pool_words: 1 << 16,
};

/// The packet path's tables after the writes so far.
#[derive(Default)]
struct Tables {
    endpoints: BTreeMap<At, u32>,
    wides: BTreeMap<u32, u32>,
    servers: BTreeMap<u32, ServerEntry>,
    services: BTreeSet<u32>,
}

impl Tables {
    /// Carries out a write. Each write must have room.
    fn carry_out(&mut self, write: Write) {
        match write {
            Write::EndpointAdd { address, word, id } => {
                self.endpoints.insert((address, word), id);
            }
            Write::EndpointRemove { address, word } => {
                self.endpoints.remove(&(address, word));
            }
            Write::Wide { number, service } => {
                assert!(number < WIDES);
                self.wides.insert(number, service);
            }
            Write::Server { id, entry } => {
                assert!(id < SIZES.servers);
                self.servers.insert(id, entry);
            }
            Write::Service { id, entry } => {
                assert!(id < SIZES.services && entry.template < SIZES.services);
                self.services.insert(id);
            }
            Write::Pool { base, words } => {
                assert!(base as usize + words.len() <= SIZES.pool_words as usize);
            }
            Write::Answerer { endpoint, .. } => assert!(endpoint < SIZES.answers()),
            Write::Origins(origins) => {
                assert!(origins.len() <= shunt_datapath::entry::ORIGINS as usize);
            }
            Write::Standing { id, .. } | Write::Way { id, .. } | Write::Forget { server: id } => {
                assert!(id < SIZES.servers);
            }
            Write::Switch { service, .. } => assert!(service < SIZES.services),
            Write::Peer { .. }
            | Write::Local { .. }
            | Write::Settings(_)
            | Write::Hop { .. }
            | Write::Routes(_)
            | Write::Route { .. } => {}
        }
    }

    fn drain(&mut self, director: &mut Director) {
        while let Some(output) = director.poll() {
            if let Output::Write(write) = output {
                self.carry_out(write);
            }
        }
    }

    /// The service that packets to this endpoint find.
    fn found(&self, address: IpAddr, port: u16, protocol: Protocol) -> Option<u32> {
        let word = endpoint_word(port.to_be(), protocol.number(), kind::SERVICE);
        let id = *self.endpoints.get(&(address, word))?;
        if id & WIDE == 0 {
            return Some(id);
        }
        self.wides.get(&wide_number(id)).copied()
    }

    fn has_address(&self, address: IpAddr, protocol: Protocol) -> bool {
        let word = endpoint_word(0, protocol.number(), kind::ADDRESS);
        self.endpoints.contains_key(&(address, word))
    }

    /// Whether everything in the table is in force.
    fn is_as(&self, director: &Director) {
        for (v6, most) in [(false, SIZES.endpoints()[0]), (true, SIZES.endpoints()[1])] {
            let family = self.endpoints.keys().filter(|at| at.0.is_ipv6() == v6);
            assert!(family.count() <= most);
        }
        let mut answers = BTreeMap::new();
        for entry in director.table().services() {
            let key = entry.service.key;
            let id = director.ids.services[&key].ids.id;
            if let ServiceKey::Address {
                protocol,
                address,
                port,
            } = key
            {
                assert_eq!(self.found(address, port, protocol), Some(id), "{key}");
                assert!(self.has_address(address, protocol), "{key}");
            }
            for server in &entry.servers {
                let id = director.ids.services[&key].servers[&server.at].id;
                let written = self.servers.get(&id).expect("a server");
                for nat in NatKey::of(&key, server.at) {
                    if !server.method.rewrites() {
                        continue;
                    }
                    let word = endpoint_word(nat.port.to_be(), nat.protocol, kind::MASQUERADED);
                    let answer = self
                        .endpoints
                        .get(&(nat.address, word))
                        .expect("its answers");
                    assert!(answer & BACK != 0);
                    if *answer != BACK {
                        let whose = answers.insert(*answer, nat);
                        assert!(
                            whose.is_none_or(|whose| whose == nat),
                            "{whose:?} and {nat:?}"
                        );
                        if !ids::translates(&key, server.at, server.method) {
                            assert_eq!(written.endpoint, *answer);
                        }
                    }
                }
            }
        }
        for rule in director.table().marks() {
            let target = rule.target;
            let service = director.ids.services.get(&rule.service());
            let service = service.filter(|service| service.present);
            for port in [target.ports.first, target.ports.last] {
                if let Some(service) = service {
                    let found = self.found(target.address, port, target.protocol);
                    assert_eq!(found, Some(service.ids.id), "{rule} at {port}");
                }
            }
        }
    }
}

fn address(number: u8, v6: bool) -> IpAddr {
    match v6 {
        false => Ipv4Addr::new(192, 0, 2, number).into(),
        true => Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, u16::from(number)).into(),
    }
}

/// Rules have addresses of their own: the order of a rule and a service at one address is not
/// tested here.
fn rule(mark: u32, number: u8, ports: Ports, udp: bool) -> Change {
    let protocol = if udp { Protocol::Udp } else { Protocol::Tcp };
    let rule = MarkRule {
        mark: mark.try_into().unwrap(),
        target: Target {
            protocol,
            address: address(number, number & 1 == 1),
            ports,
        },
        origin: Origin::default(),
    };
    Change::Mark(mark::Change::Add { rule })
}

fn service(key: ServiceKey, persistent: bool) -> Service {
    Service {
        key,
        scheduler: Scheduler::Rr,
        flags: SchedulerFlags::default(),
        persistence: persistent.then_some(Persistence {
            timeout_s: 300,
            granularity: Granularity::Mask([255; 4].into()),
            engine: None,
        }),
        one_packet: false,
        settings: Default::default(),
        announce: None,
        idle_engine: None,
    }
}

fn server(number: u8, port: u16, method: Method) -> Server {
    let [_, _, _, host] = [0, 0, 0, number];
    Server {
        at: ServerAddress {
            address: Ipv4Addr::new(10, 1, 0, host).into(),
            port,
        },
        method,
        weight: 1,
        upper_threshold: 0,
        lower_threshold: 0,
    }
}

fn keys() -> impl Strategy<Value = ServiceKey> {
    let of_address = (
        prop::bool::ANY,
        0..6u8,
        prop::sample::select(vec![0u16, 80, 443]),
    )
        .prop_map(|(udp, number, port)| ServiceKey::Address {
            protocol: if udp { Protocol::Udp } else { Protocol::Tcp },
            address: Ipv4Addr::new(198, 18, 0, number).into(),
            port,
        });
    let of_mark = (1..5u32).prop_map(|mark| format!("mark {mark}").parse().unwrap());
    prop_oneof![of_address, of_mark]
}

fn rules() -> impl Strategy<Value = Change> {
    let ports = prop_oneof![
        3 => Just(Ports::EVERY),
        1 => (1000..1010u16).prop_map(|first| Ports { first, last: first + 900 }),
    ];
    (1..5u32, any::<u8>(), ports, any::<bool>())
        .prop_map(|(mark, number, ports, udp)| rule(mark, number & 63, ports, udp))
}

fn changes() -> impl Strategy<Value = Option<Change>> {
    let methods = prop::sample::select(vec![Method::Masquerade, Method::Route, Method::FullNat]);
    let servers = (0..20u8, prop::sample::select(vec![0u16, 80, 8080]), methods);
    let servers = servers.prop_map(|(number, port, method)| server(number, port, method));
    let added = (keys(), servers, any::<bool>()).prop_map(|(key, server, edited)| match edited {
        true => Change::Server(server::Change::Edit { key, server }),
        false => Change::Server(server::Change::Add { key, server }),
    });
    let deleted = (keys(), 0..20u8, prop::sample::select(vec![0u16, 80, 8080]));
    let deleted = deleted.prop_map(|(key, number, port)| {
        let at = server(number, port, Method::Route).at;
        Change::Server(server::Change::Delete { key, at })
    });
    let dropped = rules().prop_map(|change| match change {
        Change::Mark(mark::Change::Add { rule }) => Change::Mark(mark::Change::Delete { rule }),
        other => other,
    });
    prop_oneof![
        8 => rules().prop_map(Some),
        2 => dropped.prop_map(Some),
        3 => (keys(), any::<bool>()).prop_map(|(key, persistent)| {
            Some(Change::Service(service::Change::Add { service: service(key, persistent || ids::is_wide(&key)) }))
        }),
        1 => (keys(), any::<bool>()).prop_map(|(key, persistent)| {
            Some(Change::Service(service::Change::Edit { service: service(key, persistent) }))
        }),
        1 => keys().prop_map(|key| Some(Change::Service(service::Change::Delete { key }))),
        6 => added.prop_map(Some),
        2 => deleted.prop_map(Some),
        // A scan finds no flows.
        2 => Just(None),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn what_was_accepted_is_in_force_in_whatever_order_it_came(
        changes in prop::collection::vec(changes(), 1..200)
    ) {
        let mut director = director(SIZES);
        let mut tables = Tables::default();
        let now = std::time::Instant::now();
        for change in changes {
            match change {
                Some(change) => {
                    let before = format!("{:?}", director.ids);
                    if director.change(&change, &Empty, now).is_err() {
                        prop_assert_eq!(before, format!("{:?}", director.ids));
                    }
                }
                None => director.unused(&BTreeSet::new(), &BTreeSet::new()),
            }
            tables.drain(&mut director);
            tables.is_as(&director);
        }
    }
}

/// Adds a rule of every port for each number, each with its own address; how many are accepted.
fn accepted(director: &mut Director, mark: u32, numbers: std::ops::Range<u8>) -> usize {
    let now = std::time::Instant::now();
    let rules = numbers.map(|number| rule(mark, number, Ports::EVERY, false));
    let accepted = rules.filter(|rule| director.change(rule, &Empty, now).is_ok());
    accepted.count()
}

#[test]
fn a_rule_that_has_no_place_is_refused_before_its_service_is_there_and_after() {
    for service_first in [false, true] {
        let mut director = director(SIZES);
        let mut tables = Tables::default();
        let now = std::time::Instant::now();
        let key: ServiceKey = "mark 7".parse().unwrap();
        let add = Change::Service(service::Change::Add {
            service: service(key, false),
        });
        if service_first {
            director.change(&add, &Empty, now).unwrap();
        }
        assert_eq!(accepted(&mut director, 7, 0..72), WIDES as usize);
        if !service_first {
            director.change(&add, &Empty, now).unwrap();
        }
        tables.drain(&mut director);
        tables.is_as(&director);
        let places = director.table().marks().count();
        assert_eq!(places, WIDES as usize);
    }
}

#[test]
fn a_service_of_every_port_leaves_room_for_rules_that_wait_for_theirs() {
    let mut director = director(SIZES);
    let now = std::time::Instant::now();
    assert_eq!(accepted(&mut director, 7, 0..63), 63);
    let add = |number: u8| {
        let key = format!("tcp 198.18.0.{number}:0").parse().unwrap();
        Change::Service(service::Change::Add {
            service: service(key, true),
        })
    };
    director.change(&add(1), &Empty, now).unwrap();
    let refused = director.change(&add(2), &Empty, now).unwrap_err();
    assert_eq!(refused.reason, Reason::NoRoom);
    assert!(
        refused.text.contains("64 endpoints of every port"),
        "{}",
        refused.text
    );
    assert_eq!(accepted(&mut director, 8, 70..71), 0);
}

#[test]
fn more_endpoints_than_their_table_takes_are_refused() {
    let mut director = director(SIZES);
    let now = std::time::Instant::now();
    let ports = Ports {
        first: 1,
        last: 1000,
    };
    let limit = SIZES.endpoints();
    for (number, limit) in [(0, limit[0]), (1, limit[1])] {
        let mut most = 0;
        for step in 0..20 {
            let rule = rule(3, number + 2 * step, ports, false);
            match director.change(&rule, &Empty, now) {
                Ok(_) => most += 1,
                Err(refusal) => assert!(refusal.text.contains("endpoints of IPv"), "{refusal:?}"),
            }
        }
        assert_eq!(most, limit / 1001);
    }
    let key = "mark 3".parse().unwrap();
    director
        .change(
            &Change::Service(service::Change::Add {
                service: service(key, false),
            }),
            &Empty,
            now,
        )
        .unwrap();
    let mut tables = Tables::default();
    tables.drain(&mut director);
    tables.is_as(&director);
}
