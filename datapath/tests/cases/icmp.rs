//! ICMP errors about known flows, both ways, and ICMP that passes.

use std::net::IpAddr;

use shunt_datapath::entry::{method, scheduler, service_flag, service_switch};
use shunt_datapath::host::HostTables;
use shunt_datapath::verdict::{Drop, Note, Pass, Verdict};

use super::connections::noted;
use super::farm::*;
use super::packet::*;
use super::{Case, case};

const SENT: Verdict = Verdict::Send(TO_SERVER);
const PASSES: Verdict = Verdict::Pass(Pass::Icmp);

pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for v6 in FAMILIES {
        cases.push(echo(v6));
        for protocol in [TCP, UDP, SCTP] {
            for (kind, code, rest) in errors(v6) {
                cases.push(to_a_masqueraded_server(v6, protocol, kind, code, rest));
                cases.push(to_the_client(v6, protocol, kind, code, rest));
            }
            for method in [method::ROUTE, method::TUNNEL] {
                cases.push(to_another_server(v6, protocol, method));
            }
        }
        cases.push(about_a_fragment(v6));
        for protocol in [TCP, UDP, SCTP] {
            for method in [method::MASQUERADE, method::ROUTE, method::TUNNEL] {
                cases.push(schedules(v6, protocol, method));
            }
            cases.push(schedules_nowhere(v6, protocol));
        }
        cases.push(schedules_once(v6));
        cases.push(schedules_a_client(v6));
        cases.push(foreign_quotes(v6));
        cases.push(cut_quotes(v6));
        cases.push(life_is_over(v6));
    }
    cases
}

fn errors(v6: bool) -> Vec<(u8, u8, u32)> {
    if v6 {
        vec![(1, 4, 0), (2, 0, 1400), (3, 0, 0), (4, 1, 40)]
    } else {
        vec![
            (3, 1, 0),
            (3, 3, 0),
            (3, 4, 1400),
            (4, 0, 0),
            (11, 0, 0),
            (12, 0, 0),
        ]
    }
}

fn router(v6: bool) -> IpAddr {
    if v6 { "2001:db8:f::1" } else { "203.0.113.1" }
        .parse()
        .unwrap()
}

fn echo(v6: bool) -> Case {
    let kinds: &[u8] = if v6 {
        &[128, 129, 133, 135]
    } else {
        &[0, 8, 13, 5]
    };
    let mut all = case(
        format!("{}: echo and its like pass", family_name(v6)),
        one(v6, TCP, &server(method::MASQUERADE, v6)),
    );
    for kind in kinds {
        let packet = icmp(client(v6).0, virtual_end(v6).0, *kind, 0, 7).payload(&[1; 60]);
        all = all.leaves(&packet, PASSES);
    }
    all
}

/// An open flow through a server of this method.
fn open(sentence: String, v6: bool, protocol: u8, method: u8) -> Case {
    let to = server(method, v6);
    let packet = opening(protocol, client(v6), virtual_end(v6));
    let out = match method {
        method::MASQUERADE => packet.clone().ttl(63).to(server_end(v6)),
        method::TUNNEL => packet.clone().ttl(63).inside(to.outer_source, to.address),
        _ => packet.clone().ttl(63),
    };
    case(sentence, one(v6, protocol, &to)).turns(&packet, SENT, &out.macs(7, 3))
}

/// The server's packet to the client, as the client's side saw it.
fn answer(v6: bool, protocol: u8) -> Packet {
    opening(protocol, virtual_end(v6), client(v6))
        .ttl(40)
        .payload(b"an answer")
}

/// `packet` with another source and the transport checksum of `packet`, which a translated quote
/// keeps.
pub(super) fn quoted_from(packet: &Packet, source: End) -> Vec<u8> {
    keep_sum(packet, &packet.clone().from(source))
}

pub(super) fn quoted_to(packet: &Packet, target: End) -> Vec<u8> {
    keep_sum(packet, &packet.clone().to(target))
}

fn keep_sum(before: &Packet, after: &Packet) -> Vec<u8> {
    let (old, mut new) = (before.network(), after.network());
    let v6 = before.ends().0.is_ipv6();
    let l4 = if v6 { 40 } else { 20 } + if v6 && before.is_fragment() { 8 } else { 0 };
    let sum = match before.protocol() {
        TCP => l4 + 16..l4 + 18,
        SCTP => l4 + 8..l4 + 12,
        _ => l4 + 6..l4 + 8,
    };
    new[sum.clone()].copy_from_slice(&old[sum]);
    new
}

fn to_a_masqueraded_server(v6: bool, protocol: u8, kind: u8, code: u8, rest: u32) -> Case {
    let quote = answer(v6, protocol);
    let error = icmp(router(v6), virtual_end(v6).0, kind, code, rest);
    let there = error
        .clone()
        .to(server_end(v6))
        .payload(&quoted_from(&quote, server_end(v6)));
    let sentence = format!(
        "NAT {} {}: error {kind}.{code} about an answer reaches the server in its own words",
        family_name(v6),
        protocol_name(protocol)
    );
    open(sentence, v6, protocol, method::MASQUERADE)
        .turns(
            &error.payload(&quote.network()),
            SENT,
            &there.macs(7, 3).ttl(63),
        )
        .holds("it is noted", noted(Note::IcmpRelated, 1))
}

/// The first fragment has ports; a later one shows nothing of its flow.
fn about_a_fragment(v6: bool) -> Case {
    let (kind, code, rest) = if v6 { (2, 0, 1400) } else { (3, 4, 1400) };
    let whole = answer(v6, UDP).payload(&[5; 200]);
    let first = whole.clone().fragment(9, 0, true);
    let later = bare(virtual_end(v6).0, client(v6).0, UDP).payload(&[5; 64]);
    let error = |quote: &Packet| {
        let error = icmp(router(v6), virtual_end(v6).0, kind, code, rest);
        error.payload(&quote.network())
    };
    let out = error(&first).to(server_end(v6));
    let out = out.payload(&quoted_from(&first, server_end(v6)));
    open(
        format!("NAT {}: an error about a fragment", family_name(v6)),
        v6,
        UDP,
        method::MASQUERADE,
    )
    .turns(&error(&first), SENT, &out.macs(7, 3).ttl(63))
    .leaves(&error(&later.fragment(9, 208, false)), PASSES)
}

fn to_the_client(v6: bool, protocol: u8, kind: u8, code: u8, rest: u32) -> Case {
    let quote = opening(protocol, client(v6), server_end(v6))
        .ttl(40)
        .payload(b"a question");
    let sentence = format!(
        "NAT {} {}: error {kind}.{code} about a question reaches the client in our words",
        family_name(v6),
        protocol_name(protocol)
    );
    let mut all = open(sentence, v6, protocol, method::MASQUERADE);
    for from in [server_end(v6).0, router(v6)] {
        let error = icmp(from, client(v6).0, kind, code, rest);
        let back = error.clone().from(virtual_end(v6));
        let back = back
            .payload(&quoted_to(&quote, virtual_end(v6)))
            .macs(8, 4)
            .ttl(63);
        all = all.turns(
            &error.payload(&quote.network()),
            Verdict::Send(TO_CLIENT),
            &back,
        );
    }
    all.holds("both are noted", noted(Note::IcmpRelated, 2))
}

/// An error about an answer of the virtual address to which no connection belongs.
fn unasked(v6: bool, protocol: u8) -> Packet {
    let (kind, code, rest) = errors(v6)[0];
    let error = icmp(router(v6), virtual_end(v6).0, kind, code, rest);
    error.payload(&answer(v6, protocol).network())
}

fn scheduling(v6: bool, protocol: u8, method: u8) -> HostTables {
    let mut tables = one(v6, protocol, &server(method, v6));
    tables.services[1].switches = service_switch::SCHEDULE_ICMP;
    tables
}

// ip_vs_in_icmp, schedule_icmp.
fn schedules(v6: bool, protocol: u8, method: u8) -> Case {
    let to = server(method, v6);
    let error = unasked(v6, protocol);
    let quote = answer(v6, protocol);
    let there = match method {
        method::MASQUERADE => {
            let there = error.clone().to(server_end(v6));
            there.payload(&quoted_from(&quote, server_end(v6))).ttl(63)
        }
        method::TUNNEL => error.clone().ttl(63).inside(to.outer_source, to.address),
        _ => error.clone().ttl(63),
    };
    let (family, name) = (family_name(v6), protocol_name(protocol));
    let sentence = format!("{name} {family}: an error opens a connection (method {method})");
    let mut all = case(sentence, scheduling(v6, protocol, method))
        .turns(&error, SENT, &there.clone().macs(7, 3))
        .turns(&error, SENT, &there.macs(7, 3))
        .holds("one connection, which is not active", |tables| {
            live(tables, 1) == (0, 1) && tables.traffic.of(1).connections == 1
        })
        .waits(3)
        .changes(|tables| tables.services[1].switches = 0);
    // The connection has expired, and no other packet is scheduled.
    if protocol != UDP {
        let segment = tcp(client(v6), virtual_end(v6), ACK);
        if protocol == TCP {
            all = all.leaves(&segment, Verdict::Pass(Pass::NotOpening));
        }
    }
    if !v6 {
        let problem = icmp(router(v6), virtual_end(v6).0, 12, 0, 0);
        let other = opening(protocol, virtual_end(v6), (client(v6).0, 7)).payload(b"an answer");
        all = all
            .changes(|tables| tables.services[1].switches = service_switch::SCHEDULE_ICMP)
            .leaves(&problem.payload(&other.network()), PASSES);
    }
    all
}

fn schedules_nowhere(v6: bool, protocol: u8) -> Case {
    let mut tables = scheduling(v6, protocol, method::ROUTE);
    tables.set_pool(1, scheduler::EMPTY, &[]);
    let sentence = format!("{}: an error that no server gets", family_name(v6));
    case(sentence, tables)
        .leaves(&unasked(v6, protocol), Verdict::Drop(Drop::NoServer))
        .changes(|tables| tables.services[1].switches = 0)
        .leaves(&unasked(v6, protocol), PASSES)
        .changes(|tables| {
            tables.services[1].switches = service_switch::SCHEDULE_ICMP;
            tables.services[1].flags &= !service_flag::PRESENT;
        })
        .leaves(&unasked(v6, protocol), PASSES)
        // A mark's rule matches a protocol with ports, which ICMP is not.
        .changes(|tables| {
            tables.services[1].flags |= service_flag::PRESENT;
            tables.services[1].protocol = 0;
        })
        .leaves(&unasked(v6, protocol), PASSES)
}

fn schedules_once(v6: bool) -> Case {
    let mut tables = scheduling(v6, UDP, method::ROUTE);
    tables.services[1].flags |= service_flag::ONE_PACKET;
    let error = unasked(v6, UDP);
    let out = error.clone().macs(7, 3).ttl(63);
    let sentence = format!(
        "{}: of single datagrams no connection is made",
        family_name(v6)
    );
    case(sentence, tables)
        .turns(&error, SENT, &out)
        .turns(&error, SENT, &out)
        .holds("two datagrams", |tables| {
            live(tables, 1) == (0, 0) && tables.traffic.of(1).connections == 2
        })
        .changes(|tables| tables.services[1].flags |= service_flag::CALLS)
        .leaves(&error, Verdict::Drop(Drop::NoCallId))
}

fn schedules_a_client(v6: bool) -> Case {
    let mut tables = scheduling(v6, TCP, method::ROUTE);
    let second = server(method::ROUTE, v6);
    let id = tables.add_server(1, &second);
    tables.set_pool(1, scheduler::RING, &[(1, 1), (id, 1)]);
    tables.services[1].template = 40;
    tables.services[1].persistence = 300;
    tables.services[1].granularity = [u64::MAX; 2];
    let error = unasked(v6, TCP);
    let open = opening(TCP, (client(v6).0, 7), virtual_end(v6));
    let out = |packet: &Packet| packet.clone().macs(7, 3).ttl(63);
    let sentence = format!(
        "{}: an error gives a persistent client its server",
        family_name(v6)
    );
    case(sentence, tables)
        .turns(&error, SENT, &out(&error))
        .turns(&open, SENT, &out(&open))
        .holds("both have the first one", |tables| {
            live(tables, 1) == (1, 1)
        })
}

fn to_another_server(v6: bool, protocol: u8, method: u8) -> Case {
    let to = server(method, v6);
    let (kind, code, rest) = errors(v6)[0];
    let error = icmp(router(v6), virtual_end(v6).0, kind, code, rest);
    let error = error.payload(&answer(v6, protocol).network());
    let out = error.clone().ttl(63);
    let out = if method == method::TUNNEL {
        out.inside(to.outer_source, to.address)
    } else {
        out
    };
    let sentence = format!(
        "{} {}: an error goes to the flow's server (method {method})",
        family_name(v6),
        protocol_name(protocol)
    );
    open(sentence, v6, protocol, method).turns(&error, SENT, &out.macs(7, 3))
}

fn foreign_quotes(v6: bool) -> Case {
    let (kind, code, rest) = errors(v6)[0];
    let about = |quote: &Packet, target: IpAddr| {
        icmp(router(v6), target, kind, code, rest).payload(&quote.network())
    };
    let (vip, server) = (virtual_end(v6), server_end(v6));
    let stranger = (client(v6).0, 9);
    let other = if v6 { CLIENT } else { CLIENT6 };
    let sentence = format!(
        "{}: an error that quotes no flow of ours passes",
        family_name(v6)
    );
    open(sentence, v6, TCP, method::MASQUERADE)
        // Another client, another port, another protocol.
        .leaves(&about(&tcp(vip, stranger, ACK), vip.0), PASSES)
        .leaves(&about(&tcp((vip.0, 81), client(v6), ACK), vip.0), PASSES)
        .leaves(&about(&udp(vip, client(v6)), vip.0), PASSES)
        // The quoted packet was not sent by the addressee.
        .leaves(&about(&tcp(vip, client(v6), ACK), client(v6).0), PASSES)
        .leaves(&about(&tcp(client(v6), server, ACK), router(v6)), PASSES)
        .leaves(&about(&tcp(stranger, server, ACK), client(v6).0), PASSES)
        // The other family, a later fragment, and an unknown transport.
        .leaves(&about(&tcp((other, 80), (other, 9), ACK), vip.0), PASSES)
        .leaves(
            &about(
                &bare(vip.0, client(v6).0, TCP)
                    .fragment(3, 64, false)
                    .payload(&[0; 20]),
                vip.0,
            ),
            PASSES,
        )
        .leaves(
            &about(&bare(vip.0, client(v6).0, 47).payload(&[0; 20]), vip.0),
            PASSES,
        )
        .holds("none is noted", noted(Note::IcmpRelated, 0))
}

fn cut_quotes(v6: bool) -> Case {
    let quote = answer(v6, TCP).network();
    let (kind, code, rest) = errors(v6)[0];
    let error = |length: usize| {
        icmp(router(v6), virtual_end(v6).0, kind, code, rest).payload(&quote[..length])
    };
    let header = if v6 { 40 } else { 20 };
    let translated = quoted_from(&answer(v6, TCP), server_end(v6));
    let sentence = format!(
        "{}: a quote that is cut will do as far as the ports",
        family_name(v6)
    );
    let mut all = open(sentence, v6, TCP, method::MASQUERADE);
    for length in 0..header + 4 {
        all = all.leaves(&error(length), PASSES);
        // Bytes behind the packet are not quoted.
        let mut padded = error(length).bytes();
        padded.extend_from_slice(&quote[length..]);
        all = all.leaves_bytes(padded, PASSES);
    }
    for length in header + 4..quote.len() {
        let there = error(length)
            .to(server_end(v6))
            .payload(&translated[..length]);
        all = all.turns(&error(length), SENT, &there.macs(7, 3).ttl(63));
    }
    all
}

fn life_is_over(v6: bool) -> Case {
    let (kind, code, rest) = errors(v6)[0];
    let error = icmp(router(v6), virtual_end(v6).0, kind, code, rest).ttl(1);
    let error = error.payload(&answer(v6, TCP).network());
    let sentence = format!("{}: no error about an error with TTL 1", family_name(v6));
    open(sentence, v6, TCP, method::ROUTE).leaves(&error, Verdict::Drop(Drop::Expired))
}
