//! Fragments: first ones, later ones, early ones and false ones.

use shunt_datapath::entry::{Ways, method, scheduler, service_flag};
use shunt_datapath::fragment;
use shunt_datapath::host::{Hook, HostFrame, HostTables, NewServer, Sizes, mac};
use shunt_datapath::table::Tables;
use shunt_datapath::table::fragment::{FragmentValue, told};
use shunt_datapath::verdict::{Drop, Note, Pass, Verdict};
use shunt_datapath::{link, packet};

use super::connections::noted;
use super::farm::*;
use super::packet::*;
use super::{Case, case};

const SENT: Verdict = Verdict::Send(TO_SERVER);

pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for v6 in FAMILIES {
        for protocol in [TCP, UDP, SCTP] {
            if protocol != SCTP {
                cases.push(in_order(v6, protocol, method::MASQUERADE));
                cases.push(answers(v6, protocol));
            }
            cases.push(in_order(v6, protocol, method::ROUTE));
            cases.push(in_order(v6, protocol, method::TUNNEL));
            cases.push(before_the_first(v6, protocol));
            cases.push(of_no_service(v6, protocol));
            cases.push(of_a_servers_own(v6, protocol));
            cases.push(of_nobodys_address(v6, protocol));
        }
        cases.push(one_packet(v6));
        cases.push(overlapping(v6));
        cases.push(overlapping_for_others(v6));
        cases.push(tiny(v6));
        cases.push(given_up(v6));
        cases.push(of_icmp(v6));
        cases.push(forgotten(v6));
        cases.push(long_ones_cannot_be_held(v6));
    }
    cases
}

fn first(v6: bool, protocol: u8, id: u32) -> Packet {
    let packet = opening(protocol, client(v6), virtual_end(v6)).payload(&[1; 120]);
    packet.fragment(id, 0, true)
}

fn later(v6: bool, protocol: u8, id: u32, offset: u16, more: bool) -> Packet {
    let packet = bare(client(v6).0, virtual_end(v6).0, protocol).payload(&[2; 64]);
    packet.fragment(id, offset, more)
}

const NOT_OURS: Verdict = Verdict::Pass(Pass::NotOurs);

/// A first fragment between two ends, and two later ones.
fn three(protocol: u8, source: End, target: End, id: u32) -> [Packet; 3] {
    let first = opening(protocol, source, target).payload(&[1; 120]);
    let rest = |offset, more| {
        let rest = bare(source.0, target.0, protocol).payload(&[2; 64]);
        rest.fragment(id, offset, more)
    };
    [
        first.fragment(id, 0, true),
        rest(128, true),
        rest(192, false),
    ]
}

/// The director passes all of them, in order and twice.
fn left(mut all: Case, packets: &[Packet]) -> Case {
    for packet in packets.iter().chain(packets) {
        all = all.leaves(packet, NOT_OURS);
    }
    all
}

fn of_no_service(v6: bool, protocol: u8) -> Case {
    let (name, kind) = (family_name(v6), protocol_name(protocol));
    let mut all = case(
        format!("{name} {kind}: fragments to a virtual address that are no service's are not ours"),
        one(v6, protocol, &server(method::MASQUERADE, v6)),
    );
    let other = (virtual_end(v6).0, 53);
    all = left(all, &three(protocol, client(v6), other, 20));
    // Answers of a program on the director.
    left(all, &three(protocol, other, client(v6), 21))
}

fn of_a_servers_own(v6: bool, protocol: u8) -> Case {
    let (name, kind) = (family_name(v6), protocol_name(protocol));
    let mut all = case(
        format!("{name} {kind}: fragments of a masqueraded server's own are not ours"),
        one(v6, protocol, &server(method::MASQUERADE, v6)),
    );
    let (address, port) = server_end(v6);
    for (index, own) in [53, 40_000, port].into_iter().enumerate() {
        let (there, back) = (30 + 2 * index as u32, 31 + 2 * index as u32);
        all = left(all, &three(protocol, client(v6), (address, own), there));
        all = left(all, &three(protocol, (address, own), client(v6), back));
    }
    all
}

fn of_nobodys_address(v6: bool, protocol: u8) -> Case {
    let (name, kind) = (family_name(v6), protocol_name(protocol));
    let all = case(
        format!("{name} {kind}: fragments of other addresses are not remembered"),
        one(v6, protocol, &server(method::MASQUERADE, v6)),
    );
    let other = ((if v6 { DIRECTOR6 } else { DIRECTOR }), 80);
    let [first, ..] = three(protocol, client(v6), other, 40);
    left(all, &[first]).holds("nothing is remembered", |tables| {
        tables.fragments.lock().unwrap().is_empty()
    })
}

fn overlapping_for_others(v6: bool) -> Case {
    let other = (virtual_end(v6).0, 53);
    let [first, ..] = three(TCP, client(v6), other, 22);
    let into = later(v6, TCP, 22, 8, true);
    let all = case(
        format!(
            "{}: an overlapping fragment of no service is not ours",
            family_name(v6)
        ),
        one(v6, TCP, &server(method::ROUTE, v6)),
    );
    left(all, &[first, into])
}

/// What the daemon notes of a datagram whose first fragment did not come in time.
fn given_up(v6: bool) -> Case {
    fn give_up(tables: &mut HostTables) {
        let tick = (&*tables).now();
        for v6 in FAMILIES {
            let rest = later(v6, UDP, 23, 128, false);
            let frame = HostFrame::new(Hook::Xdp, &rest.bytes());
            let key = if v6 {
                fragment::key(&packet::read6(&frame, link::HEADER).unwrap())
            } else {
                fragment::key(&packet::parse4(&frame, link::HEADER).unwrap())
            };
            let value = FragmentValue {
                tick,
                portless: told::NOTHING,
                ..FragmentValue::default()
            };
            (&*tables).remember_fragment(&key, value);
        }
    }
    let rest = later(v6, UDP, 23, 128, false);
    let start = first(v6, UDP, 23);
    let forwarded = |packet: &Packet| packet.clone().macs(7, 3).ttl(63);
    case(
        format!(
            "{}: a datagram whose first fragment did not come is the kernel's until it comes",
            family_name(v6)
        ),
        one(v6, UDP, &server(method::ROUTE, v6)),
    )
    .leaves(&rest, Verdict::Hold)
    .changes(give_up)
    .leaves(&rest, Verdict::Pass(Pass::LostFragment))
    .turns(&start, SENT, &forwarded(&start))
    .turns(&rest, SENT, &forwarded(&rest))
}

fn of_icmp(v6: bool) -> Case {
    let (kind, protocol) = if v6 { (128, 58) } else { (8, 1) };
    let passes = Verdict::Pass(Pass::Icmp);
    let echo = icmp(client(v6).0, virtual_end(v6).0, kind, 0, 7).payload(&[1; 120]);
    let rest = bare(client(v6).0, virtual_end(v6).0, protocol).payload(&[2; 64]);
    case(
        format!(
            "{}: fragments of a ping are the kernel's at once",
            family_name(v6)
        ),
        one(v6, UDP, &server(method::MASQUERADE, v6)),
    )
    .leaves(&rest.clone().fragment(24, 128, false), passes)
    .leaves(&echo.fragment(24, 0, true), passes)
    .leaves(&rest.fragment(24, 128, false), passes)
}

/// All fragments of a datagram go to one server, without an entry of a flow.
fn one_packet(v6: bool) -> Case {
    let mut tables = HostTables::new(Sizes::default());
    let (address, port) = virtual_end(v6);
    tables.add_service(address, port, UDP, service_flag::ONE_PACKET);
    for number in 1..=2 {
        let ways = Ways::new(mac(0x100 + number), mac(3), TO_SERVER, 1500);
        let server = NewServer {
            ways,
            ..server(method::ROUTE, v6)
        };
        tables.add_server(1, &server);
    }
    tables.set_pool(1, scheduler::RING, &[(1, 1), (2, 1)]);
    let whole = opening(UDP, client(v6), virtual_end(v6));
    let packets = [
        (whole.clone(), 1),
        (first(v6, UDP, 9), 2),
        (first(v6, UDP, 10), 1),
        (later(v6, UDP, 9, 128, true), 2),
        (whole, 2),
        (later(v6, UDP, 10, 128, false), 1),
        (later(v6, UDP, 9, 192, false), 2),
    ];
    let sentence = format!(
        "{}: fragments of one packet have one server",
        family_name(v6)
    );
    let mut all = case(sentence, tables);
    for (packet, number) in packets {
        let out = packet.clone().macs(0x100 + number, 3).ttl(63);
        all = all.turns(&packet, SENT, &out);
    }
    all.holds("four datagrams, and no entry", |tables| {
        let count = |server: usize| tables.traffic.of(server).connections;
        count(1) + count(2) == 4 && live(tables, 1) == (0, 0)
    })
}

fn in_order(v6: bool, protocol: u8, method: u8) -> Case {
    let to = server(method, v6);
    let forwarded = |packet: &Packet| {
        let packet = packet.clone().ttl(63);
        match method {
            method::MASQUERADE => packet.to(server_end(v6)),
            method::TUNNEL => packet.inside(to.outer_source, to.address),
            _ => packet,
        }
        .macs(7, 3)
    };
    let packets = [
        first(v6, protocol, 9),
        later(v6, protocol, 9, 128, true),
        later(v6, protocol, 9, 192, false),
    ];
    let mut all = case(
        format!(
            "{} {}: later fragments follow their first one (method {method})",
            family_name(v6),
            protocol_name(protocol)
        ),
        one(v6, protocol, &to),
    );
    for packet in &packets {
        all = all.turns(packet, SENT, &forwarded(packet));
    }
    all.holds("two have followed", noted(Note::FragmentFollowed, 2))
        .leaves(&later(v6, protocol, 10, 128, false), Verdict::Hold)
}

fn answers(v6: bool, protocol: u8) -> Case {
    let open = opening(protocol, client(v6), virtual_end(v6));
    let there = open.clone().to(server_end(v6)).macs(7, 3).ttl(63);
    let answer = open
        .clone()
        .from(server_end(v6))
        .to(client(v6))
        .payload(&[3; 80]);
    let first = answer.fragment(4, 0, true);
    let later = bare(server_end(v6).0, client(v6).0, protocol).fragment(4, 96, false);
    let later = later.payload(&[4; 31]);
    let back = |packet: &Packet| packet.clone().from(virtual_end(v6)).macs(8, 4).ttl(63);
    case(
        format!(
            "NAT {} {}: fragments of an answer come from the virtual address",
            family_name(v6),
            protocol_name(protocol)
        ),
        one(v6, protocol, &server(method::MASQUERADE, v6)),
    )
    .turns(&open, SENT, &there)
    .leaves(&later, Verdict::Hold)
    .turns(&first, Verdict::Send(TO_CLIENT), &back(&first))
    .turns(&later, Verdict::Send(TO_CLIENT), &back(&later))
}

fn before_the_first(v6: bool, protocol: u8) -> Case {
    let early = later(v6, protocol, 5, 128, false);
    let start = first(v6, protocol, 5);
    let forwarded = |packet: &Packet| packet.clone().macs(7, 3).ttl(63);
    case(
        format!(
            "{} {}: a later fragment that comes before its first is set aside",
            family_name(v6),
            protocol_name(protocol)
        ),
        one(v6, protocol, &server(method::ROUTE, v6)),
    )
    .leaves(&early, Verdict::Hold)
    .turns(&start, SENT, &forwarded(&start))
    .turns(&early, SENT, &forwarded(&early))
    .leaves(
        &bare(client(v6).0, server_end(v6).0, protocol)
            .fragment(5, 128, false)
            .payload(&[0; 8]),
        Verdict::Pass(Pass::NotOurs),
    )
}

fn overlapping(v6: bool) -> Case {
    let start = first(v6, TCP, 6);
    let dropped = Verdict::Drop(Drop::BadFragment);
    case(
        format!(
            "{}: a fragment that reaches into the TCP header is dropped",
            family_name(v6)
        ),
        one(v6, TCP, &server(method::ROUTE, v6)),
    )
    .turns(&start, SENT, &start.clone().macs(7, 3).ttl(63))
    .leaves(&later(v6, TCP, 6, 8, true), dropped)
    .leaves(&later(v6, TCP, 6, 16, false), dropped)
    .turns(
        &later(v6, TCP, 6, 24, false),
        SENT,
        &later(v6, TCP, 6, 24, false).macs(7, 3).ttl(63),
    )
}

fn tiny(v6: bool) -> Case {
    let not_understood = Verdict::Pass(Pass::NotUnderstood);
    let start = |bytes: usize| {
        let head = tcp(client(v6), virtual_end(v6), SYN).network();
        let head = &head[if v6 { 40 } else { 20 }..][..bytes];
        bare(client(v6).0, virtual_end(v6).0, TCP)
            .fragment(8, 0, true)
            .payload(head)
    };
    case(
        format!(
            "{}: a first fragment without a whole TCP header is the kernel's, with all that follow",
            family_name(v6)
        ),
        one(v6, TCP, &server(method::ROUTE, v6)),
    )
    .leaves(&start(8), not_understood)
    .leaves(&start(16), not_understood)
    .leaves(&later(v6, TCP, 8, 8, true), not_understood)
    .leaves(&later(v6, TCP, 8, 24, false), not_understood)
}

fn forgotten(v6: bool) -> Case {
    let start = first(v6, UDP, 11);
    let rest = later(v6, UDP, 11, 128, false);
    let forwarded = |packet: &Packet| packet.clone().macs(7, 3).ttl(63);
    case(
        format!(
            "{}: a first fragment is remembered for half a minute",
            family_name(v6)
        ),
        one(v6, UDP, &server(method::ROUTE, v6)),
    )
    .turns(&start, SENT, &forwarded(&start))
    .waits(32)
    .turns(&rest, SENT, &forwarded(&rest))
    .waits(1)
    .leaves(&rest, Verdict::Hold)
}

fn long_ones_cannot_be_held(v6: bool) -> Case {
    let network = if v6 { 48 } else { 20 };
    let held = later(v6, UDP, 12, 128, false).payload(&vec![0; 2040 - 14 - network]);
    let long = later(v6, UDP, 12, 128, false).payload(&vec![0; 2041 - 14 - network]);
    case(
        format!(
            "{}: a fragment too long to be set aside is the kernel's",
            family_name(v6)
        ),
        one(v6, UDP, &server(method::ROUTE, v6)),
    )
    .leaves(&held, Verdict::Hold)
    .leaves(&long, Verdict::Pass(Pass::LostFragment))
}
