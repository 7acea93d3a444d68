//! A million half-open connections from random sources, in the kernel, against ten thousand that
//! are established: none of these loses a packet or its server, and no table grows.
//!
//! The kernel's clock stands still, so that nothing expires: all room is made by what gives way.

// A test may panic: that is how it fails.
#![allow(clippy::arithmetic_side_effects, clippy::indexing_slicing)]
#![allow(clippy::expect_used, clippy::unwrap_used, clippy::panic)]

#[path = "../../datapath/tests/cases/mod.rs"]
mod cases;
mod kernel;
mod random;

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::{Duration, Instant};

use cases::farm::*;
use cases::packet::*;
use kernel::Kernel;
use random::Random;
use shunt_datapath::entry::{Ways, method, scheduler};
use shunt_datapath::host::{Hook, HostTables, NewServer, Sizes, mac};

const ESTABLISHED: u32 = 10_000;
const ATTEMPTS: u32 = 1_000_000;
/// Attempts between two packets of who is established: each of them speaks five times.
const BETWEEN: u32 = 20;
const SERVERS: u16 = 4;

/// Room for 65,536 flows of IPv4, or for 524,288 of IPv6, which lie two in a bucket and of which each
/// connection behind NAT takes two. The flood is several times that.
fn sizes(v6: bool) -> Sizes {
    Sizes {
        flows: if v6 { 262_144 } else { 16_384 },
        ..Sizes::default()
    }
}

const XDP_TX_OR_REDIRECT: [u32; 2] = [3, 4];
const TC_REDIRECT: u32 = 7;

/// Four servers, told apart by their MAC addresses and ports.
fn tables(v6: bool, method: u8) -> HostTables {
    let mut tables = HostTables::new(sizes(v6));
    let (address, port) = virtual_end(v6);
    tables.add_service(address, port, TCP, 0);
    tables.add_route(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0, 5, to_client());
    tables.add_route(IpAddr::V6(Ipv6Addr::UNSPECIFIED), 0, 6, to_client());
    let mut slots = Vec::new();
    for number in 1..=SERVERS {
        let server = NewServer {
            ways: Ways::new(mac(0x100 + number), mac(3), TO_SERVER, 1500),
            port: port_of(number, method),
            ..server(method, v6)
        };
        slots.push((tables.add_server(1, &server), 1));
    }
    tables.set_pool(1, scheduler::RING, &slots);
    tables
}

fn port_of(server: u16, method: u8) -> u16 {
    if method == method::MASQUERADE {
        8000 + server
    } else {
        80
    }
}

/// One who has a connection.
fn member(v6: bool, number: u32) -> End {
    let host = 0x0a64_0000 + number;
    let address = match v6 {
        false => IpAddr::V4(host.into()),
        true => Ipv6Addr::from(0x2001_0db8_000c_0000_u128 << 64 | u128::from(number)).into(),
    };
    (address, 20_000 + (number % 40_000) as u16)
}

/// One who only knocks.
fn stranger(v6: bool, random: &mut Random) -> End {
    let number = random.next();
    let address = match v6 {
        // 64.0.0.0 to 95.255.255.255: nobody else's here.
        false => Ipv4Addr::from(0x4000_0000 | number as u32 & 0x1fff_ffff).into(),
        true => Ipv6Addr::from(0x2001_0db8_00ff_0000_u128 << 64 | u128::from(number)).into(),
    };
    (address, (number >> 40) as u16 | 1024)
}

struct Flood {
    kernel: Kernel,
    hook: Hook,
    v6: bool,
    method: u8,
}

impl Flood {
    /// The frame as it leaves; `None` if it does not.
    fn send(&mut self, packet: &Packet) -> Option<Vec<u8>> {
        let run = self.kernel.run(self.hook, &packet.bytes(), 0);
        let (action, out) = run.expect("a run").expect("a frame");
        let is_sent = match self.hook {
            Hook::Xdp => XDP_TX_OR_REDIRECT.contains(&action),
            Hook::Tc => action == TC_REDIRECT,
        };
        is_sent.then_some(out)
    }

    /// Which server a member's packet went to.
    fn there(&mut self, member: End, flags: u8) -> Option<u16> {
        let packet = tcp(member, virtual_end(self.v6), flags);
        let out = self.send(&packet)?;
        let server = (1..=SERVERS).find(|number| out[..6] == mac(0x100 + number))?;
        let sent = packet.clone().macs(0x100 + server, 3).ttl(63);
        let sent = if self.method == method::MASQUERADE {
            sent.to((server_end(self.v6).0, port_of(server, self.method)))
        } else {
            sent
        };
        assert_eq!(out, sent.bytes());
        Some(server)
    }

    /// Whether an answer of that server reaches the member.
    fn back(&mut self, member: End, server: u16, flags: u8) -> bool {
        let from = (server_end(self.v6).0, port_of(server, self.method));
        let packet = tcp(from, member, flags);
        let answer = packet.clone().from(virtual_end(self.v6)).macs(8, 4).ttl(63);
        self.send(&packet) == Some(answer.bytes())
    }

    /// Opens a member's connection; gives its server.
    fn establish(&mut self, member: End) -> u16 {
        let server = self.there(member, SYN).expect("a server");
        // Where no answer passes, three more packets of the client prove its connection.
        let mut more = 3;
        if self.method == method::MASQUERADE {
            assert!(self.back(member, server, SYN | ACK));
            more = 1;
        }
        for _ in 0..more {
            assert_eq!(self.there(member, ACK), Some(server));
        }
        server
    }
}

/// Bytes that this process's maps take in the kernel.
fn memory() -> u64 {
    let descriptors = fs::read_dir("/proc/self/fdinfo").expect("descriptors");
    let texts = descriptors.filter_map(|entry| fs::read_to_string(entry.ok()?.path()).ok());
    let is_map = |text: &String| text.contains("map_type:");
    let locked = |text: String| {
        let mut lines = text.lines();
        let line = lines.find_map(|line| line.strip_prefix("memlock:"));
        line.and_then(|bytes| bytes.trim().parse::<u64>().ok())
    };
    texts.filter(is_map).filter_map(locked).sum()
}

fn flood(hook: Hook, v6: bool, method: u8) {
    let tables = tables(v6, method);
    let mut kernel = Kernel::load(sizes(v6), tables.shape.seed).expect("the programs load");
    kernel.reset(&tables).expect("the maps");
    let mut flood = Flood {
        kernel,
        hook,
        v6,
        method,
    };
    let members: Vec<(End, u16)> = (0..ESTABLISHED)
        .map(|number| {
            let member = member(v6, number);
            (member, flood.establish(member))
        })
        .collect();
    let before = memory();
    let mut random = Random::new(0x5eed);
    let (mut sent, mut lost, mut moved) = (0u32, 0, 0);
    let (mut let_in, mut knocking) = (0u32, Duration::ZERO);
    let mut turn = members.iter().cycle();
    for attempt in 0..ATTEMPTS {
        let from = stranger(v6, &mut random);
        let begun = Instant::now();
        let opened = flood.send(&tcp(from, virtual_end(v6), SYN)).is_some();
        knocking += begun.elapsed();
        let_in += u32::from(opened);
        if attempt % BETWEEN != 0 {
            continue;
        }
        let (member, server) = turn.next().expect("they go round");
        sent += 1;
        match flood.there(*member, ACK) {
            Some(other) if other != *server => moved += 1,
            Some(_) => {}
            None => lost += 1,
        }
        if method == method::MASQUERADE {
            sent += 1;
            lost += u32::from(!flood.back(*member, *server, ACK));
        }
    }
    let mut count = |name| flood.kernel.count(name).expect("a counter");
    let (displaced, untracked) = (count("displaced"), count("untracked"));
    let refused = count("table-full");
    println!(
        "{hook:?} {} {}: {ATTEMPTS} attempts, {let_in} let in, {displaced} displaced, {untracked} \
         without an entry, {refused} refused, {} ns each with its system call; {ESTABLISHED} \
         established: {sent} packets, {lost} lost, {moved} moved; maps {before} bytes before, {} \
         after",
        family_name(v6),
        if method == method::MASQUERADE {
            "NAT"
        } else {
            "route"
        },
        knocking.as_nanos() / u128::from(ATTEMPTS),
        memory(),
    );
    assert!(before > 0, "no map's memory is known");
    assert_eq!(memory(), before, "a table grew");
    assert_eq!((lost, moved), (0, 0), "of {sent} packets");
    assert!(displaced > 0, "the flood did not fill the table");
}

#[test]
fn a_million_half_open_connections_take_nothing_from_ten_thousand() {
    if let Some(why) = kernel::missing() {
        eprintln!("skipped: {why}");
        return;
    }
    kernel::alone().expect("a CPU and a network of its own");
    flood(Hook::Xdp, false, method::ROUTE);
    flood(Hook::Tc, true, method::MASQUERADE);
}
