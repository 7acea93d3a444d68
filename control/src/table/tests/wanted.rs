//! Between any two tables there is a list of changes, each of which can be made.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use shunt_model::change::local;
use shunt_model::mark::{Ports, Target};
use shunt_model::service::Granularity;
use shunt_model::{LocalAddress, OnDown, Origin, Persistence, Setting};

use super::*;

fn key(choice: u8) -> ServiceKey {
    let text = [
        "tcp/192.0.2.1:80",
        "tcp/192.0.2.1:443",
        "udp/192.0.2.1:53",
        "tcp/192.0.2.2:0",
        "tcp/[2001:db8::1]:80",
        "mark 7",
        "mark 8 ipv6",
    ];
    let text = text[usize::from(choice) % text.len()];
    text.parse().expect(text)
}

fn service(choice: u8, look: u8) -> Service {
    let key = key(choice);
    let granularity = match key.family() {
        Family::Ipv4 => Granularity::Mask([255; 4].into()),
        Family::Ipv6 => Granularity::Prefix(128),
    };
    let persistence = Persistence {
        timeout_s: 60 + u32::from(look),
        granularity,
        engine: None,
    };
    let is_wide = matches!(key, ServiceKey::Address { port: 0, .. });
    Service {
        key,
        scheduler: [Scheduler::Wlc, Scheduler::Rr, Scheduler::Mh][usize::from(look % 3)],
        persistence: (is_wide || look.is_multiple_of(4)).then_some(persistence),
        ..web(80)
    }
}

fn server(key: &ServiceKey, choice: u8, look: u8) -> Server {
    let number = choice % 6;
    let port = match *key {
        ServiceKey::Address { port, .. } => port,
        ServiceKey::Mark { .. } => 0,
    };
    let address = match key.family() {
        Family::Ipv4 => format!("10.1.0.{}", 11 + number),
        Family::Ipv6 => format!("2001:db8:1::{}", 11 + number),
    };
    let at = ServerAddress {
        address: address.parse().expect("an address"),
        port,
    };
    Server {
        at,
        method: [Method::Masquerade, Method::Route][usize::from(look % 2)],
        weight: u32::from(look % 3),
        upper_threshold: 0,
        lower_threshold: 0,
    }
}

fn rule(choice: u8, look: u8) -> MarkRule {
    let target = Target {
        protocol: Protocol::Tcp,
        address: [192, 0, 2, 1 + choice % 2].into(),
        ports: Ports {
            first: 79 + u16::from(choice % 3),
            last: 80 + u16::from(choice % 3),
        },
    };
    MarkRule {
        mark: NonZeroU32::new(7 + u32::from(look % 2)).expect("not 0"),
        target,
        origin: Origin::default(),
    }
}

fn change((what, choice, other, look): (u8, u8, u8, u8)) -> Change {
    let key = key(choice);
    let at = server(&key, other, 0).at;
    let local: std::net::IpAddr = [10, 1, 0, 1 + choice % 3].into();
    match what % 16 {
        0..=2 => Change::Service(service::Change::Add {
            service: service(choice, look),
        }),
        3 => Change::Service(service::Change::Edit {
            service: service(choice, look),
        }),
        4 => Change::Service(service::Change::Delete { key }),
        5..=8 => Change::Server(server::Change::Add {
            key,
            server: server(&key, other, look),
        }),
        9 => Change::Server(server::Change::Edit {
            key,
            server: server(&key, other, look),
        }),
        10 => Change::Server(server::Change::Delete { key, at }),
        11 => Change::Mark(mark::Change::Add {
            rule: rule(choice, look),
        }),
        12 => Change::Mark(mark::Change::Delete {
            rule: rule(choice, look),
        }),
        13 => Change::Local(local::Change::Set {
            local: LocalAddress {
                address: local,
                ports: LocalPorts {
                    first: 1024 + u16::from(look % 2),
                    last: 2047,
                },
            },
        }),
        14 => Change::Local(local::Change::Delete { address: local }),
        _ => Change::Setting(match look % 3 {
            0 => setting::Change::Timeouts {
                timeouts: Timeouts {
                    tcp_s: u32::from(choice),
                    ..Timeouts::default()
                },
            },
            1 => setting::Change::Set {
                setting: Setting::SloppyTcp(choice.is_multiple_of(2)),
            },
            _ => setting::Change::Set {
                setting: Setting::OnDown(OnDown::Reset),
            },
        }),
    }
}

/// What random changes make of a table. Those that cannot be made are left out.
fn table() -> impl Strategy<Value = Table> {
    let numbers = (any::<u8>(), any::<u8>(), any::<u8>(), any::<u8>());
    proptest::collection::vec(numbers, 0..60).prop_map(|numbers| {
        let mut table = Table::new(Limits::default());
        for numbers in numbers {
            let _ = table.apply(&change(numbers));
        }
        table
    })
}

/// What a table has, whatever the order in which it was added.
fn sorted(table: &Table) -> Wanted {
    let mut wanted = table.wanted();
    wanted.services.sort_by_key(|pool| pool.service.key);
    for pool in &mut wanted.services {
        pool.servers.sort_by_key(|server| server.at);
    }
    wanted
}

fn servers(table: &Table) -> BTreeMap<ServiceKey, usize> {
    let entries = table.services();
    entries
        .map(|entry| (entry.service.key, entry.servers.len()))
        .collect()
}

proptest! {
    #[test]
    fn the_changes_between_two_tables_make_one_of_the_other(a in table(), b in table()) {
        let changes = b.wanted().changes(&a.wanted());
        let (before, after) = (servers(&a), servers(&b));
        let served = |key: &ServiceKey| {
            [&before, &after].iter().all(|there| there.get(key).is_some_and(|count| *count > 0))
        };
        let mut table = a.clone();
        for change in &changes {
            let applied = table.apply(change);
            prop_assert!(applied.is_ok(), "{change}: {applied:?}");
            for (key, count) in servers(&table) {
                prop_assert!(count > 0 || !served(&key), "{change} leaves {key} without servers");
            }
        }
        prop_assert_eq!(sorted(&table), sorted(&b));
    }

    #[test]
    fn what_stays_is_edited_in_place(a in table(), b in table()) {
        let (a, b) = (a.wanted(), b.wanted());
        let stays = |key: &ServiceKey, at: Option<ServerAddress>| {
            [&a, &b].iter().all(|wanted| {
                let mut pools = wanted.services.iter();
                let pool = pools.find(|pool| pool.service.key == *key);
                pool.is_some_and(|pool| {
                    at.is_none_or(|at| pool.servers.iter().any(|server| server.at == at))
                })
            })
        };
        let mut touched = BTreeSet::new();
        for change in b.changes(&a) {
            let object = match &change {
                Change::Service(service::Change::Add { service }) => (service.key, None),
                Change::Service(service::Change::Delete { key }) => (*key, None),
                Change::Server(server::Change::Add { key, server }) => (*key, Some(server.at)),
                Change::Server(server::Change::Delete { key, at }) => (*key, Some(*at)),
                Change::Service(_) | Change::Server(_) | Change::Mark(_) | Change::Local(_)
                | Change::Setting(_) => continue,
            };
            prop_assert!(!stays(&object.0, object.1), "{}", change);
            prop_assert!(touched.insert(object), "{} twice", change);
        }
    }

    #[test]
    fn a_table_has_no_changes_to_itself_and_is_listed_alike_when_made_from_nothing(a in table()) {
        let wanted = a.wanted();
        prop_assert_eq!(wanted.changes(&wanted), vec![]);

        let mut again = Table::new(Limits::default());
        let nothing = again.wanted();
        prop_assert_eq!(again.apply_all(&wanted.changes(&nothing)), Ok(()));
        let entries = |table: &Table| {
            let entries = table.services();
            let entries = entries.map(|entry| (entry.service.clone(), entry.servers.clone()));
            entries.collect::<Vec<_>>()
        };
        prop_assert_eq!(entries(&again), entries(&a));
        prop_assert_eq!(again.wanted(), wanted);
    }

    #[test]
    fn a_list_with_a_refused_change_leaves_the_table_as_it_was(a in table(), b in table()) {
        let mut changes = b.wanted().changes(&a.wanted());
        let absent = ServiceKey::Mark { mark: NonZeroU32::MAX, family: Family::Ipv4 };
        let index = changes.len() / 2;
        changes.insert(index, Change::Service(service::Change::Delete { key: absent }));
        let mut table = a.clone();

        let refused = table.apply_all(&changes).expect_err("there is no such service");

        let indices: Vec<usize> = refused.iter().map(|refused| refused.index).collect();
        prop_assert_eq!(indices, [index]);
        prop_assert_eq!(&refused[0].refusal.reason, &Reason::NoSuchService);
        prop_assert_eq!(table.wanted(), a.wanted());
    }
}
