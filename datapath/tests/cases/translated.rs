//! Translated flows: full NAT with local addresses, and masquerading that does not follow from the
//! server's entry alone.

use std::net::IpAddr;

use shunt_datapath::entry::{Ways, method, scheduler, service_flag};
use shunt_datapath::host::{HostTables, NewServer, Sizes, mac};
use shunt_datapath::verdict::{Bounce, Drop, Note, Pass, Verdict};

use super::connections::noted;
use super::farm::*;
use super::packet::*;
use super::{Case, case};

const SENT: Verdict = Verdict::Send(TO_SERVER);
const BACK: Verdict = Verdict::Send(TO_CLIENT);
const NO_PORT: Verdict = Verdict::Drop(Drop::NoLocalPort);

pub(crate) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for v6 in FAMILIES {
        for protocol in [TCP, UDP] {
            cases.push(full_nat(v6, protocol));
            cases.push(every_port(v6, protocol));
            cases.push(fragments(v6, protocol));
            for (kind, code, rest) in errors(v6) {
                cases.push(error_to_the_server(v6, protocol, (kind, code, rest)));
                cases.push(error_to_the_client(v6, protocol, (kind, code, rest)));
                cases.push(error_keeps_its_source(v6, protocol, (kind, code, rest)));
            }
        }
        cases.push(an_association(v6));
        cases.push(a_port_each(v6));
        cases.push(one_port_at_two_servers(v6));
        cases.push(fixed_port(v6));
        cases.push(no_local_address(v6));
        cases.push(a_full_table(v6));
        cases.push(another_server_later(v6));
        cases.push(too_big(v6));
        cases.push(its_life_is_over(v6));
        cases.push(tagged(v6));
        cases.push(strangers(v6));
        cases.push(announced(v6));
        cases.push(announced_over_a_lie(v6));
        cases.push(names_nobody(v6));
        cases.push(no_room_to_announce(v6));
    }
    cases
}

fn errors(v6: bool) -> [(u8, u8, u32); 2] {
    if v6 {
        [(1, 3, 0), (2, 0, 1400)]
    } else {
        [(3, 1, 0), (3, 4, 1400)]
    }
}

/// The local address, which servers see in place of the client's.
pub(crate) fn local(v6: bool) -> IpAddr {
    let text = if v6 { "2001:db8:1::99" } else { "10.1.0.99" };
    text.parse().unwrap()
}

/// The only port of the pool in most cases, so that a test knows which port a flow gets.
const PORT: u16 = 5000;

fn local_end(v6: bool) -> End {
    (local(v6), PORT)
}

pub(crate) fn full(v6: bool) -> NewServer {
    NewServer {
        full_nat: true,
        port: 8080,
        ..server(method::TRANSLATE, v6)
    }
}

fn pool(v6: bool, protocol: u8, ports: u32) -> HostTables {
    let mut tables = one(v6, protocol, &full(v6));
    tables.add_local(local(v6), PORT, ports);
    tables
}

fn name(v6: bool, protocol: u8) -> String {
    format!("{} {}", family_name(v6), protocol_name(protocol))
}

/// The client's first packet, as it is forwarded.
fn open(sentence: String, v6: bool, protocol: u8) -> Case {
    let packet = opening(protocol, client(v6), virtual_end(v6));
    let out = packet.clone().from(local_end(v6)).to(server_end(v6));
    case(sentence, pool(v6, protocol, 1)).turns(&packet, SENT, &out.macs(7, 3).ttl(63))
}

fn full_nat(v6: bool, protocol: u8) -> Case {
    let mut all = open(
        format!("full NAT {}: both ends are rewritten", name(v6, protocol)),
        v6,
        protocol,
    );
    let flags = [(SYN | ACK, ACK), (ACK, ACK), (ACK | FIN, ACK | FIN)];
    for (answer, question) in flags {
        let (from, to) = (server_end(v6), local_end(v6));
        let packet = match protocol {
            TCP => tcp(from, to, answer),
            _ => udp(from, to),
        };
        let packet = packet.payload(b"an answer");
        let out = packet.clone().from(virtual_end(v6)).to(client(v6));
        all = all.turns(&packet, BACK, &out.macs(8, 4).ttl(63));
        let packet = match protocol {
            TCP => tcp(client(v6), virtual_end(v6), question),
            _ => udp(client(v6), virtual_end(v6)),
        };
        let packet = packet.payload(b"a question");
        let out = packet.clone().from(to).to(from);
        all = all.turns(&packet, SENT, &out.macs(7, 3).ttl(63));
    }
    all.holds("one connection", move |tables| {
        let (active, inactive) = live(tables, 1);
        tables.all_translations().len() == 2 && active + inactive == 1
    })
}

fn an_association(v6: bool) -> Case {
    let sentence = "both ends of an association are rewritten, of its fragments none";
    let mut all = open(
        format!("full NAT {}: {sentence}", family_name(v6)),
        v6,
        SCTP,
    );
    for (answer, question) in [
        (chunk::INIT_ACK, chunk::COOKIE_ECHO),
        (chunk::COOKIE_ACK, chunk::DATA),
    ] {
        let packet = sctp(server_end(v6), local_end(v6), answer).payload(b"an answer...");
        let out = packet.clone().from(virtual_end(v6)).to(client(v6));
        all = all.turns(&packet, BACK, &out.macs(8, 4).ttl(63));
        let packet = sctp(client(v6), virtual_end(v6), question).payload(b"a question!!");
        let out = packet.clone().from(local_end(v6)).to(server_end(v6));
        all = all.turns(&packet, SENT, &out.macs(7, 3).ttl(63));
    }
    let first = sctp(client(v6), virtual_end(v6), chunk::DATA).payload(&[1; 112]);
    let later = bare(client(v6).0, virtual_end(v6).0, SCTP).payload(&[2; 64]);
    let cut = Verdict::Drop(Drop::CutChecksum);
    all.holds("which is established", |tables| live(tables, 1) == (1, 0))
        .leaves(&first.fragment(9, 0, true), cut)
        .leaves(&later.fragment(9, 128, false), cut)
}

/// A server of every port in a translating service gets the port that the client asked for.
fn every_port(v6: bool, protocol: u8) -> Case {
    let mut tables = HostTables::new(Sizes::default());
    tables.add_service(virtual_end(v6).0, 0, protocol, 0);
    tables.add_route(IpAddr::from([0, 0, 0, 0]), 0, 5, to_client());
    tables.add_route(IpAddr::from([0u16; 8]), 0, 6, to_client());
    let one = NewServer {
        port: 0,
        ..server(method::TRANSLATE, v6)
    };
    tables.add_server(1, &one);
    tables.set_pool(1, scheduler::RING, &[(1, 1)]);
    let mut all = case(
        format!("translated {}: a server of every port", name(v6, protocol)),
        tables,
    );
    for port in [21, 5000] {
        let (asked, own) = ((virtual_end(v6).0, port), (server_end(v6).0, port));
        let packet = opening(protocol, client(v6), asked);
        let out = packet.clone().to(own).macs(7, 3).ttl(63);
        all = all.turns(&packet, SENT, &out);
        let answer = opening(protocol, own, client(v6)).flags(SYN | ACK);
        let out = answer.clone().from(asked).macs(8, 4).ttl(63);
        all = all.turns(&answer, BACK, &out);
    }
    all
}

/// Answers from one port of the server belong to two ports of the service.
fn fixed_port(v6: bool) -> Case {
    let mut tables = HostTables::new(Sizes::default());
    tables.add_service(virtual_end(v6).0, 0, TCP, 0);
    tables.add_route(IpAddr::from([0, 0, 0, 0]), 0, 5, to_client());
    tables.add_route(IpAddr::from([0u16; 8]), 0, 6, to_client());
    let one = NewServer {
        port: 8080,
        ..server(method::TRANSLATE, v6)
    };
    tables.add_server(1, &one);
    tables.set_pool(1, scheduler::RING, &[(1, 1)]);
    let mut all = case(
        format!(
            "translated {}: one port behind a service of every port",
            family_name(v6)
        ),
        tables,
    );
    let client = |port: u16| (client(v6).0, 40_000 + port);
    for port in [21, 5000] {
        let asked = (virtual_end(v6).0, port);
        let packet = tcp(client(port), asked, SYN);
        let out = packet.clone().to(server_end(v6)).macs(7, 3).ttl(63);
        all = all.turns(&packet, SENT, &out);
        let answer = tcp(server_end(v6), client(port), SYN | ACK);
        let out = answer.clone().from(asked).macs(8, 4).ttl(63);
        all = all.turns(&answer, BACK, &out);
    }
    // The server could not tell this connection from the client's first one.
    let packet = tcp(client(21), (virtual_end(v6).0, 5000), SYN);
    all.leaves(&packet, NO_PORT)
}

/// Each flow gets a port of its own, until none is free.
fn a_port_each(v6: bool) -> Case {
    let mut all = case(
        format!("full NAT {}: no port is given twice", family_name(v6)),
        pool(v6, TCP, 2),
    );
    let ask = |port: u16| tcp((client(v6).0, port), virtual_end(v6), SYN);
    let served = ask(1).from((local(v6), PORT + 1)).to(server_end(v6));
    let other = ask(2).from((local(v6), PORT)).to(server_end(v6));
    // The seed of the tables decides which port the first flow gets.
    let (first, second) = if takes_first(v6) {
        (other, served)
    } else {
        (served, other)
    };
    all = all.turns(&ask(1), SENT, &first.macs(7, 3).ttl(63));
    all = all.turns(&ask(2), SENT, &second.macs(7, 3).ttl(63));
    all.leaves(&ask(3), NO_PORT)
        .leaves(&ask(3), NO_PORT)
        .holds("four translations", |tables| {
            tables.all_translations().len() == 4
        })
}

/// Whether the first flow of [`a_port_each`] gets the first port.
fn takes_first(v6: bool) -> bool {
    use shunt_datapath::host::{Hook, HostFrame};
    let tables = pool(v6, TCP, 2);
    let packet = tcp((client(v6).0, 1), virtual_end(v6), SYN);
    let mut frame = HostFrame::new(Hook::Xdp, &packet.bytes());
    tables.run(&mut frame);
    let at = if v6 { 54 } else { 34 };
    frame.bytes()[at..at + 2] == PORT.to_be_bytes()
}

fn one_port_at_two_servers(v6: bool) -> Case {
    let mut tables = pool(v6, TCP, 1);
    let other = NewServer {
        port: 8081,
        ways: Ways::new(mac(9), mac(3), TO_SERVER, 1500),
        ..full(v6)
    };
    tables.add_server(1, &other);
    tables.set_pool(1, scheduler::RING, &[(1, 1), (2, 1)]);
    let mut all = case(
        format!(
            "full NAT {}: a local port serves a flow at each server",
            family_name(v6)
        ),
        tables,
    );
    for (port, own, to) in [(1, 8080, 7), (2, 8081, 9)] {
        let packet = tcp((client(v6).0, port), virtual_end(v6), SYN);
        let out = packet.clone().from(local_end(v6));
        let out = out.to((server_end(v6).0, own));
        all = all.turns(&packet, SENT, &out.macs(to, 3).ttl(63));
    }
    for (port, own) in [(1, 8080), (2, 8081)] {
        let answer = tcp((server_end(v6).0, own), local_end(v6), SYN | ACK);
        let out = answer.clone().from(virtual_end(v6));
        let out = out.to((client(v6).0, port)).macs(8, 4).ttl(63);
        all = all.turns(&answer, BACK, &out);
    }
    all
}

fn no_local_address(v6: bool) -> Case {
    let packet = tcp(client(v6), virtual_end(v6), SYN);
    case(
        format!("full NAT {}: nothing without an address", family_name(v6)),
        one(v6, TCP, &full(v6)),
    )
    .leaves(&packet, NO_PORT)
}

/// Neither of both entries stays alone.
fn a_full_table(v6: bool) -> Case {
    let mut tables = pool(v6, TCP, 1000);
    // Room for 32 entries: 16 flows.
    let mut all = {
        tables.settings.icmp_limit = 1000;
        case(
            format!(
                "full NAT {}: a full table takes no more flows",
                family_name(v6)
            ),
            tables,
        )
    };
    all = all.changes(|tables| {
        use shunt_datapath::table::Tables;
        use shunt_datapath::translation::{Translation, Tuple, ends};
        for number in 0..31 {
            let tuple = Tuple {
                ends: ends(number, 9, 6, false),
                ..Tuple::default()
            };
            (&*tables).translate(&tuple, &Translation::default(), true);
        }
    });
    let packet = tcp(client(v6), virtual_end(v6), SYN);
    all.leaves(&packet, Verdict::Drop(Drop::NoTranslation))
        .holds("none of it stays", |tables| {
            tables.all_translations().len() == 31
        })
}

/// The client's next connection from the same port goes to another server.
fn another_server_later(v6: bool) -> Case {
    let mut tables = pool(v6, TCP, 1);
    let other = NewServer {
        port: 8081,
        ..full(v6)
    };
    tables.add_server(1, &other);
    tables.set_pool(1, scheduler::RING, &[(1, 1), (2, 1)]);
    let packet = tcp(client(v6), virtual_end(v6), SYN);
    let to = |port: u16| {
        let out = packet.clone().from(local_end(v6));
        out.to((server_end(v6).0, port)).macs(7, 3).ttl(63)
    };
    let answer = tcp((server_end(v6).0, 8081), local_end(v6), SYN | ACK);
    let out = answer.clone().from(virtual_end(v6)).to(client(v6));
    case(
        format!(
            "full NAT {}: a later connection to another server",
            family_name(v6)
        ),
        tables,
    )
    .turns(&packet, SENT, &to(8080))
    .waits(1000)
    .turns(&packet, SENT, &to(8081))
    .turns(&answer, BACK, &out.macs(8, 4).ttl(63))
}

fn too_big(v6: bool) -> Case {
    let mut tables = pool(v6, UDP, 1);
    tables.servers[1].ways = Ways::new(mac(7), mac(3), TO_SERVER, 1300);
    let packet = udp(client(v6), virtual_end(v6)).payload(&[7; 1300]);
    let limit = if v6 { 1280 } else { 576 };
    let (kind, code) = if v6 { (2, 0) } else { (3, 4) };
    let network = packet.network();
    let quote = limit - if v6 { 48 } else { 28 };
    let quoted = &network[..quote.min(network.len())];
    let answer = icmp(virtual_end(v6).0, client(v6).0, kind, code, 1300).payload(quoted);
    let all = case(
        format!("full NAT {}: what does not fit is told", family_name(v6)),
        tables,
    );
    let answer = answer.macs(1, 2).service(if v6 { 0 } else { 0xc0 });
    all.turns(&packet, Verdict::Bounce(Bounce::TooBig), &answer)
}

fn its_life_is_over(v6: bool) -> Case {
    let all = open(
        format!("full NAT {}: the last hop is not ours", family_name(v6)),
        v6,
        TCP,
    );
    all.changes(|tables| tables.settings.icmp_limit = 0)
        .leaves(
            &tcp(client(v6), virtual_end(v6), ACK).ttl(1),
            Verdict::Drop(Drop::Expired),
        )
        .leaves(
            &tcp(server_end(v6), local_end(v6), ACK).ttl(1),
            Verdict::Drop(Drop::Expired),
        )
}

fn tagged(v6: bool) -> Case {
    let packet = tcp(client(v6), virtual_end(v6), SYN).tags(&[0x8100]);
    let out = packet.clone().from(local_end(v6)).to(server_end(v6));
    let answer = tcp(server_end(v6), local_end(v6), SYN | ACK).tags(&[0x8100]);
    let back = answer.clone().from(virtual_end(v6)).to(client(v6));
    case(
        format!("full NAT {}: with a priority", family_name(v6)),
        pool(v6, TCP, 1),
    )
    .turns(&packet, SENT, &out.macs(7, 3).ttl(63))
    .turns(&answer, BACK, &back.macs(8, 4).ttl(63))
}

/// Full NAT whose servers get the client's address in an option (TOA).
fn announcing(v6: bool) -> HostTables {
    let mut tables = pool(v6, TCP, 1);
    tables.services[1].flags |= service_flag::TOA;
    tables
}

/// The option that names the client.
fn option(v6: bool) -> Vec<u8> {
    let (address, port) = client(v6);
    let mut option = vec![254, if v6 { 20 } else { 8 }];
    option.extend(port.to_be_bytes());
    match address {
        IpAddr::V4(address) => option.extend(address.octets()),
        IpAddr::V6(address) => option.extend(address.octets()),
    }
    option
}

fn announced(v6: bool) -> Case {
    // In Linux's order: MSS, SACK permitted, time stamps, no-operation, window scale.
    let options = [
        2, 4, 5, 180, 4, 2, 8, 10, 1, 2, 3, 4, 0, 0, 0, 0, 1, 3, 3, 7,
    ];
    let mut all = case(
        format!("full NAT {}: a SYN says who the client is", family_name(v6)),
        announcing(v6),
    );
    for options in [&options[..], &options[..4], &[]] {
        let packet = tcp(client(v6), virtual_end(v6), SYN).tcp_options(options);
        let told = [&option(v6), options].concat();
        let out = tcp(local_end(v6), server_end(v6), SYN).tcp_options(&told);
        all = all.turns(&packet, SENT, &out.macs(7, 3).ttl(63));
    }
    // Only a SYN has the option.
    for flags in [ACK, ACK | FIN, RST] {
        let packet = tcp(client(v6), virtual_end(v6), flags).payload(b"data");
        let out = packet.clone().from(local_end(v6)).to(server_end(v6));
        all = all.turns(&packet, SENT, &out.macs(7, 3).ttl(63));
    }
    all
}

/// Only the director's own option names a client. An Ethernet frame's padding gives no room.
fn announced_over_a_lie(v6: bool) -> Case {
    let lie = [254, 8, 0, 9, 1, 2, 3, 4];
    let packet = tcp(client(v6), virtual_end(v6), SYN).tcp_options(&lie);
    let told = [&option(v6), &[1; 8][..]].concat();
    let out = tcp(local_end(v6), server_end(v6), SYN).tcp_options(&told);
    let padding = 12;
    let more = option(v6).len();
    let out = out.padding(padding.max(more) - more);
    case(
        format!("full NAT {}: nobody is another client", family_name(v6)),
        announcing(v6),
    )
    .turns(&packet.padding(padding), SENT, &out.macs(7, 3).ttl(63))
}

/// Without an announcement nobody is another client either. What each SYN's options become.
fn names_nobody(v6: bool) -> Case {
    let segment_size = [2, 4, 5, 180];
    let lie = [254, 8, 0x9c, 0x41, 198, 51, 100, 77];
    let other = [200, 8, 0x9c, 0x41, 198, 51, 100, 77];
    let lie6 = [&[254, 20, 0, 9][..], &[0x2a; 16]].concat();
    let blank = |bytes: usize| vec![1u8; bytes];
    let mut all = case(
        format!("full NAT {}: a SYN names no client", family_name(v6)),
        pool(v6, TCP, 1),
    );
    let changes = [
        (lie.to_vec(), blank(8)),
        (other.to_vec(), blank(8)),
        (lie6, blank(20)),
        // At an odd place, between options that stay, and twice.
        (
            [&segment_size[..], &[1], &lie, &[3, 3, 7]].concat(),
            [&segment_size[..], &blank(9), &[3, 3, 7]].concat(),
        ),
        (
            [&lie[..], &segment_size, &other, &[1; 4]].concat(),
            [&blank(8)[..], &segment_size, &blank(12)].concat(),
        ),
        // Behind more no-operations than a reader may look at.
        ([&[1; 32][..], &lie].concat(), blank(40)),
        // Longer than the header.
        (vec![1, 1, 254, 8], blank(4)),
        // Within another option, and behind the end of the list, it is none.
        (
            [&[9, 10][..], &lie, &[0, 0]].concat(),
            [&[9, 10][..], &lie, &[0, 0]].concat(),
        ),
        ([&[0; 4][..], &lie].concat(), [&[0; 4][..], &lie].concat()),
        (vec![], vec![]),
    ];
    for (given, left) in changes {
        for flags in [SYN, SYN | RST] {
            let packet = tcp(client(v6), virtual_end(v6), flags).tcp_options(&given);
            let out = tcp(local_end(v6), server_end(v6), flags).tcp_options(&left);
            all = all.turns(&packet, SENT, &out.macs(7, 3).ttl(63));
        }
    }
    // Only a SYN is believed.
    let packet = tcp(client(v6), virtual_end(v6), ACK).tcp_options(&lie);
    let out = packet.clone().from(local_end(v6)).to(server_end(v6));
    all.turns(&packet, SENT, &out.macs(7, 3).ttl(63))
}

fn no_room_to_announce(v6: bool) -> Case {
    let room = 40 - option(v6).len();
    let full = vec![1; room];
    let packet = tcp(client(v6), virtual_end(v6), SYN);
    let told = [&option(v6), &full[..]].concat();
    let out = tcp(local_end(v6), server_end(v6), SYN).tcp_options(&told);
    let no_room = Verdict::Drop(Drop::NoRoom);
    case(
        format!("full NAT {}: a SYN without room", family_name(v6)),
        announcing(v6),
    )
    .turns(
        &packet.clone().tcp_options(&full),
        SENT,
        &out.macs(7, 3).ttl(63),
    )
    .leaves(&packet.clone().tcp_options(&vec![1; room + 4]), no_room)
    .leaves(&packet.payload(b"early data"), no_room)
}

/// Packets of unknown flows pass.
fn strangers(v6: bool) -> Case {
    let not_ours = Verdict::Pass(Pass::NotOurs);
    let other = (local(v6), PORT + 1);
    let (kind, code, rest) = errors(v6)[0];
    let quote = tcp(other, server_end(v6), ACK);
    let error = icmp(server_end(v6).0, other.0, kind, code, rest).payload(&quote.network());
    open(
        format!("full NAT {}: a server speaks for itself", family_name(v6)),
        v6,
        TCP,
    )
    .leaves(&tcp(server_end(v6), other, SYN), not_ours)
    .leaves(&udp(server_end(v6), local_end(v6)), not_ours)
    .leaves(&tcp(server_end(v6), client(v6), ACK), not_ours)
    .leaves(&tcp(client(v6), local_end(v6), ACK), not_ours)
    .leaves(&error, Verdict::Pass(Pass::Icmp))
}

fn fragments(v6: bool, protocol: u8) -> Case {
    let first = opening(protocol, client(v6), virtual_end(v6)).payload(&[1; 120]);
    let first = first.fragment(9, 0, true);
    let there = |packet: &Packet| {
        let out = packet.clone().from(local_end(v6)).to(server_end(v6));
        out.macs(7, 3).ttl(63)
    };
    let back = |packet: &Packet| {
        let out = packet.clone().from(virtual_end(v6)).to(client(v6));
        out.macs(8, 4).ttl(63)
    };
    let later = bare(client(v6).0, virtual_end(v6).0, protocol).payload(&[2; 64]);
    let later = later.fragment(9, 128, false);
    let answer = opening(protocol, server_end(v6), local_end(v6)).payload(&[3; 80]);
    let answer = answer.fragment(4, 0, true);
    let rest = bare(server_end(v6).0, local(v6), protocol).payload(&[4; 31]);
    let rest = rest.fragment(4, 96, false);
    case(
        format!("full NAT {}: fragments both ways", name(v6, protocol)),
        pool(v6, protocol, 1),
    )
    .leaves(&later, Verdict::Hold)
    .turns(&first, SENT, &there(&first))
    .turns(&later, SENT, &there(&later))
    .leaves(&rest, Verdict::Hold)
    .turns(&answer, BACK, &back(&answer))
    .turns(&rest, BACK, &back(&rest))
    .holds("two have followed", noted(Note::FragmentFollowed, 2))
}

/// `packet` between other ends, with the transport checksum of `packet`.
fn quoted(packet: &Packet, source: End, target: End) -> Vec<u8> {
    let after = packet.clone().from(source).to(target);
    let (old, mut new) = (packet.network(), after.network());
    let l4 = if packet.ends().0.is_ipv6() { 40 } else { 20 };
    let at = l4 + if packet.is_tcp() { 16 } else { 6 };
    new[at..at + 2].copy_from_slice(&old[at..at + 2]);
    new
}

fn router(v6: bool) -> IpAddr {
    let text = if v6 { "2001:db8:f::1" } else { "203.0.113.1" };
    text.parse().unwrap()
}

type Error = (u8, u8, u32);

/// An error about an answer reaches the server from the address that the server knows.
fn error_to_the_server(v6: bool, protocol: u8, (kind, code, rest): Error) -> Case {
    let about = opening(protocol, virtual_end(v6), client(v6)).payload(b"an answer");
    let error = icmp(router(v6), virtual_end(v6).0, kind, code, rest);
    let out = icmp(local(v6), server_end(v6).0, kind, code, rest);
    let out = out.payload(&quoted(&about, server_end(v6), local_end(v6)));
    let sentence = format!(
        "full NAT {}: error {kind}.{code} about an answer",
        name(v6, protocol)
    );
    open(sentence, v6, protocol)
        .turns(
            &error.payload(&about.network()),
            SENT,
            &out.macs(7, 3).ttl(63),
        )
        .holds("it is noted", noted(Note::IcmpRelated, 1))
}

fn error_to_the_client(v6: bool, protocol: u8, (kind, code, rest): Error) -> Case {
    let about = opening(protocol, local_end(v6), server_end(v6)).payload(b"a question");
    let sentence = format!(
        "full NAT {}: error {kind}.{code} about a question",
        name(v6, protocol)
    );
    let mut all = open(sentence, v6, protocol);
    for from in [server_end(v6).0, router(v6)] {
        let error = icmp(from, local(v6), kind, code, rest);
        let out = icmp(virtual_end(v6).0, client(v6).0, kind, code, rest);
        let out = out.payload(&quoted(&about, client(v6), virtual_end(v6)));
        all = all.turns(
            &error.payload(&about.network()),
            BACK,
            &out.macs(8, 4).ttl(63),
        );
    }
    all.holds("both are noted", noted(Note::IcmpRelated, 2))
}

/// If the server knows the client's own address, a router's error keeps its source.
fn error_keeps_its_source(v6: bool, protocol: u8, (kind, code, rest): Error) -> Case {
    let plain = NewServer {
        full_nat: false,
        ..full(v6)
    };
    let packet = opening(protocol, client(v6), virtual_end(v6));
    let there = packet.clone().to(server_end(v6)).macs(7, 3).ttl(63);
    let about = opening(protocol, virtual_end(v6), client(v6)).payload(b"an answer");
    let error = icmp(router(v6), virtual_end(v6).0, kind, code, rest);
    let out = icmp(router(v6), server_end(v6).0, kind, code, rest);
    let out = out.payload(&quoted(&about, server_end(v6), client(v6)));
    case(
        format!(
            "translated {}: error {kind}.{code} of a router",
            name(v6, protocol)
        ),
        one(v6, protocol, &plain),
    )
    .turns(&packet, SENT, &there)
    .turns(
        &error.payload(&about.network()),
        SENT,
        &out.macs(7, 3).ttl(63),
    )
}
