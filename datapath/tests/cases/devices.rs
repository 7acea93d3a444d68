//! The input device of a frame: MAC addresses and VLANs.

use shunt_datapath::entry::{method, server_flag};
use shunt_datapath::host::{HostTables, mac};
use shunt_datapath::table::device::{DEVICES, Device};
use shunt_datapath::verdict::{Note, Pass, Verdict};

use super::connections::noted;
use super::farm::*;
use super::packet::*;
use super::{Case, case};

const SENT: Verdict = Verdict::Send(TO_SERVER);
const BACK: Verdict = Verdict::Send(TO_CLIENT);
const OTHER: Verdict = Verdict::Pass(Pass::OtherHost);
const TAGGED: Verdict = Verdict::Pass(Pass::Tagged);

/// Frames come to the MAC address 2; this is another machine's.
const FOREIGN: u16 = 0x77;

pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for v6 in FAMILIES {
        for protocol in [TCP, UDP, SCTP] {
            cases.push(of_another_machine(v6, protocol));
            cases.push(of_a_vlan(v6, protocol));
        }
        cases.push(every_kind_of_packet(v6));
        cases.push(for_many(v6));
        cases.push(unknown_device(v6));
        cases.push(from_the_wrong_side(v6));
        cases.push(address_of_the_device_changes(v6));
    }
    cases
}

/// The device that frames come by has the MAC address 2.
fn known(mut tables: HostTables) -> HostTables {
    tables.devices[1] = Device::new(1, mac(2), false);
    tables
}

fn behind_nat(v6: bool, protocol: u8) -> HostTables {
    known(one(v6, protocol, &server(method::MASQUERADE, v6)))
}

fn at_server(v6: bool, packet: &Packet) -> Packet {
    packet.clone().to(server_end(v6)).macs(7, 3).ttl(63)
}

fn of_another_machine(v6: bool, protocol: u8) -> Case {
    let packet = opening(protocol, client(v6), virtual_end(v6));
    let answer = opening(protocol, server_end(v6), client(v6));
    let out = answer.clone().from(virtual_end(v6)).macs(8, 4).ttl(63);
    case(
        format!(
            "{} {}: a frame for another machine's MAC address passes, whatever is known of its flow",
            protocol_name(protocol),
            family_name(v6)
        ),
        behind_nat(v6, protocol),
    )
    .leaves(&packet.clone().macs(FOREIGN, 1), OTHER)
    .holds("nothing is opened", noted(Note::Opened, 0))
    .turns(&packet, SENT, &at_server(v6, &packet))
    .leaves(&packet.clone().macs(FOREIGN, 1), OTHER)
    .leaves(&answer.clone().macs(FOREIGN, 1), OTHER)
    .turns(&answer, BACK, &out)
    .holds("one connection", noted(Note::Opened, 1))
    .holds("each counted once", |tables| {
        let traffic = tables.traffic.of(1);
        (traffic.in_packets, traffic.out_packets) == (1, 1)
    })
}

fn every_kind_of_packet(v6: bool) -> Case {
    let packet = opening(UDP, client(v6), virtual_end(v6)).macs(FOREIGN, 1);
    let ping = if v6 { 128 } else { 8 };
    let expired = opening(UDP, client(v6), virtual_end(v6)).ttl(1);
    case(
        format!(
            "{}: fragments, options, ICMP, IPsec, tags for another machine pass",
            family_name(v6)
        ),
        behind_nat(v6, UDP),
    )
    .leaves(&packet.clone().fragment(7, 0, true), OTHER)
    .leaves(&packet.clone().fragment(7, 64, false), OTHER)
    .leaves(&packet.clone().tags(&[0x8100]), OTHER)
    .leaves(&packet.clone().tags(&[0x88a8, 0x8100]).vlan(9), OTHER)
    .leaves(&expired.macs(FOREIGN, 1), OTHER)
    .leaves(
        &icmp(client(v6).0, virtual_end(v6).0, ping, 0, 0).macs(FOREIGN, 1),
        OTHER,
    )
    .leaves(
        &bare(client(v6).0, virtual_end(v6).0, 50).macs(FOREIGN, 1),
        OTHER,
    )
}

/// `ip_vs_in` takes `PACKET_HOST` only.
fn for_many(v6: bool) -> Case {
    let frame = opening(UDP, client(v6), virtual_end(v6)).bytes();
    let mut all = case(
        format!("{}: frames for all or for a group pass", family_name(v6)),
        behind_nat(v6, UDP),
    );
    for many in [[0xff; 6], [1, 0, 0x5e, 0, 0, 9], [0x33, 0x33, 0, 0, 0, 1]] {
        let mut frame = frame.clone();
        frame[..6].copy_from_slice(&many);
        all = all.leaves_bytes(frame, OTHER);
    }
    all
}

/// A server's answers come by the device that leads to it. Where the kernel minds that, so does the
/// director; over IPv6 it never does.
fn from_the_wrong_side(v6: bool) -> Case {
    let packet = opening(TCP, client(v6), virtual_end(v6));
    let answer = tcp(server_end(v6), client(v6), SYN | ACK);
    let out = answer.clone().from(virtual_end(v6)).macs(8, 4).ttl(63);
    let all = case(
        format!("{}: answers from the wrong side", family_name(v6)),
        behind_nat(v6, TCP),
    )
    .turns(&packet, SENT, &at_server(v6, &packet))
    .turns(&answer, BACK, &out)
    .changes(|tables| tables.devices[1] = tables.devices[1].strict(true));
    let all = if v6 {
        all.turns(&answer, BACK, &out)
    } else {
        all.leaves(&answer, Verdict::Pass(Pass::WrongDevice))
    };
    // `fib_info_nh_uses_dev`: any way of equal cost will do.
    let all = all
        .changes(|tables| tables.servers[1].flags |= server_flag::SEVERAL_WAYS)
        .turns(&answer, BACK, &out)
        .changes(|tables| tables.servers[1].flags &= !server_flag::SEVERAL_WAYS);
    all.changes(|tables| tables.servers[1].ways.interface = 1)
        .turns(&answer, BACK, &out)
}

fn unknown_device(v6: bool) -> Case {
    let packet = opening(UDP, client(v6), virtual_end(v6)).macs(FOREIGN, 1);
    let mut tables = one(v6, UDP, &server(method::MASQUERADE, v6));
    // Another device is at the same place of the table.
    tables.devices[1] = Device::new(1 + DEVICES, mac(2), false);
    case(
        format!(
            "{}: of a device of which nothing is known any MAC address is ours",
            family_name(v6)
        ),
        tables,
    )
    .turns(&packet, SENT, &at_server(v6, &packet))
    .changes(|tables| tables.devices[1] = Device::default())
    .turns(&packet, SENT, &at_server(v6, &packet))
}

fn address_of_the_device_changes(v6: bool) -> Case {
    let before = opening(UDP, client(v6), virtual_end(v6));
    let after = before.clone().macs(FOREIGN, 1);
    case(
        format!("{}: a device gets another MAC address", family_name(v6)),
        behind_nat(v6, UDP),
    )
    .turns(&before, SENT, &at_server(v6, &before))
    .changes(|tables| tables.devices[1] = Device::new(1, mac(FOREIGN), true))
    .leaves(&before, OTHER)
    .turns(&after, SENT, &at_server(v6, &after))
}

/// IEEE 802.1Q, 9.6: a tag of VLAN 0 gives only a priority.
fn of_a_vlan(v6: bool, protocol: u8) -> Case {
    let packet = opening(protocol, client(v6), virtual_end(v6));
    let urgent = packet.clone().tags(&[0x8100]);
    let mut all = case(
        format!(
            "{} {}: a frame of a VLAN is the VLAN device's; a priority is taken off",
            protocol_name(protocol),
            family_name(v6)
        ),
        behind_nat(v6, protocol),
    );
    for number in [1, 100, 4095] {
        for tags in [&[0x8100][..], &[0x88a8], &[0x88a8, 0x8100], &[0x8100; 3]] {
            all = all.leaves(&packet.clone().tags(tags).vlan(number), TAGGED);
        }
    }
    // Behind a priority tag there may be a VLAN's tag.
    all = all.leaves(&packet.clone().tags(&[0x8100, 0x8100]), TAGGED);
    all.holds("nothing is opened", noted(Note::Opened, 0))
        .turns(&urgent, SENT, &at_server(v6, &packet))
        .turns(&packet, SENT, &at_server(v6, &packet))
        .holds("one connection", noted(Note::Opened, 1))
}
