//! GUE and GRE with and without a checksum, in both families around both.

use shunt_datapath::entry::method;
use shunt_datapath::host::{Hook, HostTables, NewServer, words};
use shunt_datapath::tunnel;
use shunt_datapath::verdict::{Drop, Verdict};

use super::farm::*;
use super::methods::{forwarded, shapes};
use super::packet::*;
use super::{Case, case};

const SENT: Verdict = Verdict::Send(TO_SERVER);
const PORT: u16 = 6080;

/// A tunnel: its kind, its outer family, and whether it has a checksum.
#[derive(Clone, Copy, Debug)]
struct Form {
    method: u8,
    outer_v6: bool,
    summed: bool,
}

impl Form {
    fn all() -> Vec<Form> {
        let mut forms = Vec::new();
        for method in [method::GUE, method::GRE] {
            for outer_v6 in FAMILIES {
                for summed in [false, true] {
                    forms.push(Form {
                        method,
                        outer_v6,
                        summed,
                    });
                }
            }
        }
        forms
    }

    fn server(self) -> NewServer {
        NewServer {
            tunnel_port: PORT,
            tunnel_checksum: self.summed,
            ..server(self.method, self.outer_v6)
        }
    }

    fn tables(self, v6: bool, protocol: u8) -> HostTables {
        one(v6, protocol, &self.server())
    }

    fn overhead(self) -> usize {
        let ip = if self.outer_v6 { 40 } else { 20 };
        ip + match (self.method, self.summed) {
            (method::GUE, _) => 12,
            (_, true) => 8,
            (_, false) => 4,
        }
    }

    fn name(self) -> String {
        let kind = if self.method == method::GUE {
            "GUE"
        } else {
            "GRE"
        };
        let sum = if self.summed { "with" } else { "without" };
        format!("{kind} over {} {sum} checksum", family_name(self.outer_v6))
    }

    /// The wrapped packet that is sent for a packet.
    fn wrapped(self, packet: &Packet, seed: u64) -> Packet {
        let (inner, server) = (forwarded(packet), self.server());
        let out = if self.method == method::GUE {
            let ends = (words(packet.ends().0), words(packet.ends().1));
            let ports = if packet.is_fragment() {
                0
            } else {
                packet.ports()
            };
            let port = tunnel::port(seed, ends, packet.protocol(), ports);
            let (source, target) = (server.outer_source, server.address);
            inner.in_gue((source, port), (target, PORT), self.summed)
        } else {
            inner.in_gre(server.outer_source, server.address, self.summed)
        };
        out.macs(7, 3).padding(packet.behind())
    }
}

pub(crate) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for form in Form::all() {
        for v6 in FAMILIES {
            for protocol in [TCP, UDP] {
                for (name, packet) in shapes(v6, protocol) {
                    cases.push(whole(form, v6, protocol, &name, &packet));
                }
            }
            cases.push(pieces(form, v6));
            cases.push(largest(form, v6));
            cases.push(expired(form, v6));
            cases.push(about_a_flow(form, v6));
        }
    }
    cases.push(corners());
    cases
}

/// Cases of GSO frames. A test run of the kernel makes no GSO frame whose header would move.
pub(crate) fn of_many() -> Vec<Case> {
    let both = |form| FAMILIES.map(|v6| [many_in_one(form, v6), beyond(form, v6)]);
    Form::all().into_iter().flat_map(both).flatten().collect()
}

fn sentence(form: Form, v6: bool, what: &str) -> String {
    format!("{}: {} {what}", form.name(), family_name(v6))
}

fn whole(form: Form, v6: bool, protocol: u8, name: &str, packet: &Packet) -> Case {
    let tables = form.tables(v6, protocol);
    // An atomic fragment is a whole packet, with ports.
    let mut out = form.wrapped(packet, tables.shape.seed);
    if packet.is_fragment() && form.method == method::GUE {
        let ends = (words(packet.ends().0), words(packet.ends().1));
        let port = tunnel::port(tables.shape.seed, ends, protocol, packet.ports());
        out = out.from((form.server().outer_source, port));
    }
    let what = format!("{} {name} is wrapped", protocol_name(protocol));
    case(sentence(form, v6, &what), tables)
        .turns(packet, SENT, &out)
        .turns(packet, SENT, &out)
}

fn pieces(form: Form, v6: bool) -> Case {
    let tables = form.tables(v6, UDP);
    let seed = tables.shape.seed;
    let first = udp(client(v6), virtual_end(v6))
        .payload(&[0x5a; 56])
        .fragment(9, 0, true);
    let (from, to) = (client(v6).0, virtual_end(v6).0);
    let later = bare(from, to, UDP)
        .payload(&[0xa5; 33])
        .fragment(9, 64, false);
    let what = "pieces of a datagram are wrapped alike, and summed whole";
    case(sentence(form, v6, what), tables)
        .turns(&first, SENT, &form.wrapped(&first, seed))
        .turns(&later, SENT, &form.wrapped(&later, seed))
}

fn largest(form: Form, v6: bool) -> Case {
    let tables = form.tables(v6, TCP);
    let seed = tables.shape.seed;
    let header = if v6 { 60 } else { 40 };
    let of =
        |bytes: usize| tcp(client(v6), virtual_end(v6), SYN).payload(&vec![0x5a; bytes - header]);
    let mtu = 1500 - form.overhead();
    let fits = of(mtu);
    let too_big = of(mtu + 1);
    let rest = mtu as u32;
    let (kind, code) = if v6 { (2, 0) } else { (3, 4) };
    let quoted = too_big.network();
    let most = if v6 { 1280 - 48 } else { 576 - 28 };
    let error = icmp(virtual_end(v6).0, client(v6).0, kind, code, rest)
        .payload(&quoted[..most.min(quoted.len())])
        .macs(1, 2);
    let error = if v6 { error } else { error.service(0xc0) };
    case(sentence(form, v6, "packets fit to the byte"), tables)
        .turns(&fits, SENT, &form.wrapped(&fits, seed))
        .turns(
            &too_big,
            Verdict::Bounce(shunt_datapath::verdict::Bounce::TooBig),
            &error,
        )
}

fn expired(form: Form, v6: bool) -> Case {
    let mut tables = form.tables(v6, TCP);
    tables.settings.icmp_limit = 0;
    let packet = opening(TCP, client(v6), virtual_end(v6)).ttl(1);
    case(sentence(form, v6, "packets expire"), tables).leaves(&packet, Verdict::Drop(Drop::Expired))
}

fn about_a_flow(form: Form, v6: bool) -> Case {
    let tables = form.tables(v6, TCP);
    let seed = tables.shape.seed;
    let packet = opening(TCP, client(v6), virtual_end(v6));
    let answer = tcp(virtual_end(v6), client(v6), SYN | ACK);
    let (kind, code) = if v6 { (1, 4) } else { (3, 3) };
    let error = icmp(client(v6).0, virtual_end(v6).0, kind, code, 0).payload(&answer.network());
    case(
        sentence(form, v6, "errors about a flow are wrapped"),
        tables,
    )
    .turns(&packet, SENT, &form.wrapped(&packet, seed))
    .turns(&error, SENT, &form.wrapped(&error, seed))
}

/// The kernel segments a GSO frame later, and knows no sum for the tunnel.
fn many_in_one(form: Form, v6: bool) -> Case {
    let tables = form.tables(v6, TCP);
    let plain = Form {
        summed: false,
        ..form
    };
    let packet = tcp(client(v6), virtual_end(v6), SYN | ACK).payload(&[0x5a; 2600]);
    let out = plain.wrapped(&packet, tables.shape.seed);
    case(sentence(form, v6, "segments in one are not summed"), tables).given(
        packet.bytes(),
        SENT,
        out.bytes(),
        Some(Hook::Tc),
        1300,
    )
}

/// A frame beyond 64 kB. What it is wrapped in has no length either, and the kernel cuts it; a
/// jumbo header would stay in each segment.
fn beyond(form: Form, v6: bool) -> Case {
    let tables = form.tables(v6, TCP);
    let plain = Form {
        summed: false,
        ..form
    };
    let packet = tcp(client(v6), virtual_end(v6), SYN | ACK).payload(&vec![0x5a; 130_000]);
    let out = plain.wrapped(&packet, tables.shape.seed).bytes();
    let jumbo = jumbo(&packet);
    let all = case(sentence(form, v6, "frames beyond 64 kB"), tables).given(
        packet.bytes(),
        SENT,
        out,
        Some(Hook::Tc),
        1300,
    );
    if !v6 {
        return all;
    }
    let stays = Verdict::Drop(Drop::NoRoom);
    all.given(jumbo.bytes(), stays, jumbo.bytes(), Some(Hook::Tc), 1300)
}

/// Payloads with corner cases of the tunnel's checksum, zero and all ones too.
fn corners() -> Case {
    let form = Form {
        method: method::GUE,
        outer_v6: false,
        summed: true,
    };
    let tables = form.tables(false, UDP);
    let seed = tables.shape.seed;
    let sentence = "GUE: no checksum over UDP comes out as zero";
    let mut all = case(sentence, tables);
    let datagram = |number: u16| {
        udp(client(false), virtual_end(false))
            .payload(&number.to_be_bytes())
            .without_checksum()
    };
    let sum = |number: u16| {
        let network = form.wrapped(&datagram(number), seed).network();
        u16::from_be_bytes([network[26], network[27]])
    };
    for number in (0..=u16::MAX).filter(|number| matches!(sum(*number), 0 | 1 | 0xfffe | 0xffff)) {
        let packet = datagram(number);
        all = all.turns(&packet, SENT, &form.wrapped(&packet, seed));
    }
    all
}
