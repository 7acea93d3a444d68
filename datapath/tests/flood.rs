//! Floods of opening packets beside established flows.

// A test may panic: that is how it fails.
#![allow(clippy::arithmetic_side_effects, clippy::indexing_slicing)]
#![allow(clippy::expect_used, clippy::unwrap_used, clippy::panic)]
#![allow(dead_code)]

mod cases;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use cases::farm::*;
use cases::packet::*;
use shunt_datapath::entry::{method, scheduler};
use shunt_datapath::host::{Hook, HostFrame, HostTables, Sizes};
use shunt_datapath::verdict::Verdict;

const FLOWS: u16 = 300;
const FLOOD: u32 = 24_000;

fn tables(v6: bool, protocol: u8, method: u8) -> HostTables {
    let mut tables = HostTables::new(Sizes {
        flows: 4096,
        ..Sizes::default()
    });
    let (address, port) = virtual_end(v6);
    tables.add_service(address, port, protocol, 0);
    tables.add_route(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0, 5, to_client());
    tables.add_route(IpAddr::V6(Ipv6Addr::UNSPECIFIED), 0, 6, to_client());
    let id = tables.add_server(1, &server(method, v6));
    tables.set_pool(1, scheduler::RING, &[(id, 1)]);
    tables
}

fn send(tables: &HostTables, packet: &Packet) -> Verdict {
    tables.run(&mut HostFrame::new(Hook::Xdp, &packet.bytes()))
}

/// A source of the flood, which never answers.
fn stranger(v6: bool, number: u32) -> End {
    let address = if v6 {
        IpAddr::V6(Ipv6Addr::from(
            0x2001_0db8_00ff_0000_0000_0000_0000_0000 + u128::from(number),
        ))
    } else {
        IpAddr::V4(Ipv4Addr::from(0x0b00_0000 + number))
    };
    (address, (number % 60_000) as u16 + 1024)
}

fn packet(protocol: u8, from: End, to: End, flags: u8) -> Packet {
    if protocol == TCP {
        tcp(from, to, flags)
    } else {
        udp(from, to)
    }
}

/// Clients are established, some of which have heard only the server's first packet. After a flood
/// all of them go on, both ways.
fn survive(v6: bool, protocol: u8, method: u8) {
    let tables = tables(v6, protocol, method);
    let nat = method == method::MASQUERADE;
    let clients: Vec<End> = (0..FLOWS).map(|n| (client(v6).0, 10_000 + n)).collect();
    for client in &clients {
        for (out, flags) in [(false, SYN), (true, SYN | ACK), (false, ACK)] {
            match out {
                true if nat => {
                    let answer = packet(protocol, server_end(v6), *client, flags);
                    assert_eq!(send(&tables, &answer), Verdict::Send(TO_CLIENT));
                }
                true => {}
                false => {
                    let asks = packet(protocol, *client, virtual_end(v6), flags);
                    assert_eq!(
                        send(&tables, &asks),
                        Verdict::Send(TO_SERVER),
                        "{client:?} {flags:#x} protocol {protocol} method {method}"
                    );
                }
            }
        }
    }
    for number in 0..FLOOD {
        if number % 4_000 == 0 {
            tables.age(20);
        }
        send(
            &tables,
            &packet(protocol, stranger(v6, number), virtual_end(v6), SYN),
        );
    }
    for client in &clients {
        let asks = packet(protocol, *client, virtual_end(v6), ACK);
        assert_eq!(
            send(&tables, &asks),
            Verdict::Send(TO_SERVER),
            "{client:?} asks"
        );
        if nat {
            let answer = packet(protocol, server_end(v6), *client, ACK);
            let got = send(&tables, &answer);
            assert_eq!(got, Verdict::Send(TO_CLIENT), "{client:?} is answered");
        }
    }
    // New clients find room too, since the flood's entries may be displaced.
    let mut opened = 0;
    for number in 0..1000 {
        let from = stranger(v6, FLOOD + number);
        let asks = packet(protocol, from, virtual_end(v6), SYN);
        opened += u32::from(send(&tables, &asks) == Verdict::Send(TO_SERVER));
    }
    assert!(opened >= 999, "only {opened} of 1000 newcomers had room");
}

#[test]
fn a_flood_moves_no_established_flow_and_leaves_room_for_newcomers() {
    for v6 in FAMILIES {
        for protocol in [TCP, UDP] {
            for method in [method::MASQUERADE, method::ROUTE] {
                survive(v6, protocol, method);
            }
        }
    }
}

/// The virtual address of a masqueraded service, beside the one by direct routing.
fn behind_nat(v6: bool) -> End {
    (virtual_end(v6).0, 81)
}

/// A service by route and one behind NAT, and fewer entries than a flood has sources.
fn by_route_and_behind_nat(v6: bool, protocol: u8) -> HostTables {
    let mut tables = HostTables::new(Sizes {
        flows: 1024,
        ..Sizes::default()
    });
    tables.add_route(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0, 5, to_client());
    tables.add_route(IpAddr::V6(Ipv6Addr::UNSPECIFIED), 0, 6, to_client());
    let ends = [virtual_end(v6), behind_nat(v6)];
    for (method, (address, port)) in [method::ROUTE, method::MASQUERADE].into_iter().zip(ends) {
        let service = tables.add_service(address, port, protocol, 0);
        let id = tables.add_server(service, &server(method, v6));
        tables.set_pool(service, scheduler::RING, &[(id, 1)]);
    }
    tables
}

/// How many of so many packets of a client are sent on. The first one opens.
fn say(tables: &HostTables, protocol: u8, from: End, to: End, words: u32) -> u32 {
    let sent = (0..words).filter(|word| {
        let flags = if *word == 0 { SYN } else { ACK };
        send(tables, &packet(protocol, from, to, flags)) == Verdict::Send(TO_SERVER)
    });
    sent.count() as u32
}

/// Clients of the service by route that are there before the flood.
fn talkers(v6: bool) -> impl Iterator<Item = End> {
    (0..40).map(move |n| (client(v6).0, 10_000 + n))
}

fn all_go_on(tables: &HostTables, v6: bool, protocol: u8) {
    for talker in talkers(v6) {
        let asks = packet(protocol, talker, virtual_end(v6), ACK);
        let got = send(tables, &asks);
        assert_eq!(got, Verdict::Send(TO_SERVER), "{talker:?} goes on");
    }
}

/// Newcomers to the service behind NAT who find no room, of 50.
fn turned_away(tables: &HostTables, v6: bool, protocol: u8) -> u32 {
    let mut lost = 0;
    for number in 0..50 {
        let from = (client(v6).0, 30_000 + number);
        let asked = say(tables, protocol, from, behind_nat(v6), 1);
        let answer = packet(protocol, server_end(v6), from, SYN | ACK);
        let is_answered = send(tables, &answer) == Verdict::Send(TO_CLIENT);
        lost += u32::from(asked != 1 || !is_answered);
    }
    lost
}

#[test]
fn who_said_three_words_at_most_to_a_server_that_is_not_heard_gives_way_first() {
    for v6 in FAMILIES {
        for protocol in [TCP, UDP] {
            for words in [1, 2, 3] {
                let tables = by_route_and_behind_nat(v6, protocol);
                for talker in talkers(v6) {
                    assert_eq!(say(&tables, protocol, talker, virtual_end(v6), 4), 4);
                }
                for number in 0..12_000 {
                    say(
                        &tables,
                        protocol,
                        stranger(v6, number),
                        virtual_end(v6),
                        words,
                    );
                }
                let lost = turned_away(&tables, v6, protocol);
                assert_eq!(lost, 0, "IPv6 {v6}, protocol {protocol}, {words} words");
                all_go_on(&tables, v6, protocol);
            }
        }
    }
}

// Thirty-two is what a server makes of one packet that it sends back until its TTL ends.
#[test]
fn a_burst_of_any_length_gives_way_to_newcomers_and_moves_nobody_who_talked_for_a_while() {
    for v6 in FAMILIES {
        for protocol in [TCP, UDP] {
            for words in [4, 8, 32] {
                let tables = by_route_and_behind_nat(v6, protocol);
                for talker in talkers(v6) {
                    assert_eq!(say(&tables, protocol, talker, virtual_end(v6), 4), 4);
                }
                tables.age(64);
                all_go_on(&tables, v6, protocol);
                for number in 0..6_000 {
                    say(
                        &tables,
                        protocol,
                        stranger(v6, number),
                        virtual_end(v6),
                        words,
                    );
                }
                let lost = turned_away(&tables, v6, protocol);
                assert_eq!(lost, 0, "IPv6 {v6}, protocol {protocol}, {words} words");
                all_go_on(&tables, v6, protocol);
            }
        }
    }
}

// All sources send their first packet, a second later all their second one, and so on.
#[test]
fn a_flood_in_rounds_leaves_room_for_newcomers() {
    for v6 in FAMILIES {
        for protocol in [TCP, UDP] {
            for words in [2, 4, 8] {
                let tables = by_route_and_behind_nat(v6, protocol);
                for word in 0..words {
                    let flags = if word == 0 { SYN } else { ACK };
                    for number in 0..1_500 {
                        let from = stranger(v6, number);
                        send(&tables, &packet(protocol, from, virtual_end(v6), flags));
                    }
                    tables.age(1);
                }
                let lost = turned_away(&tables, v6, protocol);
                assert_eq!(lost, 0, "IPv6 {v6}, protocol {protocol}, {words} rounds");
            }
        }
    }
}

// A masqueraded server that is down never answers, whatever it gets.
#[test]
fn who_was_never_answered_gives_way_however_much_it_said() {
    for v6 in FAMILIES {
        for protocol in [TCP, UDP] {
            let mut tables = HostTables::new(Sizes {
                flows: 1024,
                ..Sizes::default()
            });
            tables.add_route(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0, 5, to_client());
            tables.add_route(IpAddr::V6(Ipv6Addr::UNSPECIFIED), 0, 6, to_client());
            let (address, port) = virtual_end(v6);
            tables.add_service(address, port, protocol, 0);
            let id = tables.add_server(1, &server(method::MASQUERADE, v6));
            tables.set_pool(1, scheduler::RING, &[(id, 1)]);
            for number in 0..12_000 {
                for flags in [SYN, ACK, ACK, ACK, ACK] {
                    let from = stranger(v6, number);
                    send(&tables, &packet(protocol, from, virtual_end(v6), flags));
                }
            }
            let mut opened = 0;
            for number in 0..50 {
                let from = (client(v6).0, 30_000 + number);
                let asks = packet(protocol, from, virtual_end(v6), SYN);
                let answer = packet(protocol, server_end(v6), from, SYN | ACK);
                let is_there = send(&tables, &asks) == Verdict::Send(TO_SERVER)
                    && send(&tables, &answer) == Verdict::Send(TO_CLIENT);
                opened += u32::from(is_there);
            }
            assert_eq!(opened, 50, "IPv6 {v6}, protocol {protocol}");
        }
    }
}
