//! Answers of the director, byte for byte: port unreachable, packet too big, time exceeded.

use std::sync::atomic::Ordering;

use shunt_datapath::entry::{Ways, method};
use shunt_datapath::host::{Hook, mac};
use shunt_datapath::verdict::{Bounce, Drop, Verdict};

use super::farm::*;
use super::packet::*;
use super::{Case, case};

pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for v6 in FAMILIES {
        for protocol in [TCP, UDP] {
            cases.push(unreachable(v6, protocol));
            cases.push(life_is_over(v6, protocol));
            cases.push(left_to_a_device(v6, protocol));
        }
        cases.push(long_quotes_are_cut(v6));
        cases.push(limited(v6));
        cases.push(too_big(v6));
        cases.push(too_big_for_a_tunnel(v6, false));
        cases.push(too_big_for_a_tunnel(v6, true));
        cases.push(answers_too_big(v6));
        cases.push(many_in_one(v6));
        cases.push(no_answer_to_nobody(v6));
    }
    cases
}

/// The error about a packet: type and code by family, and the quote cut to the greatest length
/// allowed.
pub(super) fn error(about: &Packet, kinds: [(u8, u8); 2], rest: u32) -> Packet {
    let v6 = about.ends().0.is_ipv6();
    let mut quote = about.network();
    quote.truncate(if v6 { 1280 - 48 } else { 576 - 28 });
    error_with(about, kinds, rest, &quote)
}

fn error_with(about: &Packet, kinds: [(u8, u8); 2], rest: u32, quote: &[u8]) -> Packet {
    let v6 = about.ends().0.is_ipv6();
    let (kind, code) = kinds[usize::from(v6)];
    let (source, target) = about.ends();
    let error = icmp(target, source, kind, code, rest).payload(quote);
    let error = about.copy_link(error).macs(1, 2);
    if v6 { error } else { error.service(0xc0) }
}

pub(super) const UNREACHABLE: [(u8, u8); 2] = [(3, 3), (1, 4)];
const TOO_BIG: [(u8, u8); 2] = [(3, 4), (2, 0)];
const EXCEEDED: [(u8, u8); 2] = [(11, 0), (3, 0)];

fn bounced(what: Bounce) -> Verdict {
    Verdict::Bounce(what)
}

fn unreachable(v6: bool, protocol: u8) -> Case {
    let packet = opening(protocol, client(v6), virtual_end(v6));
    let verdict = bounced(Bounce::Unreachable);
    let mut all = case(
        format!(
            "without a server {} {} is answered: port unreachable",
            family_name(v6),
            protocol_name(protocol)
        ),
        none(v6, protocol),
    );
    for packet in [
        packet.clone(),
        packet.clone().payload(b"odd"),
        packet.clone().payload(b"an end of 2"),
        packet.clone().padding(18),
    ] {
        all = all.turns(&packet, verdict, &error(&packet, UNREACHABLE, 0));
    }
    let tagged = packet.clone().tags(&[0x8100]);
    let out = error(&tagged, UNREACHABLE, 0);
    all.turns(&tagged, verdict, &out)
}

/// The device that the answer leaves by completes the quoted packet's transport checksum as if it
/// were the frame's own. The answer's checksum must be right afterwards.
fn left_to_a_device(v6: bool, protocol: u8) -> Case {
    let sentence = format!(
        "{} {}: the checksum of an error is right once a device has made the quoted one",
        family_name(v6),
        protocol_name(protocol)
    );
    let mut all = case(sentence, none(v6, protocol));
    for length in [0, 3, 500, 1400] {
        let packet = opening(protocol, client(v6), virtual_end(v6)).payload(&vec![0x5a; length]);
        let half = packet.half_made();
        let (network, field) = match (v6, protocol) {
            (true, TCP) => (40, 56),
            (true, _) => (40, 46),
            (false, TCP) => (20, 36),
            (false, _) => (20, 26),
        };
        // The answer on the wire: the quote has the checksum that the device completes.
        let most = if v6 { 1280 - 48 } else { 576 - 28 };
        let mut quote = half[14..].to_vec();
        quote.truncate(most);
        let left = [quote[field], quote[field + 1]];
        let made = finished(&quote[network..]);
        quote[field..field + 2].copy_from_slice(&made);
        let mut out = error_with(&packet, UNREACHABLE, 0, &quote).bytes();
        let at = 14 + if v6 { 48 } else { 28 } + field;
        assert_eq!(out[at..at + 2], made);
        out[at..at + 2].copy_from_slice(&left);
        all = all.given(half, bounced(Bounce::Unreachable), out, None, 0);
    }
    all
}

fn long_quotes_are_cut(v6: bool) -> Case {
    let mut all = case(
        format!(
            "{}: an error quotes no more than the least MTU holds",
            family_name(v6)
        ),
        none(v6, UDP),
    );
    for length in [500, 519, 520, 521, 1183, 1184, 1185, 1400] {
        let packet = udp(client(v6), virtual_end(v6)).payload(&vec![0x5a; length]);
        let out = error(&packet, UNREACHABLE, 0);
        all = all.turns(&packet, bounced(Bounce::Unreachable), &out);
    }
    all
}

fn life_is_over(v6: bool, protocol: u8) -> Case {
    let to = server(method::MASQUERADE, v6);
    let open = opening(protocol, client(v6), virtual_end(v6));
    let there = open.clone().macs(7, 3).to(server_end(v6)).ttl(63);
    let packet = open.clone().ttl(1);
    let zero = open.clone().ttl(0);
    let answer = open.clone().from(server_end(v6)).to(client(v6)).ttl(1);
    let exceeded = bounced(Bounce::TimeExceeded);
    case(
        format!(
            "{} {} with TTL 1 or 0 is answered both ways: time exceeded",
            family_name(v6),
            protocol_name(protocol)
        ),
        one(v6, protocol, &to),
    )
    .turns(&packet, exceeded, &error(&packet, EXCEEDED, 0))
    .holds("it opens nothing", |tables| {
        let flows = tables.flows4.iter().chain(&tables.flows6);
        live(tables, 1) == (0, 0)
            && flows
                .into_iter()
                .all(|word| word.load(Ordering::SeqCst) == 0)
    })
    .turns(&open, Verdict::Send(TO_SERVER), &there)
    .turns(&packet, exceeded, &error(&packet, EXCEEDED, 0))
    .turns(&zero, exceeded, &error(&zero, EXCEEDED, 0))
    .turns(&answer, exceeded, &error(&answer, EXCEEDED, 0))
}

fn limited(v6: bool) -> Case {
    let packet = opening(TCP, client(v6), virtual_end(v6));
    let mut tables = none(v6, TCP);
    tables.settings.icmp_limit = 2;
    let (verdict, out) = (bounced(Bounce::Unreachable), error(&packet, UNREACHABLE, 0));
    let silent = Verdict::Drop(Drop::NoServer);
    case(
        format!(
            "{}: no more errors a tick than are allowed",
            family_name(v6)
        ),
        tables,
    )
    .turns(&packet, verdict, &out)
    .turns(&packet, verdict, &out)
    .leaves(&packet, silent)
    .waits(1)
    .turns(&packet, verdict, &out)
}

fn too_big(v6: bool) -> Case {
    let mut to = server(method::ROUTE, v6);
    to.ways = Ways::new(mac(7), mac(3), TO_SERVER, 1300);
    let header = if v6 { 48 } else { 28 };
    let fits = udp(client(v6), virtual_end(v6)).payload(&vec![1; 1300 - header]);
    let packet = udp(client(v6), virtual_end(v6)).payload(&vec![1; 1301 - header]);
    case(
        format!(
            "{}: a packet too big for the server's link is answered",
            family_name(v6)
        ),
        one(v6, UDP, &to),
    )
    .turns(
        &fits,
        Verdict::Send(TO_SERVER),
        &fits.clone().macs(7, 3).ttl(63),
    )
    .turns(
        &packet,
        bounced(Bounce::TooBig),
        &error(&packet, TOO_BIG, 1300),
    )
}

fn too_big_for_a_tunnel(v6: bool, outer_v6: bool) -> Case {
    let to = server(method::TUNNEL, outer_v6);
    let room = if outer_v6 { 1460 } else { 1480 };
    let header = if v6 { 48 } else { 28 };
    let fits = udp(client(v6), virtual_end(v6)).payload(&vec![1; room - header]);
    let packet = udp(client(v6), virtual_end(v6)).payload(&vec![1; room + 1 - header]);
    let inner = fits.clone().ttl(63);
    let wrapped = inner.inside(to.outer_source, to.address).macs(7, 3);
    case(
        format!(
            "{} in {}: what the outer header makes too big is answered",
            family_name(v6),
            family_name(outer_v6)
        ),
        one(v6, UDP, &to),
    )
    .turns(&fits, Verdict::Send(TO_SERVER), &wrapped)
    .turns(
        &packet,
        bounced(Bounce::TooBig),
        &error(&packet, TOO_BIG, room as u32),
    )
}

fn answers_too_big(v6: bool) -> Case {
    let mut tables = one(v6, UDP, &server(method::MASQUERADE, v6));
    tables.hops[5].ways = Ways::new(mac(8), mac(4), TO_CLIENT, 1300);
    tables.hops[6] = tables.hops[5];
    let packet = udp(client(v6), virtual_end(v6));
    let there = packet.clone().macs(7, 3).to(server_end(v6)).ttl(63);
    let answer = udp(server_end(v6), client(v6)).payload(&[1; 1400]);
    case(
        format!(
            "{}: an answer too big for the client's link is answered",
            family_name(v6)
        ),
        tables,
    )
    .turns(&packet, Verdict::Send(TO_SERVER), &there)
    .turns(
        &answer,
        bounced(Bounce::TooBig),
        &error(&answer, TOO_BIG, 1300),
    )
}

fn many_in_one(v6: bool) -> Case {
    let packet = tcp(client(v6), virtual_end(v6), SYN).payload(&[1; 3000]);
    let out = packet.clone().macs(7, 3).ttl(63);
    let size = if v6 { 1440 } else { 1460 };
    case(
        format!(
            "{}: a frame that stands for many packets is as big as the largest of them",
            family_name(v6)
        ),
        one(v6, TCP, &server(method::ROUTE, v6)),
    )
    .given(
        packet.bytes(),
        Verdict::Send(TO_SERVER),
        out.bytes(),
        Some(Hook::Tc),
        size,
    )
    .given(
        packet.bytes(),
        bounced(Bounce::TooBig),
        error(&packet, TOO_BIG, 1500).bytes(),
        Some(Hook::Tc),
        size + 1,
    )
}

fn no_answer_to_nobody(v6: bool) -> Case {
    let later = bare(client(v6).0, virtual_end(v6).0, UDP)
        .fragment(7, 64, false)
        .payload(&[1; 64]);
    let first = udp(client(v6), virtual_end(v6))
        .fragment(7, 0, true)
        .payload(&[1; 56]);
    let none = none(v6, UDP);
    let (verdict, out) = (bounced(Bounce::Unreachable), error(&first, UNREACHABLE, 0));
    case(
        format!("{}: no error about a later fragment", family_name(v6)),
        none,
    )
    .turns(&first, verdict, &out)
    .leaves(&later, Verdict::Drop(Drop::NoServer))
}
