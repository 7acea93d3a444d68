//! Persistent clients: templates, granularity, expiry, and servers that leave.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use shunt_datapath::connection::TEMPLATE_ASSURED;
use shunt_datapath::entry::{Ways, method, scheduler, server_flag};
use shunt_datapath::flows::{self, Layout, Narrow, Wide};
use shunt_datapath::host::{HostTables, HostWords, NewServer, Sizes, mac};
use shunt_datapath::verdict::Verdict;

use super::farm::*;
use super::packet::*;
use super::{Case, case};

/// The id of service 1's templates.
const TEMPLATES: u32 = 40;
const LIVES: u32 = 300;

pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for v6 in FAMILIES {
        for protocol in [TCP, UDP, SCTP] {
            cases.push(comes_again(v6, protocol));
        }
        cases.push(neighbours(v6));
        cases.push(ends(v6));
        cases.push(stays_with_a_quiesced_server(v6));
        cases.push(leaves_a_removed_server(v6));
        cases.push(follows_a_server_to_its_other_method(v6));
        cases.push(port_zero_is_no_template(v6));
        cases.push(is_assured(v6));
        cases.push(is_assured_without_persistence(v6));
        cases.push(closes_and_asks_again(v6));
        cases.push(is_assured_by_an_answer(v6));
    }
    cases
}

/// Three servers in turn, which differ in their MAC addresses.
fn farm(v6: bool, protocol: u8) -> HostTables {
    let mut tables = HostTables::new(Sizes::default());
    let (address, port) = virtual_end(v6);
    tables.add_service(address, port, protocol, 0);
    for number in 1..=3 {
        let ways = Ways::new(mac(0x100 + number), mac(3), TO_SERVER, 1500);
        let server = NewServer {
            ways,
            ..server(method::ROUTE, v6)
        };
        tables.add_server(1, &server);
    }
    tables.set_pool(1, scheduler::RING, &[(1, 1), (2, 1), (3, 1)]);
    let service = &mut tables.services[1];
    service.template = TEMPLATES;
    service.persistence = LIVES;
    // The granularity is a network of 256 addresses, or of 64 bits for IPv6.
    service.granularity = match v6 {
        false => [u64::from(u32::from_ne_bytes([255, 255, 255, 0])), 0],
        true => [u64::MAX, 0],
    };
    tables
}

/// Address number `host` of network number `network`.
fn at(v6: bool, network: u8, host: u8) -> IpAddr {
    match v6 {
        false => Ipv4Addr::new(198, 51, network, host).into(),
        true => Ipv6Addr::new(0x2001, 0xdb8, 0xc, network.into(), 0, 0, 0, host.into()).into(),
    }
}

struct Story {
    case: Case,
    v6: bool,
    protocol: u8,
}

impl Story {
    fn begin(sentence: &str, v6: bool, protocol: u8) -> Self {
        let (family, name) = (family_name(v6), protocol_name(protocol));
        Self {
            case: case(format!("{name} {family}: {sentence}"), farm(v6, protocol)),
            v6,
            protocol,
        }
    }

    /// A client opens a connection and gets this server.
    fn opens(mut self, client: (u8, u8, u16), server: u16) -> Self {
        let (network, host, port) = client;
        let packet = opening(
            self.protocol,
            (at(self.v6, network, host), port),
            virtual_end(self.v6),
        );
        let out = packet.clone().macs(0x100 + server, 3).ttl(63);
        self.case = self.case.turns(&packet, Verdict::Send(TO_SERVER), &out);
        self
    }

    fn then(mut self, more: impl FnOnce(Case) -> Case) -> Self {
        self.case = more(self.case);
        self
    }
}

fn comes_again(v6: bool, protocol: u8) -> Case {
    Story::begin("a client has one server, the next another", v6, protocol)
        .opens((1, 7, 1000), 1)
        .opens((1, 7, 1001), 1)
        .opens((2, 7, 1000), 2)
        .opens((1, 7, 1002), 1)
        .opens((3, 7, 1000), 3)
        .opens((2, 7, 1001), 2)
        .case
        .holds("templates are counted for nobody", move |tables| {
            let (active, inactive) = live(tables, 1);
            active + inactive == 3
        })
}

fn neighbours(v6: bool) -> Case {
    Story::begin("who is near counts as the same client", v6, TCP)
        .opens((1, 7, 1000), 1)
        .opens((1, 99, 1000), 1)
        .opens((2, 7, 1000), 2)
        .case
}

fn ends(v6: bool) -> Case {
    Story::begin("a template lives after its last connection", v6, TCP)
        .opens((1, 7, 1000), 1)
        .then(|case| case.waits(LIVES))
        .opens((1, 7, 1001), 1)
        .then(|case| case.waits(LIVES))
        .opens((1, 7, 1002), 1)
        .then(|case| case.waits(LIVES + 1))
        .opens((1, 7, 1003), 2)
        .opens((1, 7, 1004), 2)
        .case
}

fn stays_with_a_quiesced_server(v6: bool) -> Case {
    Story::begin("a quiesced server keeps its clients", v6, TCP)
        .opens((1, 7, 1000), 1)
        .then(|case| case.changes(|tables| tables.set_pool(1, scheduler::RING, &[(2, 1)])))
        .opens((1, 7, 1001), 1)
        .opens((2, 7, 1000), 2)
        .case
}

fn leaves_a_removed_server(v6: bool) -> Case {
    Story::begin("clients of a removed server get another", v6, TCP)
        .opens((1, 7, 1000), 1)
        .then(|case| {
            case.changes(|tables| {
                tables.set_pool(1, scheduler::RING, &[(2, 1), (3, 1)]);
                tables.servers[1].flags &= !server_flag::PRESENT;
            })
        })
        .opens((1, 7, 1001), 2)
        .opens((1, 7, 1002), 2)
        .case
}

fn follows_a_server_to_its_other_method(v6: bool) -> Case {
    Story::begin("a server of another method keeps its clients", v6, TCP)
        .opens((1, 7, 1000), 1)
        .then(|case| {
            case.changes(|tables| {
                tables.set_pool(1, scheduler::RING, &[(3, 1), (2, 1)]);
                tables.servers[1].successor = 3;
            })
        })
        .opens((1, 7, 1001), 3)
        .opens((1, 7, 1002), 3)
        .case
}

fn port_zero_is_no_template(v6: bool) -> Case {
    Story::begin(
        "a client on port 0 has a connection like any other",
        v6,
        TCP,
    )
    .opens((1, 0, 0), 1)
    .opens((1, 0, 1000), 1)
    .case
    .holds("two connections and no more", |tables| {
        live(tables, 1) == (2, 0)
    })
}

fn is_assured(v6: bool) -> Case {
    let from = (at(v6, 1, 7), 1000);
    let ack = tcp(from, virtual_end(v6), ACK);
    let out = ack.clone().macs(0x101, 3).ttl(63);
    Story::begin("an established connection assures its template", v6, TCP)
        .opens((1, 7, 1000), 1)
        .case
        .holds("a template that gives way", move |tables| {
            assured(tables, v6) == (1, 0)
        })
        .turns(&ack, Verdict::Send(TO_SERVER), &out)
        .turns(&ack, Verdict::Send(TO_SERVER), &out)
        .turns(&ack, Verdict::Send(TO_SERVER), &out)
        .holds(
            "it is assured, and gives way: packets at once prove nothing",
            move |tables| assured(tables, v6) == (1, 1) && staying(tables, v6) == 0,
        )
        .waits(64)
        .turns(&ack, Verdict::Send(TO_SERVER), &out)
        .holds("a template that stays", move |tables| {
            assured(tables, v6) == (1, 1) && staying(tables, v6) == 1
        })
}

// The connection keeps its template, even if the service changes (`cp->control`).
fn is_assured_without_persistence(v6: bool) -> Case {
    let from = (at(v6, 1, 7), 1000);
    let ack = tcp(from, virtual_end(v6), ACK);
    let out = ack.clone().macs(0x101, 3).ttl(63);
    let sentence = "a template is assured where the service is persistent no longer";
    Story::begin(sentence, v6, TCP)
        .opens((1, 7, 1000), 1)
        .then(|case| case.changes(|tables| tables.services[1].persistence = 0))
        .opens((1, 7, 1001), 2)
        .case
        .turns(&ack, Verdict::Send(TO_SERVER), &out)
        .turns(&ack, Verdict::Send(TO_SERVER), &out)
        .turns(&ack, Verdict::Send(TO_SERVER), &out)
        .holds("one template, which stays", move |tables| {
            assured(tables, v6) == (1, 1)
        })
}

fn closes_and_asks_again(v6: bool) -> Case {
    let from = (at(v6, 1, 7), 1000);
    let reset = tcp(from, virtual_end(v6), RST);
    let out = reset.clone().macs(0x101, 3).ttl(63);
    let ack = tcp(from, virtual_end(v6), ACK);
    let ack_out = ack.clone().macs(0x101, 3).ttl(63);
    let syn = opening(TCP, from, virtual_end(v6));
    let out_again = syn.clone().macs(0x101, 3).ttl(63);
    Story::begin("a SYN goes on with the client's closed connection", v6, TCP)
        .opens((1, 7, 1000), 1)
        .case
        .turns(&ack, Verdict::Send(TO_SERVER), &ack_out)
        .turns(&reset, Verdict::Send(TO_SERVER), &out)
        .holds("which is inactive", |tables| live(tables, 1) == (0, 1))
        .turns(&syn, Verdict::Send(TO_SERVER), &out_again)
        .holds("one connection", |tables| {
            tables.traffic.of(1).connections == 1
        })
        .holds("which is active again", |tables| live(tables, 1) == (1, 0))
}

// `set_sctp_state`: a masqueraded server makes an association established.
fn is_assured_by_an_answer(v6: bool) -> Case {
    let mut tables = one(v6, SCTP, &server(method::MASQUERADE, v6));
    tables.services[1].template = TEMPLATES;
    tables.services[1].persistence = LIVES;
    tables.services[1].granularity = [u64::MAX; 2];
    let there = |kind| sctp(client(v6), virtual_end(v6), kind).payload(&[1; 4]);
    let to = |packet: &Packet| packet.clone().to(server_end(v6)).macs(7, 3).ttl(63);
    let answer = sctp(server_end(v6), client(v6), chunk::COOKIE_ACK);
    let back = answer.clone().from(virtual_end(v6)).macs(8, 4).ttl(63);
    let (open, echo, data) = (
        there(chunk::INIT),
        there(chunk::COOKIE_ECHO),
        there(chunk::DATA),
    );
    let sent = Verdict::Send(TO_SERVER);
    let sentence = "an association that the server accepted assures its template";
    case(format!("SCTP {}: {sentence}", family_name(v6)), tables)
        .turns(&open, sent, &to(&open))
        .turns(&echo, sent, &to(&echo))
        .turns(&answer, Verdict::Send(TO_CLIENT), &back)
        .holds("a template that gives way", move |tables| {
            assured(tables, v6) == (1, 0)
        })
        .waits(1)
        .turns(&data, sent, &to(&data))
        .holds("a template that stays", move |tables| {
            assured(tables, v6) == (1, 1)
        })
}

/// The number of templates, and of the assured ones.
fn assured(tables: &HostTables, v6: bool) -> (usize, usize) {
    let (all, assured, _) = templates(tables, v6);
    (all, assured)
}

/// The number of templates that may not be displaced.
fn staying(tables: &HostTables, v6: bool) -> usize {
    templates(tables, v6).2
}

/// The numbers of all templates, of the assured ones, and of those that may not be displaced.
fn templates(tables: &HostTables, v6: bool) -> (usize, usize, usize) {
    fn count<L: Layout>(words: &[std::sync::atomic::AtomicU64]) -> (usize, usize, usize) {
        let mut found = (0, 0, 0);
        for bucket in words.chunks(8) {
            for slot in 0..L::SLOTS {
                let Some((record, _)) = flows::read::<L, _>(HostWords(bucket), slot) else {
                    continue;
                };
                found.0 += usize::from(record.meta.is_template());
                found.1 += usize::from(record.meta.state() == TEMPLATE_ASSURED);
                let stays = record.meta.is_template() && record.meta.yields() == 0;
                found.2 += usize::from(stays);
            }
        }
        found
    }
    match v6 {
        false => count::<Narrow>(&tables.flows4),
        true => count::<Wide>(&tables.flows6),
    }
}
