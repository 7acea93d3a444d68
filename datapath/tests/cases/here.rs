//! A masqueraded server that is the director itself: requests are rewritten and passed to its
//! stack, and the answers of its stack are translated on the way out.

use std::net::IpAddr;

use shunt_datapath::entry::method;
use shunt_datapath::host::{Hook, HostFrame, HostTables, NewServer};
use shunt_datapath::verdict::{Drop, Pass, Verdict};

use super::farm::*;
use super::icmp::{quoted_from, quoted_to};
use super::packet::*;
use super::{Case, case};

const UP: Verdict = Verdict::Pass(Pass::Local);

pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for v6 in FAMILIES {
        for protocol in [TCP, UDP, SCTP] {
            cases.push(there_and_back(v6, protocol));
            cases.push(errors(v6, protocol));
            cases.push(not_to_a_loopback_address(v6, protocol));
        }
        cases.push(only_its_own_answers(v6));
        cases.push(in_pieces(v6));
    }
    cases
}

fn here(v6: bool) -> NewServer {
    NewServer {
        method: method::HERE,
        ..server(method::MASQUERADE, v6)
    }
}

/// The frame that leaves by a device in place of this packet, and the verdict.
fn leaves(tables: &HostTables, packet: &Packet) -> (Verdict, Vec<u8>) {
    let mut frame = HostFrame::new(Hook::Tc, &packet.bytes());
    let verdict = tables.leave(&mut frame);
    (verdict, frame.bytes().to_vec())
}

fn sentence(v6: bool, protocol: u8, text: &str) -> String {
    let (family, name) = (family_name(v6), protocol_name(protocol));
    format!("{name} {family}, the director itself: {text}")
}

fn there_and_back(v6: bool, protocol: u8) -> Case {
    let first = opening(protocol, client(v6), virtual_end(v6)).ttl(1);
    let answer = opening(protocol, server_end(v6), client(v6)).payload(b"an answer");
    let back = answer.clone().from(virtual_end(v6));
    let text = "ports and addresses are exchanged, and no hop is counted";
    case(sentence(v6, protocol, text), one(v6, protocol, &here(v6)))
        .turns(&first, UP, &first.clone().to(server_end(v6)))
        .holds("the answer is the service's", move |tables| {
            leaves(tables, &answer) == (UP, back.bytes())
        })
        .holds("packets are counted both ways", |tables| {
            let traffic = tables.traffic.of(1);
            (traffic.in_packets, traffic.out_packets) == (1, 1)
        })
}

// `ip_vs_nat_xmit`: no packet from outside goes to a loopback address.
fn not_to_a_loopback_address(v6: bool, protocol: u8) -> Case {
    let address: IpAddr = if v6 { "::1" } else { "127.0.0.1" }.parse().unwrap();
    let server = NewServer {
        address,
        ..here(v6)
    };
    let first = opening(protocol, client(v6), virtual_end(v6));
    let text = "nothing from the world comes to a loopback address";
    case(sentence(v6, protocol, text), one(v6, protocol, &server))
        .leaves(&first, Verdict::Drop(Drop::NoNextHop))
        .holds("it has an entry all the same", |tables| {
            live(tables, 1) != (0, 0)
        })
}

fn only_its_own_answers(v6: bool) -> Case {
    let first = opening(TCP, client(v6), virtual_end(v6));
    let (server, (address, port)) = (server_end(v6), client(v6));
    let others = [
        tcp(server, (address, port + 1), SYN | ACK),
        tcp((server.0, server.1 + 1), (address, port), SYN | ACK),
        udp(server, (address, port)),
        tcp(virtual_end(v6), (address, port), ACK),
        icmp(server.0, address, 0, 0, 7).payload(&[1; 60]),
    ];
    let text = "all else that leaves stays as it is";
    case(sentence(v6, TCP, text), one(v6, TCP, &here(v6)))
        .turns(&first, UP, &first.clone().to(server))
        .holds("of others, and to others", move |tables| {
            let stays = |packet: &Packet| {
                let (verdict, bytes) = leaves(tables, packet);
                verdict != UP && bytes == packet.bytes()
            };
            others.iter().all(stays)
        })
}

/// A datagram that the director's own stack has fragmented.
fn in_pieces(v6: bool) -> Case {
    let first = opening(UDP, client(v6), virtual_end(v6));
    let head = |from| udp(from, client(v6)).payload(&[5; 64]).fragment(9, 0, true);
    let tail = |from: IpAddr| {
        let rest = bare(from, client(v6).0, UDP).payload(&[5; 64]);
        rest.fragment(9, 72, false)
    };
    let pieces = [
        (head(server_end(v6)), head(virtual_end(v6))),
        (tail(server_end(v6).0), tail(virtual_end(v6).0)),
    ];
    let text = "the pieces of an answer are all the service's";
    case(sentence(v6, UDP, text), one(v6, UDP, &here(v6)))
        .turns(&first, UP, &first.clone().to(server_end(v6)))
        .holds("each of them", move |tables| {
            let mut pieces = pieces.iter();
            pieces.all(|(piece, wanted)| leaves(tables, piece) == (UP, wanted.bytes()))
        })
}

// `ip_vs_in_icmp`, `ip_vs_out_icmp`.
fn errors(v6: bool, protocol: u8) -> Case {
    let (kind, code) = if v6 { (2, 0) } else { (3, 4) };
    let first = opening(protocol, client(v6), virtual_end(v6));
    let answer = opening(protocol, virtual_end(v6), client(v6)).payload(b"an answer");
    let error = icmp(client(v6).0, virtual_end(v6).0, kind, code, 1400);
    let up = error.clone().to(server_end(v6));
    let up = up.payload(&quoted_from(&answer, server_end(v6)));
    let asked = opening(protocol, client(v6), server_end(v6)).payload(b"a question");
    let unheard = icmp(server_end(v6).0, client(v6).0, kind, code, 1400);
    let out = unheard.clone().from(virtual_end(v6));
    let out = out.payload(&quoted_to(&asked, virtual_end(v6)));
    let unheard = unheard.payload(&asked.network());
    let text = "errors speak of the side that hears them";
    case(sentence(v6, protocol, text), one(v6, protocol, &here(v6)))
        .turns(&first, UP, &first.clone().to(server_end(v6)))
        .turns(&error.payload(&answer.network()), UP, &up)
        .holds("also on the way out", move |tables| {
            leaves(tables, &unheard) == (UP, out.bytes())
        })
}
