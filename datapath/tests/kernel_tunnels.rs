//! Tunnels byte for byte as the kernel's IPVS sends them.

// A test may panic: that is how it fails.
#![allow(clippy::arithmetic_side_effects, clippy::indexing_slicing)]
#![allow(clippy::expect_used, clippy::unwrap_used, clippy::panic)]

#[path = "cases/mod.rs"]
mod cases;

use cases::farm::{CLIENT, CLIENT6, TO_SERVER, VIRTUAL, VIRTUAL6, server};
use cases::packet::mend;
use shunt_datapath::checksum::{change_u16, update};
use shunt_datapath::entry::{method, scheduler};
use shunt_datapath::host::{Hook, HostFrame, HostTables, NewServer, Sizes};
use shunt_datapath::verdict::Verdict;

const RECORDED: &str = include_str!("kernel_tunnels.txt");
const GUE_BYTES: usize = 12;

#[test]
fn tunnels_are_those_of_the_kernel() {
    let mut number = 0;
    for line in RECORDED.lines().filter(|line| line.starts_with("whole")) {
        let words: Vec<&str> = line.split(' ').collect();
        let [_, kind, sum, families, _, bytes] = words[..] else {
            panic!("{line}")
        };
        let wanted = unhex(bytes);
        let (inner_v6, outer_v6) = (families.starts_with('6'), families.ends_with('6'));
        let own = match (kind, sum) {
            ("gue", _) => GUE_BYTES,
            (_, "csum") => 8,
            _ => 4,
        };
        let ip = if outer_v6 { 40 } else { 20 };
        let inner = &wanted[ip + own..];

        for hook in [Hook::Xdp, Hook::Tc] {
            let tables = tables(inner, inner_v6, outer_v6, kind, sum != "nocsum");
            let mut frame = HostFrame::new(hook, &came(inner, inner_v6));
            assert_eq!(tables.run(&mut frame), Verdict::Send(TO_SERVER), "{line}");

            let mut ours = frame.bytes()[14..].to_vec();
            take_over(&mut ours, &wanted, kind == "gue", inner_v6, outer_v6);
            assert_eq!(hex(&ours), bytes, "{line}");
        }
        number += 1;
    }
    assert_eq!(number, 40);
}

/// Copies what the kernel draws at random or what differs on purpose: the source port, and the
/// identification of packets that may be fragmented (see `docs/standards.md`).
fn take_over(ours: &mut [u8], wanted: &[u8], gue: bool, inner_v6: bool, outer_v6: bool) {
    if inner_v6 && !outer_v6 {
        assert_eq!(ours[4..8], [0, 0, 0x40, 0]);
        ours[4..8].copy_from_slice(&wanted[4..8]);
        mend(&mut ours[..20]);
    }
    if !gue {
        return;
    }
    let at = if outer_v6 { 40 } else { 20 };
    let word = |bytes: &[u8], at: usize| u16::from_ne_bytes([bytes[at], bytes[at + 1]]);
    let (before, after) = (word(ours, at), word(wanted, at));
    let sum = word(ours, at + 6);
    assert!((32768..61000).contains(&u16::from_be(before)));
    ours[at..at + 2].copy_from_slice(&after.to_ne_bytes());
    if sum != 0 {
        let sum = update(sum, change_u16(before, after));
        ours[at + 6..at + 8].copy_from_slice(&sum.to_ne_bytes());
    }
}

fn tables(inner: &[u8], inner_v6: bool, outer_v6: bool, kind: &str, summed: bool) -> HostTables {
    let (l4, protocol) = if inner_v6 {
        (40, inner[6])
    } else {
        (20, inner[9])
    };
    let port = u16::from_be_bytes([inner[l4 + 2], inner[l4 + 3]]);
    let address = if inner_v6 { VIRTUAL6 } else { VIRTUAL };
    let mut tables = HostTables::new(Sizes::default());
    let service = tables.add_service(address, port, protocol, 0);
    let kind = if kind == "gue" {
        method::GUE
    } else {
        method::GRE
    };
    let to = NewServer {
        port,
        tunnel_port: 6080,
        tunnel_checksum: summed,
        ..server(kind, outer_v6)
    };
    let id = tables.add_server(service, &to);
    tables.set_pool(service, scheduler::RING, &[(id, 1)]);
    tables
}

/// The frame with the packet as the client sent it, one hop earlier.
fn came(inner: &[u8], v6: bool) -> Vec<u8> {
    let mut packet = inner.to_vec();
    let (ttl, source) = if v6 { (7, 8..24) } else { (8, 12..16) };
    packet[ttl] += 1;
    assert_eq!(packet[ttl], 64);
    let client = match if v6 { CLIENT6 } else { CLIENT } {
        std::net::IpAddr::V4(address) => address.octets().to_vec(),
        std::net::IpAddr::V6(address) => address.octets().to_vec(),
    };
    assert_eq!(packet[source], client);
    if !v6 {
        mend(&mut packet[..20]);
    }
    let mut frame = vec![2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1];
    frame.extend(if v6 { [0x86, 0xdd] } else { [0x08, 0x00] });
    frame.extend(packet);
    frame
}

fn unhex(text: &str) -> Vec<u8> {
    (0..text.len() / 2)
        .map(|at| u8::from_str_radix(&text[2 * at..2 * at + 2], 16).unwrap())
        .collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
