//! Frames of each kind of traffic, as the driver in the kernel takes them.

use std::net::IpAddr;

pub(super) use shunt_ebpf::traffic::{Traffic, order};

use super::scenario::{Kind, Scenario, Transport};

/// RFC 2544, C.2.2: addresses for benchmarks, 198.18.0.0/15. New flows come from the upper half.
const CLIENTS: u32 = 0xc612_0000;
const STRANGERS: u32 = 0xc613_0000;
/// The most flows before a stranger comes again.
const MANY: u32 = 1 << 28;
/// Before the frame: who it is for, and whom it comes from.
const MACS: [u8; 12] = [2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1];
pub(super) const SYN: u32 = 0x02;
pub(super) const ACK: u32 = 0x10;

/// Where packets go: a virtual service, or from a server on the way back.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fixed {
    pub address: IpAddr,
    pub port: u16,
    pub back: bool,
}

/// The traffic of a scenario towards (or from) a fixed end. `sequence` is where new flows go on.
pub(super) fn traffic(scenario: &Scenario, fixed: Fixed, sequence: u64) -> Traffic {
    let mut traffic = frame(fixed, scenario.transport);
    traffic.mask = scenario.flows - 1;
    traffic.flags = ACK;
    match scenario.kind {
        Kind::Established | Kind::Back | Kind::Foreign => traffic.order = order::MIXED,
        Kind::New | Kind::Unknown | Kind::Connections => {
            traffic.client = STRANGERS;
            traffic.mask = MANY - 1;
            traffic.sequence = sequence;
        }
    }
    match scenario.kind {
        Kind::New => traffic.flags = SYN,
        Kind::Connections => traffic.order = order::CONNECTIONS,
        Kind::Established | Kind::Back | Kind::Foreign | Kind::Unknown => {}
    }
    traffic
}

/// Every flow once, in turn: to make them known.
pub(super) fn opening(scenario: &Scenario, fixed: Fixed, flags: u32) -> Traffic {
    Traffic {
        mask: scenario.flows - 1,
        flags,
        order: order::TURN,
        ..frame(fixed, scenario.transport)
    }
}

fn frame(fixed: Fixed, transport: Transport) -> Traffic {
    let tcp = transport == Transport::Tcp;
    let (length, header) = if fixed.address.is_ipv6() {
        (80, 40)
    } else {
        (64, 20)
    };
    let l4 = 14 + header;
    let mut bytes = [0u8; 128];
    bytes[..12].copy_from_slice(&MACS);
    let protocol = if tcp { 6 } else { 17 };
    let payload = (length - l4) as u16;
    match fixed.address {
        IpAddr::V4(address) => {
            bytes[12..14].copy_from_slice(&[0x08, 0x00]);
            bytes[14] = 0x45;
            bytes[16..18].copy_from_slice(&(payload + 20).to_be_bytes());
            bytes[18..24].copy_from_slice(&[0x12, 0x34, 0x40, 0, 64, protocol]);
            let at = if fixed.back { 26 } else { 30 };
            bytes[at..at + 4].copy_from_slice(&address.octets());
        }
        IpAddr::V6(address) => {
            bytes[12..15].copy_from_slice(&[0x86, 0xdd, 0x60]);
            bytes[18..20].copy_from_slice(&payload.to_be_bytes());
            bytes[20..22].copy_from_slice(&[protocol, 64]);
            let (at, client_at) = if fixed.back { (22, 38) } else { (38, 22) };
            bytes[at..at + 16].copy_from_slice(&address.octets());
            bytes[client_at..client_at + 6].copy_from_slice(&[0x20, 0x01, 0x0d, 0xb8, 0, 2]);
        }
    }
    let port_at = if fixed.back { l4 } else { l4 + 2 };
    bytes[port_at..port_at + 2].copy_from_slice(&fixed.port.to_be_bytes());
    if tcp {
        bytes[l4 + 12..l4 + 16].copy_from_slice(&[0x50, 0, 0xff, 0xff]);
    } else {
        bytes[l4 + 4..l4 + 6].copy_from_slice(&payload.to_be_bytes());
    }
    let pseudo = sum(&bytes[if fixed.address.is_ipv6() {
        22..54
    } else {
        26..34
    }]);
    let transport_sum = pseudo + sum(&bytes[l4..length]) + u32::from(protocol) + u32::from(payload);
    Traffic {
        template: words(&bytes),
        length: length as u32,
        v6: u32::from(fixed.address.is_ipv6()),
        tcp: u32::from(tcp),
        back: u32::from(fixed.back),
        client: CLIENTS,
        network_sum: sum(&bytes[14..34]),
        transport_sum: (transport_sum & 0xffff) + (transport_sum >> 16),
        ..Traffic::default()
    }
}

fn sum(bytes: &[u8]) -> u32 {
    bytes
        .chunks(2)
        .map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1]))
        .sum()
}

fn words(bytes: &[u8; 128]) -> [u64; 16] {
    let mut words = [0; 16];
    for (word, chunk) in words.iter_mut().zip(bytes.as_chunks::<8>().0) {
        *word = u64::from_ne_bytes(*chunk);
    }
    words
}
