//! Services of every port of an address: one service, and a flow for each port.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use shunt_datapath::entry::{LEFT, Ways, kind, method, scheduler, wide};
use shunt_datapath::host::{HostTables, NewServer, Sizes, mac};
use shunt_datapath::verdict::{Pass, Verdict};

use super::farm::*;
use super::packet::*;
use super::{Case, case};

pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for v6 in FAMILIES {
        for protocol in [TCP, UDP] {
            cases.push(routed(v6, protocol));
            cases.push(masqueraded(v6, protocol));
            cases.push(left(v6, protocol, method::ROUTE));
            cases.push(left(v6, protocol, method::MASQUERADE));
        }
        cases.push(a_service_of_the_port_comes_first(v6));
        cases.push(local_to_a_server(v6));
        cases.push(persistent(v6));
        cases.push(error_to_the_server(v6));
        cases.push(error_to_the_client(v6));
    }
    cases
}

fn farm(v6: bool, protocol: u8, method: u8) -> HostTables {
    let mut tables = HostTables::new(Sizes::default());
    let address = virtual_end(v6).0;
    tables.add_service(address, 0, protocol, 0);
    tables.add_route(IpAddr::from([0, 0, 0, 0]), 0, 5, to_client());
    tables.add_route(IpAddr::from([0u16; 8]), 0, 6, to_client());
    for number in 1..=2 {
        let ways = Ways::new(mac(0x100 + number), mac(3), TO_SERVER, 1500);
        let one = server(method, v6);
        let (address, _) = server_end(v6);
        let address = own(address, number);
        tables.add_server(
            1,
            &NewServer {
                ways,
                address,
                port: 0,
                ..one
            },
        );
    }
    tables.set_pool(1, scheduler::RING, &[(1, 1), (2, 1)]);
    tables
}

/// Each masqueraded server has an address of its own.
fn own(first: IpAddr, number: u16) -> IpAddr {
    let more = number - 1;
    match first {
        IpAddr::V4(a) => Ipv4Addr::from(u32::from(a) + u32::from(more)).into(),
        IpAddr::V6(a) => Ipv6Addr::from(u128::from(a) + u128::from(more)).into(),
    }
}

/// The endpoint of a mark whose rule was deleted: it stands for every port and is found by its
/// port.
fn left(v6: bool, protocol: u8, method: u8) -> Case {
    fn leave(tables: &mut HostTables) {
        for v6 in FAMILIES {
            for protocol in [TCP, UDP] {
                let (address, id) = (virtual_end(v6).0, wide(1) | 21 | LEFT);
                tables.add_endpoint(address, 21, protocol, kind::SERVICE, id);
            }
        }
    }
    let (name, family) = (protocol_name(protocol), family_name(v6));
    let asked = (virtual_end(v6).0, 21);
    let known = opening(protocol, client(v6), asked);
    let stranger = opening(protocol, (client(v6).0, 4321), asked);
    let nat = method == method::MASQUERADE;
    let sent = |packet: &Packet| {
        let out = packet.clone().macs(0x101, 3).ttl(63);
        if nat {
            out.to((server_end(v6).0, 21))
        } else {
            out
        }
    };
    let kind = if nat { "NAT" } else { "route" };
    case(
        format!("{name} {family}, {kind}: where no rule leads any more, what is known goes on"),
        farm(v6, protocol, method),
    )
    .turns(&known, Verdict::Send(TO_SERVER), &sent(&known))
    .changes(leave)
    .turns(&known, Verdict::Send(TO_SERVER), &sent(&known))
    .leaves(&stranger, Verdict::Pass(Pass::NotOurs))
    .turns(&known, Verdict::Send(TO_SERVER), &sent(&known))
    .holds("one connection", |tables| {
        tables.traffic.of(1).connections == 1
    })
}

/// lblc remembers servers by the service's id, which differs from its endpoint's.
fn local_to_a_server(v6: bool) -> Case {
    let mut tables = farm(v6, UDP, method::ROUTE);
    tables.set_pool(1, scheduler::LBLC, &[(1, 1), (2, 1)]);
    let mut all = case(
        format!("{}: lblc keeps an address with its server", family_name(v6)),
        tables,
    );
    for port in [21, 5000, 80] {
        let packet = opening(UDP, client(v6), (virtual_end(v6).0, port));
        let out = packet.clone().macs(0x101, 3).ttl(63);
        all = all.turns(&packet, Verdict::Send(TO_SERVER), &out);
    }
    all
}

/// One client port to two ports makes two flows.
fn routed(v6: bool, protocol: u8) -> Case {
    let (name, family) = (protocol_name(protocol), family_name(v6));
    let mut all = case(
        format!("{name} {family}: each port of a service is a flow"),
        farm(v6, protocol, method::ROUTE),
    );
    for (port, number) in [(21, 1), (5000, 2), (21, 1), (65_535, 1), (5000, 2), (0, 2)] {
        let packet = opening(protocol, client(v6), (virtual_end(v6).0, port));
        let out = packet.clone().macs(0x100 + number, 3).ttl(63);
        all = all.turns(&packet, Verdict::Send(TO_SERVER), &out);
    }
    all.holds("two flows each", |tables| {
        let count = |server| {
            let (active, inactive) = live(tables, server);
            active + inactive
        };
        (count(1), count(2)) == (2, 2)
    })
}

/// The server gets the port that the client asked for, and answers from it.
fn masqueraded(v6: bool, protocol: u8) -> Case {
    let (name, family) = (protocol_name(protocol), family_name(v6));
    let mut all = case(
        format!("{name} {family}: NAT keeps the port of a service of every port"),
        farm(v6, protocol, method::MASQUERADE),
    );
    let (address, _) = server_end(v6);
    for port in [21, 60_000] {
        let asked = (virtual_end(v6).0, port);
        for server in [1u16, 2] {
            let from = (client(v6).0, 40_000 + server);
            let own = own(address, server);
            let packet = opening(protocol, from, asked);
            let out = packet
                .clone()
                .to((own, port))
                .macs(0x100 + server, 3)
                .ttl(63);
            all = all.turns(&packet, Verdict::Send(TO_SERVER), &out);
            let answer = match protocol {
                TCP => tcp((own, port), from, SYN | ACK),
                _ => udp((own, port), from),
            };
            let out = answer.clone().from(asked).macs(8, 4).ttl(63);
            all = all.turns(&answer, Verdict::Send(TO_CLIENT), &out);
            // A packet from another port is the server's own traffic.
            let stranger = opening(protocol, (own, port + 1), from);
            all = all.leaves(&stranger, Verdict::Pass(Pass::NotOurs));
        }
    }
    all
}

fn a_service_of_the_port_comes_first(v6: bool) -> Case {
    let mut tables = farm(v6, TCP, method::ROUTE);
    tables.add_service(virtual_end(v6).0, 80, TCP, 0);
    let ways = Ways::new(mac(0x103), mac(3), TO_SERVER, 1500);
    let server = NewServer {
        ways,
        ..server(method::ROUTE, v6)
    };
    tables.add_server(2, &server);
    tables.set_pool(2, scheduler::RING, &[(3, 1)]);
    let mut all = case(
        format!(
            "{}: a service of just the port comes first",
            family_name(v6)
        ),
        tables,
    );
    for (port, number) in [(80, 3), (81, 1)] {
        let packet = tcp(client(v6), (virtual_end(v6).0, port), SYN);
        let out = packet.clone().macs(0x100 + number, 3).ttl(63);
        all = all.turns(&packet, Verdict::Send(TO_SERVER), &out);
    }
    all
}

/// One template holds for all ports.
fn persistent(v6: bool) -> Case {
    let mut tables = farm(v6, TCP, method::ROUTE);
    tables.services[1].template = 40;
    tables.services[1].persistence = 300;
    tables.services[1].granularity = [u64::MAX, u64::MAX];
    let mut all = case(
        format!("{}: a client has one server on every port", family_name(v6)),
        tables,
    );
    for port in [80, 443, 21] {
        let packet = tcp(client(v6), (virtual_end(v6).0, port), SYN);
        let out = packet.clone().macs(0x101, 3).ttl(63);
        all = all.turns(&packet, Verdict::Send(TO_SERVER), &out);
    }
    all
}

/// The type, code and rest of "host unreachable".
fn unreachable(v6: bool) -> (u8, u8) {
    if v6 { (1, 3) } else { (3, 1) }
}

fn error_to_the_server(v6: bool) -> Case {
    let asked = (virtual_end(v6).0, 2000);
    let open = tcp(client(v6), asked, SYN);
    let inside = open.clone().to((server_end(v6).0, 2000));
    let sent = inside.clone().macs(0x101, 3).ttl(63);
    let (kind, code) = unreachable(v6);
    // A router on the client's side sends an error about the service's answer.
    let answer = tcp(asked, client(v6), SYN | ACK);
    let error = icmp(client(v6).0, asked.0, kind, code, 0).payload(&answer.network());
    let quoted = tcp((server_end(v6).0, 2000), client(v6), SYN | ACK);
    let out = icmp(client(v6).0, server_end(v6).0, kind, code, 0)
        .payload(&like(&answer, &quoted))
        .macs(0x101, 3)
        .ttl(63);
    case(
        format!("{}: an error about an answer on any port", family_name(v6)),
        farm(v6, TCP, method::MASQUERADE),
    )
    .turns(&open, Verdict::Send(TO_SERVER), &sent)
    .turns(&error, Verdict::Send(TO_SERVER), &out)
}

fn error_to_the_client(v6: bool) -> Case {
    let asked = (virtual_end(v6).0, 2000);
    let own = (server_end(v6).0, 2000);
    let open = tcp(client(v6), asked, SYN);
    let sent = open.clone().to(own).macs(0x101, 3).ttl(63);
    let (kind, code) = unreachable(v6);
    let inside = open.clone().to(own);
    let error = icmp(own.0, client(v6).0, kind, code, 0).payload(&inside.network());
    let out = icmp(asked.0, client(v6).0, kind, code, 0)
        .payload(&like(&inside, &open))
        .macs(8, 4)
        .ttl(63);
    case(
        format!("{}: a server's error about any port", family_name(v6)),
        farm(v6, TCP, method::MASQUERADE),
    )
    .turns(&open, Verdict::Send(TO_SERVER), &sent)
    .turns(&error, Verdict::Send(TO_CLIENT), &out)
}

/// The network packet of `wanted` with the transport checksum of `before`, as in a quote.
fn like(before: &Packet, wanted: &Packet) -> Vec<u8> {
    let (from, mut bytes) = (before.network(), wanted.network());
    let at = bytes.len() - 20 + 16;
    bytes[at..at + 2].copy_from_slice(&from[at..at + 2]);
    bytes
}
