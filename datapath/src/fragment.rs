//! Fragments follow their first one: it alone has the ports, which are remembered for the rest.

use crate::connection::age;
use crate::entry::{NONE, endpoint_word, kind};
use crate::family::Family;
use crate::frame::Frame;
use crate::packet::{self, Packet, Part, TCP};
use crate::reread::reread;
use crate::sctp;
use crate::tables::{FragmentKey, FragmentValue, Tables, told};
use crate::verdict::{Drop, Pass, Word};
use crate::walk;

/// Ticks for which a first fragment is remembered: `ip_frag_time` of the kernel is 30 s.
const LIFE: u32 = 32;

/// What names the datagram that a fragment belongs to.
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

/// Whether an endpoint has one of a packet's addresses.
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

/// Whether a fragment of this tick may go by what was remembered.
#[inline(always)]
#[must_use]
pub fn holds(value: &FragmentValue, now: u32) -> bool {
    age(value.tick, now) <= LIFE
}

/// Whether a later fragment reaches into the TCP header (RFC 1858, 3; RFC 3128), or into SCTP's, of
/// which the first chunk says what is meant, and may be for a service. Of rules that mind where
/// packets come from it is enough that they mind packets for its address.
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

/// A fragment of a datagram that gets no entry: the first one's server is remembered, later ones
/// get it. A function of its own, as [`first`].
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
        walk::count_connection(tables, server);
        return Word::server(server);
    }
    match tables.fragment(&key(packet)) {
        Some(value) if value.server != NONE => Word::server(value.server),
        _ => Word::drop(Drop::LostFragment),
    }
}

/// Remembers a first fragment to or from an address that has endpoints, be it for one of them or
/// not, so that later ones go the way that it goes. The frame is read anew: fragments are rare, and
/// in the kernel this is a function of its own.
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

/// The ports of a later fragment (source in the low half), or what becomes of it without. As
/// [`first`], a function of its own.
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
