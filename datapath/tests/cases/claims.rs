//! Two connections from one client port to one port of a server: by two virtual addresses, by two
//! ports, or by both kinds of masquerading. The answers belong to the first one.

use std::net::IpAddr;

use shunt_datapath::entry::{method, scheduler};
use shunt_datapath::host::{HostTables, NewServer};
use shunt_datapath::verdict::{Drop, Verdict};

use super::farm::*;
use super::packet::*;
use super::{Case, case};

const SENT: Verdict = Verdict::Send(TO_SERVER);
const BACK: Verdict = Verdict::Send(TO_CLIENT);
const TAKEN: Verdict = Verdict::Drop(Drop::NoLocalPort);

pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for v6 in FAMILIES {
        for protocol in [TCP, UDP, SCTP] {
            for other in [other_address(v6), other_port(v6), by_every_port(v6)] {
                if protocol == SCTP && other == by_every_port(v6) {
                    continue;
                }
                cases.push(first_keeps_its_answers(v6, protocol, other, false));
                cases.push(first_keeps_its_answers(v6, protocol, other, true));
                if protocol != SCTP {
                    cases.push(gives_way_when_its_time_is_over(v6, protocol, other));
                }
            }
        }
        for other in [other_address(v6), other_port(v6)] {
            cases.push(a_closed_one_gives_way(v6, other));
        }
        cases.push(another_server_takes_it(v6));
    }
    cases
}

fn other_address(v6: bool) -> End {
    let text = if v6 { "2001:db8::11" } else { "192.0.2.11" };
    (text.parse::<IpAddr>().unwrap(), 80)
}

fn other_port(v6: bool) -> End {
    (virtual_end(v6).0, 81)
}

/// A port of an address whose service has every port.
fn by_every_port(v6: bool) -> End {
    let text = if v6 { "2001:db8::12" } else { "192.0.2.12" };
    (text.parse::<IpAddr>().unwrap(), 8443)
}

/// Two services with one masqueraded server, at [`virtual_end`] and at `other`.
fn two(v6: bool, protocol: u8, other: End) -> HostTables {
    let mut tables = one(v6, protocol, &server(method::MASQUERADE, v6));
    let every = other == by_every_port(v6);
    let port = if every { 0 } else { other.1 };
    let service = tables.add_service(other.0, port, protocol, 0);
    let method = if every {
        method::TRANSLATE
    } else {
        method::MASQUERADE
    };
    let second = NewServer {
        port: 8080,
        ..server(method, v6)
    };
    let id = tables.add_server(service, &second);
    tables.set_pool(service, scheduler::RING, &[(id, 1)]);
    tables
}

fn name(v6: bool, protocol: u8, other: End) -> String {
    let (family, protocol) = (family_name(v6), protocol_name(protocol));
    format!("{family} {protocol} beside port {} of {}", other.1, other.0)
}

fn opens(all: Case, v6: bool, protocol: u8, to: End) -> Case {
    let packet = opening(protocol, client(v6), to);
    let out = packet.clone().to(server_end(v6)).macs(7, 3).ttl(63);
    all.turns(&packet, SENT, &out)
}

fn answered(all: Case, v6: bool, protocol: u8, from: End) -> Case {
    let packet = match protocol {
        TCP => tcp(server_end(v6), client(v6), SYN | ACK),
        SCTP => sctp(server_end(v6), client(v6), chunk::INIT_ACK).payload(&[7; 16]),
        _ => udp(server_end(v6), client(v6)).payload(b"an answer"),
    };
    let out = packet.clone().from(from).macs(8, 4).ttl(63);
    all.turns(&packet, BACK, &out)
}

fn first_keeps_its_answers(v6: bool, protocol: u8, other: End, turned: bool) -> Case {
    let (first, second) = if turned {
        (other, virtual_end(v6))
    } else {
        (virtual_end(v6), other)
    };
    let name = name(v6, protocol, other);
    let sentence = format!("{name}: the second connection of a port is refused (turned: {turned})");
    let mut all = case(sentence, two(v6, protocol, other));
    all = opens(all, v6, protocol, first);
    all = all.leaves(&opening(protocol, client(v6), second), TAKEN);
    all = answered(all, v6, protocol, first);
    all = all.leaves(&opening(protocol, client(v6), second), TAKEN);
    all = opens(all, v6, protocol, first);
    answered(all, v6, protocol, first)
}

fn gives_way_when_its_time_is_over(v6: bool, protocol: u8, other: End) -> Case {
    let name = name(v6, protocol, other);
    let sentence =
        format!("{name}: a connection whose time is over leaves its answers to the next");
    let mut all = case(sentence, two(v6, protocol, other));
    all = opens(all, v6, protocol, other).waits(1000);
    if other == by_every_port(v6) {
        // Masquerading without a translation wins; the sweep removes the translation.
        all = opens(all, v6, protocol, virtual_end(v6));
        return answered(all, v6, protocol, virtual_end(v6));
    }
    all = opens(all, v6, protocol, virtual_end(v6));
    all = answered(all, v6, protocol, virtual_end(v6));
    all.leaves(&opening(protocol, client(v6), other), TAKEN)
}

fn a_closed_one_gives_way(v6: bool, other: End) -> Case {
    let name = name(v6, TCP, other);
    let mut all = case(
        format!("{name}: a closed connection leaves its answers to the next, and says no more"),
        two(v6, TCP, other),
    );
    all = opens(all, v6, TCP, virtual_end(v6));
    let reset = tcp(client(v6), virtual_end(v6), RST | ACK);
    // A client's reset does not close a half-open connection, but does close an answered one.
    all = answered(all, v6, TCP, virtual_end(v6));
    let ack = tcp(client(v6), virtual_end(v6), ACK);
    for packet in [&ack, &reset] {
        let out = packet.clone().to(server_end(v6)).macs(7, 3).ttl(63);
        all = all.turns(packet, SENT, &out);
    }
    all = opens(all, v6, TCP, other);
    all = answered(all, v6, TCP, other);
    all.leaves(
        &ack,
        Verdict::Pass(shunt_datapath::verdict::Pass::NotOpening),
    )
    .holds("one connection is left", move |tables| {
        live(tables, 1) == (0, 0) && live(tables, 2) == (1, 0)
    })
}

/// A retransmitted SYN is scheduled again.
fn another_server_takes_it(v6: bool) -> Case {
    let other = other_address(v6);
    let mut tables = two(v6, TCP, other);
    let text = if v6 { "2001:db8:1::8" } else { "10.1.0.8" };
    let third = NewServer {
        address: text.parse().unwrap(),
        ..server(method::MASQUERADE, v6)
    };
    let end = (third.address, third.port);
    let id = tables.add_server(2, &third);
    tables.set_pool(2, scheduler::RING, &[(2, 1), (id, 1)]);
    let mut all = case(
        format!(
            "{}: another server takes the second connection",
            name(v6, TCP, other)
        ),
        tables,
    );
    all = opens(all, v6, TCP, virtual_end(v6));
    let syn = opening(TCP, client(v6), other);
    all = all.leaves(&syn, TAKEN);
    let out = syn.clone().to(end).macs(7, 3).ttl(63);
    all.turns(&syn, SENT, &out)
}
