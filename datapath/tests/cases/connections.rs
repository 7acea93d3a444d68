//! Connections from the first packet to the last: states, live counts, reuse, expiry, full buckets.

use std::sync::atomic::Ordering;

use shunt_datapath::entry::{fate, method, scheduler, server_flag, service_flag};
use shunt_datapath::host::{HostTables, Sizes};
use shunt_datapath::verdict::{Drop, Note, Pass, Verdict};

use super::farm::*;
use super::packet::*;
use super::{Case, case};

const SENT: Verdict = Verdict::Send(TO_SERVER);

pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for v6 in FAMILIES {
        cases.push(whole_life_behind_nat(v6));
        cases.push(whole_life_routed(v6));
        cases.push(reset(v6));
        cases.push(no_reuse_if_forbidden(v6));
        cases.push(fin_wait_reused_in_mode_2(v6));
        cases.push(datagrams(v6));
        cases.push(unknown(v6));
        cases.push(expired(v6));
        cases.push(server_gone(v6));
        cases.push(unheard_by_a_server_that_is_gone(v6));
        cases.push(answers_of_a_server_that_is_gone(v6));
        cases.push(service_gone(v6));
        cases.push(half_open_give_way(v6));
        cases.push(established_stay(v6));
        cases.push(nat_needs_an_entry(v6));
        cases.push(closed_by_the_client_gives_way(v6, FIN | ACK));
        cases.push(closed_by_the_client_gives_way(v6, RST));
    }
    cases
}

/// A flow through one server, packet by packet, with the live counts after each.
struct Flow {
    case: Case,
    v6: bool,
    nat: bool,
}

impl Flow {
    fn begin(sentence: String, v6: bool, method: u8, change: impl FnOnce(&mut HostTables)) -> Self {
        let mut tables = one(v6, TCP, &server(method, v6));
        change(&mut tables);
        let nat = method == method::MASQUERADE;
        Self {
            case: case(sentence, tables),
            v6,
            nat,
        }
    }

    /// The client sends a segment.
    fn there(mut self, flags: u8, counts: (u32, u32)) -> Self {
        let packet = tcp(client(self.v6), virtual_end(self.v6), flags);
        let out = packet.clone().macs(7, 3).ttl(63);
        let out = if self.nat {
            out.to(server_end(self.v6))
        } else {
            out
        };
        self.case = self.case.turns(&packet, SENT, &out);
        self.count(counts)
    }

    /// The server sends a segment.
    fn back(mut self, flags: u8, counts: (u32, u32)) -> Self {
        let packet = tcp(server_end(self.v6), client(self.v6), flags);
        let out = packet.clone().from(virtual_end(self.v6)).macs(8, 4).ttl(63);
        self.case = self.case.turns(&packet, Verdict::Send(TO_CLIENT), &out);
        self.count(counts)
    }

    fn count(mut self, counts: (u32, u32)) -> Self {
        let what = format!("ActiveConn and InActConn are {counts:?}");
        self.case = self
            .case
            .holds(what, move |tables| live(tables, 1) == counts);
        self
    }

    fn waits(mut self, ticks: u32) -> Self {
        self.case = self.case.waits(ticks);
        self
    }
}

fn connections(number: u64) -> impl Fn(&HostTables) -> bool {
    move |tables| tables.traffic.of(1).connections == number
}

pub(super) fn noted(note: Note, number: u64) -> impl Fn(&HostTables) -> bool {
    move |tables| tables.counters[note.counter() as usize].load(Ordering::SeqCst) == number
}

fn whole_life_behind_nat(v6: bool) -> Case {
    let sentence = format!(
        "NAT {}: a connection's life moves it between the counts",
        family_name(v6)
    );
    Flow::begin(sentence, v6, method::MASQUERADE, |_| ())
        .there(SYN, (1, 0))
        .back(SYN | ACK, (1, 0))
        .there(ACK, (1, 0))
        .waits(5)
        .there(ACK, (1, 0))
        .back(ACK, (1, 0))
        .there(FIN | ACK, (0, 1))
        .back(FIN | ACK, (0, 1))
        .there(ACK, (0, 1))
        .there(SYN, (1, 0))
        .case
        .holds("a SYN made another connection of it", connections(2))
        .holds("which is counted as reused", noted(Note::Reused, 1))
}

fn whole_life_routed(v6: bool) -> Case {
    let sentence = format!(
        "route {}: the client's half is enough to tell",
        family_name(v6)
    );
    Flow::begin(sentence, v6, method::ROUTE, |_| ())
        .there(SYN, (1, 0))
        .there(SYN, (1, 0))
        .there(ACK, (1, 0))
        .waits(900)
        .there(ACK, (1, 0))
        .there(FIN | ACK, (0, 1))
        .there(ACK, (0, 1))
        .case
        .holds("one connection", connections(1))
}

fn reset(v6: bool) -> Case {
    let sentence = format!("{}: a reset closes, and a SYN opens anew", family_name(v6));
    Flow::begin(sentence, v6, method::ROUTE, |_| ())
        .there(SYN, (1, 0))
        .there(ACK, (1, 0))
        .there(RST, (0, 1))
        .there(SYN, (1, 0))
        .case
        .holds("two connections", connections(2))
}

fn no_reuse_if_forbidden(v6: bool) -> Case {
    let sentence = format!(
        "{}: with reuse mode 0 a SYN stays with its closed entry",
        family_name(v6)
    );
    Flow::begin(sentence, v6, method::ROUTE, |tables| {
        tables.servers[1].fate = 0
    })
    .there(SYN, (1, 0))
    .there(RST, (1, 0))
    .there(ACK, (1, 0))
    .there(RST, (0, 1))
    .there(SYN, (1, 0))
    .case
    .holds("one connection", connections(1))
}

fn fin_wait_reused_in_mode_2(v6: bool) -> Case {
    let sentence = format!(
        "{}: reuse mode 2 takes FIN_WAIT without answers too",
        family_name(v6)
    );
    Flow::begin(sentence, v6, method::ROUTE, |tables| {
        tables.servers[1].fate |= fate::REUSED_FIN_WAIT
    })
    .there(SYN, (1, 0))
    .there(ACK, (1, 0))
    .there(FIN | ACK, (0, 1))
    .there(SYN, (1, 0))
    .case
    .holds("two connections", connections(2))
}

fn datagrams(v6: bool) -> Case {
    let packet = udp(client(v6), virtual_end(v6));
    let out = packet.clone().macs(7, 3).ttl(63);
    case(
        format!("{}: UDP flows count as inactive", family_name(v6)),
        one(v6, UDP, &server(method::ROUTE, v6)),
    )
    .turns(&packet, SENT, &out)
    .holds("inactive", |tables| live(tables, 1) == (0, 1))
    .turns(&packet, SENT, &out)
    .waits(301)
    .turns(&packet, SENT, &out)
    .holds("still one", |tables| live(tables, 1) == (0, 1))
    .holds("but the second of its kind", connections(2))
}

fn unknown(v6: bool) -> Case {
    let passes = Verdict::Pass(Pass::NotOpening);
    let packet = tcp(client(v6), virtual_end(v6), ACK);
    case(
        format!(
            "{}: a segment that opens nothing and belongs to nothing passes",
            family_name(v6)
        ),
        one(v6, TCP, &server(method::ROUTE, v6)),
    )
    .leaves(&packet, passes)
    .leaves(&packet.clone().flags(FIN), passes)
    .leaves(&packet.clone().flags(RST), passes)
    .leaves(&packet.clone().flags(0), passes)
    .holds("nothing is counted", |tables| live(tables, 1) == (0, 0))
}

fn expired(v6: bool) -> Case {
    let packet = tcp(client(v6), virtual_end(v6), SYN);
    let out = packet.clone().macs(7, 3).ttl(63);
    let goes_on = packet.clone().flags(ACK);
    case(
        format!("{}: an expired entry is no connection", family_name(v6)),
        one(v6, TCP, &server(method::ROUTE, v6)),
    )
    .turns(&packet, SENT, &out)
    .turns(&goes_on, SENT, &out.clone().flags(ACK))
    .waits(901)
    .leaves(&goes_on, Verdict::Pass(Pass::NotOpening))
    .turns(&packet, SENT, &out)
    .holds("and its count is given back", |tables| {
        live(tables, 1) == (1, 0)
    })
}

fn server_gone(v6: bool) -> Case {
    let packet = tcp(client(v6), virtual_end(v6), SYN);
    let out = packet.clone().macs(7, 3).ttl(63);
    case(
        format!(
            "{}: packets to a server that was removed are dropped",
            family_name(v6)
        ),
        one(v6, TCP, &server(method::ROUTE, v6)),
    )
    .turns(&packet, SENT, &out)
    .changes(|tables| tables.servers[1].flags &= !server_flag::PRESENT)
    .leaves(&packet.clone().flags(ACK), Verdict::Drop(Drop::ServerGone))
}

/// IPVS checks whether the server is there before it follows the state (`ip_vs_in`).
fn unheard_by_a_server_that_is_gone(v6: bool) -> Case {
    let packet = tcp(client(v6), virtual_end(v6), SYN);
    let sentence = format!(
        "{}: what a removed server does not hear does not close",
        family_name(v6)
    );
    Flow::begin(sentence, v6, method::ROUTE, |_| ())
        .there(SYN, (1, 0))
        .there(ACK, (1, 0))
        .case
        .changes(|tables| tables.servers[1].flags &= !server_flag::PRESENT)
        .leaves(
            &packet.clone().flags(FIN | ACK),
            Verdict::Drop(Drop::ServerGone),
        )
        .leaves(&packet.flags(RST), Verdict::Drop(Drop::ServerGone))
        .holds("it is active yet", |tables| live(tables, 1) == (1, 0))
}

// `ip_vs_out_stats`.
fn answers_of_a_server_that_is_gone(v6: bool) -> Case {
    let tables = one(v6, TCP, &server(method::MASQUERADE, v6));
    let syn = tcp(client(v6), virtual_end(v6), SYN);
    let to = syn.clone().to(server_end(v6)).macs(7, 3).ttl(63);
    let answer = tcp(server_end(v6), client(v6), ACK);
    let back = answer.clone().from(virtual_end(v6)).macs(8, 4).ttl(63);
    let counted = |tables: &HostTables| tables.traffic.of(1).out_packets;
    case(
        format!(
            "{}: answers of a server that is gone are carried",
            family_name(v6)
        ),
        tables,
    )
    .turns(&syn, SENT, &to)
    .turns(&answer, Verdict::Send(TO_CLIENT), &back)
    .holds("one is counted", move |tables| counted(tables) == 1)
    .changes(|tables| tables.servers[1].flags &= !server_flag::PRESENT)
    .turns(&answer, Verdict::Send(TO_CLIENT), &back)
    .holds("no more are", move |tables| counted(tables) == 1)
}

fn service_gone(v6: bool) -> Case {
    let packet = tcp(client(v6), virtual_end(v6), SYN);
    let out = packet.clone().macs(7, 3).ttl(63);
    let other = (client(v6).0, 40_001);
    case(
        format!(
            "{}: a deleted service keeps its flows and takes no more",
            family_name(v6)
        ),
        one(v6, TCP, &server(method::ROUTE, v6)),
    )
    .turns(&packet, SENT, &out)
    .changes(|tables| tables.services[1].flags &= !service_flag::PRESENT)
    .turns(&packet.clone().flags(ACK), SENT, &out.clone().flags(ACK))
    .leaves(&packet.clone().from(other), Verdict::Pass(Pass::NotOurs))
}

/// Tables with a single bucket of flows: four of IPv4 or two of IPv6.
pub(super) fn narrow(v6: bool, method: u8) -> HostTables {
    let mut tables = HostTables::new(Sizes {
        flows: 1,
        ..Sizes::default()
    });
    let (address, port) = virtual_end(v6);
    tables.add_service(address, port, TCP, 0);
    let id = tables.add_server(1, &server(method, v6));
    tables.set_pool(1, scheduler::RING, &[(id, 1)]);
    tables
}

fn half_open_give_way(v6: bool) -> Case {
    let room = if v6 { 2 } else { 4 };
    let mut all = case(
        format!(
            "{}: in a full bucket the oldest half-open flow gives way",
            family_name(v6)
        ),
        narrow(v6, method::ROUTE),
    );
    for port in 0..=room {
        let packet = tcp((client(v6).0, 1000 + port), virtual_end(v6), SYN);
        all = all
            .turns(&packet, SENT, &packet.clone().macs(7, 3).ttl(63))
            .waits(1);
    }
    let oldest = tcp((client(v6).0, 1000), virtual_end(v6), ACK);
    all.holds("one was displaced", noted(Note::Displaced, 1))
        .holds("the counts are those that are left", move |tables| {
            live(tables, 1) == (u32::from(room), 0)
        })
        // The oldest flow has lost its entry, but the bucket has half-open flows, so its packet is
        // not forwarded by hash.
        .leaves(&oldest, Verdict::Pass(Pass::NotOpening))
}

fn established_stay(v6: bool) -> Case {
    let room = if v6 { 2 } else { 4 };
    let mut all = case(
        format!(
            "{}: established flows are never displaced; more go by hash",
            family_name(v6)
        ),
        narrow(v6, method::ROUTE),
    );
    let forwarded = |packet: &Packet| packet.clone().macs(7, 3).ttl(63);
    for port in 0..room {
        let open = tcp((client(v6).0, 1000 + port), virtual_end(v6), SYN);
        let goes_on = open.clone().flags(ACK);
        all = all
            .turns(&open, SENT, &forwarded(&open))
            .turns(&goes_on, SENT, &forwarded(&goes_on))
            .turns(&goes_on, SENT, &forwarded(&goes_on))
            .turns(&goes_on, SENT, &forwarded(&goes_on));
    }
    let more = tcp((client(v6).0, 2000), virtual_end(v6), SYN);
    let goes_on = more.clone().flags(ACK);
    all = all.waits(800).turns(&more, SENT, &forwarded(&more));
    all = all.turns(&goes_on, SENT, &forwarded(&goes_on));
    all = all.holds("without an entry, twice", noted(Note::Untracked, 2));
    for port in 0..room {
        let packet = tcp((client(v6).0, 1000 + port), virtual_end(v6), ACK);
        all = all.turns(&packet, SENT, &forwarded(&packet));
    }
    all.holds("all are there", move |tables| {
        live(tables, 1) == (u32::from(room), 0)
    })
    .holds("none was displaced", noted(Note::Displaced, 0))
}

/// The last packet comes from the client, so no answer updates the way-back entry.
fn closed_by_the_client_gives_way(v6: bool, last: u8) -> Case {
    let kind = if last & RST == 0 { "FIN" } else { "RST" };
    let mut all = case(
        format!(
            "NAT {}: what a client's {kind} closed gives both its places away",
            family_name(v6)
        ),
        narrow(v6, method::MASQUERADE),
    );
    for port in 0..=if v6 { 2 } else { 4 } {
        let client = (client(v6).0, 1000 + port);
        for (back, flags) in [
            (false, SYN),
            (true, SYN | ACK),
            (false, ACK),
            (true, FIN | ACK),
            (false, last),
        ] {
            all = if back {
                let packet = tcp(server_end(v6), client, flags);
                // No hop to the client is prepared: the answer goes the way that the client's
                // packet came.
                let out = packet.clone().from(virtual_end(v6)).macs(1, 2).ttl(63);
                all.turns(&packet, Verdict::Send(1), &out)
            } else {
                let packet = tcp(client, virtual_end(v6), flags);
                let out = packet.clone().to(server_end(v6)).macs(7, 3).ttl(63);
                all.turns(&packet, SENT, &out)
            };
        }
    }
    all.holds("all were entered", noted(Note::Untracked, 0))
}

fn nat_needs_an_entry(v6: bool) -> Case {
    let flows = if v6 { 1 } else { 2 };
    let mut all = case(
        format!(
            "NAT {}: with no room for both entries the packet is dropped",
            family_name(v6)
        ),
        narrow(v6, method::MASQUERADE),
    );
    for port in 0..flows {
        let client = (client(v6).0, 1000 + port);
        for (back, flags) in [(false, SYN), (true, SYN | ACK), (false, ACK)] {
            all = if back {
                let packet = tcp(server_end(v6), client, flags);
                let out = packet.clone().from(virtual_end(v6)).macs(1, 2).ttl(63);
                all.turns(&packet, Verdict::Send(1), &out)
            } else {
                let packet = tcp(client, virtual_end(v6), flags);
                let out = packet.clone().to(server_end(v6)).macs(7, 3).ttl(63);
                all.turns(&packet, SENT, &out)
            };
        }
    }
    let more = tcp((client(v6).0, 2000), virtual_end(v6), SYN);
    all.leaves(&more, Verdict::Drop(Drop::TableFull))
        .holds("what is counted is what is there", move |tables| {
            live(tables, 1) == (u32::from(flows), 0)
        })
}
