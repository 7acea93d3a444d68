//! Random tables and mutated frames, all from one number.

#![allow(dead_code)] // Each of the two test programs uses its part.

use std::net::IpAddr;
use std::sync::atomic::Ordering;

use shunt_datapath::entry::{BACK, Ways, method, nat, scheduler, server_flag, service_flag};
use shunt_datapath::host::{HostTables, NewServer, Sizes, mac};
use shunt_datapath::table::device::Device;

use crate::cases::farm::*;
use crate::cases::packet::{SCTP, TCP, UDP, mend};
use crate::cases::translated;

pub(crate) const SEED: u64 = 0x5eed;

/// Few buckets of flows, so that they are full before long.
pub(crate) fn sizes() -> Sizes {
    Sizes {
        flows: 4,
        ..Sizes::default()
    }
}

/// SplitMix64 (Steele, Lea, Flood: Fast Splittable Pseudorandom Number Generators).
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.0;
        word = (word ^ word >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ word >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ word >> 31
    }

    pub(crate) fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit as u64) as usize
    }

    /// True once in so many times.
    fn once_in(&mut self, times: usize) -> bool {
        self.below(times) == 0
    }

    fn one_of<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len())]
    }
}

/// Both families, TCP, UDP and SCTP, each with up to three servers of any method.
pub(crate) fn tables(random: &mut Random) -> HostTables {
    let mut tables = HostTables::new(sizes());
    tables.settings.switches = random.below(4) as u32;
    tables.settings.icmp_limit = random.one_of(&[0, 3, 1000]);
    if random.once_in(2) {
        // That to which most frames come.
        tables.devices[1] = Device::new(1, mac(2), false);
    }
    let mut number = 0;
    for v6 in FAMILIES {
        for protocol in [TCP, UDP, SCTP] {
            if random.once_in(12) {
                continue;
            }
            let mut flags = random.one_of(&[0, service_flag::PORT, service_flag::FALLBACK]);
            flags |= random.one_of(&[0, service_flag::TOA, service_flag::PROXY]);
            let calls = protocol == UDP && random.once_in(2);
            if calls {
                flags |= service_flag::CALLS | random.one_of(&[0, service_flag::ONE_PACKET]);
            }
            let (address, port) = virtual_end(v6);
            // IKE, which ESP and AH follow.
            let port = match protocol == UDP && random.once_in(4) {
                true => 500,
                false => port,
            };
            let service = tables.add_service(address, port, protocol, flags);
            if calls {
                let entry = &mut tables.services[service as usize];
                (entry.template, entry.persistence) = (60 + service, 300);
                entry.granularity = random.one_of(&[[u64::MAX; 2], [0; 2]]);
            }
            tables.services[service as usize].switches = random.below(16) as u32;
            let servers: Vec<_> = (0..random.below(4))
                .map(|_| {
                    number += 1;
                    let server = any_server(random, v6, number);
                    let id = tables.add_server(service, &server);
                    if random.once_in(15) {
                        tables.servers[id as usize].flags &= !server_flag::PRESENT;
                    }
                    if random.once_in(3) {
                        tables.servers[id as usize].fate = random.below(128) as u16;
                    }
                    if random.once_in(4) {
                        let upper = 1 + random.below(3) as u32;
                        tables.limit(id, upper, random.below(upper as usize + 1) as u32);
                    }
                    (id, random.below(4) as u32)
                })
                .collect();
            for (id, _) in servers.iter().filter(|_| calls) {
                let server = tables.servers[*id as usize];
                if server.method == method::MASQUERADE && !random.once_in(5) {
                    let endpoint = server.endpoint & !BACK;
                    tables.calls.answerers[endpoint as usize] = *id;
                    tables.settings.masquerades |= nat::CALLS;
                }
            }
            any_pool(random, &mut tables, service, &servers);
            if random.once_in(15) {
                tables.services[service as usize].flags &= !service_flag::PRESENT;
            }
        }
    }
    if random.once_in(8) {
        tables.settings.masquerades = 0;
    }
    for v6 in FAMILIES {
        if !random.once_in(8) {
            let ports = 1 + random.below(4) as u32;
            tables.add_local(translated::local(v6), 5000, ports);
        }
    }
    any_routes(random, &mut tables);
    tables
}

fn any_server(random: &mut Random, v6: bool, number: u16) -> NewServer {
    let methods = [
        method::MASQUERADE,
        method::MASQUERADE,
        method::ROUTE,
        method::TUNNEL,
        method::TUNNEL,
        method::GUE,
        method::GRE,
        method::LOCAL,
        method::TRANSLATE,
        method::TRANSLATE,
    ];
    let method = random.one_of(&methods);
    let tunnels = [method::TUNNEL, method::GUE, method::GRE];
    let full_nat = random.once_in(2);
    let crosses = tunnels.contains(&method) || method == method::TRANSLATE && full_nat;
    let own = if crosses { random.once_in(2) } else { v6 };
    let mut new = server(method, own);
    // Behind NAT one address may serve two services, but not one service twice.
    let rewrites = [method::MASQUERADE, method::TRANSLATE].contains(&method);
    if rewrites && random.once_in(3) {
        new.port += number;
    }
    new.full_nat = full_nat;
    (new.tunnel_port, new.tunnel_checksum) = (6080, random.once_in(2));
    let mtu = random.one_of(&[1500, 1500, 1500, 1000, 100, 0]);
    new.ways = Ways::new(mac(0x200 + number), mac(3), random.one_of(&[1, 2, 3]), mtu);
    if random.once_in(12) {
        new.ways = Ways::default();
    }
    new
}

fn any_pool(random: &mut Random, tables: &mut HostTables, service: u32, servers: &[(u32, u32)]) {
    let rules = [
        scheduler::EMPTY,
        scheduler::RING,
        scheduler::LC,
        scheduler::WLC,
        scheduler::SED,
        scheduler::NQ,
        scheduler::SH,
        scheduler::MH,
        scheduler::WRR,
        scheduler::DH,
        scheduler::FO,
        scheduler::OVF,
        scheduler::LBLC,
        scheduler::LBLCR,
    ];
    let rule = random.one_of(&rules);
    let slots: Vec<_> = match (rule, servers.is_empty()) {
        (_, true) => Vec::new(),
        (scheduler::SH | scheduler::DH, _) => (0..256).map(|_| random.one_of(servers)).collect(),
        (scheduler::MH, _) => (0..251).map(|_| random.one_of(servers)).collect(),
        _ => servers.to_vec(),
    };
    tables.set_pool(service, rule, &slots);
    if rule == scheduler::WRR {
        let base = tables.services[service as usize].pool as u32 as usize;
        tables.pools[base].store(slots.len() as u64, Ordering::SeqCst);
        tables.pools[base + 1].store(3 | 1 << 32, Ordering::SeqCst);
    }
}

fn any_routes(random: &mut Random, tables: &mut HostTables) {
    for (network, prefix, hop) in [
        ("0.0.0.0", 0, 5),
        ("198.51.100.0", 24, 6),
        ("198.51.100.9", 32, 7),
        ("::", 0, 8),
        ("2001:db8:c::", 48, 9),
    ] {
        if random.once_in(2) {
            continue;
        }
        let network: IpAddr = network.parse().unwrap();
        let mtu = random.one_of(&[1500, 1500, 600]);
        let ways = Ways::new(mac(0x300 + hop), mac(4), random.one_of(&[1, 3]), mtu);
        let ways = if random.once_in(10) {
            Ways::default()
        } else {
            ways
        };
        tables.add_route(network, prefix, u32::from(hop), ways);
    }
}

/// One of the frames, a little changed.
pub(crate) fn mutated(random: &mut Random, frames: &[Vec<Vec<u8>>; 2]) -> Vec<u8> {
    let frames = &frames[usize::from(random.once_in(12))];
    let mut frame = frames[random.below(frames.len())].clone();
    for _ in 0..random.one_of(&[0, 0, 0, 1, 1, 2, 4]) {
        mutate(random, &mut frame);
    }
    let l3 = l3(&frame);
    // Mostly with a right header checksum: few would get past it otherwise.
    if !random.once_in(20) && frame.get(l3 - 2..l3) == Some(&[8, 0]) {
        let header = frame.get(l3).map_or(0, |first| usize::from(first & 15) * 4);
        if let Some(header) = frame
            .get_mut(l3..l3 + header)
            .filter(|header| header.len() >= 20)
        {
            mend(header);
        }
    }
    frame
}

fn l3(frame: &[u8]) -> usize {
    let mut l3 = 14;
    while matches!(frame.get(l3 - 2..l3), Some([0x81, 0] | [0x88, 0xa8])) && l3 < 22 {
        l3 += 4;
    }
    l3
}

fn put(frame: &mut [u8], at: usize, bytes: &[u8]) {
    if let Some(place) = frame.get_mut(at..at + bytes.len()) {
        place.copy_from_slice(bytes);
    }
}

fn mutate(random: &mut Random, frame: &mut Vec<u8>) {
    let l3 = l3(frame);
    let v6 = frame.get(l3).is_some_and(|first| first >> 4 == 6);
    let l4 = l3 + if v6 { 40 } else { 20 };
    let at = random.below(frame.len().clamp(1, 120));
    match random.below(12) {
        0 if at < frame.len() => frame[at] ^= 1 << random.below(8),
        1 if at < frame.len() => frame[at] = random.one_of(&[0, 1, 4, 6, 17, 44, 58, 127, 255]),
        2 => frame.truncate(random.below(frame.len() + 1).max(14)),
        3 => frame.resize(frame.len() + random.below(90), random.next() as u8),
        4 | 5 => {
            let (source, bytes) = if v6 { (8, 16) } else { (12, 4) };
            let place = l3 + source + bytes * random.below(2);
            let local = translated::local(v6);
            let addresses = [client(v6).0, virtual_end(v6).0, server_end(v6).0, local];
            match random.one_of(&addresses) {
                IpAddr::V4(address) => put(frame, place, &address.octets()),
                IpAddr::V6(address) => put(frame, place, &address.octets()),
            }
        }
        6 | 7 => {
            let port: u16 = random.one_of(&[80, 8080, 40_000, 40_001, 5000, 1000, 0]);
            put(frame, l4 + 2 * random.below(2), &port.to_be_bytes());
        }
        8 => put(frame, l4, &((1024 + random.below(16)) as u16).to_be_bytes()),
        9 => put(
            frame,
            l4 + 13,
            &[random.one_of(&[1, 2, 4, 16, 17, 18, 20, 0, 0x3f])],
        ),
        10 if v6 => put(frame, l3 + 7, &[random.below(3) as u8]),
        10 => put(frame, l3 + 8, &[random.below(3) as u8]),
        11 if !v6 => {
            let field = random.one_of(&[0x2000u16, 0x0001, 0x2003, 0x4000, 0x1fff, 0x0010]);
            put(frame, l3 + 6, &field.to_be_bytes());
        }
        _ => put(frame, l3 + 4, &(random.below(120) as u16).to_be_bytes()),
    }
}
