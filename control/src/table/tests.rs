//! What a table does with changes, one test a rule.

use std::num::NonZeroU32;

use shunt_model::change::{mark, server, service, setting};
use shunt_model::{Encapsulation, Family, Method, Protocol, Scheduler, SchedulerFlags};

use super::*;

mod wanted;

#[test]
fn servers_stand_newest_first_and_an_edit_keeps_the_place() {
    let mut table = table_with(web(80));
    for port in [1, 2, 3] {
        add(&mut table, web_key(80), masqueraded(port)).unwrap();
    }
    let change = Change::Server(server::Change::Edit {
        key: web_key(80),
        server: Server {
            weight: 9,
            ..masqueraded(2)
        },
    });

    let applied = table.apply(&change).unwrap();

    let before = masqueraded(2);
    assert_eq!(
        applied,
        Applied::ServerEdited {
            key: web_key(80),
            before
        }
    );
    let entry = table.service(&web_key(80)).unwrap();
    let seen: Vec<_> = entry
        .servers
        .iter()
        .map(|s| (s.at.port, s.weight))
        .collect();
    assert_eq!(seen, [(3, 1), (2, 9), (1, 1)]);
}

// ip_vs_ctl.c, ip_vs_svc_hashkey; the order is that of a recording of `ipvsadm -Ln --nosort`.
#[test]
fn services_stand_in_the_order_of_the_kernels_hash_table() {
    let mut table = Table::new(Limits::default());
    for port in (1000..=1012).chain([80]) {
        apply_add(&mut table, web(port)).unwrap();
    }

    let ports: Vec<_> = table.services().map(port_of).collect();

    let recorded = [
        80, 1009, 1008, 1011, 1010, 1012, 1001, 1000, 1003, 1002, 1005, 1004, 1007, 1006,
    ];
    assert_eq!(ports, recorded);
}

#[test]
fn services_of_one_bucket_stand_newest_first() {
    let mut table = Table::new(Limits::default());
    // 0x0001 and 0x0100 fold to the same bucket.
    apply_add(&mut table, web(0x0001)).unwrap();
    apply_add(&mut table, web(0x0100)).unwrap();

    let ports: Vec<_> = table.services().map(port_of).collect();

    assert_eq!(ports, [0x0100, 0x0001]);
}

#[test]
fn services_by_mark_stand_after_services_by_address() {
    let mut table = Table::new(Limits::default());
    apply_add(&mut table, marked(1)).unwrap();
    apply_add(&mut table, web(80)).unwrap();

    let keys: Vec<_> = table.services().map(|entry| entry.service.key).collect();

    assert_eq!(keys, [web_key(80), marked(1).key]);
}

#[test]
fn what_is_there_cannot_be_added_and_what_is_not_cannot_be_changed() {
    let mut table = table_with(web(80));
    add(&mut table, web_key(80), masqueraded(1)).unwrap();
    let there = web_key(80);
    let nowhere = web_key(81);
    let unknown = masqueraded(2);
    let cases = [
        (
            Change::Service(service::Change::Add { service: web(80) }),
            Reason::ServiceExists,
        ),
        (
            Change::Service(service::Change::Edit { service: web(81) }),
            Reason::NoSuchService,
        ),
        (
            Change::Service(service::Change::Delete { key: nowhere }),
            Reason::NoSuchService,
        ),
        (
            Change::Service(service::Change::Zero { key: Some(nowhere) }),
            Reason::NoSuchService,
        ),
        (add_of(nowhere, masqueraded(1)), Reason::NoSuchService),
        (add_of(there, masqueraded(1)), Reason::ServerExists),
        (edit_of(there, unknown.clone()), Reason::NoSuchServer),
        (
            Change::Server(server::Change::Delete {
                key: there,
                at: unknown.at,
            }),
            Reason::NoSuchServer,
        ),
    ];

    for (change, reason) in cases {
        assert_eq!(refusal(&mut table, &change), reason, "{change:?}");
    }
    assert_eq!((table.len(), table.servers()), (1, 1));
}

#[test]
fn a_server_must_be_unicast_and_of_the_family_unless_a_tunnel_or_full_nat_leads_to_it() {
    let mut table = table_with(web(80));
    let key = web_key(80);
    let with = |address: &str, method| Server {
        at: ServerAddress {
            address: address.parse().unwrap(),
            port: 80,
        },
        method,
        ..masqueraded(80)
    };
    for address in ["224.0.0.5", "0.0.0.0", "255.255.255.255"] {
        let change = add_of(key, with(address, Method::Route));
        assert_eq!(
            refusal(&mut table, &change),
            Reason::BadAddress,
            "{address}"
        );
    }
    let change = add_of(key, with("2001:db8::1", Method::Masquerade));
    assert_eq!(refusal(&mut table, &change), Reason::BadAddress);
    for address in ["::ffff:10.1.0.1", "::", "ff02::1", "fe80::1"] {
        let change = add_of(key, with(address, Method::Tunnel(Encapsulation::Ipip)));
        assert_eq!(
            refusal(&mut table, &change),
            Reason::BadAddress,
            "{address}"
        );
    }

    let tunnelled = with("2001:db8::1", Method::Tunnel(Encapsulation::Ipip));
    add(&mut table, key, tunnelled).unwrap();
    let translated = with("2001:db8::2", Method::FullNat);
    add(&mut table, key, translated).unwrap();
    let masqueraded = with("2001:db8::2", Method::Masquerade);
    let change = edit_of(key, masqueraded);
    assert_eq!(refusal(&mut table, &change), Reason::BadAddress);
}

#[test]
fn a_lower_threshold_above_the_upper_is_out_of_range_even_when_the_upper_is_none() {
    let mut table = table_with(web(80));
    for (upper, lower) in [(5, 9), (0, 1)] {
        let server = Server {
            upper_threshold: upper,
            lower_threshold: lower,
            ..masqueraded(1)
        };
        let change = add_of(web_key(80), server);
        assert_eq!(refusal(&mut table, &change), Reason::OutOfRange);
    }
}

#[test]
fn only_masquerading_gives_a_server_another_port() {
    let mut table = table_with(web(80));
    let routed = Server {
        method: Method::Route,
        ..masqueraded(8080)
    };

    let reason = refusal(&mut table, &add_of(web_key(80), routed));

    assert_eq!(reason, Reason::BadRequest);
}

#[test]
fn a_zero_leaves_a_timeout_as_it_is_and_more_than_31_days_is_refused() {
    let mut table = Table::default();
    let set = |tcp_s, tcp_fin_s, udp_s| {
        Change::Setting(setting::Change::Timeouts {
            timeouts: Timeouts {
                tcp_s,
                tcp_fin_s,
                udp_s,
            },
        })
    };
    table.apply(&set(30, 0, 0)).unwrap();
    table.apply(&set(0, 0, 5)).unwrap();

    let reason = refusal(&mut table, &set(0, 0, LONGEST_TIMEOUT_S + 1));

    assert_eq!(reason, Reason::BadRequest);
    let expected = Timeouts {
        tcp_s: 30,
        tcp_fin_s: 120,
        udp_s: 5,
    };
    assert_eq!(table.timeouts(), expected);
}

#[test]
fn a_flush_gives_back_everything_and_leaves_the_timeouts() {
    let mut table = table_with(web(80));
    add(&mut table, web_key(80), masqueraded(1)).unwrap();

    let applied = table
        .apply(&Change::Service(service::Change::Flush))
        .unwrap();

    let Applied::Flushed { entries } = applied else {
        panic!("not flushed: {applied:?}");
    };
    assert_eq!(entries.len(), 1);
    assert_eq!(entries[0].servers, [masqueraded(1)]);
    assert!(table.is_empty() && table.servers() == 0);
    assert_eq!(table.services().count(), 0);
}

#[test]
fn a_full_table_refuses_and_takes_again_after_a_deletion() {
    let limits = Limits {
        services: 1,
        servers: 1,
    };
    let mut table = Table::new(limits);
    apply_add(&mut table, web(80)).unwrap();
    add(&mut table, web_key(80), masqueraded(1)).unwrap();
    let service = Change::Service(service::Change::Add { service: web(81) });
    let server = add_of(web_key(80), masqueraded(2));
    assert_eq!(refusal(&mut table, &service), Reason::NoRoom);
    assert_eq!(refusal(&mut table, &server), Reason::NoRoom);

    table
        .apply(&Change::Service(service::Change::Delete {
            key: web_key(80),
        }))
        .unwrap();

    table.apply(&service).unwrap();
    add(&mut table, web_key(81), masqueraded(2)).unwrap();
}

#[test]
fn a_large_table_is_for_mh_alone() {
    let large = |scheduler| Service {
        scheduler,
        flags: SchedulerFlags {
            large: true,
            ..SchedulerFlags::default()
        },
        ..web(80)
    };
    let mut table = Table::new(Limits::default());

    let refused = apply_add(&mut table, large(Scheduler::Sh)).unwrap_err();
    apply_add(&mut table, large(Scheduler::Mh)).unwrap();

    assert!(
        refused
            .text
            .ends_with("only mh has a large table; sh has none")
    );
}

fn table_with(service: Service) -> Table {
    let mut table = Table::default();
    apply_add(&mut table, service).unwrap();
    table
}

fn apply_add(table: &mut Table, service: Service) -> Result<Applied, Refusal> {
    table.apply(&Change::Service(service::Change::Add { service }))
}

fn add(table: &mut Table, key: ServiceKey, server: Server) -> Result<Applied, Refusal> {
    table.apply(&add_of(key, server))
}

fn add_of(key: ServiceKey, server: Server) -> Change {
    Change::Server(server::Change::Add { key, server })
}

fn edit_of(key: ServiceKey, server: Server) -> Change {
    Change::Server(server::Change::Edit { key, server })
}

fn refusal(table: &mut Table, change: &Change) -> Reason {
    table.apply(change).unwrap_err().reason
}

fn port_of(entry: &Entry) -> u16 {
    match entry.service.key {
        ServiceKey::Address { port, .. } => port,
        ServiceKey::Mark { .. } => 0,
    }
}

/// The address of the recordings, so that their order can be compared.
fn service_key(protocol: Protocol, port: u16) -> ServiceKey {
    ServiceKey::Address {
        protocol,
        address: [10, 0, 1, 100].into(),
        port,
    }
}

fn web_key(port: u16) -> ServiceKey {
    service_key(Protocol::Tcp, port)
}

fn web(port: u16) -> Service {
    service(web_key(port))
}

fn marked(mark: u32) -> Service {
    service(ServiceKey::Mark {
        mark: NonZeroU32::new(mark).unwrap(),
        family: Family::Ipv4,
    })
}

fn service(key: ServiceKey) -> Service {
    Service {
        key,
        scheduler: Scheduler::Wlc,
        flags: SchedulerFlags::default(),
        persistence: None,
        one_packet: false,
        settings: Default::default(),
        idle_engine: None,
        announce: None,
    }
}

fn masqueraded(port: u16) -> Server {
    Server {
        at: ServerAddress {
            address: [10, 1, 0, 1].into(),
            port,
        },
        method: Method::Masquerade,
        weight: 1,
        upper_threshold: 0,
        lower_threshold: 0,
    }
}

#[test]
fn a_rule_without_a_range_of_ports_is_refused_whoever_asks() {
    let mut table = Table::new(Limits::default());
    apply_add(&mut table, web(80)).unwrap();
    let before = table.clone();
    for (first, last) in [(65_535, 80), (81, 80), (0, 80), (1, 0), (1, 65_535)] {
        let target = shunt_model::mark::Target {
            protocol: Protocol::Tcp,
            address: "198.51.100.1".parse().unwrap(),
            ports: shunt_model::mark::Ports { first, last },
        };
        let rule = MarkRule {
            mark: NonZeroU32::new(7).unwrap(),
            target,
            origin: shunt_model::Origin::default(),
        };
        let refusal = table
            .apply(&Change::Mark(mark::Change::Add { rule }))
            .unwrap_err();
        assert_eq!(refusal.reason, Reason::OutOfRange, "{refusal}");
        assert!(
            table
                .apply(&Change::Mark(mark::Change::Delete { rule }))
                .is_err()
        );
    }
    assert_eq!(table.services().count(), before.services().count());
}
