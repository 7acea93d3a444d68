//! Full NAT between IPv4 and IPv6: clients of one family, servers of the other (RFC 7915).

use std::net::IpAddr;

use shunt_datapath::entry::{Ways, service_flag};
use shunt_datapath::host::{HostTables, mac};
use shunt_datapath::verdict::{Bounce, Drop, Note, Verdict};

use super::connections::noted;
use super::farm::*;
use super::packet::*;
use super::translated::{full, local};
use super::{Case, case};

const SENT: Verdict = Verdict::Send(TO_SERVER);
const BACK: Verdict = Verdict::Send(TO_CLIENT);
const UNTRANSLATABLE: Verdict = Verdict::Drop(Drop::Untranslatable);

pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    // `v6` is the client's family; the server has the other one.
    for v6 in FAMILIES {
        for protocol in [TCP, UDP, SCTP] {
            cases.push(both_ways(v6, protocol));
            cases.push(tagged(v6, protocol));
        }
        cases.push(an_error_about_a_fragment(v6));
        for protocol in [TCP, UDP] {
            cases.push(fragments(v6, protocol));
            cases.push(errors_to_the_client(v6, protocol));
            cases.push(errors_to_the_server(v6, protocol));
        }
        cases.push(services_and_lives(v6));
        cases.push(what_stands_between_is_left_behind(v6));
        cases.push(too_big(v6));
        cases.push(its_life_is_over(v6));
        cases.push(the_segment_size(v6));
        cases.push(announced(v6));
        cases.push(introduced(v6));
        cases.push(no_local_address(v6));
        cases.push(segments(v6));
        cases.push(errors_that_nobody_understands(v6));
    }
    cases.push(without_a_checksum());
    cases.push(names_of_what_may_be_cut());
    cases
}

fn local_end(v6: bool) -> End {
    (local(!v6), 5000)
}

fn tables(v6: bool, protocol: u8) -> HostTables {
    let mut tables = one(v6, protocol, &full(!v6));
    tables.add_local(local(!v6), 5000, 1);
    tables
}

fn name(v6: bool, protocol: u8) -> String {
    let [from, to] = [v6, !v6].map(family_name);
    format!("{from} to {to} {}", protocol_name(protocol))
}

/// A client's packet as its server gets it: between ends of the other family.
fn at_server(v6: bool, packet: Packet) -> Packet {
    packet
        .from(local_end(v6))
        .to(server_end(!v6))
        .macs(7, 3)
        .ttl(63)
}

fn at_client(v6: bool, packet: Packet) -> Packet {
    packet
        .from(virtual_end(v6))
        .to(client(v6))
        .macs(8, 4)
        .ttl(63)
}

/// A packet of more than 1260 bytes has an identification of 0.
const LONG: usize = 1300;

fn question(v6: bool, protocol: u8, flags: u8) -> Packet {
    let (from, to) = (client(v6), virtual_end(v6));
    match protocol {
        TCP => tcp(from, to, flags),
        SCTP => sctp(
            from,
            to,
            if flags == SYN {
                chunk::INIT
            } else {
                chunk::DATA
            },
        ),
        _ => udp(from, to),
    }
    .payload(&[b'q'; LONG])
}

fn answer(v6: bool, protocol: u8, flags: u8) -> Packet {
    let (from, to) = (server_end(!v6), local_end(v6));
    match protocol {
        TCP => tcp(from, to, flags),
        SCTP => sctp(
            from,
            to,
            if flags & SYN != 0 {
                chunk::INIT_ACK
            } else {
                chunk::DATA
            },
        ),
        _ => udp(from, to),
    }
    .payload(&[b'a'; LONG])
}

fn open(sentence: String, v6: bool, protocol: u8) -> Case {
    open_with(sentence, v6, protocol, tables(v6, protocol))
}

fn open_with(sentence: String, v6: bool, protocol: u8, tables: HostTables) -> Case {
    let packet = question(v6, protocol, SYN);
    let out = at_server(v6, packet.clone());
    case(sentence, tables).turns(&packet, SENT, &out)
}

fn both_ways(v6: bool, protocol: u8) -> Case {
    let mut all = open(
        format!(
            "{}: each gets packets of its own family",
            name(v6, protocol)
        ),
        v6,
        protocol,
    );
    for flags in [SYN | ACK, ACK, ACK | FIN] {
        let packet = answer(v6, protocol, flags);
        let out = at_client(v6, packet.clone());
        all = all.turns(&packet, BACK, &out);
        let packet = question(v6, protocol, flags & !SYN);
        let out = at_server(v6, packet.clone());
        all = all.turns(&packet, SENT, &out);
    }
    all.holds("one connection", move |tables| {
        let (active, inactive) = live(tables, 1);
        tables.all_translations().len() == 2 && active + inactive == 1
    })
}

fn tagged(v6: bool, protocol: u8) -> Case {
    let mut all = case(
        format!("{}: with a priority", name(v6, protocol)),
        tables(v6, protocol),
    );
    for tags in [&[0x8100], &[0x88a8]] {
        let packet = question(v6, protocol, SYN).tags(tags);
        let out = at_server(v6, packet.clone());
        all = all.turns(&packet, SENT, &out);
        let packet = answer(v6, protocol, SYN | ACK).tags(tags);
        let out = at_client(v6, packet.clone());
        all = all.turns(&packet, BACK, &out);
    }
    all
}

fn services_and_lives(v6: bool) -> Case {
    let mut all = open(
        format!("{}: service and life go along", name(v6, UDP)),
        v6,
        UDP,
    );
    for (service, ttl) in [(0xb8, 2), (0x03, 255), (0xff, 17)] {
        let packet = question(v6, UDP, 0).service(service).ttl(ttl);
        let out = at_server(v6, packet.clone()).ttl(ttl - 1);
        all = all.turns(&packet, SENT, &out);
        let packet = answer(v6, UDP, 0).service(service).ttl(ttl);
        let out = at_client(v6, packet.clone()).ttl(ttl - 1);
        all = all.turns(&packet, BACK, &out);
    }
    all
}

/// RFC 7915, 4.1 and 5.1: options and extension headers are left out.
fn what_stands_between_is_left_behind(v6: bool) -> Case {
    let mut all = open(
        format!("{}: options are left behind", name(v6, TCP)),
        v6,
        TCP,
    );
    for bytes in [4, 16, 20, 24, 40] {
        let plain = question(v6, TCP, ACK);
        let out = at_server(v6, plain.clone());
        let packet = if v6 {
            // `extension` writes the first two bytes, next header and length.
            let length = bytes / 8 * 8 + 6;
            plain.extension(60, &vec![0; length])
        } else {
            plain.options(&vec![1; bytes])
        };
        all = all.turns(&packet, SENT, &out);
    }
    all
}

fn fragments(v6: bool, protocol: u8) -> Case {
    let first = |packet: Packet| packet.payload(&[1; 120]).fragment(0x1234, 0, true);
    let later = |from: IpAddr, to: IpAddr| {
        let packet = bare(from, to, protocol).payload(&[2; 64]);
        packet.fragment(0x1234, 128, false)
    };
    let ask = first(opening(protocol, client(v6), virtual_end(v6))).may_be_cut(0x1234);
    let more = later(client(v6).0, virtual_end(v6).0).may_be_cut(0x1234);
    let said = first(opening(protocol, server_end(!v6), local_end(v6))).may_be_cut(0x1234);
    let rest = later(server_end(!v6).0, local(!v6)).may_be_cut(0x1234);
    let ends = |packet: &Packet, from: IpAddr, to: IpAddr| {
        packet.clone().from((from, 0)).to((to, 0)).ttl(63)
    };
    let more_there = ends(&more, local(!v6), server_end(!v6).0).macs(7, 3);
    let rest_there = ends(&rest, virtual_end(v6).0, client(v6).0).macs(8, 4);
    case(
        format!("{}: fragments stay fragments", name(v6, protocol)),
        tables(v6, protocol),
    )
    .leaves(&more, Verdict::Hold)
    .turns(&ask, SENT, &at_server(v6, ask.clone()))
    .turns(&more, SENT, &more_there)
    .turns(&said, BACK, &at_client(v6, said.clone()))
    .turns(&rest, BACK, &rest_there)
}

/// A packet that fits one side may not fit the other.
fn too_big(v6: bool) -> Case {
    let mut tables = tables(v6, UDP);
    tables.servers[1].ways = Ways::new(mac(7), mac(3), TO_SERVER, 1400);
    let room = if v6 { 1400 + 20 } else { 1400 - 20 };
    let header = if v6 { 48 } else { 28 };
    let fits = udp(client(v6), virtual_end(v6)).payload(&vec![7; room - header]);
    let out = at_server(v6, fits.clone());
    let too_big = udp(client(v6), virtual_end(v6)).payload(&vec![7; room - header + 1]);
    let told = |packet: &Packet, to: End, from: IpAddr, v6: bool, room: usize| {
        let (limit, kind, code, service) = if v6 {
            (1280 - 48, 2, 0, 0)
        } else {
            (576 - 28, 3, 4, 0xc0)
        };
        let network = packet.network();
        let error = icmp(from, to.0, kind, code, room as u32);
        let error = error.payload(&network[..limit.min(network.len())]);
        error.macs(1, 2).service(service)
    };
    let error = told(&too_big, client(v6), virtual_end(v6).0, v6, room);
    // The way to clients carries 1500.
    let room = if v6 { 1500 - 20 } else { 1500 + 20 };
    let header = if v6 { 28 } else { 48 };
    let answer = udp(server_end(!v6), local_end(v6)).payload(&vec![7; room - header]);
    let long = udp(server_end(!v6), local_end(v6)).payload(&vec![7; room - header + 1]);
    let back = told(&long, server_end(!v6), local(!v6), !v6, room);
    case(
        format!("{}: what does not fit there is told here", name(v6, UDP)),
        tables,
    )
    .turns(&fits, SENT, &out)
    .turns(&too_big, Verdict::Bounce(Bounce::TooBig), &error)
    .turns(&answer, BACK, &at_client(v6, answer.clone()))
    .turns(&long, Verdict::Bounce(Bounce::TooBig), &back)
}

fn its_life_is_over(v6: bool) -> Case {
    open(
        format!("{}: the last hop is not ours", name(v6, TCP)),
        v6,
        TCP,
    )
    .changes(|tables| tables.settings.icmp_limit = 0)
    .leaves(&question(v6, TCP, ACK).ttl(1), Verdict::Drop(Drop::Expired))
    .leaves(&answer(v6, TCP, ACK).ttl(1), Verdict::Drop(Drop::Expired))
}

/// Segments to and from a server must fit the server's way.
fn the_segment_size(v6: bool) -> Case {
    let mut tables = tables(v6, TCP);
    tables.servers[1].ways = Ways::new(mac(7), mac(3), TO_SERVER, 1480);
    let most: u16 = if v6 { 1480 - 40 } else { 1480 - 60 };
    let mut all = case(
        format!("{}: a SYN announces what fits", name(v6, TCP)),
        tables,
    );
    let option = |odd: bool, size: u16| {
        let [a, b] = size.to_be_bytes();
        if odd {
            vec![1, 2, 4, a, b, 1, 1, 1]
        } else {
            vec![2, 4, a, b, 1, 3, 3, 7]
        }
    };
    let long = [7; LONG];
    for (odd, size) in [
        (false, 1460),
        (false, most),
        (false, most - 1),
        (true, 9000),
        (true, 536),
    ] {
        let (given, told) = (option(odd, size), option(odd, size.min(most)));
        let packet = |from, to, flags| tcp(from, to, flags).payload(&long);
        let ask = packet(client(v6), virtual_end(v6), SYN).tcp_options(&given);
        let out = at_server(v6, ask.clone()).tcp_options(&told);
        let said = packet(server_end(!v6), local_end(v6), SYN | ACK).tcp_options(&given);
        let back = at_client(v6, said.clone()).tcp_options(&told);
        all = all.turns(&ask, SENT, &out).turns(&said, BACK, &back);
    }
    // Later segments are left as they are.
    let packet = question(v6, TCP, ACK).tcp_options(&option(false, 9000));
    let out = at_server(v6, packet.clone());
    all.turns(&packet, SENT, &out)
}

fn announced(v6: bool) -> Case {
    let mut tables = tables(v6, TCP);
    tables.services[1].flags |= service_flag::TOA;
    let (address, port) = client(v6);
    let mut option = vec![254, if v6 { 20 } else { 8 }];
    option.extend(port.to_be_bytes());
    option.extend(match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    });
    let packet = tcp(client(v6), virtual_end(v6), SYN);
    let out = at_server(v6, packet.clone()).tcp_options(&option);
    // An IPv4 packet that may be fragmented has an identification, which this test does not check.
    let out = named(out);
    case(
        format!("{}: a SYN says who the client is", name(v6, TCP)),
        tables,
    )
    .turns(&packet, SENT, &out)
}

/// A small IPv4 packet made from one of IPv6: its identification follows from its content.
fn named(packet: Packet) -> Packet {
    if packet.ends().0.is_ipv6() {
        return packet;
    }
    packet.named()
}

/// The PROXY header has the client's family, and the sequence numbers shift by its length.
fn introduced(v6: bool) -> Case {
    let mut tables = tables(v6, TCP);
    tables.services[1].flags |= service_flag::PROXY;
    let header = super::introduced::header(v6);
    let more = header.len() as u32;
    let syn = question(v6, TCP, SYN).payload(&[]).numbers(1000, 0);
    let there = named(at_server(v6, syn.clone()));
    let said = answer(v6, TCP, SYN | ACK).numbers(5000, 1001);
    let first = question(v6, TCP, ACK).numbers(1001, 5001);
    let both = [&header[..], &[b'q'; LONG]].concat();
    let told = at_server(v6, first.clone()).payload(&both);
    let acknowledged = answer(v6, TCP, ACK).numbers(5001, 1001 + more + LONG as u32);
    let back = at_client(v6, acknowledged.clone()).numbers(5001, 1001 + LONG as u32);
    let second = question(v6, TCP, ACK).numbers(1001 + LONG as u32, 5001);
    let after = at_server(v6, second.clone()).numbers(1001 + LONG as u32 + more, 5001);
    case(
        format!("{}: a header says who the client is", name(v6, TCP)),
        tables,
    )
    .turns(&syn, SENT, &there)
    .turns(&said, BACK, &at_client(v6, said.clone()))
    .turns(&first, SENT, &told)
    .turns(&acknowledged, BACK, &back)
    .turns(&second, SENT, &after)
}

fn no_local_address(v6: bool) -> Case {
    let mut tables = one(v6, TCP, &full(!v6));
    // A local address of the client's family cannot be used.
    tables.add_local(local(v6), 5000, 1);
    case(
        format!("{}: nothing without a local address", name(v6, TCP)),
        tables,
    )
    .leaves(&question(v6, TCP, SYN), Verdict::Drop(Drop::NoLocalPort))
}

/// `packet` between other ends, whole, with the transport checksum of `packet`.
fn quoted(packet: &Packet, source: End, target: End) -> Vec<u8> {
    let after = packet.clone().from(source).to(target);
    let (old, mut new) = (packet.network(), after.network());
    let at = |v6: bool| if v6 { 40 } else { 20 } + if packet.is_tcp() { 16 } else { 6 };
    let (from, to) = (at(packet.ends().0.is_ipv6()), at(source.0.is_ipv6()));
    new[to..to + 2].copy_from_slice(&old[from..from + 2]);
    new
}

fn router(v6: bool) -> IpAddr {
    let text = if v6 { "2001:db8:f::1" } else { "203.0.113.1" };
    text.parse().unwrap()
}

type Message = (u8, u8, u32);

/// RFC 7915, 4.2 and 5.2: errors of one family and their translations to the other. Ways have an
/// MTU of 1500.
fn messages(v6: bool) -> Vec<(Message, Message)> {
    if v6 {
        return vec![
            ((1, 0, 0), (3, 1, 0)),
            ((1, 1, 0), (3, 10, 0)),
            ((1, 3, 0), (3, 1, 0)),
            ((1, 4, 0), (3, 3, 0)),
            ((2, 0, 1400), (3, 4, 1380)),
            ((2, 0, 1280), (3, 4, 1260)),
            ((2, 0, 70_000), (3, 4, 1500)),
            ((3, 0, 0), (11, 0, 0)),
            ((3, 1, 0), (11, 1, 0)),
            ((4, 0, 4), (12, 0, 2 << 24)),
            ((4, 0, 39), (12, 0, 16 << 24)),
            ((4, 1, 6), (3, 2, 0)),
        ];
    }
    vec![
        ((3, 0, 0), (1, 0, 0)),
        ((3, 1, 0), (1, 0, 0)),
        ((3, 2, 0), (4, 1, 6)),
        ((3, 3, 0), (1, 4, 0)),
        ((3, 4, 1400), (2, 0, 1420)),
        ((3, 4, 576), (2, 0, 1280)),
        ((3, 4, 0), (2, 0, 1280)),
        ((3, 4, 1490), (2, 0, 1500)),
        ((3, 10, 0), (1, 1, 0)),
        ((3, 13, 0), (1, 1, 0)),
        ((11, 0, 0), (3, 0, 0)),
        ((12, 0, 8 << 24), (4, 0, 7)),
        ((12, 2, 1 << 24), (4, 0, 1)),
    ]
}

/// Errors about a packet that the director sent to the server, in the server's family.
fn errors_to_the_client(v6: bool, protocol: u8) -> Case {
    let mut all = open(
        format!("{}: errors about questions", name(v6, protocol)),
        v6,
        protocol,
    );
    let about = opening(protocol, local_end(v6), server_end(!v6)).payload(b"a question");
    let there = quoted(&about, client(v6), virtual_end(v6));
    let (mut number, list) = (0, messages(!v6));
    for (given, said) in list {
        for from in [server_end(!v6).0, router(!v6)] {
            number += 1;
            let error = icmp(from, local(!v6), given.0, given.1, given.2);
            let error = error.payload(&about.network()).service(0xc0);
            let out = icmp(virtual_end(v6).0, client(v6).0, said.0, said.1, said.2);
            let out = out.payload(&there).service(0xc0).macs(8, 4).ttl(63);
            all = all.turns(&error, BACK, &out);
        }
    }
    all.holds("all are noted", noted(Note::IcmpRelated, number))
}

/// Errors about an answer that the director sent to the client, in the client's family.
fn errors_to_the_server(v6: bool, protocol: u8) -> Case {
    let mut all = open(
        format!("{}: errors about answers", name(v6, protocol)),
        v6,
        protocol,
    );
    let about = opening(protocol, virtual_end(v6), client(v6)).payload(b"an answer");
    let there = quoted(&about, server_end(!v6), local_end(v6));
    for (given, said) in messages(v6) {
        let error = icmp(router(v6), virtual_end(v6).0, given.0, given.1, given.2);
        let out = icmp(local(!v6), server_end(!v6).0, said.0, said.1, said.2);
        let out = out.payload(&there).macs(7, 3).ttl(63);
        let tags = if given.0 == 3 { &[0x8100][..] } else { &[] };
        let error = error.payload(&about.network()).tags(tags);
        all = all.turns(&error, SENT, &out.tags(tags));
    }
    // A quoted header with options is translated without them.
    if !v6 {
        let about = about.options(&[1; 8]);
        let error = icmp(router(v6), virtual_end(v6).0, 3, 3, 0).payload(&about.network());
        let out = icmp(local(!v6), server_end(!v6).0, 1, 4, 0).payload(&there);
        all = all.turns(&error.options(&[1; 40]), SENT, &out.macs(7, 3).ttl(63));
    }
    all
}

/// A fragment header in a quote is left out, but its bytes count in the MTU.
fn an_error_about_a_fragment(v6: bool) -> Case {
    let about = opening(UDP, virtual_end(v6), client(v6)).payload(&[6; 200]);
    let (kind, code, told) = if v6 {
        (3, 4, 1300 - 28)
    } else {
        (2, 0, 1300 + 20)
    };
    let (asked, rest) = if v6 { ((2, 0), 1300) } else { ((3, 4), 1300) };
    let cut = about.clone().fragment(77, 0, true);
    let error = icmp(router(v6), virtual_end(v6).0, asked.0, asked.1, rest);
    let out = icmp(local(!v6), server_end(!v6).0, kind, code, told);
    let out = out.payload(&quoted(&about, server_end(!v6), local_end(v6)));
    let sentence = format!("{}: an error about a fragment", name(v6, UDP));
    open(sentence, v6, UDP).turns(
        &error.payload(&cut.network()),
        SENT,
        &out.macs(7, 3).ttl(63),
    )
}

fn errors_that_nobody_understands(v6: bool) -> Case {
    let mut all = open(
        format!("{}: errors without a counterpart", name(v6, UDP)),
        v6,
        UDP,
    );
    let about = opening(UDP, local_end(v6), server_end(!v6));
    let none = if v6 {
        [(4, 0, 0), (3, 14, 0), (12, 1, 0), (12, 0, 4 << 24)]
    } else {
        [(1, 5, 0), (3, 2, 0), (4, 2, 0), (4, 0, 2)]
    };
    for (kind, code, rest) in none {
        let error = icmp(router(!v6), local(!v6), kind, code, rest);
        all = all.leaves(&error.payload(&about.network()), UNTRANSLATABLE);
    }
    let error = if v6 { (11, 0, 0) } else { (3, 0, 0) };
    let error = icmp(router(!v6), local(!v6), error.0, error.1, error.2);
    let error = error.payload(&about.network()).ttl(1);
    all.leaves(&error, Verdict::Drop(Drop::Expired))
}

/// RFC 7915, 4.5: IPv6 requires a checksum.
fn without_a_checksum() -> Case {
    let bare = udp(client(false), virtual_end(false)).payload(&[9; 77]);
    let out = at_server(false, bare.clone());
    let cut = bare.clone().payload(&[9; 120]).fragment(7, 0, true);
    case(
        "IPv4 to IPv6 UDP: a datagram without a checksum gets one",
        tables(false, UDP),
    )
    .turns(&bare.clone().without_checksum(), SENT, &out)
    .leaves(&cut.without_checksum(), UNTRANSLATABLE)
}

/// RFC 7915, 5.1: a packet below IPv6's least MTU may be fragmented in IPv4.
fn names_of_what_may_be_cut() -> Case {
    let mut all = case(
        "IPv6 to IPv4 UDP: up to 1260 bytes may be cut on their way",
        tables(true, UDP),
    );
    for bytes in [1260 - 28, 1260 - 27] {
        let packet = udp(client(true), virtual_end(true)).payload(&vec![5; bytes]);
        let out = at_server(true, packet.clone());
        let out = if bytes == 1260 - 28 { named(out) } else { out };
        all = all.turns(&packet, SENT, &out);
    }
    all
}

/// A GSO frame fits if each of its segments does.
fn segments(v6: bool) -> Case {
    let all = open(
        format!("{}: frames that stand for many", name(v6, TCP)),
        v6,
        TCP,
    );
    let packet = tcp(client(v6), virtual_end(v6), ACK).payload(&[3; 4000]);
    let out = at_server(v6, packet.clone());
    let room = 1500 - if v6 { 40 } else { 60 };
    let hook = Some(shunt_datapath::host::Hook::Tc);
    let all = all.given(packet.bytes(), SENT, out.bytes(), hook, room);
    let said = tcp(server_end(!v6), local_end(v6), ACK).payload(&[4; 4000]);
    let back = at_client(v6, said.clone());
    let room = 1500 - if v6 { 60 } else { 40 };
    all.given(said.bytes(), BACK, back.bytes(), hook, room)
}
