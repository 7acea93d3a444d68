//! Tests of the network: one for each rule, and the routes against a naive model.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use proptest::prelude::*;
use shunt_model::device::Hook;

use super::attach::{Choice, Setting, choose, goes_back_by_redirect, is_port};
use super::neighbours::State;
use super::objects::{Kind as Means, Object};
use super::probes::{FIRST_WAIT, LONGEST_WAIT, REFRESH};
use super::routes::{DEFAULT, Kind, LOCAL, MAIN, Path, Prefix, RouteEntry};
use super::rules::{Action, Rule};
use super::*;

const SERVER: &str = "10.1.0.7";
const ROUTER: &str = "10.1.0.254";
const FAR: &str = "10.9.0.7";

#[test]
fn neighbour_on_the_link_is_reached_directly() {
    let mut net = on_one_link();
    net.neighbour(SERVER, 7, State::Reachable);
    let hop = net.via(SERVER);
    assert_eq!((hop.interface, hop.neighbour), (2, ip(SERVER)));
    assert_eq!((hop.target_mac, hop.source_mac), (mac(7), mac(2)));
    assert_eq!((hop.mtu, hop.source), (1500, Some(ip("10.1.0.1"))));
}

#[test]
fn far_target_is_reached_by_the_router() {
    let mut net = on_one_link();
    net.route(route("0.0.0.0/0", 0, &[(2, ROUTER)]));
    net.neighbour(ROUTER, 9, State::Stale);
    let hop = net.via(FAR);
    assert_eq!((hop.neighbour, hop.target_mac), (ip(ROUTER), mac(9)));
}

#[test]
fn ipv4_target_may_have_an_ipv6_router() {
    let mut net = on_one_link();
    net.route(route("10.9.0.0/16", 0, &[(2, "fe80::9")]));
    net.neighbour("fe80::9", 9, State::Reachable);
    let hop = net.via(FAR);
    assert_eq!(
        (hop.neighbour, hop.source),
        (ip("fe80::9"), Some(ip("10.1.0.1")))
    );
}

#[test]
fn own_address_is_local() {
    let mut net = on_one_link();
    assert_eq!(net.network.next_hop(ip("10.1.0.1")), Route::Local);
    net.route(RouteEntry {
        table: 255,
        kind: Kind::Local,
        ..route("127.0.0.0/8", 0, &[(1, "")])
    });
    assert_eq!(net.network.next_hop(ip("127.0.0.2")), Route::Local);
    assert!(net.network.addresses().contains(&ip("10.1.0.1")));
}

#[test]
fn neighbour_is_unresolved_until_its_entry_is_usable() {
    let mut net = on_one_link();
    let unresolved = Route::Unresolved {
        interface: 2,
        neighbour: ip(SERVER),
    };
    assert_eq!(net.network.next_hop(ip(SERVER)), unresolved);
    for state in [State::None, State::Incomplete, State::Failed] {
        net.neighbour(SERVER, 7, state);
        assert_eq!(net.network.next_hop(ip(SERVER)), unresolved, "{state:?}");
    }
    let usable = [State::Reachable, State::Stale, State::Delay, State::Probe];
    for state in usable.into_iter().chain([State::Permanent, State::NoArp]) {
        net.neighbour(SERVER, 7, state);
        assert_eq!(net.via(SERVER).target_mac, mac(7), "{state:?}");
    }
    net.hear(Input::NeighbourRemoved {
        interface: 2,
        address: ip(SERVER),
    });
    assert_eq!(net.network.next_hop(ip(SERVER)), unresolved);
}

#[test]
fn longest_prefix_wins_then_lowest_metric() {
    let mut net = on_two_links();
    net.route(route("10.0.0.0/8", 0, &[(2, ROUTER)]));
    net.route(route("10.9.0.0/16", 50, &[(2, ROUTER)]));
    net.route(route("10.9.0.0/16", 10, &[(3, "10.2.0.254")]));
    assert_eq!(net.unresolved(FAR), (3, ip("10.2.0.254")));
}

#[test]
fn route_over_a_link_that_is_down_or_without_carrier_is_passed_over() {
    let mut net = on_two_links();
    net.route(route("10.9.0.0/16", 0, &[(3, "10.2.0.254")]));
    net.route(route("0.0.0.0/0", 0, &[(2, ROUTER)]));
    for dead in [
        Link {
            up: false,
            ..link(3)
        },
        Link {
            carrier: false,
            ..link(3)
        },
    ] {
        net.hear(Input::LinkChanged(dead));
        assert_eq!(net.unresolved(FAR), (2, ip(ROUTER)));
        net.hear(Input::LinkChanged(link(3)));
        assert_eq!(net.unresolved(FAR), (3, ip("10.2.0.254")));
    }
}

#[test]
fn target_without_a_usable_link_is_unreachable_with_a_reason() {
    let mut net = on_one_link();
    assert_eq!(net.why("203.0.113.1"), "no route to 203.0.113.1");
    net.hear(Input::LinkChanged(Link {
        up: false,
        ..link(2)
    }));
    assert_eq!(
        net.why(SERVER),
        "the route 10.1.0.0/24 has no link that is up"
    );
    net.hear(Input::LinkRemoved { interface: 2 });
    assert_eq!(net.why(SERVER), "no route to 10.1.0.7");
}

#[test]
fn blackhole_unreachable_and_prohibit_hide_shorter_prefixes() {
    let mut net = on_one_link();
    net.route(route("0.0.0.0/0", 0, &[(2, ROUTER)]));
    for (kind, why) in [
        (Kind::Blackhole, "the route 10.9.0.0/16 is a blackhole"),
        (
            Kind::Unreachable,
            "the route 10.9.0.0/16 makes it unreachable",
        ),
        (Kind::Prohibit, "the route 10.9.0.0/16 prohibits it"),
    ] {
        let entry = RouteEntry {
            kind,
            ..route("10.9.0.0/16", 0, &[])
        };
        net.route(entry.clone());
        assert_eq!(net.why(FAR), why);
        net.hear(Input::RouteRemoved(entry));
        assert_eq!(net.unresolved(FAR), (2, ip(ROUTER)));
    }
}

#[test]
fn throw_goes_on_with_the_next_table() {
    let mut net = on_one_link();
    net.route(RouteEntry {
        kind: Kind::Throw,
        ..route("10.9.0.0/16", 0, &[])
    });
    net.route(route("0.0.0.0/0", 0, &[(2, "10.1.0.253")]));
    net.route(RouteEntry {
        table: 253,
        ..route("0.0.0.0/0", 0, &[(2, ROUTER)])
    });
    assert_eq!(net.unresolved(FAR), (2, ip(ROUTER)));
}

#[test]
fn other_tables_and_types_of_service_are_not_followed_without_a_rule() {
    let mut net = on_one_link();
    net.route(RouteEntry {
        table: 100,
        ..route("10.9.0.0/16", 0, &[(2, ROUTER)])
    });
    net.route(RouteEntry {
        type_of_service: 8,
        ..route("10.9.0.0/16", 0, &[(2, ROUTER)])
    });
    assert_eq!(net.why(FAR), "no route to 10.9.0.7");
}

#[test]
fn mtu_is_the_least_of_link_and_route() {
    let mut net = on_one_link();
    net.neighbour(ROUTER, 9, State::Reachable);
    for (of_route, expected) in [(1400, 1400), (9000, 1500)] {
        let entry = RouteEntry {
            mtu: Some(of_route),
            ..route("10.9.0.0/16", 0, &[(2, ROUTER)])
        };
        net.hear(Input::RouteAdded {
            route: entry,
            replace: true,
        });
        assert_eq!(net.via(FAR).mtu, expected);
    }
}

#[test]
fn preferred_source_of_the_route_is_the_source() {
    let mut net = on_one_link();
    net.neighbour(ROUTER, 9, State::Reachable);
    let source = Some(ip("192.0.2.1"));
    net.route(RouteEntry {
        source,
        ..route("10.9.0.0/16", 0, &[(2, ROUTER)])
    });
    assert_eq!(net.via(FAR).source, source);
}

#[test]
fn source_is_not_a_virtual_address_of_the_same_link() {
    let mut net = Net::new();
    net.hear(Input::LinkChanged(link(2)));
    net.address(2, "192.0.2.1/32");
    net.address(2, "2001:db8:1::1/128");
    net.address(2, "10.1.0.1/24");
    net.address(2, "2001:db8:1::2/64");
    net.hear(Input::AddressAdded(Address {
        narrow: true,
        ..address(2, "fe80::2/64")
    }));
    net.route(route("0.0.0.0/0", 0, &[(2, ROUTER)]));
    net.route(route("::/0", 1024, &[(2, "fe80::9")]));
    net.neighbour(ROUTER, 9, State::Reachable);
    net.neighbour("fe80::9", 9, State::Reachable);
    assert_eq!(net.via(FAR).source, Some(ip("10.1.0.1")));
    assert_eq!(net.via("2001:db8:9::1").source, Some(ip("2001:db8:1::2")));
}

#[test]
fn link_that_needs_no_neighbour_has_no_hardware_addresses() {
    let mut net = on_one_link();
    net.hear(Input::LinkChanged(Link {
        ethernet: false,
        bare: false,
        without_arp: true,
        ..link(2)
    }));
    let hop = net.via(SERVER);
    assert_eq!((hop.target_mac, hop.source_mac), ([0; 6], [0; 6]));
    net.watch(&[SERVER]);
    assert_eq!(net.outputs(), []);
}

#[test]
fn where_nobody_is_asked_the_neighbour_written_down_is_taken_and_else_our_own_address() {
    let mut net = on_one_link();
    let without_arp = Link {
        without_arp: true,
        ..link(2)
    };
    net.hear(Input::LinkChanged(without_arp));
    assert_eq!(net.via(SERVER).target_mac, mac(2));
    net.watch(&[SERVER]);
    net.neighbour(SERVER, 7, State::Permanent);
    let hop = net.via(SERVER);
    assert_eq!((hop.target_mac, hop.source_mac), (mac(7), mac(2)));
    let outputs = net.outputs();
    let changed = Output::Changed { target: ip(SERVER) };
    assert!(outputs.contains(&changed), "{outputs:?}");
    assert_eq!(net.network.deadline(), None);

    // The link resolves neighbours again, so the director probes again.
    net.hear(Input::NeighbourRemoved {
        interface: 2,
        address: ip(SERVER),
    });
    net.hear(Input::LinkChanged(link(2)));
    let probe = Output::Probe {
        interface: 2,
        neighbour: ip(SERVER),
    };
    assert!(net.outputs().contains(&probe));
}

#[test]
fn kept_neighbour_is_confirmed_and_resolved_again_until_it_is_kept_no_longer() {
    let mut net = on_one_link();
    net.neighbour(SERVER, 7, State::Reachable);
    net.outputs();
    let probe = || Output::Probe {
        interface: 2,
        neighbour: ip(SERVER),
    };
    let kept = BTreeSet::from([(2, ip(SERVER))]);
    net.network.keep(kept.clone(), net.now);
    assert_eq!(net.outputs(), []);
    net.neighbour(SERVER, 7, State::Stale);
    assert_eq!(net.outputs(), [probe()]);
    net.hear(Input::NeighbourRemoved {
        interface: 2,
        address: ip(SERVER),
    });
    assert!(net.outputs().contains(&probe()));
    // A watched target behind the neighbour keeps it alive too.
    net.watch(&[SERVER]);
    net.network.keep(BTreeSet::new(), net.now);
    assert!(net.network.deadline().is_some());
    net.network.keep(kept, net.now);
    net.network.leave(ip(SERVER));
    assert!(net.network.deadline().is_some());
    net.network.keep(BTreeSet::new(), net.now);
    assert_eq!(net.network.deadline(), None);
}

#[test]
fn a_route_changes_answers_only_in_its_network() {
    let mut net = on_one_link();
    net.route(route("0.0.0.0/0", 0, &[(2, ROUTER)]));
    net.neighbour(ROUTER, 9, State::Reachable);
    net.neighbour("10.1.0.253", 8, State::Reachable);
    net.watch(&[FAR, "10.8.0.7", "2001:db8:9::1"]);
    net.outputs();
    net.route(route("10.9.0.0/16", 0, &[(2, "10.1.0.253")]));
    let changed = |outputs: Vec<Output>| -> Vec<Output> {
        let changed = |output: &Output| matches!(output, Output::Changed { .. });
        outputs.into_iter().filter(changed).collect()
    };
    let far = [Output::Changed { target: ip(FAR) }];
    assert_eq!(changed(net.outputs()), far);
}

#[test]
fn route_by_a_next_hop_object_follows_the_object() {
    for paths in [vec![(2, ROUTER)], vec![]] {
        // With `nexthop_compat_mode` off the route carries no paths.
        let mut net = on_two_links();
        net.object(1, Means::Path(path(2, ROUTER)));
        net.route(by_object("10.9.0.0/16", 10, 1, &paths));
        net.route(route("10.9.0.0/16", 20, &[(3, "10.2.0.254")]));
        assert_eq!(net.unresolved(FAR), (2, ip(ROUTER)));
        net.object(1, Means::Path(path(3, "10.2.0.253")));
        assert_eq!(net.unresolved(FAR), (3, ip("10.2.0.253")));
        net.object(1, Means::Blackhole);
        assert_eq!(net.why(FAR), "the route 10.9.0.0/16 is a blackhole");
        net.object(1, Means::Path(path(2, ROUTER)));
        assert_eq!(net.unresolved(FAR), (2, ip(ROUTER)));
        // The kernel removes its IPv4 routes without an event.
        net.hear(Input::ObjectRemoved { id: 1 });
        assert_eq!(net.unresolved(FAR), (3, ip("10.2.0.254")));
        net.object(1, Means::Path(path(2, ROUTER)));
        assert_eq!(net.unresolved(FAR), (3, ip("10.2.0.254")));
    }
}

#[test]
fn group_of_next_hop_objects_loses_its_members_and_goes_with_the_last() {
    let mut net = on_two_links();
    net.object(1, Means::Path(path(2, ROUTER)));
    net.object(2, Means::Path(path(3, "10.2.0.254")));
    net.object(9, Means::Group(vec![1, 2]));
    net.route(by_object("10.9.0.0/16", 0, 9, &[]));
    net.watch(&[FAR]);
    net.outputs();
    assert_eq!(net.unresolved(FAR), (2, ip(ROUTER)));
    net.object(1, Means::Path(path(2, "10.1.0.253")));
    assert_eq!(net.unresolved(FAR), (2, ip("10.1.0.253")));
    let changed = Output::Changed { target: ip(FAR) };
    assert!(net.outputs().contains(&changed));
    net.hear(Input::ObjectRemoved { id: 1 });
    assert_eq!(net.unresolved(FAR), (3, ip("10.2.0.254")));
    net.hear(Input::ObjectRemoved { id: 2 });
    assert_eq!(net.why(FAR), "no route to 10.9.0.7");
    assert!(net.outputs().contains(&changed));
}

#[test]
fn next_hop_objects_go_with_their_device() {
    let mut net = on_two_links();
    net.object(1, Means::Path(path(3, "10.2.0.254")));
    net.route(by_object("10.9.0.0/16", 0, 1, &[]));
    net.hear(Input::LinkRemoved { interface: 3 });
    net.hear(Input::LinkChanged(link(3)));
    assert_eq!(net.why(FAR), "no route to 10.9.0.7");
}

#[test]
fn route_by_an_object_is_removed_whatever_paths_the_event_has() {
    let mut net = on_two_links();
    net.route(by_object("2001:db8:9::/48", 0, 1, &[(2, "fe80::9")]));
    net.hear(Input::RouteRemoved(by_object(
        "2001:db8:9::/48",
        0,
        1,
        &[(3, "fe80::8")],
    )));
    assert_eq!(net.why("2001:db8:9::1"), "no route to 2001:db8:9::1");
}

#[test]
fn servers_are_found_by_the_table_of_the_first_rule_that_fits() {
    let mut net = on_two_links();
    net.rules(true);
    net.route(route("0.0.0.0/0", 0, &[(2, ROUTER)]));
    let far = |table| RouteEntry {
        table,
        ..route("0.0.0.0/0", 0, &[(3, "10.2.0.254")])
    };
    net.route(far(100));
    let to = |text: &str, length| Prefix::new(ip(text), length);
    let by_table = rule(100, Action::Table(100));
    let never = [
        Rule {
            source: to("192.0.2.1", 32),
            ..by_table.clone()
        },
        Rule {
            input: Some("eth2".into()),
            ..by_table.clone()
        },
        Rule {
            output: Some("eth3".into()),
            ..by_table.clone()
        },
        Rule {
            mark: 7,
            mask: u32::MAX,
            ..by_table.clone()
        },
        Rule {
            target: to("10.8.0.0", 16),
            ..by_table.clone()
        },
        Rule {
            narrow: true,
            ..by_table.clone()
        },
        Rule {
            suppressed: Some(0),
            ..by_table.clone()
        },
    ];
    for rule in never {
        net.hear(Input::RuleAdded(rule.clone()));
        assert_eq!(net.unresolved(FAR), (2, ip(ROUTER)), "{rule:?}");
        assert!(rule.mark != 0 || rule.output.is_some() || !net.network.is_plain(true));
        net.hear(Input::RuleRemoved(rule));
        assert!(net.network.is_plain(true));
    }
    let always = [
        by_table.clone(),
        Rule {
            target: to("10.9.0.0", 16),
            ..by_table.clone()
        },
        Rule {
            input: Some("lo".into()),
            ..by_table.clone()
        },
        Rule {
            mark: 0,
            mask: 255,
            ..by_table.clone()
        },
        Rule {
            source: to("192.0.2.1", 32),
            inverted: true,
            ..by_table.clone()
        },
    ];
    for rule in always {
        net.hear(Input::RuleAdded(rule.clone()));
        assert_eq!(net.unresolved(FAR), (3, ip("10.2.0.254")), "{rule:?}");
        assert!(!net.network.is_plain(true) && net.network.is_plain(false));
        net.hear(Input::RuleRemoved(rule));
    }
}

#[test]
fn rules_refuse_jump_and_do_without_short_routes_of_main() {
    let mut net = on_two_links();
    net.rules(true);
    net.route(route("0.0.0.0/0", 0, &[(2, ROUTER)]));
    net.route(RouteEntry {
        table: 100,
        ..route("0.0.0.0/0", 0, &[(3, "10.2.0.254")])
    });
    // The rules of wg-quick: main decides where it has more than a default route.
    let suppress = Rule {
        suppressed: Some(0),
        ..rule(90, Action::Table(MAIN))
    };
    net.hear(Input::RuleAdded(suppress));
    net.hear(Input::RuleAdded(rule(100, Action::Table(100))));
    assert_eq!(net.unresolved(FAR), (3, ip("10.2.0.254")));
    assert_eq!(net.unresolved(SERVER), (2, ip(SERVER)));
    let jump = rule(95, Action::Goto(200));
    net.hear(Input::RuleAdded(jump.clone()));
    // The goto leads to no rule.
    assert_eq!(net.unresolved(FAR), (3, ip("10.2.0.254")));
    net.hear(Input::RuleAdded(rule(200, Action::Nop)));
    assert_eq!(net.unresolved(FAR), (2, ip(ROUTER)));
    net.hear(Input::RuleRemoved(jump));
    for (action, why) in [
        (Action::Blackhole, "is a blackhole"),
        (Action::Unreachable, "makes it unreachable"),
        (Action::Prohibit, "prohibits it"),
    ] {
        let refuse = rule(10, action);
        net.hear(Input::RuleAdded(refuse.clone()));
        assert_eq!(net.why(FAR), format!("a policy rule {why}"));
        net.hear(Input::RuleRemoved(refuse));
    }
}

#[test]
fn without_the_rule_for_main_nothing_is_plain() {
    let mut net = on_one_link();
    assert!(net.network.is_plain(true));
    net.rules(true);
    assert!(net.network.is_plain(true));
    net.hear(Input::RuleRemoved(rule(32766, Action::Table(MAIN))));
    assert!(!net.network.is_plain(true));
    assert_eq!(net.why(SERVER), "no route to 10.1.0.7");
}

#[test]
fn ipv6_route_for_a_source_network_leaves_answers_to_the_kernel() {
    let mut net = on_one_link();
    net.outputs();
    let sourced = RouteEntry {
        from: Some(Prefix::new(ip("2001:db8:f::"), 64)),
        ..route("::/0", 1024, &[(2, "fe80::9")])
    };
    net.route(sourced.clone());
    assert!(net.outputs().contains(&Output::RulesChanged));
    assert!(!net.network.is_plain(false) && net.network.is_plain(true));
    assert_eq!(net.why("2001:db8:9::1"), "no route to 2001:db8:9::1");
    net.hear(Input::RouteRemoved(sourced));
    assert!(net.outputs().contains(&Output::RulesChanged));
    assert!(net.network.is_plain(false));
}

#[test]
fn of_several_ways_the_first_with_a_known_neighbour_is_taken_and_a_hash_spreads() {
    let mut net = on_two_links();
    net.route(route("10.9.0.0/16", 0, &[(2, ROUTER), (3, "10.2.0.254")]));
    assert_eq!(net.unresolved(FAR), (2, ip(ROUTER)));
    net.neighbour_on(3, "10.2.0.254", 8, State::Reachable);
    assert_eq!(net.via(FAR).interface, 3);
    net.neighbour(ROUTER, 9, State::Reachable);
    assert_eq!(net.via(FAR).interface, 2);
    let spread = |hash| match net.network.next_hop_spread(ip(FAR), hash) {
        Route::Via(hop) => hop.interface,
        other => panic!("{other:?}"),
    };
    assert_eq!([0, 1, 2, 3].map(spread), [2, 3, 2, 3]);
    assert!(net.network.has_several_ways(ip(FAR)));
    assert!(!net.network.has_several_ways(ip(SERVER)));
}

#[test]
fn ipv6_route_reported_again_with_one_more_router_is_one_route() {
    let mut net = on_one_link();
    let first = route("2001:db8:9::/48", 1024, &[(2, "fe80::9")]);
    let second = route("2001:db8:9::/48", 1024, &[(2, "fe80::8")]);
    let both = route("2001:db8:9::/48", 1024, &[(2, "fe80::9"), (2, "fe80::8")]);
    net.route(first.clone());
    net.route(both.clone());
    net.hear(Input::RouteRemoved(first.clone()));
    assert_eq!(net.unresolved("2001:db8:9::1"), (2, ip("fe80::8")));
    net.hear(Input::RouteRemoved(second));
    assert_eq!(net.why("2001:db8:9::1"), "no route to 2001:db8:9::1");
    net.route(first);
    net.route(both.clone());
    net.hear(Input::RouteRemoved(both));
    assert_eq!(net.why("2001:db8:9::1"), "no route to 2001:db8:9::1");
}

#[test]
fn watched_neighbour_that_is_missing_is_probed_with_growing_waits() {
    let mut net = on_one_link();
    net.watch(&[SERVER]);
    let probe = || Output::Probe {
        interface: 2,
        neighbour: ip(SERVER),
    };
    assert_eq!(net.outputs(), [probe()]);
    let mut waits = Vec::new();
    for _ in 0..5 {
        waits.push(net.until_deadline());
        net.neighbour(SERVER, 7, State::Failed);
        assert_eq!(net.outputs(), [probe()]);
    }
    assert_eq!(waits, [1, 2, 4, 8, 8].map(Duration::from_secs));
    assert_eq!((waits[0], waits[4]), (FIRST_WAIT, LONGEST_WAIT));
}

#[test]
fn watched_neighbour_is_confirmed_when_stale_and_refreshed_when_sure() {
    let mut net = on_one_link();
    net.neighbour(SERVER, 7, State::Reachable);
    net.watch(&[SERVER]);
    let probe = || Output::Probe {
        interface: 2,
        neighbour: ip(SERVER),
    };
    assert_eq!(net.outputs(), []);
    assert_eq!(net.until_deadline(), REFRESH);
    assert_eq!(net.outputs(), [probe()]);
    net.neighbour(SERVER, 7, State::Stale);
    assert_eq!(net.outputs(), [probe()]);
    net.neighbour(SERVER, 7, State::Permanent);
    assert_eq!(net.outputs(), []);
    assert_eq!(net.network.deadline(), None);
}

#[test]
fn change_is_reported_once_and_only_for_watched_targets() {
    let mut net = on_one_link();
    net.watch(&[SERVER]);
    net.outputs();
    net.neighbour(SERVER, 7, State::Reachable);
    net.neighbour("10.1.0.8", 8, State::Reachable);
    let moved = |neighbour| Output::NeighbourChanged {
        interface: 2,
        neighbour: ip(neighbour),
    };
    let changed = Output::Changed { target: ip(SERVER) };
    let first = [changed.clone(), moved(SERVER), moved("10.1.0.8")];
    assert_eq!(net.outputs(), first);
    net.neighbour(SERVER, 7, State::Delay);
    let outputs = net.outputs();
    assert!(!outputs.contains(&changed) && !outputs.contains(&moved(SERVER)));
    net.neighbour(SERVER, 77, State::Reachable);
    assert_eq!(net.outputs(), [changed.clone(), moved(SERVER)]);
    net.hear(Input::LinkRemoved { interface: 2 });
    let outputs = net.outputs();
    assert_eq!(outputs.len(), 7, "{outputs:?}");
    assert!(outputs.contains(&Output::WaysChanged));
    assert!(outputs.contains(&Output::LinksChanged));
    let networks = vec![Prefix::new(ip("10.1.0.0"), 24)];
    assert!(outputs.contains(&Output::RoutesChanged { networks }));
    assert!(outputs.contains(&Output::AddressesChanged));
    assert!(outputs.contains(&Output::Changed { target: ip(SERVER) }));
}

#[test]
fn neighbour_of_two_targets_is_probed_until_both_are_left() {
    let mut net = on_one_link();
    net.route(route("10.9.0.0/16", 0, &[(2, ROUTER)]));
    net.watch(&[FAR, ROUTER]);
    net.network.leave(ip(ROUTER));
    assert_eq!(net.outputs().len(), 1);
    net.until_deadline();
    assert_eq!(net.outputs().len(), 1);
    net.network.leave(ip(FAR));
    assert_eq!(net.network.deadline(), None);
    net.neighbour(ROUTER, 9, State::Reachable);
    let moved = Output::NeighbourChanged {
        interface: 2,
        neighbour: ip(ROUTER),
    };
    assert_eq!(net.outputs(), [moved]);
}

#[test]
fn another_gateway_is_probed_in_place_of_the_one_before() {
    let mut net = on_one_link();
    net.route(route("10.9.0.0/16", 0, &[(2, ROUTER)]));
    net.watch(&[FAR]);
    net.outputs();
    let other = route("10.9.0.0/16", 0, &[(2, "10.1.0.253")]);
    net.hear(Input::RouteAdded {
        route: other,
        replace: true,
    });
    let probed: Vec<Output> = net.outputs();
    let probe = |neighbour| Output::Probe {
        interface: 2,
        neighbour: ip(neighbour),
    };
    assert!(probed.contains(&probe("10.1.0.253")), "{probed:?}");
    net.until_deadline();
    assert_eq!(net.outputs(), [probe("10.1.0.253")]);
}

#[test]
fn answers_stay_during_a_full_account_and_what_it_does_not_name_is_gone() {
    let mut net = on_one_link();
    net.neighbour(SERVER, 7, State::Reachable);
    net.watch(&[SERVER]);
    net.outputs();
    net.hear(Input::ResyncBegin);
    net.hear(Input::LinkChanged(link(2)));
    net.route(route("10.1.0.0/24", 0, &[(2, "")]));
    assert_eq!(net.via(SERVER).target_mac, mac(7));
    assert_eq!(net.outputs(), []);
    net.hear(Input::ResyncEnd);
    assert_eq!(net.unresolved(SERVER), (2, ip(SERVER)));
    let probe = || Output::Probe {
        interface: 2,
        neighbour: ip(SERVER),
    };
    let target = ip(SERVER);
    let outputs = [
        Output::AddressesChanged,
        Output::WaysChanged,
        Output::Changed { target },
        Output::NeighbourChanged {
            interface: 2,
            neighbour: target,
        },
        probe(),
    ];
    assert_eq!(net.outputs(), outputs);
}

#[test]
fn full_account_of_the_same_network_changes_nothing() {
    let mut net = on_one_link();
    net.outputs();
    net.hear(Input::ResyncBegin);
    net.one_link();
    net.hear(Input::ResyncEnd);
    assert_eq!(net.outputs(), []);
}

#[test]
fn automatic_attachment_takes_the_devices_that_receive_ethernet_frames() {
    let of_kind = |kind: &str| Link {
        kind: Some(kind.into()),
        ..link(2)
    };
    let auto = |link: &Link| choose(link, Setting::Auto).hooks;
    assert_eq!(auto(&link(2)), [Hook::XdpNative, Hook::Tc]);
    for kind in [
        "veth", "tun", "bridge", "bond", "team", "vlan", "macvlan", "vxlan",
    ] {
        assert_eq!(auto(&of_kind(kind)), [Hook::Tc], "{kind}");
    }
    let none: [Hook; 0] = [];
    assert_eq!(
        auto(&Link {
            loopback: true,
            ethernet: false,
            bare: false,
            ..link(1)
        }),
        none
    );
    assert_eq!(
        auto(&Link {
            up: false,
            ..link(2)
        }),
        none
    );
    assert_eq!(
        auto(&Link {
            master: Some(9),
            ..link(2)
        }),
        none
    );
    assert_eq!(
        auto(&Link {
            ethernet: false,
            bare: false,
            ..of_kind("tun")
        }),
        none
    );
    assert_eq!(auto(&of_kind("dummy")), none);
}

#[test]
fn device_without_ethernet_headers_is_attached_by_tc_whatever_is_set() {
    let tunnel = Link {
        ethernet: false,
        bare: true,
        kind: Some("wireguard".into()),
        ..link(2)
    };
    for setting in [
        Setting::Auto,
        Setting::Tc,
        Setting::XdpNative,
        Setting::XdpGeneric,
    ] {
        assert_eq!(choose(&tunnel, setting).hooks, [Hook::Tc], "{setting:?}");
    }
    assert_eq!(choose(&tunnel, Setting::Off).hooks.len(), 0);
}

#[test]
fn xdp_sends_only_by_devices_whose_features_allow_it() {
    const SENDS: u64 = 1 << 2;
    let of_kind = |kind: &str| Link {
        kind: Some(kind.into()),
        ..link(2)
    };
    let bare = Link {
        ethernet: false,
        bare: true,
        ..link(2)
    };
    let loopback = Link {
        loopback: true,
        ethernet: false,
        ..link(2)
    };

    assert!(is_port(&link(2), Some(SENDS)));
    assert!(is_port(&of_kind("veth"), Some(SENDS | 3)));
    // Older kernels do not report what drivers of network cards can do.
    assert!(is_port(&link(2), None));
    for none in [&link(2), &of_kind("veth"), &of_kind("bridge")] {
        assert!(!is_port(none, Some(3)), "{none:?}");
    }
    for kind in ["veth", "bridge", "vlan", "macvlan", "vxlan", "tun"] {
        assert!(!is_port(&of_kind(kind), None), "{kind}");
    }
    for kind in ["bond", "team"] {
        assert!(!is_port(&of_kind(kind), Some(SENDS)), "{kind}");
    }
    for none in [&bare, &loopback] {
        assert!(!is_port(none, Some(SENDS)), "{none:?}");
    }
    assert!(goes_back_by_redirect(&of_kind("veth")));
    assert!(!goes_back_by_redirect(&link(2)));
}

#[test]
fn setting_of_a_device_overrides_the_automatic_choice_but_not_its_frames() {
    let down = Link {
        up: false,
        master: Some(9),
        ..link(2)
    };
    let set = |setting| choose(&down, setting).hooks;
    assert_eq!(set(Setting::XdpNative), [Hook::XdpNative]);
    assert_eq!(set(Setting::XdpGeneric), [Hook::XdpGeneric]);
    assert_eq!(set(Setting::Tc), [Hook::Tc]);
    assert_eq!(set(Setting::Off).len(), 0);
    let tunnel = Link {
        ethernet: false,
        bare: false,
        ..link(2)
    };
    let Choice { hooks, why } = choose(&tunnel, Setting::Tc);
    assert_eq!(
        (hooks.len(), why.as_str()),
        (0, "carries neither Ethernet frames nor bare IP packets")
    );
}

proptest! {
    #[test]
    fn routes_agree_with_a_naive_longest_prefix_match(
        steps in proptest::collection::vec((any::<bool>(), entries()), 1..60),
        targets in proptest::collection::vec(addresses(), 1..20),
    ) {
        let mut net = Net::new();
        (1..=4).for_each(|index| net.hear(Input::LinkChanged(link(index))));
        net.hear(Input::LinkChanged(Link { up: false, ..link(4) }));
        let mut model: Vec<RouteEntry> = Vec::new();
        for (add, entry) in steps {
            // One route for each prefix and metric, so that the order of equals does not matter.
            let place = |old: &RouteEntry| (old.prefix, old.metric);
            if let Some(old) = model.iter().position(|old| place(old) == place(&entry)) {
                net.hear(Input::RouteRemoved(model.remove(old)));
            }
            if add {
                model.push(entry.clone());
                net.route(entry);
            }
        }
        for target in targets {
            let expected = model
                .iter()
                .filter(|entry| entry.prefix.contains(target))
                .filter(|entry| entry.paths.iter().all(|path| path.interface != 4))
                .max_by_key(|entry| (length(entry.prefix), std::cmp::Reverse(entry.metric)));
            let found = net.network.next_hop(target);
            match (expected, found) {
                (None, Route::Unreachable { .. }) => {}
                (Some(RouteEntry { kind: Kind::Blackhole, prefix, .. }), Route::Unreachable { why }) => {
                    prop_assert_eq!(why, format!("the route {prefix} is a blackhole"));
                }
                (Some(entry), Route::Unresolved { interface, neighbour }) => {
                    prop_assert_eq!(interface, entry.paths[0].interface);
                    prop_assert_eq!(neighbour, entry.paths[0].gateway.unwrap_or(target));
                }
                (expected, found) => prop_assert!(false, "{expected:?} but {found:?}"),
            }
        }
    }
}

/// Addresses of both families that often share prefixes.
fn addresses() -> impl Strategy<Value = IpAddr> {
    let bits = prop_oneof![Just(0_u8), Just(0x80), Just(0xc0), Just(0xff), any::<u8>()];
    (any::<bool>(), [bits.clone(), bits]).prop_map(|(v4, [high, low])| match v4 {
        true => IpAddr::from([10, high, 0, low]),
        false => IpAddr::from([0x2001, 0xdb8, u16::from(high) << 8, 0, 0, 0, 0, low.into()]),
    })
}

fn entries() -> impl Strategy<Value = RouteEntry> {
    let length = prop_oneof![Just(0_u8), 8..=34_u8, 110..=128_u8];
    (addresses(), length, 0..3_u32, 0..=4_u32).prop_map(|(address, length, metric, link)| {
        RouteEntry {
            prefix: Prefix::new(address, length),
            table: 254,
            metric,
            type_of_service: 0,
            kind: if link == 0 {
                Kind::Blackhole
            } else {
                Kind::Unicast
            },
            paths: Vec::from_iter((link > 0).then_some(Path {
                interface: link,
                gateway: None,
            })),
            object: None,
            mtu: None,
            source: None,
            from: None,
        }
    })
}

fn length(prefix: Prefix) -> u8 {
    let text = prefix.to_string();
    text.split_once('/')
        .map_or(0, |(_, length)| length.parse().unwrap())
}

/// A network on a virtual clock.
struct Net {
    network: Network,
    now: Instant,
}

impl Net {
    fn new() -> Self {
        let now = Instant::now();
        Self {
            network: Network::new(now),
            now,
        }
    }

    fn one_link(&mut self) {
        self.hear(Input::LinkChanged(link(2)));
        self.address(2, "10.1.0.1/24");
        self.route(route("10.1.0.0/24", 0, &[(2, "")]));
    }

    fn hear(&mut self, input: Input) {
        self.network.handle(input, self.now);
    }

    fn address(&mut self, interface: u32, text: &str) {
        self.hear(Input::AddressAdded(address(interface, text)));
    }

    fn object(&mut self, id: u32, kind: Means) {
        self.hear(Input::ObjectChanged(Object { id, kind }));
    }

    /// The kernel's default rules.
    fn rules(&mut self, v4: bool) {
        for (priority, table) in [(0, LOCAL), (32766, MAIN), (32767, DEFAULT)] {
            self.hear(Input::RuleAdded(Rule {
                v4,
                ..rule(priority, Action::Table(table))
            }));
        }
    }

    fn route(&mut self, route: RouteEntry) {
        self.hear(Input::RouteAdded {
            route,
            replace: false,
        });
    }

    fn neighbour(&mut self, address: &str, last: u8, state: State) {
        self.neighbour_on(2, address, last, state);
    }

    fn neighbour_on(&mut self, interface: u32, address: &str, last: u8, state: State) {
        let (address, mac) = (ip(address), Some(mac(last)));
        self.hear(Input::NeighbourChanged(Neighbour {
            interface,
            address,
            mac,
            state,
        }));
    }

    fn watch(&mut self, targets: &[&str]) {
        while self.network.poll().is_some() {}
        for target in targets {
            self.network.watch(ip(target), self.now);
        }
    }

    fn outputs(&mut self) -> Vec<Output> {
        std::iter::from_fn(|| self.network.poll()).collect()
    }

    fn until_deadline(&mut self) -> Duration {
        let deadline = self.network.deadline().expect("something is awaited");
        let waited = deadline - self.now;
        self.now = deadline;
        self.hear(Input::Tick);
        waited
    }

    fn via(&self, to: &str) -> NextHop {
        match self.network.next_hop(ip(to)) {
            Route::Via(hop) => hop,
            other => panic!("{to}: {other:?}"),
        }
    }

    fn unresolved(&self, to: &str) -> (u32, IpAddr) {
        match self.network.next_hop(ip(to)) {
            Route::Unresolved {
                interface,
                neighbour,
            } => (interface, neighbour),
            other => panic!("{to}: {other:?}"),
        }
    }

    fn why(&self, to: &str) -> String {
        match self.network.next_hop(ip(to)) {
            Route::Unreachable { why } => why,
            other => panic!("{to}: {other:?}"),
        }
    }
}

fn on_one_link() -> Net {
    let mut net = Net::new();
    net.one_link();
    net
}

fn on_two_links() -> Net {
    let mut net = on_one_link();
    net.hear(Input::LinkChanged(link(3)));
    net.address(3, "10.2.0.1/24");
    net.route(route("10.2.0.0/24", 0, &[(3, "")]));
    net
}

fn link(index: u32) -> Link {
    Link::card(index, &format!("eth{index}"), mac(index as u8))
}

fn address(interface: u32, text: &str) -> Address {
    let (address, length) = text.split_once('/').unwrap();
    let (address, length) = (ip(address), length.parse().unwrap());
    Address {
        interface,
        address,
        length,
        preferred: true,
        narrow: false,
    }
}

/// An empty gateway means none.
fn route(prefix: &str, metric: u32, paths: &[(u32, &str)]) -> RouteEntry {
    let (address, length) = prefix.split_once('/').unwrap();
    let path = |&(interface, gateway): &(u32, &str)| Path {
        interface,
        gateway: gateway.parse().ok(),
    };
    let prefix = Prefix::new(ip(address), length.parse().unwrap());
    RouteEntry {
        metric,
        ..RouteEntry::unicast(prefix, paths.iter().map(path).collect())
    }
}

fn path(interface: u32, gateway: &str) -> Path {
    Path {
        interface,
        gateway: gateway.parse().ok(),
    }
}

fn by_object(prefix: &str, metric: u32, id: u32, paths: &[(u32, &str)]) -> RouteEntry {
    RouteEntry {
        object: Some(id),
        ..route(prefix, metric, paths)
    }
}

/// A rule for every IPv4 packet.
fn rule(priority: u32, action: Action) -> Rule {
    let any = Prefix::new(ip("0.0.0.0"), 0);
    Rule {
        v4: true,
        priority,
        inverted: false,
        source: any,
        target: any,
        input: None,
        output: None,
        mark: 0,
        mask: 0,
        narrow: false,
        action,
        suppressed: None,
    }
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn mac(last: u8) -> Mac {
    [2, 0, 0, 0, 0, last]
}
