//! Calls: datagrams of one Call-ID have one server, whatever port they come from.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use shunt_datapath::entry::{BACK, Ways, method, nat, scheduler, server_flag, service_flag};
use shunt_datapath::host::{CALLS, HostTables, NewServer, Sizes, mac};
use shunt_datapath::verdict::{Drop, Pass, Verdict};

use super::farm::*;
use super::packet::*;
use super::{Case, case};

/// The id of service 1's templates.
const TEMPLATES: u32 = 40;
const LIVES: u32 = 300;
const SENT: Verdict = Verdict::Send(TO_SERVER);
const NO_CALL: Verdict = Verdict::Drop(Drop::NoCallId);

pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for v6 in FAMILIES {
        cases.push(by_call(v6));
        cases.push(by_datagram(v6));
        cases.push(by_network(v6));
        cases.push(names_of_the_header(v6));
        cases.push(no_call(v6));
        cases.push(of_a_connection(v6));
        cases.push(ends(v6));
        cases.push(stays_with_a_quiesced_server(v6));
        cases.push(leaves_a_removed_server(v6));
        cases.push(full(v6));
        cases.push(in_fragments(v6));
        cases.push(behind_tags(v6));
        for once in [false, true] {
            cases.push(begun_by_a_server(v6, once));
        }
        cases.push(spoken_by_a_server(v6));
        for tunnel in [method::TUNNEL, method::GUE] {
            cases.push(through_a_tunnel(v6, tunnel));
        }
    }
    cases
}

/// Three servers in turn, which differ in their MAC addresses.
fn farm(v6: bool, once: bool) -> HostTables {
    let mut tables = HostTables::new(Sizes::default());
    let (address, port) = virtual_end(v6);
    let once = if once { service_flag::ONE_PACKET } else { 0 };
    tables.add_service(address, port, UDP, service_flag::CALLS | once);
    for number in 1..=3 {
        let ways = Ways::new(mac(0x100 + number), mac(3), TO_SERVER, 1500);
        let server = NewServer {
            ways,
            ..server(method::ROUTE, v6)
        };
        tables.add_server(1, &server);
    }
    tables.set_pool(1, scheduler::RING, &[(1, 1), (2, 1), (3, 1)]);
    persists(&mut tables);
    tables
}

fn persists(tables: &mut HostTables) {
    let service = &mut tables.services[1];
    service.template = TEMPLATES;
    service.persistence = LIVES;
    service.granularity = [u64::MAX; 2];
}

fn caller(v6: bool, host: u8, port: u16) -> End {
    let address = match v6 {
        false => IpAddr::from(Ipv4Addr::new(198, 51, 100, host)),
        true => Ipv6Addr::new(0x2001, 0xdb8, 0xc, 0, 0, 0, 0, host.into()).into(),
    };
    (address, port)
}

fn invite(from: End, to: End, id: &str) -> Packet {
    let text = format!("INVITE sip:bob@example.com SIP/2.0\r\nVia: x\r\nCall-ID: {id}\r\n\r\n");
    udp(from, to).payload(text.as_bytes())
}

fn there(packet: &Packet, server: u16) -> Packet {
    packet.clone().macs(0x100 + server, 3).ttl(63)
}

struct Story {
    case: Case,
    v6: bool,
}

impl Story {
    fn begin(sentence: &str, v6: bool, tables: HostTables) -> Self {
        let case = case(format!("{}: {sentence}", family_name(v6)), tables);
        Self { case, v6 }
    }

    /// A datagram of a call from this host and port goes to this server.
    fn calls(self, from: (u8, u16), id: &str, server: u16) -> Self {
        let packet = invite(caller(self.v6, from.0, from.1), virtual_end(self.v6), id);
        self.goes(&packet, server)
    }

    fn goes(mut self, packet: &Packet, server: u16) -> Self {
        self.case = self.case.turns(packet, SENT, &there(packet, server));
        self
    }

    fn then(mut self, more: impl FnOnce(Case) -> Case) -> Self {
        self.case = more(self.case);
        self
    }
}

fn by_call(v6: bool) -> Case {
    Story::begin(
        "a call has one server, the next another",
        v6,
        farm(v6, false),
    )
    .calls((7, 5060), "one@x", 1)
    .calls((7, 5061), "one@x", 1)
    .calls((7, 5062), "two@x", 2)
    .calls((7, 5063), "one@x", 1)
    // The same Call-ID of another client is another call.
    .calls((8, 5060), "one@x", 3)
    .calls((8, 5061), "one@x", 3)
    .calls((7, 5064), "two@x", 2)
    .case
    .holds("three calls", |tables| tables.calls.all().len() == 3)
    .holds("each knows its last connection", |tables| {
        let all = tables.calls.all();
        all.iter().all(|(_, call)| call.connection != [0; 4])
    })
}

fn by_datagram(v6: bool) -> Case {
    let sentence = "each datagram goes by its own call, and no entry is made of it";
    Story::begin(sentence, v6, farm(v6, true))
        .calls((7, 5060), "one@x", 1)
        .calls((7, 5060), "two@x", 2)
        .calls((7, 5060), "one@x", 1)
        .calls((7, 5060), "two@x", 2)
        .case
        .holds("four datagrams, and no entry", |tables| {
            let count = |server: usize| tables.traffic.of(server).connections;
            (count(1), count(2)) == (2, 2) && live(tables, 1) == (0, 0)
        })
}

fn by_network(v6: bool) -> Case {
    let mut tables = farm(v6, true);
    tables.services[1].granularity = [0, 0];
    Story::begin("with a mask of nothing a call is everybody's", v6, tables)
        .calls((7, 5060), "one@x", 1)
        .calls((8, 5060), "one@x", 1)
        .calls((9, 5060), "two@x", 2)
        .calls((9, 5060), "one@x", 1)
        .case
}

fn names_of_the_header(v6: bool) -> Case {
    let text = |header: &str| {
        let text = format!("OPTIONS\r\nVia: y\r\n{header}one@x\r\nCSeq: 1\r\n\r\n");
        udp(caller(v6, 7, 5060), virtual_end(v6)).payload(text.as_bytes())
    };
    let long = format!("BYE\r\n{}i: one@x\r\n", "Via: y\r\n".repeat(120));
    let long = udp(caller(v6, 7, 5060), virtual_end(v6)).payload(long.as_bytes());
    Story::begin("a Call-ID is found by any of its names", v6, farm(v6, true))
        .goes(&text("Call-ID: "), 1)
        .goes(&text("i:"), 1)
        .goes(&text("CALL-id \t:\r\n "), 1)
        .goes(&long, 1)
        .case
}

fn no_call(v6: bool) -> Case {
    let from = caller(v6, 7, 5060);
    let text = |text: &str| udp(from, virtual_end(v6)).payload(text.as_bytes());
    let too_long = format!("x\r\nCall-ID: {}\r\n", "a".repeat(256));
    let too_far = format!("x\r\n{}Call-ID: a\r\n", "Via: y\r\n".repeat(512));
    let mut case = case(
        format!("{}: without a Call-ID nothing is opened", family_name(v6)),
        farm(v6, true),
    );
    for none in [
        "",
        "x",
        "INVITE\r\nVia: y\r\n\r\n",
        "x\r\nCall-ID: a,b\r\n",
        &too_long,
    ] {
        case = case.leaves(&text(none), NO_CALL);
    }
    // A test run of the kernel takes no frame of this length.
    let _ = too_far;
    case.holds("no call", |tables| tables.calls.all().is_empty())
}

fn of_a_connection(v6: bool) -> Case {
    let sentence = "a connection keeps its server, whatever call its next datagram is of";
    let plain = udp(caller(v6, 7, 5060), virtual_end(v6)).payload(b"no call");
    Story::begin(sentence, v6, farm(v6, false))
        .calls((7, 5060), "one@x", 1)
        .calls((7, 5061), "two@x", 2)
        .calls((7, 5060), "two@x", 1)
        .goes(&plain, 1)
        .case
}

fn ends(v6: bool) -> Case {
    Story::begin("a call lives after its last datagram", v6, farm(v6, true))
        .calls((7, 5060), "one@x", 1)
        .then(|case| case.waits(LIVES))
        .calls((7, 5060), "one@x", 1)
        .then(|case| case.waits(LIVES))
        .calls((7, 5060), "one@x", 1)
        .then(|case| case.waits(LIVES + 1))
        .calls((7, 5060), "one@x", 2)
        .calls((7, 5060), "one@x", 2)
        .case
}

fn stays_with_a_quiesced_server(v6: bool) -> Case {
    Story::begin("a quiesced server keeps its calls", v6, farm(v6, true))
        .calls((7, 5060), "one@x", 1)
        .then(|case| case.changes(|tables| tables.set_pool(1, scheduler::RING, &[(2, 1)])))
        .calls((7, 5061), "one@x", 1)
        .calls((7, 5061), "two@x", 2)
        .case
}

fn leaves_a_removed_server(v6: bool) -> Case {
    Story::begin("calls of a removed server get another", v6, farm(v6, true))
        .calls((7, 5060), "one@x", 1)
        .then(|case| {
            case.changes(|tables| {
                tables.set_pool(1, scheduler::RING, &[(2, 1), (3, 1)]);
                tables.servers[1].flags &= !server_flag::PRESENT;
            })
        })
        .calls((7, 5060), "one@x", 2)
        .calls((7, 5060), "one@x", 2)
        .case
}

fn full(v6: bool) -> Case {
    let sentence = "without room a call is forwarded, and forgotten";
    let mut story = Story::begin(sentence, v6, farm(v6, true));
    for number in 0..CALLS {
        story = story.calls((7, 5060), &format!("{number}@x"), (number % 3 + 1) as u16);
    }
    let next = |number: usize| ((CALLS + number) % 3 + 1) as u16;
    story
        .calls((7, 5060), "late@x", next(0))
        .calls((7, 5060), "late@x", next(1))
        .calls((7, 5060), "0@x", 1)
        .case
        .holds("as many calls as there is room for", |tables| {
            tables.calls.all().len() == CALLS
        })
}

fn in_fragments(v6: bool) -> Case {
    let part = |id: u32| {
        let whole = invite(caller(v6, 7, 5060), virtual_end(v6), "one@x");
        whole.fragment(id, 0, true)
    };
    let late = |id: u32| {
        let packet = bare(caller(v6, 7, 0).0, virtual_end(v6).0, UDP).payload(&[2; 64]);
        packet.fragment(id, 128, false)
    };
    let without = udp(caller(v6, 7, 5060), virtual_end(v6)).payload(&[b'x'; 120]);
    let without = without.fragment(11, 0, true);
    Story::begin(
        "fragments go where the call of their first one does",
        v6,
        farm(v6, true),
    )
    .calls((7, 5060), "two@x", 1)
    .goes(&part(9), 2)
    .goes(&late(9), 2)
    .calls((7, 5060), "three@x", 3)
    .goes(&part(10), 2)
    .goes(&late(10), 2)
    .case
    .leaves(&without, NO_CALL)
    .leaves(&late(11), Verdict::Drop(Drop::LostFragment))
}

fn behind_tags(v6: bool) -> Case {
    let packet = invite(caller(v6, 7, 5060), virtual_end(v6), "one@x").tags(&[0x8100]);
    Story::begin("a call is read behind a tag", v6, farm(v6, true))
        .calls((7, 5060), "one@x", 1)
        .goes(&packet, 1)
        .case
}

fn through_a_tunnel(v6: bool, tunnel: u8) -> Case {
    let mut to = server(tunnel, v6);
    (to.tunnel_port, to.tunnel_checksum) = (6080, false);
    let mut tables = one(v6, UDP, &to);
    tables.services[1].flags |= service_flag::CALLS;
    persists(&mut tables);
    let packet = invite(caller(v6, 7, 5060), virtual_end(v6), "one@x");
    let family = family_name(v6);
    let mut tables_of_no_calls = one(v6, UDP, &to);
    persists(&mut tables_of_no_calls);
    // The tunnel itself is the same as for any packet.
    let mut frame =
        shunt_datapath::host::HostFrame::new(shunt_datapath::host::Hook::Xdp, &packet.bytes());
    let verdict = tables_of_no_calls.run(&mut frame);
    let out = frame.bytes().to_vec();
    case(
        format!("{family}: a call goes through a tunnel (method {tunnel})"),
        tables,
    )
    .given(packet.bytes(), verdict, out, None, 0)
    .holds("a call", |tables| tables.calls.all().len() == 1)
}

/// Two masqueraded servers with endpoints of their own.
fn masquerading(v6: bool, once: bool) -> HostTables {
    let mut tables = none(v6, UDP);
    tables.services[1].flags |= service_flag::CALLS;
    if once {
        tables.services[1].flags |= service_flag::ONE_PACKET;
    }
    persists(&mut tables);
    for number in 0..2u16 {
        let mut to = server(method::MASQUERADE, v6);
        to.port += number;
        to.ways = Ways::new(mac(0x101 + number), mac(3), TO_SERVER, 1500);
        let id = tables.add_server(1, &to);
        let endpoint = tables.servers[id as usize].endpoint & !BACK;
        tables.calls.answerers[endpoint as usize] = id;
    }
    tables.set_pool(1, scheduler::RING, &[(1, 1), (2, 1)]);
    tables.settings.masquerades |= nat::CALLS;
    tables
}

fn begun_by_a_server(v6: bool, once: bool) -> Case {
    let (address, port) = server_end(v6);
    let second = (address, port + 1);
    let to = |port: u16| caller(v6, 9, port);
    let bye = invite(second, to(5060), "bye@x");
    let out = bye.clone().from(virtual_end(v6)).macs(8, 4).ttl(63);
    let other = invite(second, to(5070), "bye@x");
    let other_out = other.clone().from(virtual_end(v6)).macs(8, 4).ttl(63);
    let reply = invite(to(5061), virtual_end(v6), "bye@x");
    let reply_out = reply.clone().to(second).macs(0x102, 3).ttl(63);
    let answer = udp(to(5060), virtual_end(v6)).payload(b"no call");
    let answer_out = answer.clone().to(second).macs(0x102, 3).ttl(63);
    let sentence = match once {
        true => "a server's datagram of a call goes out from the virtual address",
        false => "a server begins a call, which is its own",
    };
    let case = case(
        format!("{}: {sentence}", family_name(v6)),
        masquerading(v6, once),
    )
    .turns(&bye, Verdict::Send(TO_CLIENT), &out)
    .turns(&other, Verdict::Send(TO_CLIENT), &other_out)
    .turns(&reply, SENT, &reply_out);
    if once {
        return case.leaves(&answer, NO_CALL);
    }
    case.turns(&answer, SENT, &answer_out)
        .turns(&bye, Verdict::Send(TO_CLIENT), &out)
        .holds("three connections", |tables| live(tables, 2) == (0, 3))
}

fn spoken_by_a_server(v6: bool) -> Case {
    let plain = udp(server_end(v6), caller(v6, 9, 5060)).payload(b"no call");
    let mut tables = masquerading(v6, true);
    let (address, port) = server_end(v6);
    // The second server's service has no calls.
    tables.calls.answerers[2] = 0;
    let other = invite((address, port + 1), caller(v6, 9, 5060), "one@x");
    case(
        format!(
            "{}: what a server sends that is no call is its own",
            family_name(v6)
        ),
        tables,
    )
    .leaves(&plain, Verdict::Pass(Pass::NotOurs))
    .leaves(&other, Verdict::Pass(Pass::NotOurs))
    .leaves(
        &tcp(server_end(v6), caller(v6, 9, 5060), ACK),
        Verdict::Pass(Pass::NotOurs),
    )
}
