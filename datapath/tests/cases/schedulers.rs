//! Which server takes which connection, as seen by the destination MAC address.

use std::sync::atomic::Ordering;

use shunt_datapath::entry::{PoolWord, Ways, counts, method, scheduler, service_flag};
use shunt_datapath::host::{HostTables, NewServer, Sizes, mac};
use shunt_datapath::verdict::{Bounce, Verdict};

use super::farm::*;
use super::packet::*;
use super::{Case, case};

pub(super) fn cases() -> Vec<Case> {
    vec![
        takes(
            "rr takes servers in turn",
            farm(scheduler::RING, &[(1, 1), (2, 1), (3, 1)]),
            &[1, 2, 3, 1, 2, 3, 1],
        ),
        takes(
            "wrr takes the places of its ring in turn",
            farm(
                scheduler::RING,
                &[(1, 3), (1, 3), (2, 2), (1, 3), (2, 2), (3, 1)],
            ),
            &[1, 1, 2, 1, 2, 3, 1],
        ),
        // ip_vs_wrr_schedule with weights 3, 2, 1: greatest 3, step 1.
        takes(
            "wrr by its own rule gives the same turn",
            by_rule(),
            &[1, 1, 2, 1, 2, 3, 1],
        ),
        takes(
            "lc takes the one with the fewest",
            farm(scheduler::LC, &[(1, 9), (2, 1), (3, 1)]),
            &[1, 2, 3, 1, 2, 3],
        ),
        takes(
            "wlc takes the one with the fewest for its weight",
            farm(scheduler::WLC, &[(1, 2), (2, 1)]),
            &[1, 2, 1, 1, 2, 1],
        ),
        takes(
            "sed counts the connection that would come",
            farm(scheduler::SED, &[(1, 3), (2, 1)]),
            &[1, 1, 1, 2, 1, 1],
        ),
        takes(
            "nq takes an idle server at once",
            farm(scheduler::NQ, &[(1, 3), (2, 1), (3, 1)]),
            &[1, 2, 3, 1, 1, 1],
        ),
        one_packet(),
        takes("wlc counts inactive ones as a 256th", loaded(), &[2, 2]),
        takes(
            "fo takes the heaviest, whatever it carries",
            farm(scheduler::FO, &[(3, 5), (1, 2)]),
            &[3, 3, 3],
        ),
        // ip_vs_ovf.c: a server is full when it has more active connections than weight.
        takes(
            "ovf goes on to the next when one is full",
            farm(scheduler::OVF, &[(2, 2), (1, 1), (3, 1)]),
            &[2, 2, 2, 1, 1, 3, 3],
        ),
        takes(
            "dh gives packets for one address to one server",
            hashed(scheduler::DH, 256, |_| (2, 1)),
            &[2, 2, 2],
        ),
        // ip_vs_lblc.c: a server keeps its target until it is crowded and another has less than
        // half its weight.
        takes(
            "lblc keeps a target with its server until that is crowded",
            farm(scheduler::LBLC, &[(3, 1), (2, 2), (1, 3)]),
            &[3, 3, 2, 2, 2, 1, 1, 1, 1, 1, 1],
        ),
        takes(
            "lblcr adds a server to the set of a target that is crowded",
            farm(scheduler::LBLCR, &[(3, 1), (2, 2), (1, 3)]),
            &[3, 3, 2, 2, 2, 1, 1, 1, 1, 1, 2, 1, 1, 2, 3],
        ),
        takes(
            "lots of twos that lead nowhere take the only server",
            lots(scheduler::TWOS),
            &[2, 2, 2],
        ),
        takes("p2c takes the only server", lots(scheduler::P2C), &[2, 2]),
        overloaded("rr", scheduler::RING, &[1, 2, 3, 1, 3, 3, 3]),
        overloaded("lc", scheduler::LC, &[1, 2, 3, 1, 3, 3, 3]),
        overloaded("fo", scheduler::FO, &[1, 1, 2, 3, 3, 3]),
        relieved(),
        stays("sh gives a client the same server", scheduler::SH, 256),
        stays("mh gives a client the same server", scheduler::MH, 251),
        no_fallback(scheduler::SH, 256),
        no_fallback(scheduler::MH, 251),
        fallback(scheduler::SH, 256),
        fallback(scheduler::MH, 251),
    ]
}

/// Three servers, which differ in their MAC addresses.
fn farm(rule: u8, slots: &[(u32, u32)]) -> HostTables {
    let mut tables = HostTables::new(Sizes::default());
    tables.add_service(VIRTUAL, 80, TCP, 0);
    for number in 1..=3 {
        let ways = Ways::new(mac(0x100 + number), mac(3), TO_SERVER, 1500);
        tables.add_server(
            1,
            &NewServer {
                ways,
                ..server(method::ROUTE, false)
            },
        );
    }
    tables.set_pool(1, rule, slots);
    tables
}

fn one_packet() -> Case {
    let mut tables = farm(scheduler::RING, &[(1, 1), (2, 1), (3, 1)]);
    tables.add_service(VIRTUAL, 53, UDP, service_flag::ONE_PACKET);
    tables.services[2].pool = tables.services[1].pool;
    let mut all = case("one-packet scheduling remembers nothing", tables);
    for number in [1, 2, 3, 1, 2] {
        let packet = udp((CLIENT, 1000), (VIRTUAL, 53));
        let out = packet.clone().macs(0x100 + number, 3).ttl(63);
        all = all.turns(&packet, Verdict::Send(TO_SERVER), &out);
    }
    all.holds("nobody counts as connected", |tables| {
        live(tables, 1) == (0, 0)
    })
    .holds("but the datagrams are connections", |tables| {
        tables.traffic.of(1).connections == 2
    })
}

fn by_rule() -> HostTables {
    let tables = farm(scheduler::WRR, &[(1, 3), (2, 2), (3, 1)]);
    // The cursor is behind the end, without a current weight; the greatest weight is 3, the step 1.
    tables.pools[0].store(3, Ordering::SeqCst);
    tables.pools[1].store(3 | 1 << 32, Ordering::SeqCst);
    tables
}

/// Only the second server may be picked.
fn lots(rule: u8) -> HostTables {
    let tables = farm(rule, &[(1, 0), (2, 1), (3, 0), (1, 0), (2, 1)]);
    // The last two slots are read as lots: almost never kept, else exchanged for a higher lot.
    let mut tables = tables;
    let pool = PoolWord(tables.services[1].pool);
    tables.services[1].pool = PoolWord::new(pool.base(), 3, rule).0;
    for at in 0..4 {
        tables.pools[(pool.base() + 2 + 3 + at) as usize].store(1 << 32, Ordering::SeqCst);
    }
    tables
}

/// Server 1 is full with two connections, server 2 with one; server 3 has no thresholds.
fn overloaded(name: &str, rule: u8, order: &[u16]) -> Case {
    takes(
        &format!("{name} passes over overloaded servers"),
        limited(rule),
        order,
    )
}

fn limited(rule: u8) -> HostTables {
    let mut tables = farm(rule, &[]);
    tables.limit(1, 2, 0);
    tables.limit(2, 1, 0);
    tables.set_pool(1, rule, &[(1, 1), (2, 1), (3, 1)]);
    tables
}

// ip_vs_unbind_dest: without a lower threshold it is three quarters of the upper one.
fn relieved() -> Case {
    takes(
        "an overloaded server is used again when it has fewer",
        limited(scheduler::FO),
        &[1, 1, 2],
    )
    .changes(|tables| {
        tables.counts[1].fetch_sub(counts::ACTIVE, Ordering::SeqCst);
    })
    .turns(&syn(2000), Verdict::Send(TO_SERVER), &sent(2000, 1))
    .turns(&syn(2001), Verdict::Send(TO_SERVER), &sent(2001, 3))
}

fn sent(port: u16, number: u16) -> Packet {
    syn(port).macs(0x100 + number, 3).ttl(63)
}

fn loaded() -> HostTables {
    let tables = farm(scheduler::WLC, &[(1, 1), (2, 1)]);
    tables.counts[1].store(counts::ACTIVE * 2, Ordering::SeqCst);
    tables.counts[2].store(counts::ACTIVE + counts::INACTIVE * 2, Ordering::SeqCst);
    tables.counts[2].fetch_sub(counts::ACTIVE, Ordering::SeqCst);
    tables
}

fn syn(port: u16) -> Packet {
    tcp((CLIENT, port), (VIRTUAL, 80), SYN)
}

fn takes(sentence: &str, tables: HostTables, order: &[u16]) -> Case {
    let mut all = case(sentence, tables);
    for (index, number) in order.iter().enumerate() {
        let port = 1000 + index as u16;
        all = all.turns(&syn(port), Verdict::Send(TO_SERVER), &sent(port, *number));
    }
    all
}

/// A hash table with servers and weights by slot.
fn hashed(rule: u8, slots: usize, weights: impl Fn(usize) -> (u32, u32)) -> HostTables {
    let slots: Vec<_> = (0..slots).map(weights).collect();
    farm(rule, &slots)
}

fn stays(sentence: &str, rule: u8, slots: usize) -> Case {
    let mut tables = hashed(rule, slots, |_| (2, 1));
    tables.services[1].flags |= service_flag::PORT;
    takes(sentence, tables, &[2, 2, 2, 2])
}

fn no_fallback(rule: u8, slots: usize) -> Case {
    let packet = syn(7);
    let quote = packet.network();
    let answer = icmp(VIRTUAL, CLIENT, 3, 3, 0)
        .payload(&quote)
        .service(0xc0)
        .macs(1, 2);
    case(
        format!("a hashed server (rule {rule}) of weight 0 takes nothing"),
        hashed(rule, slots, |_| (2, 0)),
    )
    .turns(&packet, Verdict::Bounce(Bounce::Unreachable), &answer)
}

fn fallback(rule: u8, slots: usize) -> Case {
    // Most slots have weight 0: the search must go on to one that has not.
    let mut tables = hashed(rule, slots, |at| (3, u32::from(at % 5 == 0)));
    tables.services[1].flags |= service_flag::FALLBACK | service_flag::PORT;
    let sentence = format!("with fallback (rule {rule}) another slot is found");
    takes(&sentence, tables, &[3, 3, 3, 3, 3, 3, 3, 3])
}
