//! Servers of full NAT that get the client's address in a PROXY header.

use std::net::IpAddr;

use shunt_datapath::entry::service_flag;
use shunt_datapath::host::HostTables;
use shunt_datapath::verdict::Verdict;

use super::farm::*;
use super::packet::*;
use super::translated::{full, local};
use super::{Case, case};

const SENT: Verdict = Verdict::Send(TO_SERVER);
const BACK: Verdict = Verdict::Send(TO_CLIENT);

pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for v6 in FAMILIES {
        cases.push(with_the_first_acknowledgement(v6));
        cases.push(with_data_that_comes_first(v6));
        cases.push(what_is_not_acknowledged_comes_again(v6));
        cases.push(selective_acknowledgements(v6));
        cases.push(without_room(v6));
        cases.push(the_end(v6));
    }
    cases
}

fn tables(v6: bool) -> HostTables {
    let mut tables = one(v6, TCP, &full(v6));
    tables.services[1].flags |= service_flag::PROXY;
    tables.add_local(local(v6), 5000, 1);
    tables
}

fn local_end(v6: bool) -> End {
    (local(v6), 5000)
}

/// PROXY protocol, 2.2.
pub(super) fn header(v6: bool) -> Vec<u8> {
    let mut header = b"\r\n\r\n\0\r\nQUIT\n".to_vec();
    header.extend(if v6 {
        [0x21, 0x21, 0, 36]
    } else {
        [0x21, 0x11, 0, 12]
    });
    let ends = [client(v6), virtual_end(v6)];
    for (address, _) in ends {
        match address {
            IpAddr::V4(address) => header.extend(address.octets()),
            IpAddr::V6(address) => header.extend(address.octets()),
        }
    }
    for (_, port) in ends {
        header.extend(port.to_be_bytes());
    }
    header
}

fn more(v6: bool) -> u32 {
    header(v6).len() as u32
}

/// A client's segment, and how the server gets it.
fn question(v6: bool, flags: u8, numbers: [u32; 2], payload: &[u8]) -> Packet {
    let packet = tcp(client(v6), virtual_end(v6), flags);
    packet.numbers(numbers[0], numbers[1]).payload(payload)
}

fn at_server(v6: bool, flags: u8, numbers: [u32; 2], payload: &[u8]) -> Packet {
    let packet = tcp(local_end(v6), server_end(v6), flags);
    let packet = packet.numbers(numbers[0], numbers[1]).payload(payload);
    packet.macs(7, 3).ttl(63)
}

fn answer(v6: bool, flags: u8, numbers: [u32; 2], payload: &[u8]) -> Packet {
    let packet = tcp(server_end(v6), local_end(v6), flags);
    packet.numbers(numbers[0], numbers[1]).payload(payload)
}

fn at_client(v6: bool, flags: u8, numbers: [u32; 2], payload: &[u8]) -> Packet {
    let packet = tcp(virtual_end(v6), client(v6), flags);
    let packet = packet.numbers(numbers[0], numbers[1]).payload(payload);
    packet.macs(8, 4).ttl(63)
}

/// The client's initial sequence number: it wraps round soon.
const ISN: u32 = 0xffff_fff0;
const FIRST: u32 = ISN.wrapping_add(1);

fn opened(v6: bool, sentence: &str) -> Case {
    case(format!("PROXY {}: {sentence}", family_name(v6)), tables(v6))
        .turns(
            &question(v6, SYN, [ISN, 0], b""),
            SENT,
            &at_server(v6, SYN, [ISN, 0], b""),
        )
        .turns(
            &answer(v6, SYN | ACK, [5000, FIRST], b""),
            BACK,
            &at_client(v6, SYN | ACK, [5000, FIRST], b""),
        )
}

fn with_the_first_acknowledgement(v6: bool) -> Case {
    let (header, more) = (header(v6), more(v6));
    let there = FIRST.wrapping_add(more);
    opened(
        v6,
        "the header comes before all, and is nothing to the client",
    )
    .turns(
        &question(v6, ACK, [FIRST, 5001], b"").padding(6),
        SENT,
        &at_server(v6, ACK, [FIRST, 5001], &header).padding(6),
    )
    .turns(
        &answer(v6, ACK, [5001, there], b"welcome"),
        BACK,
        &at_client(v6, ACK, [5001, FIRST], b"welcome"),
    )
    .turns(
        &question(v6, ACK, [FIRST, 5008], b""),
        SENT,
        &at_server(v6, ACK, [there, 5008], b""),
    )
    .turns(
        &question(v6, ACK, [FIRST, 5008], b"data"),
        SENT,
        &at_server(v6, ACK, [there, 5008], b"data"),
    )
    .turns(
        &answer(v6, ACK, [5008, there.wrapping_add(4)], b""),
        BACK,
        &at_client(v6, ACK, [5008, FIRST.wrapping_add(4)], b""),
    )
    // A keepalive.
    .turns(
        &question(v6, ACK, [FIRST.wrapping_add(3), 5008], b""),
        SENT,
        &at_server(v6, ACK, [there.wrapping_add(3), 5008], b""),
    )
}

fn with_data_that_comes_first(v6: bool) -> Case {
    let (header, more) = (header(v6), more(v6));
    let data: Vec<u8> = (0..171).collect();
    let with = [&header[..], &data].concat();
    let next = FIRST.wrapping_add(171);
    opened(
        v6,
        "the header goes before data, whose rest goes on behind it",
    )
    .turns(
        &question(v6, ACK, [FIRST, 5001], &data),
        SENT,
        &at_server(v6, ACK, [FIRST, 5001], &with),
    )
    .turns(
        &question(v6, ACK, [next, 5001], b"more"),
        SENT,
        &at_server(v6, ACK, [next.wrapping_add(more), 5001], b"more"),
    )
    .turns(
        &answer(v6, ACK, [5001, next.wrapping_add(more)], b""),
        BACK,
        &at_client(v6, ACK, [5001, next], b""),
    )
}

fn what_is_not_acknowledged_comes_again(v6: bool) -> Case {
    let header = header(v6);
    let with = [&header[..], b"data"].concat();
    opened(v6, "the header comes again until the server has it")
        .turns(
            &question(v6, ACK, [FIRST, 5001], b""),
            SENT,
            &at_server(v6, ACK, [FIRST, 5001], &header),
        )
        .turns(
            &question(v6, ACK, [FIRST, 5001], b"data"),
            SENT,
            &at_server(v6, ACK, [FIRST, 5001], &with),
        )
        .turns(
            &answer(v6, ACK, [5001, FIRST], b""),
            BACK,
            &at_client(v6, ACK, [5001, FIRST], b""),
        )
        // The server acknowledges a part of the header, which is none of the client's bytes.
        .turns(
            &answer(v6, ACK, [5001, FIRST.wrapping_add(3)], b""),
            BACK,
            &at_client(v6, ACK, [5001, FIRST], b""),
        )
        .turns(
            &question(v6, ACK, [FIRST, 5001], b"data"),
            SENT,
            &at_server(v6, ACK, [FIRST, 5001], &with),
        )
}

/// The SACK option (RFC 2018) at an even and at an odd offset.
fn selective(edges: [u32; 4], odd: bool) -> Vec<u8> {
    let mut option = if odd { vec![1] } else { vec![1, 1] };
    option.extend([5, 18]);
    for edge in edges {
        option.extend(edge.to_be_bytes());
    }
    option.resize(20, 0);
    option
}

fn selective_acknowledgements(v6: bool) -> Case {
    let (header, more) = (header(v6), more(v6));
    let mut all = opened(v6, "selective acknowledgements are the client's").turns(
        &question(v6, ACK, [FIRST, 5001], b""),
        SENT,
        &at_server(v6, ACK, [FIRST, 5001], &header),
    );
    let there = |ahead: u32| FIRST.wrapping_add(more).wrapping_add(ahead);
    let here = |ahead: u32| FIRST.wrapping_add(ahead);
    for odd in [false, true] {
        let theirs = selective([there(100), there(200), there(300), there(400)], odd);
        let ours = selective([here(100), here(200), here(300), here(400)], odd);
        let packet = answer(v6, ACK, [5001, there(7)], b"").tcp_options(&theirs);
        let out = at_client(v6, ACK, [5001, here(7)], b"").tcp_options(&ours);
        all = all.turns(&packet, BACK, &out);
    }
    all
}

/// Data without room for the header goes without it once a header was sent; if that header was
/// lost, it is sent again.
fn without_room(v6: bool) -> Case {
    let (header, more) = (header(v6), more(v6));
    let data = vec![7; if v6 { 1440 } else { 1460 }];
    let large = question(v6, ACK | FIN, [FIRST, 5001], &data);
    let mut all = opened(v6, "a header and data that do not fit together");
    // No header was sent before: the header goes alone, without the FIN.
    all = all.turns(&large, SENT, &at_server(v6, ACK, [FIRST, 5001], &header));
    let shifted = at_server(v6, ACK | FIN, [FIRST.wrapping_add(more), 5001], &data);
    all.turns(&large, SENT, &shifted)
        .turns(&large, SENT, &at_server(v6, ACK, [FIRST, 5001], &header))
        .turns(&large, SENT, &shifted)
}

fn the_end(v6: bool) -> Case {
    let (header, more) = (header(v6), more(v6));
    let there = FIRST.wrapping_add(more);
    opened(v6, "a client that says nothing ends behind the header")
        .turns(
            &question(v6, ACK | FIN, [FIRST, 5001], b""),
            SENT,
            &at_server(v6, ACK | FIN, [FIRST, 5001], &header),
        )
        .turns(
            &answer(v6, ACK | FIN, [5001, there.wrapping_add(1)], b""),
            BACK,
            &at_client(v6, ACK | FIN, [5001, FIRST.wrapping_add(1)], b""),
        )
        .turns(
            &question(v6, ACK, [FIRST.wrapping_add(1), 5002], b""),
            SENT,
            &at_server(v6, ACK, [there.wrapping_add(1), 5002], b""),
        )
}
