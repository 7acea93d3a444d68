//! Networks, gateways and clients: which hop numbers the answers of masqueraded servers use.

use std::time::Instant;

use super::super::{Clock, Output, Sizes};
use super::*;
use crate::network::neighbours::State;
use crate::network::routes::{Kind, Path, Prefix, RouteEntry};
use crate::network::rules::{Action, Rule};
use crate::network::{Input, Link, Neighbour};
use crate::table::{Limits, Table};

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn route(network: &str, length: u8, gateway: Option<&str>) -> Input {
    let route = entry(network, length, 2, gateway);
    Input::RouteAdded {
        route,
        replace: false,
    }
}

/// The network's route is replaced by this one.
fn moved(network: &str, length: u8, gateway: &str) -> Input {
    let route = entry(network, length, 2, Some(gateway));
    Input::RouteAdded {
        route,
        replace: true,
    }
}

fn entry(network: &str, length: u8, interface: u32, gateway: Option<&str>) -> RouteEntry {
    let path = Path {
        interface,
        gateway: gateway.map(ip),
    };
    RouteEntry::unicast(Prefix::new(ip(network), length), vec![path])
}

fn neighbour(address: &str, last: u8) -> Input {
    neighbour_on(2, address, last, State::Reachable)
}

fn neighbour_on(interface: u32, address: &str, last: u8, state: State) -> Input {
    Input::NeighbourChanged(Neighbour {
        interface,
        address: ip(address),
        mac: Some([2, 0, 0, 0, 0, last]),
        state,
    })
}

fn link(index: u32) -> Input {
    Input::LinkChanged(Link::card(
        index,
        &format!("eth{index}"),
        [2, 0, 0, 0, 0, 1],
    ))
}

/// A second link. A neighbour there has the same address as one on the first link.
fn with_twins(address: &str) -> Director {
    let mut director = director();
    hear(&mut director, link(3));
    hear(&mut director, neighbour(address, 22));
    let twin = neighbour_on(3, address, 33, State::Reachable);
    hear(&mut director, twin);
    director
}

/// The number for answers to an address: the longest matching network that was written.
fn way(said: &(Vec<(Prefix, u32)>, BTreeMap<u32, Ways>), client: &str) -> Option<Ways> {
    let (routes, hops) = said;
    let around = routes
        .iter()
        .filter(|(prefix, _)| prefix.contains(ip(client)));
    let (_, number) = around.max_by_key(|(prefix, _)| prefix.length())?;
    hops.get(number).copied()
}

fn ways(last: u8, interface: u32) -> Ways {
    Ways::new([2, 0, 0, 0, 0, last], [2, 0, 0, 0, 0, 1], interface, 1500)
}

/// A director on one link, with a network behind a gateway.
fn director() -> Director {
    let sizes = Sizes {
        services: 16,
        servers: 16,
        pool_words: 1024,
    };
    let table = Table::new(Limits::default());
    let clock = Clock {
        tick_ns: 1_000_000_000,
    };
    let mut director = Director::new(table, sizes, clock, Instant::now());
    hear(&mut director, link(2));
    hear(&mut director, route("10.1.0.0", 24, None));
    hear(&mut director, neighbour("10.1.0.254", 9));
    director
}

fn hear(director: &mut Director, input: Input) {
    let now = director.seen;
    director.network_event(input, now);
}

fn writes(director: &mut Director) -> Vec<Write> {
    let outputs = std::iter::from_fn(|| director.poll());
    let writes = outputs.filter_map(|output| match output {
        Output::Write(write) => Some(write),
        _ => None,
    });
    writes.collect()
}

/// The last routes that were written, and the usable next hops of gateways.
fn said(writes: &[Write]) -> (Vec<(Prefix, u32)>, BTreeMap<u32, Ways>) {
    let mut routes = BTreeMap::new();
    let mut hops = BTreeMap::new();
    for write in writes {
        match write {
            Write::Routes(all) => routes = all.iter().copied().collect(),
            Write::Route { prefix, number } => {
                routes.remove(prefix);
                routes.extend(number.map(|number| (*prefix, number)));
            }
            Write::Hop { number, ways } if ways.is_usable() => {
                hops.insert(*number, *ways);
            }
            Write::Hop { number, .. } => {
                hops.remove(number);
            }
            _ => {}
        }
    }
    (routes.into_iter().collect(), hops)
}

#[test]
fn a_network_behind_a_gateway_leads_to_its_number_and_a_link_to_none() {
    let mut director = director();
    hear(&mut director, route("0.0.0.0", 0, Some("10.1.0.254")));
    let (routes, hops) = said(&writes(&mut director));
    assert!(
        routes.contains(&(Prefix::new(ip("0.0.0.0"), 0), 1)),
        "{routes:?}"
    );
    assert!(
        routes.contains(&(Prefix::new(ip("10.1.0.0"), 24), 0)),
        "{routes:?}"
    );
    let ours = [2, 0, 0, 0, 0, 1];
    assert_eq!(
        hops,
        BTreeMap::from([(1, Ways::new([2, 0, 0, 0, 0, 9], ours, 2, 1500))])
    );
}

#[test]
fn a_gateway_with_another_mac_address_keeps_its_number() {
    let mut director = director();
    hear(&mut director, route("0.0.0.0", 0, Some("10.1.0.254")));
    writes(&mut director);
    hear(&mut director, neighbour("10.1.0.254", 77));
    let ways = Ways::new([2, 0, 0, 0, 0, 77], [2, 0, 0, 0, 0, 1], 2, 1500);
    assert_eq!(writes(&mut director), [Write::Hop { number: 1, ways }]);
}

#[test]
fn a_number_never_comes_to_mean_another_gateway() {
    let mut director = director();
    hear(&mut director, neighbour("10.1.0.253", 8));
    hear(&mut director, route("0.0.0.0", 0, Some("10.1.0.254")));
    let (_, hops) = said(&writes(&mut director));
    hear(&mut director, route("172.16.0.0", 12, Some("10.1.0.253")));
    let later = writes(&mut director);
    let (routes, fresh) = said(&later);
    let networks = routes.iter().filter(|(prefix, _)| !prefix.is_host());
    for (prefix, number) in networks.filter(|(_, number)| *number != 0) {
        assert!(
            !hops.contains_key(number) && fresh.contains_key(number),
            "{prefix}"
        );
    }
    let left = Write::Hop {
        number: hops_of(&hops, 9),
        ways: Ways::default(),
    };
    assert!(later.contains(&left), "{later:?}");
}

/// The greatest hop number that leads to this neighbour.
fn hops_of(hops: &BTreeMap<u32, Ways>, last: u8) -> u32 {
    let wanted = Ways::new([2, 0, 0, 0, 0, last], [2, 0, 0, 0, 0, 1], 2, 1500);
    let found = hops.iter().filter(|(_, ways)| **ways == wanted);
    found.map(|(number, _)| *number).max().unwrap()
}

fn client(last: u16) -> String {
    format!("10.1.{}.{}", last >> 8, last & 255)
}

/// A director whose link has room for thousands of clients.
fn wide() -> Director {
    let mut director = director();
    hear(&mut director, route("10.1.0.0", 16, None));
    writes(&mut director);
    director
}

#[test]
fn a_client_on_the_link_has_a_number_of_its_own_and_keeps_it() {
    let mut director = wide();
    hear(&mut director, neighbour("10.1.7.7", 7));
    let known = writes(&mut director);
    let [
        Write::Hop { number, ways },
        Write::Route { prefix, number: to },
    ] = known.as_slice()
    else {
        panic!("{known:?}");
    };
    assert_eq!(
        (*prefix, *to),
        (Prefix::host(ip("10.1.7.7")), Some(*number))
    );
    let ours = [2, 0, 0, 0, 0, 1];
    assert_eq!(*ways, Ways::new([2, 0, 0, 0, 0, 7], ours, 2, 1500));

    hear(&mut director, neighbour("10.1.7.7", 8));
    let ways = Ways::new([2, 0, 0, 0, 0, 8], ours, 2, 1500);
    assert_eq!(
        writes(&mut director),
        [Write::Hop {
            number: *number,
            ways
        }]
    );
}

#[test]
fn a_client_that_is_forgotten_keeps_its_way_while_a_connection_remembers_it() {
    let mut director = wide();
    hear(&mut director, neighbour("10.1.7.7", 7));
    let known = writes(&mut director);
    let Some(Write::Hop { number, .. }) = known.first().cloned() else {
        panic!("{known:?}");
    };
    let gone = Input::NeighbourRemoved {
        interface: 2,
        address: ip("10.1.7.7"),
    };
    hear(&mut director, gone.clone());
    let prefix = Prefix::host(ip("10.1.7.7"));
    assert_eq!(
        writes(&mut director),
        [Write::Route {
            prefix,
            number: None
        }]
    );

    // Another client does not get the number. The same client does.
    let mut remembered = Remembered::default();
    remembered[number as usize / 64] |= 1 << (number % 64);
    (0..5).for_each(|_| director.unused_hops(&remembered));
    hear(&mut director, neighbour("10.1.7.8", 8));
    let other = writes(&mut director);
    assert!(!other.contains(&Write::Route {
        prefix: Prefix::host(ip("10.1.7.8")),
        number: Some(number)
    }));
    hear(&mut director, neighbour("10.1.7.7", 7));
    assert_eq!(
        writes(&mut director),
        [Write::Route {
            prefix,
            number: Some(number)
        }]
    );

    hear(&mut director, gone);
    writes(&mut director);
    (0..2).for_each(|_| director.unused_hops(&Remembered::default()));
    hear(&mut director, neighbour("10.1.7.9", 9));
    let prefix = Prefix::host(ip("10.1.7.9"));
    let given = Write::Route {
        prefix,
        number: Some(number),
    };
    assert!(writes(&mut director).contains(&given));
}

#[test]
fn the_first_896_clients_have_numbers_and_another_when_one_is_gone() {
    let mut director = wide();
    // 10.1.0.254 is a client already.
    for last in 256..2256 {
        hear(&mut director, neighbour(&client(last), 7));
    }
    let routes = |writes: &[Write]| {
        let is_route = |write: &&Write| matches!(write, Write::Route { .. });
        writes.iter().filter(is_route).count()
    };
    assert_eq!(routes(&writes(&mut director)), CLIENTS - 1);
    // A gateway still finds a number.
    hear(&mut director, route("0.0.0.0", 0, Some("10.1.0.254")));
    let (all, _) = said(&writes(&mut director));
    let default = all.iter().find(|(prefix, _)| prefix.length() == 0);
    assert!(
        default.is_some_and(|(_, number)| *number != 0),
        "{default:?}"
    );
    let address = ip(&client(300));
    hear(
        &mut director,
        Input::NeighbourRemoved {
            interface: 2,
            address,
        },
    );
    assert_eq!(routes(&writes(&mut director)), 1);
    (0..2).for_each(|_| director.unused_hops(&Remembered::default()));
    let again = writes(&mut director);
    assert_eq!(routes(&again), 1, "{again:?}");
}

#[test]
fn servers_and_link_local_addresses_have_no_number() {
    let mut director = wide();
    for address in ["224.0.0.1", "fe80::7", "ff02::1"] {
        hear(&mut director, neighbour(address, 7));
    }
    assert_eq!(writes(&mut director), []);
}

#[test]
fn one_address_on_two_links_is_two_gateways() {
    for (address, networks) in [
        ("fe80::1", ["2001:db8:98::", "2001:db8:99::"]),
        // Neither address is in a network of this machine.
        ("100.64.0.1", ["203.0.113.0", "172.16.0.0"]),
    ] {
        let mut director = with_twins(address);
        for (network, interface) in networks.into_iter().zip([2, 3]) {
            let length = if network.contains(':') { 48 } else { 24 };
            let route = entry(network, length, interface, Some(address));
            let replace = false;
            hear(&mut director, Input::RouteAdded { route, replace });
        }
        let said = said(&writes(&mut director));
        assert_eq!(way(&said, networks[0]), Some(ways(22, 2)));
        assert_eq!(way(&said, networks[1]), Some(ways(33, 3)));

        let moved = neighbour_on(3, address, 44, State::Reachable);
        hear(&mut director, moved);
        let moved = writes(&mut director);
        let [Write::Hop { ways: to, .. }] = moved.as_slice() else {
            panic!("{moved:?}");
        };
        assert_eq!(*to, ways(44, 3));
    }
}

/// Thousands of networks behind one gateway, and their writes.
fn behind_one_gateway(director: &mut Director, networks: u16) -> Vec<Write> {
    for number in 0..networks {
        let network = format!("20.{}.{}.0", number >> 8, number & 255);
        hear(director, route(&network, 24, Some("10.1.0.254")));
    }
    writes(director)
}

#[test]
fn a_route_costs_one_write_whatever_else_there_is() {
    let mut director = director();
    hear(&mut director, neighbour("10.1.0.253", 8));
    behind_one_gateway(&mut director, 2000);
    for number in 0..100 {
        let network = format!("30.0.{number}.0");
        hear(&mut director, route(&network, 24, Some("10.1.0.254")));
        assert_eq!(writes(&mut director).len(), 1);
    }
}

#[test]
fn restless_routes_are_written_anew_once_a_second() {
    let mut director = director();
    hear(&mut director, neighbour("10.1.0.253", 8));
    let mut all = behind_one_gateway(&mut director, 2000);
    for number in 0..1000 {
        let network = format!("20.{}.{}.0", number >> 8, number & 255);
        hear(&mut director, moved(&network, 24, "10.1.0.253"));
        all.extend(writes(&mut director));
        if number % 250 == 0 {
            // The first network that moved must not use its former gateway's number.
            let way = way(&said(&all), "20.0.0.7");
            assert!(way.is_none_or(|way| way == ways(8, 2)), "{way:?}");
        }
    }
    let written = all.len();
    assert!(written < 5200, "{written}");
    let later = director.deadline().expect("gateways wait for numbers");
    director.network_event(Input::Tick, later);
    all.extend(writes(&mut director));
    let said = said(&all);
    assert_eq!(way(&said, "20.0.0.7"), Some(ways(8, 2)));
    assert_eq!(way(&said, "20.7.0.7"), Some(ways(9, 2)));
    let (routes, _) = said;
    assert!(
        routes
            .iter()
            .filter(|(prefix, _)| prefix.length() == 24)
            .count()
            > 2000
    );
}

#[test]
fn a_narrower_network_takes_the_number_from_the_gateway_around_it() {
    let mut director = director();
    hear(&mut director, route("0.0.0.0", 0, Some("10.1.0.254")));
    let (_, hops) = said(&writes(&mut director));
    let number = hops_of(&hops, 9);
    let blackhole = RouteEntry {
        kind: Kind::Blackhole,
        paths: Vec::new(),
        ..entry("203.0.113.0", 24, 2, None)
    };
    let replace = false;
    hear(
        &mut director,
        Input::RouteAdded {
            route: blackhole.clone(),
            replace,
        },
    );
    let later = writes(&mut director);
    let unusable = Ways::default();
    assert!(later.contains(&Write::Hop {
        number,
        ways: unusable
    }));
    let said = said(&later);
    assert_eq!(way(&said, "203.0.113.7"), None);
    assert_eq!(way(&said, "198.51.100.7"), Some(ways(9, 2)));
    hear(&mut director, Input::RouteRemoved(blackhole));
    let prefix = Prefix::new(ip("203.0.113.0"), 24);
    let gone = Write::Route {
        prefix,
        number: None,
    };
    assert_eq!(writes(&mut director), [gone]);
}

#[test]
fn more_networks_than_there_is_room_for_are_the_kernels_until_there_are_fewer() {
    let mut director = director();
    hear(&mut director, neighbour("10.1.7.7", 7));
    hear(&mut director, route("10.1.0.0", 16, None));
    let mut all = behind_one_gateway(&mut director, MOST as u16 - 2);
    assert_eq!(way(&said(&all), "20.0.1.1"), Some(ways(9, 2)));
    hear(&mut director, route("30.0.0.0", 8, Some("10.1.0.254")));
    all.extend(writes(&mut director));
    let known = said(&all);
    assert_eq!(known.0.len(), 1, "only the client on the link is left");
    assert_eq!(way(&known, "20.0.1.1"), None);
    assert_eq!(way(&known, "10.1.7.7"), Some(ways(7, 2)));
    for number in 0..600 {
        let network = format!("20.{}.{}.0", number >> 8, number & 255);
        let gone = entry(&network, 24, 2, Some("10.1.0.254"));
        hear(&mut director, Input::RouteRemoved(gone));
    }
    let later = director.seen + REST;
    director.network_event(Input::Tick, later);
    all.extend(writes(&mut director));
    assert_eq!(way(&said(&all), "20.9.1.1"), Some(ways(9, 2)));
    assert_eq!(way(&said(&all), "10.1.7.7"), Some(ways(7, 2)));
}

#[test]
fn where_rules_may_decide_nothing_is_prepared_for_the_family() {
    let mut director = wide();
    hear(&mut director, neighbour("10.1.7.7", 7));
    hear(&mut director, neighbour("fe80::9", 6));
    hear(&mut director, route("0.0.0.0", 0, Some("10.1.0.254")));
    hear(&mut director, route("::", 0, Some("fe80::9")));
    let mut all = writes(&mut director);
    let any = Prefix::new(ip("0.0.0.0"), 0);
    let rule = |priority, source, table| Rule {
        v4: true,
        priority,
        inverted: false,
        source,
        target: any,
        input: None,
        output: None,
        mark: 0,
        mask: 0,
        narrow: false,
        action: Action::Table(table),
        suppressed: None,
    };
    for (priority, table) in [(0, 255), (32766, 254), (32767, 253)] {
        hear(&mut director, Input::RuleAdded(rule(priority, any, table)));
    }
    assert_eq!(writes(&mut director), []);
    let by_source = rule(100, Prefix::host(ip("192.0.2.2")), 102);
    hear(&mut director, Input::RuleAdded(by_source.clone()));
    all.extend(writes(&mut director));
    let known = said(&all);
    assert_eq!(
        (way(&known, "10.1.7.7"), way(&known, "9.9.9.9")),
        (None, None)
    );
    assert_eq!(known.1.len(), 1, "IPv6 has its gateway still");
    assert_eq!(way(&known, "2001:db8:9::1"), Some(ways(6, 2)));
    hear(&mut director, neighbour("10.1.7.8", 8));
    assert_eq!(writes(&mut director), []);

    hear(&mut director, Input::RuleRemoved(by_source));
    let later = director.seen + REST;
    director.network_event(Input::Tick, later);
    all.extend(writes(&mut director));
    let known = said(&all);
    assert_eq!(way(&known, "10.1.7.7"), Some(ways(7, 2)));
    assert_eq!(way(&known, "9.9.9.9"), Some(ways(9, 2)));
}

/// The neighbours that are probed while connections hold these numbers.
fn probes(director: &mut Director, numbers: &[u32]) -> Vec<IpAddr> {
    let mut remembered = Remembered::default();
    for number in numbers {
        remembered[*number as usize / 64] |= 1 << (number % 64);
    }
    director.unused_hops(&remembered);
    let outputs = std::iter::from_fn(|| director.poll());
    let probes = outputs.filter_map(|output| match output {
        Output::Probe { neighbour, .. } => Some(neighbour),
        _ => None,
    });
    probes.collect()
}

#[test]
fn clients_with_connections_are_kept_alive_and_found_again_with_another_mac() {
    let mut director = wide();
    hear(&mut director, neighbour_on(2, "10.1.7.7", 7, State::Stale));
    let known = writes(&mut director);
    let Some(Write::Hop { number, .. }) = known.first().cloned() else {
        panic!("{known:?}");
    };
    let client = ip("10.1.7.7");
    assert_eq!(probes(&mut director, &[]), [] as [IpAddr; 0]);
    assert_eq!(probes(&mut director, &[number]), [client]);
    // The kernel forgot the neighbour: it is still probed, and its number keeps its next hop.
    hear(
        &mut director,
        Input::NeighbourRemoved {
            interface: 2,
            address: client,
        },
    );
    assert!(probes(&mut director, &[number]).contains(&client));
    hear(&mut director, neighbour("10.1.7.7", 8));
    let found = Write::Hop {
        number,
        ways: ways(8, 2),
    };
    assert!(writes(&mut director).contains(&found));
    assert_eq!(probes(&mut director, &[]), [] as [IpAddr; 0]);
    assert_eq!(director.network.deadline(), None);
}

#[test]
fn clients_without_a_number_are_kept_alive_while_connections_ask_the_kernel() {
    let mut director = wide();
    for last in 256..256 + CLIENTS as u16 {
        hear(&mut director, neighbour(&client(last), 7));
    }
    hear(
        &mut director,
        neighbour_on(2, "10.1.200.7", 7, State::Stale),
    );
    writes(&mut director);
    assert_eq!(probes(&mut director, &[]), [] as [IpAddr; 0]);
    assert!(probes(&mut director, &[0]).contains(&ip("10.1.200.7")));
}

#[test]
fn gateways_of_every_table_are_kept_alive() {
    let mut director = director();
    let other = RouteEntry {
        table: 102,
        ..entry("0.0.0.0", 0, 2, Some("10.1.0.253"))
    };
    let replace = false;
    hear(
        &mut director,
        Input::RouteAdded {
            route: other,
            replace,
        },
    );
    let outputs: Vec<Output> = std::iter::from_fn(|| director.poll()).collect();
    let probe = Output::Probe {
        interface: 2,
        neighbour: ip("10.1.0.253"),
    };
    assert!(outputs.contains(&probe), "{outputs:?}");
}

#[test]
fn a_client_that_left_goes_where_a_later_route_leads() {
    let mut director = wide();
    hear(&mut director, neighbour("10.1.7.7", 7));
    hear(&mut director, neighbour("10.1.0.253", 8));
    let known = said(&writes(&mut director));
    let number = hops_of(&known.1, 7);
    hear(
        &mut director,
        Input::NeighbourRemoved {
            interface: 2,
            address: ip("10.1.7.7"),
        },
    );
    writes(&mut director);
    hear(&mut director, route("10.1.7.0", 24, Some("10.1.0.253")));
    let later = writes(&mut director);
    assert!(
        later.contains(&Write::Hop {
            number,
            ways: ways(8, 2)
        }),
        "{later:?}"
    );
}

#[test]
fn a_later_daemon_takes_up_the_numbers_of_the_same_gateways() {
    let mut first = director();
    hear(&mut first, route("0.0.0.0", 0, Some("10.1.0.254")));
    writes(&mut first);
    for (gateway, holds) in [("10.1.0.254", true), ("10.1.0.253", false)] {
        let mut second = director();
        second.hops.restore(first.hops.numbered(), BTreeMap::new());
        assert_eq!(second.hops.numbered(), first.hops.numbered());
        hear(&mut second, neighbour("10.1.0.253", 9));
        hear(&mut second, route("0.0.0.0", 0, Some(gateway)));
        let mut all = writes(&mut second);
        assert_eq!(way(&said(&all), "9.9.9.9").is_some(), holds);
        // Numbers that no connection holds are freed.
        (0..2).for_each(|_| second.unused_hops(&Remembered::default()));
        let later = second.seen + REST;
        second.network_event(Input::Tick, later);
        all.extend(writes(&mut second));
        assert_eq!(way(&said(&all), "9.9.9.9"), Some(ways(9, 2)));
    }
}
