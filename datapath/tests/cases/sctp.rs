//! SCTP: states of an association, its opening, checksum and fragments.

use std::sync::atomic::AtomicU64;

use shunt_datapath::entry::{method, service_switch, switch};
use shunt_datapath::flows::{self, Layout, Narrow, Wide};
use shunt_datapath::host::{HostTables, HostWords, NewServer};
use shunt_datapath::sctp::{
    CLOSED, COOKIE_REPLIED, COOKIE_SENT, ESTABLISHED, INIT, INIT1, REJECTED, SHUTDOWN_ACK_SENT,
    SHUTDOWN_RECEIVED,
};
use shunt_datapath::verdict::{Bounce, Drop, Note, Pass, Verdict};

use super::answers::{UNREACHABLE, error};
use super::connections::noted;
use super::farm::*;
use super::packet::chunk::*;
use super::packet::*;
use super::{Case, case};

const SENT: Verdict = Verdict::Send(TO_SERVER);
const BACK: Verdict = Verdict::Send(TO_CLIENT);

pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for v6 in FAMILIES {
        cases.push(whole_life_behind_nat(v6));
        cases.push(whole_life_routed(v6));
        cases.push(rejected(v6));
        cases.push(asked_twice(v6));
        cases.push(aborted_behind_a_cookie(v6));
        cases.push(only_an_init_opens(v6));
        cases.push(any_chunk_opens(v6));
        cases.push(only_an_abort_is_not_answered(v6));
        cases.push(without_a_chunk(v6));
        cases.push(lives_as_long_as_ipvs_has_it(v6));
        cases.push(wrong_checksums_stay_wrong(v6));
        cases.push(longest(v6));
        cases.push(same_port(v6));
        cases.push(fragments_behind_nat(v6));
        cases.push(fragments_of_the_same_port(v6));
        cases.push(other_protocols_are_not_ours(v6));
    }
    cases
}

/// An association through one server, packet by packet, with its state and live counts after each.
struct Flow {
    case: Case,
    v6: bool,
    nat: bool,
}

impl Flow {
    fn begin(what: &str, v6: bool, method: u8) -> Self {
        let sentence = format!("SCTP {}: {what}", family_name(v6));
        Self {
            case: case(sentence, one(v6, SCTP, &server(method, v6))),
            v6,
            nat: method == method::MASQUERADE,
        }
    }

    /// The client sends a packet.
    fn there(self, kind: u8, state: u32, counts: (u32, u32)) -> Self {
        let packet = sctp(client(self.v6), virtual_end(self.v6), kind).payload(&[3; 12]);
        self.sends(&packet, state, counts)
    }

    fn sends(mut self, packet: &Packet, state: u32, counts: (u32, u32)) -> Self {
        let out = packet.clone().macs(7, 3).ttl(63);
        let out = if self.nat {
            out.to(server_end(self.v6))
        } else {
            out
        };
        self.case = self.case.turns(packet, SENT, &out);
        self.finds(state, counts)
    }

    /// The server sends a packet.
    fn back(mut self, kind: u8, state: u32, counts: (u32, u32)) -> Self {
        let packet = sctp(server_end(self.v6), client(self.v6), kind).payload(&[4; 40]);
        let out = packet.clone().from(virtual_end(self.v6)).macs(8, 4).ttl(63);
        self.case = self.case.turns(&packet, BACK, &out);
        self.finds(state, counts)
    }

    fn finds(mut self, state: u32, counts: (u32, u32)) -> Self {
        let what = format!("state {state}, ActiveConn and InActConn {counts:?}");
        let v6 = self.v6;
        self.case = self.case.holds(what, move |tables| {
            state_of(tables, v6) == Some(state) && live(tables, 1) == counts
        });
        self
    }
}

/// The state of the only association in the table.
fn state_of(tables: &HostTables, v6: bool) -> Option<u32> {
    fn find<L: Layout>(words: &[AtomicU64]) -> Option<u32> {
        let mut buckets = words.chunks(8);
        buckets.find_map(|bucket| {
            let slots =
                (0..L::SLOTS).filter_map(|slot| flows::read::<L, _>(HostWords(bucket), slot));
            let mut flows = slots.filter(|(record, _)| !record.key.is_back::<L>());
            flows.next().map(|(record, _)| record.meta.state())
        })
    }
    match v6 {
        false => find::<Narrow>(&tables.flows4),
        true => find::<Wide>(&tables.flows6),
    }
}

// ip_vs_proto_sctp.c: of SCTP only established connections are active.
fn whole_life_behind_nat(v6: bool) -> Case {
    Flow::begin("its life, heard from both sides", v6, method::MASQUERADE)
        .there(chunk::INIT, INIT1, (0, 1))
        .back(INIT_ACK, COOKIE_SENT, (0, 1))
        .there(COOKIE_ECHO, COOKIE_REPLIED, (0, 1))
        .back(COOKIE_ACK, ESTABLISHED, (1, 0))
        .there(DATA, ESTABLISHED, (1, 0))
        .back(DATA, ESTABLISHED, (1, 0))
        .there(SHUTDOWN, SHUTDOWN_RECEIVED, (0, 1))
        .back(SHUTDOWN_ACK, SHUTDOWN_ACK_SENT, (0, 1))
        .there(SHUTDOWN_COMPLETE, CLOSED, (0, 1))
        .there(chunk::INIT, INIT1, (0, 1))
        .case
        .holds("an INIT made another one of it", noted(Note::Reused, 1))
}

fn whole_life_routed(v6: bool) -> Case {
    Flow::begin("its life, heard from the client", v6, method::ROUTE)
        .there(chunk::INIT, INIT1, (0, 1))
        .there(COOKIE_ECHO, ESTABLISHED, (1, 0))
        .there(DATA, ESTABLISHED, (1, 0))
        .there(SHUTDOWN, SHUTDOWN_RECEIVED, (0, 1))
        .there(SHUTDOWN_COMPLETE, CLOSED, (0, 1))
        .case
}

fn rejected(v6: bool) -> Case {
    Flow::begin("its INIT is refused", v6, method::MASQUERADE)
        .there(chunk::INIT, INIT1, (0, 1))
        .back(ABORT, REJECTED, (0, 1))
        .there(chunk::INIT, INIT, (0, 1))
        .case
}

fn asked_twice(v6: bool) -> Case {
    Flow::begin("a second INIT waits longer", v6, method::MASQUERADE)
        .there(chunk::INIT, INIT1, (0, 1))
        .there(chunk::INIT, INIT, (0, 1))
        .case
        .holds("it is one connection", noted(Note::Opened, 1))
}

// RFC 9260, 3.3.7: control chunks may come before an ABORT. The cookie is longer than the linear
// part of the tc hook's frame.
fn aborted_behind_a_cookie(v6: bool) -> Case {
    let mut payload = vec![9; 404];
    payload[400..].copy_from_slice(&[ABORT, 0, 0, 4]);
    let echo = sctp(client(v6), virtual_end(v6), COOKIE_ECHO);
    // 398 bytes of cookie are padded to 400.
    let both = echo.clone().payload(&payload).value(398);
    let data = echo.payload(&[9; 404]).value(398);
    Flow::begin("an ABORT behind a cookie counts", v6, method::ROUTE)
        .there(chunk::INIT, INIT1, (0, 1))
        .sends(&data, ESTABLISHED, (1, 0))
        .sends(&both, CLOSED, (0, 1))
        .case
}

// ip_vs_proto_sctp.c, sctp_conn_schedule.
fn only_an_init_opens(v6: bool) -> Case {
    let name = family_name(v6);
    let to = server(method::ROUTE, v6);
    let mut all = case(
        format!("SCTP {name}: only an INIT opens an association"),
        one(v6, SCTP, &to),
    );
    for kind in (0..=14)
        .chain([192, 255])
        .filter(|kind| *kind != chunk::INIT)
    {
        let packet = sctp(client(v6), virtual_end(v6), kind).payload(&[1; 8]);
        all = all.leaves(&packet, Verdict::Pass(Pass::NotOpening));
    }
    all.holds("none was opened", noted(Note::Opened, 0))
}

fn any_chunk_opens(v6: bool) -> Case {
    let abort = sctp(client(v6), virtual_end(v6), ABORT).payload(&[1; 8]);
    let not_opening = Verdict::Pass(Pass::NotOpening);
    let what = "any chunk but an ABORT opens, if that is asked for";
    let mut flow = Flow::begin(what, v6, method::ROUTE);
    flow.case.tables.services[1].switches |= service_switch::SLOPPY_SCTP;
    flow.case = flow.case.leaves(&abort, not_opening);
    flow.there(DATA, ESTABLISHED, (1, 0)).case
}

// ip_vs_core.c, ip_vs_out_hook.
fn only_an_abort_is_not_answered(v6: bool) -> Case {
    let mut tables = one(v6, SCTP, &server(method::MASQUERADE, v6));
    tables.settings.switches |= switch::NAT_ICMP_SEND;
    let lost = |kind| sctp(server_end(v6), client(v6), kind).payload(&[1; 8]);
    let name = family_name(v6);
    case(
        format!("SCTP {name}: a server that nobody listens to hears so, but for an ABORT"),
        tables,
    )
    .leaves(&lost(ABORT), Verdict::Pass(Pass::NotOurs))
    .turns(
        &lost(DATA),
        Verdict::Bounce(Bounce::Unreachable),
        &error(&lost(DATA), UNREACHABLE, 0),
    )
}

fn without_a_chunk(v6: bool) -> Case {
    let name = family_name(v6);
    // A common header and nothing else, with the service's port.
    let header = [0x9c, 0x40, 0, 80, 0, 0, 0, 1, 0, 0, 0, 0];
    let bare = bare(client(v6).0, virtual_end(v6).0, SCTP).payload(&header);
    case(
        format!("SCTP {name}: a packet without a chunk is not understood"),
        one(v6, SCTP, &server(method::ROUTE, v6)),
    )
    .leaves(&bare.padding(20), Verdict::Pass(Pass::NotUnderstood))
}

fn lives_as_long_as_ipvs_has_it(v6: bool) -> Case {
    let data = sctp(client(v6), virtual_end(v6), DATA).payload(&[3; 12]);
    Flow::begin("an INIT without an answer lives 4 s", v6, method::ROUTE)
        .there(chunk::INIT, INIT1, (0, 1))
        .case
        .waits(4)
        .turns(&data, SENT, &data.clone().macs(7, 3).ttl(63))
        .waits(5)
        .leaves(&data, Verdict::Pass(Pass::NotOpening))
}

// The checksum is updated, not computed again, so that the server sees damage from the way.
fn wrong_checksums_stay_wrong(v6: bool) -> Case {
    let packet = opening(SCTP, client(v6), virtual_end(v6));
    let out = packet.clone().to(server_end(v6)).macs(7, 3).ttl(63);
    let damaged = |packet: &Packet| {
        let mut frame = packet.bytes();
        *frame.last_mut().unwrap() ^= 0x10;
        frame
    };
    // A checksum of zero is like any other.
    let zero = |packet: &Packet, other: &Packet| {
        let (mut frame, of) = (packet.bytes(), other.bytes());
        let at = frame.len() - 16 - 4 - 4;
        for index in at..at + 4 {
            frame[index] ^= of[index];
        }
        frame
    };
    case(
        format!("SCTP {}: a wrong checksum stays wrong", family_name(v6)),
        one(v6, SCTP, &server(method::MASQUERADE, v6)),
    )
    .given(damaged(&packet), SENT, damaged(&out), None, 0)
    .given(zero(&packet, &packet), SENT, zero(&out, &packet), None, 0)
}

fn longest(v6: bool) -> Case {
    let name = family_name(v6);
    let header = if v6 { 40 } else { 20 };
    let lengths = [0, 1, 2, 3, 255, 256, 1500 - header - 16];
    let mut all = case(
        format!("SCTP {name}: checksums of every length are right"),
        one(v6, SCTP, &server(method::MASQUERADE, v6)),
    );
    for length in lengths {
        let payload: Vec<u8> = (0..length).map(|at| (at * 7 + 1) as u8).collect();
        let packet = opening(SCTP, client(v6), virtual_end(v6)).payload(&payload);
        let out = packet.clone().to(server_end(v6)).macs(7, 3).ttl(63);
        all = all.turns(&packet, SENT, &out);
    }
    all
}

/// A masqueraded server with the service's port.
fn with_the_same_port(v6: bool) -> HostTables {
    let to = NewServer {
        port: virtual_end(v6).1,
        ..server(method::MASQUERADE, v6)
    };
    one(v6, SCTP, &to)
}

/// The server's end, with the service's port.
fn same_end(v6: bool) -> End {
    (server_end(v6).0, virtual_end(v6).1)
}

// RFC 9260, 6.8: there is no pseudo-header.
fn same_port(v6: bool) -> Case {
    let packet = opening(SCTP, client(v6), virtual_end(v6));
    let answer = sctp(same_end(v6), client(v6), INIT_ACK);
    case(
        format!(
            "SCTP {}: addresses are not in the checksum",
            family_name(v6)
        ),
        with_the_same_port(v6),
    )
    .turns(
        &packet,
        SENT,
        &packet.clone().to(same_end(v6)).macs(7, 3).ttl(63),
    )
    .turns(
        &answer,
        BACK,
        &answer.clone().from(virtual_end(v6)).macs(8, 4).ttl(63),
    )
}

/// The two fragments of an INIT.
fn pieces(v6: bool) -> [Packet; 2] {
    let first = opening(SCTP, client(v6), virtual_end(v6)).payload(&[1; 112]);
    let later = bare(client(v6).0, virtual_end(v6).0, SCTP).payload(&[2; 64]);
    [first.fragment(9, 0, true), later.fragment(9, 128, false)]
}

fn fragments_behind_nat(v6: bool) -> Case {
    let [first, later] = pieces(v6);
    let dropped = Verdict::Drop(Drop::CutChecksum);
    case(
        format!(
            "SCTP {}: fragments to another port are dropped",
            family_name(v6)
        ),
        one(v6, SCTP, &server(method::MASQUERADE, v6)),
    )
    .leaves(&first, dropped)
    .leaves(&later, dropped)
}

fn fragments_of_the_same_port(v6: bool) -> Case {
    let [first, later] = pieces(v6);
    let out = |packet: &Packet| packet.clone().to(same_end(v6)).macs(7, 3).ttl(63);
    case(
        format!("SCTP {}: fragments to the same port go on", family_name(v6)),
        with_the_same_port(v6),
    )
    .turns(&first, SENT, &out(&first))
    .turns(&later, SENT, &out(&later))
}

fn other_protocols_are_not_ours(v6: bool) -> Case {
    let not_ours = Verdict::Pass(Pass::NotOurs);
    case(
        format!("SCTP {}: to a service of TCP is not ours", family_name(v6)),
        one(v6, TCP, &server(method::ROUTE, v6)),
    )
    .leaves(&opening(SCTP, client(v6), virtual_end(v6)), not_ours)
}
