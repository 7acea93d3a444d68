//! Settings: connections whose server is gone or quiesced, packets that open a connection, and
//! defences against floods.

use shunt_datapath::connection::{ESTABLISHED, SYN_RECV, SYNACK};
use shunt_datapath::entry::{
    PeerKey, Ways, fate, method, scheduler, server_flag, service_switch, switch,
};
use shunt_datapath::flows::{self, Layout, Narrow, Wide};
use shunt_datapath::host::{HostTables, HostWords, NewServer, mac};
use shunt_datapath::verdict::{Bounce, Drop, Note, Pass, Verdict};

use super::answers::{UNREACHABLE, error};
use super::connections::noted;
use super::farm::*;
use super::packet::*;
use super::{Case, case};

const SENT: Verdict = Verdict::Send(TO_SERVER);
const RESET: Verdict = Verdict::Bounce(Bounce::Reset);
const TOLD: Verdict = Verdict::Bounce(Bounce::Unreachable);
const GONE: Verdict = Verdict::Drop(Drop::ServerGone);
const NOT_OPENING: Verdict = Verdict::Pass(Pass::NotOpening);

pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for v6 in FAMILIES {
        for method in [method::ROUTE, method::MASQUERADE] {
            cases.push(datagrams_leave(v6, method));
            cases.push(segments_leave(v6, method));
            cases.push(only_a_syn_leaves_where_datagrams_do(v6, method));
            cases.push(clients_hear_a_reset(v6, method));
            cases.push(datagrams_are_answered_once(v6, method));
        }
        cases.push(nothing_leaves_a_server_that_is_kept(v6));
        cases.push(servers_hear_a_reset(v6));
        cases.push(resets_of_every_kind(v6));
        cases.push(a_syn_leaves_a_quiesced_server(v6));
        cases.push(templates_leave_a_quiesced_server(v6));
        for protocol in [TCP, UDP] {
            cases.push(peers_forward_no_more(v6, protocol));
        }
        cases.push(passed_by(v6));
        cases.push(any_segment_opens(v6));
        cases.push(servers_hear_that_nobody_listens(v6));
        cases.push(newcomers_are_dropped(v6));
        cases.push(secure_by_route(v6));
        cases.push(secure_behind_nat(v6));
    }
    cases
}

/// Two servers in turn, which differ in their MAC addresses. Their port is a masqueraded server's.
fn two(v6: bool, protocol: u8, method: u8) -> HostTables {
    let mut tables = none(v6, protocol);
    for number in 1..=2 {
        let ways = Ways::new(mac(0x100 + number), mac(3), TO_SERVER, 1500);
        let server = NewServer {
            ways,
            ..server(method, v6)
        };
        tables.add_server(1, &server);
    }
    tables.set_pool(1, scheduler::RING, &[(1, 1), (2, 1)]);
    tables
}

/// The packet as it goes to this server.
fn at(packet: &Packet, server: u16, method: u8) -> Packet {
    let v6 = packet.ends().0.is_ipv6();
    let out = packet.clone().macs(0x100 + server, 3).ttl(63);
    if method == method::MASQUERADE {
        out.to(server_end(v6))
    } else {
        out
    }
}

/// Deletes server 1, with this fate for its connections.
fn delete(tables: &mut HostTables, fate: u16) {
    tables.set_pool(1, scheduler::RING, &[(2, 1)]);
    tables.servers[1].flags &= !server_flag::PRESENT;
    tables.servers[1].fate |= fate;
}

fn name(v6: bool, method: u8) -> String {
    let method = match method {
        method::ROUTE => "route",
        _ => "NAT",
    };
    format!("{method} {}", family_name(v6))
}

fn datagrams_leave(v6: bool, method: u8) -> Case {
    let packet = udp(client(v6), virtual_end(v6)).payload(b"hello");
    case(
        format!(
            "{}: datagrams leave a deleted server at once",
            name(v6, method)
        ),
        two(v6, UDP, method),
    )
    .turns(&packet, SENT, &at(&packet, 1, method))
    .turns(&packet, SENT, &at(&packet, 1, method))
    .changes(|tables| delete(tables, fate::RESCHEDULED | fate::UDP_ONLY))
    .turns(&packet, SENT, &at(&packet, 2, method))
    .turns(&packet, SENT, &at(&packet, 2, method))
    .holds("the other server has it, and nobody else", |tables| {
        live(tables, 1) == (0, 0) && live(tables, 2) == (0, 1)
    })
}

fn nothing_leaves_a_server_that_is_kept(v6: bool) -> Case {
    let syn = tcp(client(v6), virtual_end(v6), SYN);
    case(
        format!(
            "{}: segments to a deleted server are dropped, a SYN too",
            family_name(v6)
        ),
        two(v6, TCP, method::ROUTE),
    )
    .turns(&syn, SENT, &at(&syn, 1, method::ROUTE))
    .changes(|tables| delete(tables, fate::REUSED))
    .leaves(&syn.clone().flags(ACK), GONE)
    .leaves(&syn, GONE)
}

fn only_a_syn_leaves_where_datagrams_do(v6: bool, method: u8) -> Case {
    let syn = tcp(client(v6), virtual_end(v6), SYN);
    let ack = syn.clone().flags(ACK);
    let fin = syn.clone().flags(FIN | ACK);
    case(
        format!(
            "{}: a SYN that meets a connection of a deleted server begins another",
            name(v6, method)
        ),
        two(v6, TCP, method),
    )
    .turns(&syn, SENT, &at(&syn, 1, method))
    .turns(&ack, SENT, &at(&ack, 1, method))
    .turns(&fin, SENT, &at(&fin, 1, method))
    .changes(|tables| {
        let by_protocol = fate::RESCHEDULED | fate::UDP_ONLY | fate::OPENED_ANEW;
        delete(tables, by_protocol)
    })
    .leaves(&ack, GONE)
    .turns(&syn, SENT, &at(&syn, 2, method))
    .turns(&ack, SENT, &at(&ack, 2, method))
    .holds("the other server has it", |tables| {
        live(tables, 1) == (0, 0) && live(tables, 2) == (1, 0)
    })
    .holds("which is counted as reused", noted(Note::Reused, 1))
}

fn segments_leave(v6: bool, method: u8) -> Case {
    let syn = tcp(client(v6), virtual_end(v6), SYN);
    let ack = syn.clone().flags(ACK);
    case(
        format!(
            "{}: a connection of a deleted server is no more",
            name(v6, method)
        ),
        two(v6, TCP, method),
    )
    .turns(&syn, SENT, &at(&syn, 1, method))
    .turns(&ack, SENT, &at(&ack, 1, method))
    .changes(|tables| delete(tables, fate::RESCHEDULED))
    .leaves(&ack, NOT_OPENING)
    .holds("nothing is left of it", |tables| live(tables, 1) == (0, 0))
    .turns(&syn, SENT, &at(&syn, 2, method))
    .turns(&ack, SENT, &at(&ack, 2, method))
    .holds("the other server has it", |tables| {
        live(tables, 1) == (0, 0) && live(tables, 2) == (1, 0)
    })
}

fn clients_hear_a_reset(v6: bool, method: u8) -> Case {
    let syn = tcp(client(v6), virtual_end(v6), SYN);
    let ack = syn.clone().flags(ACK);
    let data = ack.clone().payload(b"are you there?");
    case(
        format!(
            "{}: who sends to a deleted server hears a reset",
            name(v6, method)
        ),
        two(v6, TCP, method),
    )
    .turns(&syn, SENT, &at(&syn, 1, method))
    .turns(&ack, SENT, &at(&ack, 1, method))
    .changes(|tables| delete(tables, fate::RESET))
    .turns(&data, RESET, &data.reset())
    .turns(&ack, RESET, &ack.reset())
    .leaves(&syn.clone().flags(RST), GONE)
    .turns(&syn, SENT, &at(&syn, 2, method))
    .turns(&data, SENT, &at(&data, 2, method))
}

fn datagrams_are_answered_once(v6: bool, method: u8) -> Case {
    let packet = udp(client(v6), virtual_end(v6)).payload(b"hello");
    case(
        format!(
            "{}: a datagram to a deleted server is answered, the next one rescheduled",
            name(v6, method)
        ),
        two(v6, UDP, method),
    )
    .turns(&packet, SENT, &at(&packet, 1, method))
    .changes(|tables| delete(tables, fate::RESET))
    .turns(&packet, TOLD, &error(&packet, UNREACHABLE, 0))
    .holds("nothing is left of it", |tables| live(tables, 1) == (0, 0))
    .turns(&packet, SENT, &at(&packet, 2, method))
}

fn servers_hear_a_reset(v6: bool) -> Case {
    let syn = tcp(client(v6), virtual_end(v6), SYN);
    let answer = tcp(server_end(v6), client(v6), ACK).payload(b"late");
    case(
        format!(
            "NAT {}: a deleted server that goes on hears a reset",
            family_name(v6)
        ),
        one(v6, TCP, &server(method::MASQUERADE, v6)),
    )
    .turns(
        &syn,
        SENT,
        &syn.clone().macs(7, 3).to(server_end(v6)).ttl(63),
    )
    .changes(|tables| {
        tables.servers[1].flags &= !server_flag::PRESENT;
        tables.servers[1].fate |= fate::RESET;
    })
    .turns(&answer, RESET, &answer.reset())
    .leaves(&answer.clone().flags(RST | ACK), GONE)
}

/// RFC 9293, 3.10.7.1.
fn resets_of_every_kind(v6: bool) -> Case {
    let syn = tcp(client(v6), virtual_end(v6), SYN);
    let mut all = case(
        format!("{}: a reset fits the segment", family_name(v6)),
        one(v6, TCP, &server(method::ROUTE, v6)),
    )
    .turns(&syn, SENT, &syn.clone().macs(7, 3).ttl(63))
    .changes(|tables| {
        tables.servers[1].flags &= !server_flag::PRESENT;
        tables.servers[1].fate |= fate::RESET;
    });
    let tagged = syn.clone().flags(ACK).tags(&[0x8100]);
    for packet in [
        syn.clone().flags(FIN),
        syn.clone().flags(FIN | ACK).payload(b"odd"),
        syn.clone().flags(0).payload(b"without a flag"),
        syn.clone().flags(ACK).padding(6),
        tagged,
    ] {
        all = all.turns(&packet, RESET, &packet.reset());
    }
    // A checksum that was left to the device stays left to it.
    let left = syn.clone().flags(ACK).payload(b"half");
    let out = left.reset().half_made();
    all = all.given(left.half_made(), RESET, out, None, 0);
    if !v6 {
        all = all.leaves(&syn.clone().flags(ACK).options(&[1, 1, 1, 0]), GONE);
    }
    all
}

fn a_syn_leaves_a_quiesced_server(v6: bool) -> Case {
    let syn = tcp(client(v6), virtual_end(v6), SYN);
    let ack = syn.clone().flags(ACK);
    case(
        format!(
            "{}: a connection stays with a quiesced server until a SYN",
            family_name(v6)
        ),
        two(v6, TCP, method::ROUTE),
    )
    .turns(&syn, SENT, &at(&syn, 1, method::ROUTE))
    .turns(&ack, SENT, &at(&ack, 1, method::ROUTE))
    .changes(|tables| {
        tables.set_pool(1, scheduler::RING, &[(2, 1)]);
        tables.servers[1].fate |= fate::LEFT_BY_SYN;
    })
    .turns(&ack, SENT, &at(&ack, 1, method::ROUTE))
    .turns(&syn, SENT, &at(&syn, 2, method::ROUTE))
    .turns(&ack, SENT, &at(&ack, 2, method::ROUTE))
    .holds("which is counted as reused", noted(Note::Reused, 1))
}

fn templates_leave_a_quiesced_server(v6: bool) -> Case {
    let mut tables = two(v6, TCP, method::ROUTE);
    tables.services[1].template = 40;
    tables.services[1].persistence = 300;
    tables.services[1].granularity = [u64::MAX, u64::MAX];
    let open = |port| tcp((client(v6).0, port), virtual_end(v6), SYN);
    let (first, second, third) = (open(1000), open(1001), open(1002));
    case(
        format!(
            "{}: persistent clients leave a quiesced server",
            family_name(v6)
        ),
        tables,
    )
    .turns(&first, SENT, &at(&first, 1, method::ROUTE))
    .turns(&second, SENT, &at(&second, 1, method::ROUTE))
    .changes(|tables| {
        tables.set_pool(1, scheduler::RING, &[(2, 1)]);
        tables.servers[1].fate |= fate::LEFT_BY_TEMPLATES;
    })
    .turns(&third, SENT, &at(&third, 2, method::ROUTE))
    .turns(
        &first.clone().flags(ACK),
        SENT,
        &at(&first.flags(ACK), 1, method::ROUTE),
    )
}

/// Server 1 is the director itself, server 2 another director.
fn peers_forward_no_more(v6: bool, protocol: u8) -> Case {
    let mut tables = two(v6, protocol, method::ROUTE);
    tables.servers[1].method = method::LOCAL;
    tables.services[1].switches |= service_switch::PEERS;
    let key = PeerKey {
        mac: tables.servers[2].ways.target & 0xffff_ffff_ffff,
        service: 1,
        reserved: 0,
    };
    tables.peers.insert(key, tables.servers[2].address);
    tables.set_pool(1, scheduler::RING, &[(2, 1)]);
    let packet = opening(protocol, client(v6), virtual_end(v6));
    let forwarded = packet.clone().macs(3, 0x102);
    let own = packet
        .clone()
        .from((server_end(v6).0, 50_000))
        .macs(3, 0x102);
    let local = Verdict::Pass(Pass::Local);
    case(
        format!(
            "{} {}: what a peer forwards stays here, what it asks itself does not",
            protocol_name(protocol),
            family_name(v6)
        ),
        tables,
    )
    .leaves(&forwarded, local)
    .leaves(&forwarded, local)
    .turns(&forwarded.clone().tags(&[0x8100]), local, &forwarded)
    .holds("nothing remembers it", |tables| {
        live(tables, 1) == (0, 0) && live(tables, 2) == (0, 0)
    })
    .turns(&own, SENT, &at(&own, 2, method::ROUTE))
    .turns(&packet, SENT, &at(&packet, 2, method::ROUTE))
}

fn passed_by(v6: bool) -> Case {
    let mut tables = none(v6, TCP);
    tables.services[1].switches |= service_switch::BYPASS;
    let syn = tcp(client(v6), virtual_end(v6), SYN);
    case(
        format!(
            "{}: what no cache can take passes, if that is asked for",
            family_name(v6)
        ),
        tables,
    )
    .leaves(&syn, Verdict::Pass(Pass::Bypassed))
    .leaves(&syn.flags(ACK), NOT_OPENING)
}

fn any_segment_opens(v6: bool) -> Case {
    let mut tables = two(v6, TCP, method::ROUTE);
    tables.services[1].switches |= service_switch::SLOPPY_TCP;
    let ack = tcp(client(v6), virtual_end(v6), ACK);
    let fin = tcp((client(v6).0, 50_000), virtual_end(v6), FIN | ACK);
    let resets = tcp((client(v6).0, 50_001), virtual_end(v6), RST | ACK);
    case(
        format!(
            "{}: any segment but a reset opens, if that is asked for",
            family_name(v6)
        ),
        tables,
    )
    .leaves(&resets, NOT_OPENING)
    .turns(&ack, SENT, &at(&ack, 1, method::ROUTE))
    .holds("it is established", state(v6, ESTABLISHED))
    .turns(&fin, SENT, &at(&fin, 2, method::ROUTE))
    .turns(&ack, SENT, &at(&ack, 1, method::ROUTE))
    .holds("one is active, the other closed", |tables| {
        live(tables, 1) == (1, 0) && live(tables, 2) == (0, 1)
    })
}

fn servers_hear_that_nobody_listens(v6: bool) -> Case {
    let mut tables = one(v6, TCP, &server(method::MASQUERADE, v6));
    tables.settings.switches |= switch::NAT_ICMP_SEND;
    let lost = tcp(server_end(v6), client(v6), ACK).payload(b"lost");
    case(
        format!(
            "NAT {}: a server that nobody listens to hears so, if that is asked for",
            family_name(v6)
        ),
        tables,
    )
    .turns(&lost, TOLD, &error(&lost, UNREACHABLE, 0))
    .leaves(&lost.clone().flags(RST), Verdict::Pass(Pass::NotOurs))
    .changes(|tables| tables.settings.switches = 0)
    .leaves(&lost, Verdict::Pass(Pass::NotOurs))
}

fn newcomers_are_dropped(v6: bool) -> Case {
    let syn = tcp(client(v6), virtual_end(v6), SYN);
    let other = syn.clone().from((client(v6).0, 50_000));
    let ack = syn.clone().flags(ACK);
    case(
        format!(
            "{}: at a drop rate of 1 nobody comes in, and who is in stays",
            family_name(v6)
        ),
        two(v6, TCP, method::ROUTE),
    )
    .turns(&syn, SENT, &at(&syn, 1, method::ROUTE))
    .changes(|tables| tables.settings.drop_rate = 1)
    .leaves(&other, Verdict::Drop(Drop::Defence))
    .turns(&ack, SENT, &at(&ack, 1, method::ROUTE))
    .changes(|tables| tables.settings.drop_rate = u32::MAX)
    .turns(&other, SENT, &at(&other, 2, method::ROUTE))
}

fn secure_by_route(v6: bool) -> Case {
    let mut tables = two(v6, TCP, method::ROUTE);
    tables.settings.switches |= switch::SECURE_TCP;
    let syn = tcp(client(v6), virtual_end(v6), SYN);
    let ack = syn.clone().flags(ACK);
    case(format!("route {}: secure states", family_name(v6)), tables)
        .turns(&syn, SENT, &at(&syn, 1, method::ROUTE))
        .holds("a SYN is SYNACK", state(v6, SYNACK))
        .turns(&syn, SENT, &at(&syn, 1, method::ROUTE))
        .holds("and stays so", state(v6, SYNACK))
        .turns(&ack, SENT, &at(&ack, 1, method::ROUTE))
        .holds("until the client goes on", state(v6, ESTABLISHED))
}

fn secure_behind_nat(v6: bool) -> Case {
    let mut tables = one(v6, TCP, &server(method::MASQUERADE, v6));
    tables.settings.switches |= switch::SECURE_TCP;
    let syn = tcp(client(v6), virtual_end(v6), SYN);
    let there = |flags| {
        let packet = syn.clone().flags(flags);
        let out = packet.clone().macs(7, 3).to(server_end(v6)).ttl(63);
        (packet, out)
    };
    let back = |flags| {
        let packet = tcp(server_end(v6), client(v6), flags);
        let out = packet.clone().from(virtual_end(v6)).macs(8, 4).ttl(63);
        (packet, out)
    };
    let sent = |case: Case, (packet, out): (Packet, Packet)| case.turns(&packet, SENT, &out);
    let told = |case: Case, (packet, out): (Packet, Packet)| {
        case.turns(&packet, Verdict::Send(TO_CLIENT), &out)
    };
    let mut all = case(format!("NAT {}: secure states", family_name(v6)), tables);
    all = sent(all, there(SYN)).holds("a SYN is SYN_RECV", state(v6, SYN_RECV));
    all = sent(all, there(ACK)).holds("nobody accepted it", state(v6, SYN_RECV));
    all = told(all, back(SYN | ACK)).holds("it is accepted", state(v6, SYNACK));
    all = sent(all, there(ACK)).holds("the client agrees", state(v6, SYNACK));
    // Within a tick only answers with SYN, FIN or RST change the state.
    all = told(all.waits(1), back(ACK));
    all.holds("and the server goes on", state(v6, ESTABLISHED))
}

/// Whether the first connection in the table has this state.
fn state(v6: bool, wanted: u32) -> impl Fn(&HostTables) -> bool {
    fn first<L: Layout>(words: &[std::sync::atomic::AtomicU64]) -> Option<u32> {
        words.chunks(8).find_map(|bucket| {
            (0..L::SLOTS).find_map(|slot| {
                let (record, _) = flows::read::<L, _>(HostWords(bucket), slot)?;
                let is_back = record.key.is_back::<L>();
                (!is_back).then(|| record.meta.state())
            })
        })
    }
    move |tables| {
        let found = match v6 {
            false => first::<Narrow>(&tables.flows4),
            true => first::<Wide>(&tables.flows6),
        };
        found == Some(wanted)
    }
}
