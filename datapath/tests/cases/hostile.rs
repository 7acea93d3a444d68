//! Packets that nobody should send: truncated, contradictory, martian, or aimed at the director's
//! own tables.

use std::net::IpAddr;
use std::sync::atomic::Ordering;

use shunt_datapath::entry::{method, scheduler};
use shunt_datapath::flows::{BUSY, GONE};
use shunt_datapath::host::{HostTables, Sizes};
use shunt_datapath::verdict::{Drop, Pass, Verdict};

use super::farm::*;
use super::packet::*;
use super::{Case, case};

const NOT_UNDERSTOOD: Verdict = Verdict::Pass(Pass::NotUnderstood);

pub(super) fn cases() -> Vec<Case> {
    let mut cases = vec![lying_header(), wrong_checksum(), lying_header6()];
    for v6 in FAMILIES {
        for protocol in [TCP, UDP] {
            cases.push(cut_everywhere(v6, protocol, &[]));
            cases.push(cut_everywhere(v6, protocol, &[0x8100]));
            cases.push(cut_everywhere(v6, protocol, &[0x88a8, 0x8100]));
            cases.push(shorter_than_its_transport(v6, protocol));
        }
        cases.push(lying_data_offset(v6));
        cases.push(bad_sources(v6));
        cases.push(land(v6));
        cases.push(not_ip(v6));
    }
    cases.extend([BUSY, GONE].map(nobody_is_no_slot));
    cases
}

fn routed(v6: bool, protocol: u8) -> HostTables {
    one(v6, protocol, &server(method::ROUTE, v6))
}

fn cut_everywhere(v6: bool, protocol: u8, tags: &[u16]) -> Case {
    let packet = opening(protocol, client(v6), virtual_end(v6))
        .payload(b"payload")
        .tags(tags);
    let frame = packet.bytes();
    let mut all = case(
        format!(
            "{} {} with {} tags, cut at every byte, is left to the kernel",
            family_name(v6),
            protocol_name(protocol),
            tags.len()
        ),
        routed(v6, protocol),
    );
    // A priority tag is removed before the packet is parsed; a frame with two tags passes.
    let link = if tags.is_empty() { 14 } else { 18 };
    let plain = packet.clone().tags(&[]).bytes();
    for length in 0..frame.len() {
        let given = frame[..length].to_vec();
        all = if length < link {
            all.leaves_bytes(given, Verdict::Pass(Pass::NotIp))
        } else if tags.len() == 2 {
            all.leaves_bytes(given, Verdict::Pass(Pass::Tagged))
        } else {
            let out = plain[..length - 4 * tags.len()].to_vec();
            all.given(given, NOT_UNDERSTOOD, out, None, 0)
        };
    }
    all
}

/// The whole frame is there, but the network header says that the packet ends early.
fn shorter_than_its_transport(v6: bool, protocol: u8) -> Case {
    let packet = opening(protocol, client(v6), virtual_end(v6));
    let header = if protocol == TCP { 20 } else { 8 };
    let head = packet.network()[if v6 { 40 } else { 20 }..].to_vec();
    let mut all = case(
        format!(
            "{} {}: a packet that ends within its transport header is not understood",
            family_name(v6),
            protocol_name(protocol)
        ),
        routed(v6, protocol),
    );
    for length in 0..header {
        let short = bare(client(v6).0, virtual_end(v6).0, protocol).payload(&head[..length]);
        let mut frame = short.bytes();
        frame.extend_from_slice(&head[length..]);
        all = all.leaves_bytes(frame, NOT_UNDERSTOOD);
    }
    all
}

/// A frame with some bytes replaced; the IPv4 header checksum is made right again.
fn forged(packet: &Packet, changes: &[(usize, u8)]) -> Vec<u8> {
    let mut frame = packet.bytes();
    for (at, byte) in changes {
        frame[*at] = *byte;
    }
    if !packet.ends().0.is_ipv6() {
        mend(&mut frame[14..34]);
    }
    frame
}

fn lying_header() -> Case {
    let packet = tcp(client(false), virtual_end(false), SYN);
    let mut all = case(
        "IPv4: headers that contradict themselves are left to the kernel",
        routed(false, TCP),
    );
    for changes in [
        vec![(14, 0x44)],
        vec![(14, 0x40)],
        vec![(14, 0x65)],
        vec![(14, 0x55)],
        vec![(14, 0x46), (17, 23)],
        vec![(17, 19)],
        vec![(17, 41)],
        vec![(16, 0xff), (17, 0xff)],
        vec![(17, 0)],
    ] {
        all = all.leaves_bytes(forged(&packet, &changes), NOT_UNDERSTOOD);
    }
    all
}

fn lying_header6() -> Case {
    let packet = tcp(client(true), virtual_end(true), SYN);
    let hop_by_hop = |length: u8| {
        let mut frame = packet.clone().extension(0, &[1, 4, 0, 0, 0, 0]).bytes();
        frame[14 + 40 + 1] = length;
        frame
    };
    let mut seven = packet.clone();
    for _ in 0..7 {
        seven = seven.extension(60, &[1, 4, 0, 0, 0, 0]);
    }
    let long = packet.clone().extension(60, &[1; 8 * 60 - 2]);
    case(
        "IPv6: headers that contradict themselves or go on too long are left to the kernel",
        routed(true, TCP),
    )
    .leaves_bytes(forged(&packet, &[(14, 0x50)]), NOT_UNDERSTOOD)
    .leaves_bytes(forged(&packet, &[(19, 21)]), NOT_UNDERSTOOD)
    .leaves_bytes(forged(&packet, &[(18, 0xff)]), NOT_UNDERSTOOD)
    .leaves_bytes(forged(&packet, &[(19, 0)]), NOT_UNDERSTOOD)
    .leaves_bytes(hop_by_hop(1), NOT_UNDERSTOOD)
    .leaves_bytes(hop_by_hop(255), NOT_UNDERSTOOD)
    .leaves(&seven, NOT_UNDERSTOOD)
    .leaves(&long, NOT_UNDERSTOOD)
    // No next header (RFC 8200, 4.7) and AH (RFC 4302) have no ports.
    .leaves_bytes(forged(&packet, &[(20, 59)]), Verdict::Pass(Pass::NotOurs))
    .leaves_bytes(forged(&packet, &[(20, 51)]), Verdict::Pass(Pass::NotOurs))
}

fn wrong_checksum() -> Case {
    let dropped = Verdict::Drop(Drop::BadChecksum);
    let plain = tcp(client(false), virtual_end(false), SYN);
    let mut all = case(
        "IPv4: a wrong header checksum drops the packet",
        routed(false, TCP),
    );
    for packet in [
        plain.clone(),
        plain.clone().options(&[1; 4]),
        plain.options(&[1; 40]),
    ] {
        let header = 20 + packet.network().len() - 40;
        for at in (14 + 10..14 + header).filter(|at| *at != 23) {
            let mut frame = packet.bytes();
            frame[at] ^= 0x10;
            all = all.leaves_bytes(frame, dropped);
        }
    }
    all
}

fn lying_data_offset(v6: bool) -> Case {
    let packet = tcp(client(v6), virtual_end(v6), SYN);
    let at = 14 + if v6 { 40 } else { 20 } + 12;
    let mut all = case(
        format!(
            "{}: a TCP header that lies about its length is not understood",
            family_name(v6)
        ),
        routed(v6, TCP),
    );
    for words in [0, 1, 4, 6, 15] {
        let mut frame = packet.bytes();
        frame[at] = words << 4;
        all = all.leaves_bytes(frame, NOT_UNDERSTOOD);
    }
    all
}

fn bad_sources(v6: bool) -> Case {
    let texts: &[&str] = if v6 {
        &[
            "::",
            "::1",
            "ff02::1",
            "ff0e::5",
            "::ffff:198.51.100.9",
            "fe80::9",
            "febf::9",
        ]
    } else {
        &[
            "0.0.0.0",
            "0.1.2.3",
            "127.0.0.1",
            "224.0.0.1",
            "240.0.0.1",
            "255.255.255.255",
        ]
    };
    let mut all = case(
        format!(
            "{}: nobody can be a client from such an address",
            family_name(v6)
        ),
        routed(v6, TCP),
    );
    for text in texts {
        let source: IpAddr = text.parse().unwrap();
        let packet = tcp((source, 40_000), virtual_end(v6), SYN);
        all = all.leaves(&packet, Verdict::Drop(Drop::BadSource));
    }
    all.holds("nothing is counted", |tables| live(tables, 1) == (0, 0))
}

fn land(v6: bool) -> Case {
    let packet = tcp(virtual_end(v6), virtual_end(v6), SYN);
    let other = tcp((virtual_end(v6).0, 1), virtual_end(v6), SYN);
    let dropped = Verdict::Drop(Drop::BadSource);
    case(
        format!(
            "{}: a packet from the service to itself is dropped",
            family_name(v6)
        ),
        routed(v6, TCP),
    )
    .leaves(&packet, dropped)
    .leaves(&other, dropped)
}

fn not_ip(v6: bool) -> Case {
    let mut frame = opening(TCP, client(v6), virtual_end(v6)).bytes();
    frame[12..14].copy_from_slice(&0x0806u16.to_be_bytes());
    let thrice = opening(TCP, client(v6), virtual_end(v6)).tags(&[0x8100; 3]);
    case(
        format!(
            "ARP in the place of {}, and a third tag, pass",
            family_name(v6)
        ),
        routed(v6, TCP),
    )
    .leaves_bytes(frame, Verdict::Pass(Pass::NotIp))
    .leaves(&thrice, Verdict::Pass(Pass::Tagged))
}

/// The key of a packet from 0.0.0.0 port 0 to service 1 or 2 equals the value that marks a slot.
fn nobody_is_no_slot(mark: u64) -> Case {
    let mut tables = HostTables::new(Sizes {
        flows: 1,
        ..Sizes::default()
    });
    for port in [79, 80] {
        let id = tables.add_service(VIRTUAL, port, TCP, 0);
        let server = tables.add_server(id, &server(method::ROUTE, false));
        tables.set_pool(id, scheduler::RING, &[(server, 1)]);
    }
    // Established, server 1, seen at the present tick.
    for slot in 0..4 {
        tables.flows4[slot * 2].store(mark, Ordering::SeqCst);
        tables.flows4[slot * 2 + 1].store(1 | 1 << 32, Ordering::SeqCst);
    }
    let nobody: IpAddr = "0.0.0.0".parse().unwrap();
    let mut all = case(
        format!("a packet from nobody's port 0 finds no slot marked {mark}"),
        tables,
    );
    for port in [79, 80] {
        let open = tcp((nobody, 0), (VIRTUAL, port), SYN);
        let goes_on = open.clone().flags(ACK);
        let verdict = if mark == GONE {
            Verdict::Pass(Pass::NotOpening)
        } else {
            BY_HASH
        };
        let out = if mark == GONE {
            goes_on.clone()
        } else {
            goes_on.clone().macs(7, 3).ttl(63)
        };
        all = all
            .leaves(&open, Verdict::Drop(Drop::BadSource))
            .turns(&goes_on, verdict, &out);
    }
    all.holds("no slot was touched", move |tables| {
        (0..4).all(|slot| tables.flows4[slot * 2].load(Ordering::SeqCst) == mark)
    })
}

/// If a bucket has no slot to give, a segment could belong to a flow without an entry.
const BY_HASH: Verdict = Verdict::Send(TO_SERVER);
