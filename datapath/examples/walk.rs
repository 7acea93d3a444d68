//! So many packets of one established connection through the walk on the host, for
//! `cargo xtask bench --instructions` to count what each costs: `walk ipv4|ipv6 METHOD PACKETS`.

use std::hint::black_box;
use std::net::IpAddr;
use std::process::ExitCode;

use shunt_datapath::checksum;
use shunt_datapath::connection::flag;
use shunt_datapath::entry::{Ways, method, scheduler};
use shunt_datapath::host::{Hook, HostFrame, HostTables, NewServer, Sizes, mac};
use shunt_datapath::packet::TCP;
use shunt_datapath::walk;

const METHODS: [(&str, u8); 3] = [
    ("route", method::ROUTE),
    ("masquerade", method::MASQUERADE),
    ("tunnel", method::TUNNEL),
];

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let done = match words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [family, method, packets] => run(family == "ipv6", method, packets),
        _ => None,
    };
    match done {
        Some(()) => ExitCode::SUCCESS,
        None => {
            eprintln!("usage: walk ipv4|ipv6 route|masquerade|tunnel PACKETS");
            ExitCode::FAILURE
        }
    }
}

/// Frames of a run. All are made, whether they walk or not, so that two runs differ by walks alone.
const FRAMES: u32 = 1000;

fn run(v6: bool, method: &str, packets: &str) -> Option<()> {
    let (_, method) = METHODS.into_iter().find(|(name, _)| *name == method)?;
    let packets: u32 = packets.parse().ok()?;
    let tables = &tables(v6, method)?;
    let (opening, known) = (segment(v6, flag::SYN)?, segment(v6, flag::ACK)?);
    for first in [&opening, &known] {
        walk::run(&mut HostFrame::new(Hook::Xdp, first), &tables);
    }
    for number in 0..FRAMES {
        let mut frame = black_box(HostFrame::new(Hook::Xdp, &known));
        if number < packets {
            black_box(walk::run(&mut frame, &tables));
        }
    }
    Some(())
}

fn host(v6: bool, v4_text: &str, v6_text: &str) -> Option<IpAddr> {
    if v6 { v6_text } else { v4_text }.parse().ok()
}

fn tables(v6: bool, method: u8) -> Option<HostTables> {
    let ways = Ways::new(mac(7), mac(3), 2, 1500);
    let mut tables = HostTables::new(Sizes::default());
    tables.add_service(host(v6, "192.0.2.10", "2001:db8::10")?, 80, TCP, 0);
    let id = tables.add_server(
        1,
        &NewServer {
            method,
            address: host(v6, "10.1.0.7", "2001:db8:1::7")?,
            port: if method == method::MASQUERADE {
                8080
            } else {
                80
            },
            outer_source: host(v6, "10.1.0.1", "2001:db8:1::1")?,
            ways,
            ..NewServer::default()
        },
    );
    tables.set_pool(1, scheduler::RING, &[(id, 1)]);
    Some(tables)
}

/// A TCP segment from a client to the service. The walk reads no checksum but that of IPv4.
fn segment(v6: bool, flags: u8) -> Option<Vec<u8>> {
    let source = host(v6, "198.51.100.9", "2001:db8:c::9")?;
    let target = host(v6, "192.0.2.10", "2001:db8::10")?;
    let mut ip = match (source, target) {
        (IpAddr::V4(source), IpAddr::V4(target)) => {
            let head = [0x45, 0, 0, 40, 0, 0, 0x40, 0, 64, TCP, 0, 0];
            [&head[..], &source.octets(), &target.octets()].concat()
        }
        (IpAddr::V6(source), IpAddr::V6(target)) => {
            let head = [0x60, 0, 0, 0, 0, 20, TCP, 64];
            [&head[..], &source.octets(), &target.octets()].concat()
        }
        _ => return None,
    };
    if !v6 {
        let words = ip.chunks_exact(2).filter_map(|pair| pair.try_into().ok());
        let words = words.map(u16::from_ne_bytes);
        let sum = words.fold(0, |sum, word| checksum::add(sum, u32::from(word)));
        ip.splice(10..12, (!checksum::fold(sum)).to_ne_bytes());
    }
    let ethertype: [u8; 2] = if v6 { [0x86, 0xdd] } else { [8, 0] };
    let tcp = [
        0x9c, 0x40, 0, 80, 0, 0, 0, 1, 0, 0, 0, 1, 0x50, flags, 1, 0, 0, 0, 0, 0,
    ];
    Some([&[2; 12][..], &ethertype, &ip, &tcp].concat())
}
