//! Rules that match the origin of packets: the narrowest wins.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use shunt_datapath::entry::{Ways, kind, method, scheduler, wide};
use shunt_datapath::host::{HostTables, NewServer, Sizes, mac};
use shunt_datapath::verdict::{Pass, Verdict};

use super::farm::*;
use super::packet::*;
use super::{Case, case};

/// The input device of the cases' frames, and another device.
const HERE: u32 = 1;
const ELSEWHERE: u32 = 9;

pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for v6 in FAMILIES {
        for protocol in [TCP, UDP] {
            cases.push(by_network(v6, protocol));
            cases.push(by_device(v6, protocol));
            cases.push(every_port(v6, protocol));
            cases.push(masqueraded(v6, protocol));
        }
        cases.push(nobody_else(v6));
        cases.push(fragments(v6));
        cases.push(errors(v6));
    }
    cases
}

/// Services 1 to 4 with one server each, which differ in their MAC addresses. No endpoint leads to
/// them yet.
fn farm(v6: bool, protocol: u8) -> HostTables {
    let mut tables = HostTables::new(Sizes::default());
    let (address, _) = virtual_end(v6);
    for number in 1..=4u16 {
        // No packet asks for this port.
        tables.add_service(address, 60_000 + number, protocol, 0);
        let ways = Ways::new(mac(0x100 + number), mac(3), TO_SERVER, 1500);
        let server = NewServer {
            ways,
            ..server(method::ROUTE, v6)
        };
        let id = tables.add_server(number.into(), &server);
        tables.set_pool(number.into(), scheduler::RING, &[(id, 1)]);
    }
    tables
}

/// Address `host` of network number `network`.
fn at(v6: bool, network: u8, host: u8) -> IpAddr {
    match v6 {
        false => Ipv4Addr::new(198, 51, network, host).into(),
        true => Ipv6Addr::new(0x2001, 0xdb8, 0xc, network.into(), 0, 0, 0, host.into()).into(),
    }
}

/// The prefix length of a network, and of all networks together.
fn lengths(v6: bool) -> (u8, u8) {
    if v6 { (64, 48) } else { (24, 16) }
}

fn goes(all: Case, packet: &Packet, number: u16) -> Case {
    let out = packet.clone().macs(0x100 + number, 3).ttl(63);
    all.turns(packet, Verdict::Send(TO_SERVER), &out)
}

fn by_network(v6: bool, protocol: u8) -> Case {
    let mut tables = farm(v6, protocol);
    let (target, (one, all)) = (virtual_end(v6), lengths(v6));
    tables.add_origin(target, protocol, Some((at(v6, 0, 0), all)), 0, 1);
    tables.add_origin(target, protocol, Some((at(v6, 7, 0), one)), 0, 2);
    tables.add_origin(target, protocol, None, 0, 3);
    let (name, family) = (protocol_name(protocol), family_name(v6));
    let sentence = format!("{name} {family}: the longest prefix of the client counts");
    let outside = if v6 { "2001:db8:d::1" } else { "203.0.113.200" };
    let clients = [
        (at(v6, 7, 1), 2),
        (at(v6, 8, 1), 1),
        (outside.parse().unwrap(), 3),
        (at(v6, 7, 2), 2),
    ];
    let mut story = case(sentence, tables);
    for (client, number) in clients {
        let packet = opening(protocol, (client, 4000), target);
        story = goes(story, &packet, number);
        story = goes(story, &packet, number);
    }
    story
}

fn by_device(v6: bool, protocol: u8) -> Case {
    let mut tables = farm(v6, protocol);
    let (target, (one, all)) = (virtual_end(v6), lengths(v6));
    tables.add_origin(target, protocol, Some((at(v6, 0, 0), all)), HERE, 1);
    tables.add_origin(target, protocol, Some((at(v6, 7, 0), one)), ELSEWHERE, 2);
    tables.add_origin(target, protocol, Some((at(v6, 7, 0), one)), 0, 3);
    tables.add_origin(target, protocol, None, 0, 4);
    let (name, family) = (protocol_name(protocol), family_name(v6));
    let sentence = format!("{name} {family}: a rule for the device comes before one for any");
    let outside: IpAddr = match v6 {
        true => "2001:db8:d::1".parse().unwrap(),
        false => "203.0.113.200".parse().unwrap(),
    };
    let inside = opening(protocol, (at(v6, 7, 1), 4000), target);
    let story = goes(case(sentence, tables), &inside, 1);
    goes(story, &opening(protocol, (outside, 4000), target), 4)
}

fn every_port(v6: bool, protocol: u8) -> Case {
    let mut tables = farm(v6, protocol);
    let ((address, port), (one, _)) = (virtual_end(v6), lengths(v6));
    let network = Some((at(v6, 7, 0), one));
    tables.wide_services[5] = 2;
    tables.add_origin((address, 0), protocol, network, 0, wide(5));
    tables.add_origin((address, port), protocol, network, 0, 1);
    tables.add_endpoint(address, 443, protocol, kind::SERVICE, 3);
    let (name, family) = (protocol_name(protocol), family_name(v6));
    let sentence = format!("{name} {family}: the port comes before every port");
    let client = (at(v6, 7, 1), 4000);
    let other = opening(protocol, (at(v6, 8, 1), 4000), (address, 5000));
    let mut story = case(sentence, tables);
    for (port, number) in [(port, 1), (5000, 2), (5001, 2), (443, 3), (5000, 2)] {
        story = goes(story, &opening(protocol, client, (address, port)), number);
    }
    story
        .leaves(&other, Verdict::Pass(Pass::NotOurs))
        .holds("a flow for each port", |tables| {
            let (active, inactive) = live(tables, 2);
            active + inactive == 2
        })
}

/// The flow is entered for the service of the client's rule, so that its answers find it.
fn masqueraded(v6: bool, protocol: u8) -> Case {
    let mut tables = HostTables::new(Sizes::default());
    tables.add_route(IpAddr::from([0, 0, 0, 0]), 0, 5, to_client());
    tables.add_route(IpAddr::from([0u16; 8]), 0, 6, to_client());
    let (target, (one, all)) = (virtual_end(v6), lengths(v6));
    for number in 1..=2u16 {
        tables.add_service(target.0, 60_000 + number, protocol, 0);
        let ways = Ways::new(mac(0x100 + number), mac(3), TO_SERVER, 1500);
        let to = server(method::TRANSLATE, v6);
        let id = tables.add_server(number.into(), &NewServer { ways, ..to });
        tables.set_pool(number.into(), scheduler::RING, &[(id, 1)]);
    }
    tables.add_origin(target, protocol, Some((at(v6, 0, 0), all)), 0, 1);
    tables.add_origin(target, protocol, Some((at(v6, 7, 0), one)), 0, 2);
    let (name, family) = (protocol_name(protocol), family_name(v6));
    let sentence = format!("{name} {family}: a masqueraded server behind a rule with an origin");
    let mut story = case(sentence, tables);
    let server = (server_end(v6).0, 80);
    for (network, number) in [(7, 2), (8, 1), (7, 2)] {
        let client = (at(v6, network, 1), 4000);
        let packet = opening(protocol, client, target);
        let out = packet.clone().to(server).macs(0x100 + number, 3).ttl(63);
        story = story.turns(&packet, Verdict::Send(TO_SERVER), &out);
        let answer = match protocol {
            TCP => tcp(server, client, SYN | ACK),
            _ => udp(server, client),
        };
        let back = answer.clone().from(target).macs(8, 4).ttl(63);
        story = story.turns(&answer, Verdict::Send(TO_CLIENT), &back);
    }
    story.holds("a connection of each", |tables| {
        let count = |server| {
            let (active, inactive) = live(tables, server);
            active + inactive
        };
        (count(1), count(2)) == (1, 1)
    })
}

fn nobody_else(v6: bool) -> Case {
    let mut tables = farm(v6, TCP);
    let (target, (one, _)) = (virtual_end(v6), lengths(v6));
    tables.add_origin(target, TCP, Some((at(v6, 7, 0), one)), 0, 1);
    let sentence = format!("{}: who is not asked for is not ours", family_name(v6));
    let other = opening(TCP, (at(v6, 8, 1), 4000), target);
    let packet = opening(TCP, (at(v6, 7, 1), 4000), target);
    let udp = opening(UDP, (at(v6, 7, 1), 4000), target);
    goes(case(sentence, tables), &packet, 1)
        .leaves(&other, Verdict::Pass(Pass::NotOurs))
        .leaves(&udp, Verdict::Pass(Pass::NotOurs))
}

fn fragments(v6: bool) -> Case {
    let mut tables = farm(v6, UDP);
    let (target, (one, _)) = (virtual_end(v6), lengths(v6));
    tables.add_origin(target, UDP, Some((at(v6, 7, 0), one)), 0, 2);
    let client = at(v6, 7, 1);
    let first = opening(UDP, (client, 4000), target).payload(&[1; 120]);
    let later = bare(client, target.0, UDP).payload(&[2; 64]);
    let sentence = format!("{}: fragments come from somewhere too", family_name(v6));
    let story = goes(case(sentence, tables), &first.fragment(9, 0, true), 2);
    goes(story, &later.fragment(9, 128, false), 2)
}

fn errors(v6: bool) -> Case {
    let mut tables = farm(v6, TCP);
    let (target, (one, _)) = (virtual_end(v6), lengths(v6));
    tables.add_origin(target, TCP, Some((at(v6, 7, 0), one)), 0, 1);
    let client = (at(v6, 7, 1), 4000);
    let sentence = format!("{}: a client's errors find its flow", family_name(v6));
    let answer = tcp(target, client, SYN | ACK);
    let (kind, code) = if v6 { (1, 4) } else { (3, 3) };
    let error = icmp(client.0, target.0, kind, code, 0).payload(&answer.network());
    goes(
        goes(case(sentence, tables), &opening(TCP, client, target), 1),
        &error,
        1,
    )
}
