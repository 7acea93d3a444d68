//! ESP and AH packets, which follow IKE's connection.

use std::net::IpAddr;

use shunt_datapath::entry::{method, scheduler};
use shunt_datapath::host::{HostTables, NewServer, Sizes};
use shunt_datapath::secured::{AH, ESP};
use shunt_datapath::verdict::{Drop, Pass, Verdict};

use super::farm::*;
use super::packet::*;
use super::{Case, case};

const IKE: u16 = 500;
const SENT: Verdict = Verdict::Send(TO_SERVER);
const NOT_OURS: Verdict = Verdict::Pass(Pass::NotOurs);

pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for v6 in FAMILIES {
        for protocol in [ESP, AH] {
            cases.push(routed(v6, protocol));
            cases.push(masqueraded(v6, protocol));
            cases.push(wrapped(v6, protocol));
            cases.push(in_pieces(v6, protocol));
            cases.push(of_a_server_that_is_gone(v6, protocol));
        }
        cases.push(by_a_service_of_every_port(v6));
    }
    cases
}

/// An IKE service with one server; hop 5 leads to clients.
fn farm(v6: bool, port: u16, method: u8) -> HostTables {
    let mut tables = HostTables::new(Sizes::default());
    tables.add_service(virtual_end(v6).0, port, UDP, 0);
    tables.add_route(IpAddr::from([0, 0, 0, 0]), 0, 5, to_client());
    tables.add_route(IpAddr::from([0u16; 8]), 0, 6, to_client());
    let to = server(method, v6);
    let id = tables.add_server(1, &NewServer { port, ..to });
    tables.set_pool(1, scheduler::RING, &[(id, 1)]);
    tables
}

fn ike(v6: bool) -> Packet {
    udp((client(v6).0, IKE), (virtual_end(v6).0, IKE)).payload(&[7; 28])
}

fn secured(source: IpAddr, target: IpAddr, protocol: u8) -> Packet {
    bare(source, target, protocol).payload(&[9; 48])
}

fn name(v6: bool, protocol: u8) -> String {
    let protocol = if protocol == ESP { "ESP" } else { "AH" };
    format!("{protocol} {}", family_name(v6))
}

fn on(packet: &Packet) -> Packet {
    packet.clone().macs(7, 3).ttl(63)
}

fn routed(v6: bool, protocol: u8) -> Case {
    let (client, at) = (client(v6).0, virtual_end(v6).0);
    let (first, packet) = (ike(v6), secured(client, at, protocol));
    let other = secured(server_end(v6).0, at, protocol);
    case(
        format!(
            "{} follows IKE by route, and opens nothing",
            name(v6, protocol)
        ),
        farm(v6, IKE, method::ROUTE),
    )
    .leaves(&packet, NOT_OURS)
    .turns(&first, SENT, &on(&first))
    .turns(&packet, SENT, &on(&packet))
    .leaves(&other, NOT_OURS)
    .holds("one connection, two packets", |tables| {
        let traffic = tables.traffic.of(1);
        (traffic.connections, traffic.in_packets) == (1, 2)
    })
}

fn masqueraded(v6: bool, protocol: u8) -> Case {
    let (client, at, server) = (client(v6).0, virtual_end(v6).0, server_end(v6).0);
    let first = ike(v6);
    let packet = secured(client, at, protocol);
    let answer = secured(server, client, protocol).macs(3, 7);
    let back = secured(at, client, protocol).macs(8, 4).ttl(63);
    case(
        format!(
            "{} behind NAT changes its address alone, both ways",
            name(v6, protocol)
        ),
        farm(v6, IKE, method::MASQUERADE),
    )
    .leaves(&answer, NOT_OURS)
    .turns(&first, SENT, &on(&first).to((server, IKE)))
    .turns(&packet, SENT, &on(&secured(client, server, protocol)))
    .turns(&answer, Verdict::Send(TO_CLIENT), &back)
    .holds("two packets there and one back", |tables| {
        let traffic = tables.traffic.of(1);
        (traffic.connections, traffic.in_packets, traffic.out_packets) == (1, 2, 1)
    })
}

fn wrapped(v6: bool, protocol: u8) -> Case {
    let to = server(method::TUNNEL, v6);
    let wrap = |packet: &Packet| on(packet).inside(to.outer_source, to.address).macs(7, 3);
    let (first, packet) = (ike(v6), secured(client(v6).0, virtual_end(v6).0, protocol));
    case(
        format!("{} goes through the tunnel of IKE", name(v6, protocol)),
        farm(v6, IKE, method::TUNNEL),
    )
    .turns(&first, SENT, &wrap(&first))
    .turns(&packet, SENT, &wrap(&packet))
}

fn in_pieces(v6: bool, protocol: u8) -> Case {
    let first = ike(v6);
    let packet = secured(client(v6).0, virtual_end(v6).0, protocol);
    let pieces = [
        packet.clone().fragment(77, 48, false),
        packet.clone().fragment(77, 0, true),
    ];
    let mut all = case(
        format!(
            "{}: each fragment finds the connection by itself",
            name(v6, protocol)
        ),
        farm(v6, IKE, method::ROUTE),
    )
    .turns(&first, SENT, &on(&first));
    for piece in &pieces {
        all = all.turns(piece, SENT, &on(piece));
    }
    all
}

fn of_a_server_that_is_gone(v6: bool, protocol: u8) -> Case {
    let first = ike(v6);
    let packet = secured(client(v6).0, virtual_end(v6).0, protocol);
    case(
        format!("{} of a deleted server is dropped", name(v6, protocol)),
        farm(v6, IKE, method::ROUTE),
    )
    .turns(&first, SENT, &on(&first))
    .changes(|tables| {
        tables.servers[1].flags &= !shunt_datapath::entry::server_flag::PRESENT;
    })
    .leaves(&packet, Verdict::Drop(Drop::ServerGone))
}

fn by_a_service_of_every_port(v6: bool) -> Case {
    let first = ike(v6);
    let packet = secured(client(v6).0, virtual_end(v6).0, ESP);
    case(
        format!("{} follows IKE to a service of every port", name(v6, ESP)),
        farm(v6, 0, method::ROUTE),
    )
    .turns(&first, SENT, &on(&first))
    .turns(&packet, SENT, &on(&packet))
}
