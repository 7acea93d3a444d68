//! Fragments: only the first one has the ports, which are remembered for the later ones.

use crate::connection::age;
use crate::reread::reread;
use crate::steps::{Choices, Steps};
use crate::table::Tables;
use crate::table::entry::{NONE, endpoint_word, kind};
use crate::table::family::Family;
use crate::table::fragment::{FragmentKey, FragmentValue, told};
use crate::traffic;
use crate::verdict::{Drop, Pass, Word};
use crate::wire::frame::Frame;
use crate::wire::packet::{self, Packet, Part, Ports, TCP};
use crate::wire::sctp;

/// Ticks for which a first fragment is remembered: `ip_frag_time` of the kernel is 30 s.
const LIFE: u32 = 32;

/// The key of the datagram that a fragment belongs to.
#[inline(always)]
pub fn key<F: Family>(packet: &Packet<F>) -> FragmentKey {
    FragmentKey {
        source: F::words(packet.source),
        target: F::words(packet.target),
        id: packet.fragment,
        protocol: packet.protocol,
        family: F::V6 as u8,
        reserved: 0,
    }
}

/// Whether an endpoint has the packet's source or destination address.
#[inline(always)]
fn may_be_ours<F: Family, T: Tables>(tables: &T, packet: &Packet<F>) -> bool {
    let word = endpoint_word(0, packet.protocol, kind::ADDRESS);
    F::endpoint(tables, packet.target, word) != NONE
        || F::endpoint(tables, packet.source, word) != NONE
}

#[inline(always)]
fn remember<F: Family, P: Frame, T: Tables>(
    frame: &P,
    tables: &T,
    packet: &Packet<F>,
    server: u32,
) {
    let ports = packet::ports(frame, packet);
    let portless = if ports.is_none() { told::NO_PORTS } else { 0 };
    let ports = ports.unwrap_or_default();
    let value = FragmentValue {
        ports: [ports.source, ports.target],
        tick: tables.now(),
        server,
        portless,
    };
    tables.remember_fragment(&key(packet), value);
}

/// Whether a remembered first fragment is still valid at tick `now`.
#[inline(always)]
#[must_use]
pub fn holds(value: &FragmentValue, now: u32) -> bool {
    age(value.tick, now) <= LIFE
}

/// Whether a later fragment may be for a service and overlaps the TCP header (RFC 1858, 3; RFC
/// 3128), or the SCTP header with the first chunk's type. If there are endpoints of every port or
/// rules by source, any endpoint with the destination address counts.
#[inline(always)]
fn overlaps<F: Family, T: Tables>(tables: &T, packet: &Packet<F>, port: u16) -> bool {
    let header = if packet.protocol == TCP {
        20
    } else if packet.is_sctp() {
        sctp::LEAST as u32
    } else {
        0
    };
    let Some(settings) = tables.settings() else {
        return false;
    };
    let kind = if settings.wide == 0 {
        kind::SERVICE
    } else {
        kind::ADDRESS
    };
    let port = if settings.wide == 0 { port } else { 0 };
    let word = endpoint_word(port, packet.protocol, kind);
    packet.offset < header && F::endpoint(tables, packet.target, word) != NONE
}

/// The ports of a packet, from its own header or from its first fragment.
#[inline(always)]
pub fn ports<F: Family, P: Steps, T: Choices>(
    frame: &P,
    tables: &T,
    packet: &Packet<F>,
) -> Result<Ports, Word> {
    if packet.part == Part::Later {
        let ports = frame.later(tables).open()?;
        return Ok(Ports {
            source: ports as u16,
            target: (ports >> 16) as u16,
            flags: 0,
        });
    }
    packet::ports(frame, packet).ok_or(Word::pass(Pass::NotUnderstood))
}

/// The server of a fragment whose datagram gets no entry: the first fragment's server is remembered
/// for the later ones. In the kernel this is a separate function.
#[inline(always)]
pub fn one_packet<P: Frame, T: Tables>(frame: &P, tables: &T, server: u32) -> Word {
    reread!(
        frame,
        tables,
        |packet: F| go_together::<F, P, T>(frame, tables, &packet, server),
        Word::pass(Pass::NotUnderstood)
    )
}

#[inline(always)]
fn go_together<F: Family, P: Frame, T: Tables>(
    frame: &P,
    tables: &T,
    packet: &Packet<F>,
    server: u32,
) -> Word {
    if packet.part == Part::First {
        remember(frame, tables, packet, server);
        traffic::count_connection(tables, server);
        return Word::server(server);
    }
    match tables.fragment(&key(packet)) {
        Some(value) if value.server != NONE => Word::server(value.server),
        _ => Word::drop(Drop::LostFragment),
    }
}

/// Remembers a first fragment if its source or destination address has any endpoint, so that later
/// fragments take the same way. The fragment itself need not be for one of these endpoints. Reads
/// the frame again: fragments are rare, and in the kernel this is a separate function.
#[inline(always)]
pub fn first<P: Frame, T: Tables>(frame: &P, tables: &T) {
    reread!(
        frame,
        tables,
        |packet: F| if packet.part == Part::First && may_be_ours::<F, T>(tables, &packet) {
            remember(frame, tables, &packet, NONE);
        },
        ()
    );
}

/// The ports of a later fragment, with the source in the low half; the verdict if they are not
/// known. In the kernel this is a separate function.
#[inline(always)]
pub fn later<P: Frame, T: Tables>(frame: &P, tables: &T) -> Word {
    reread!(
        frame,
        tables,
        |packet: F| recall::<F, T>(tables, &packet),
        Word::pass(Pass::NotUnderstood)
    )
}

#[inline(always)]
fn recall<F: Family, T: Tables>(tables: &T, packet: &Packet<F>) -> Word {
    match tables.fragment(&key(packet)) {
        Some(value) if holds(&value, tables.now()) => match value.portless {
            0 => {
                let [source, target] = value.ports;
                if overlaps::<F, T>(tables, packet, target) {
                    return Word::drop(Drop::BadFragment);
                }
                Word::server(source as u32 | (target as u32) << 16)
            }
            told::NO_PORTS => Word::pass(Pass::NotUnderstood),
            _ => Word::pass(Pass::LostFragment),
        },
        _ if may_be_ours::<F, T>(tables, packet) => Word::HOLD,
        _ => Word::pass(Pass::NotOurs),
    }
}
