//! Fragments follow their first one: it alone has the ports, which are remembered for the rest.

use crate::connection::age;
use crate::entry::{NONE, endpoint_word, kind};
use crate::family::Family;
use crate::frame::Frame;
use crate::link;
use crate::packet::{self, Packet, Part, TCP};
use crate::reread::reread;
use crate::sctp;
use crate::tables::{FragmentKey, FragmentValue, Tables};
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

/// Remembers the ports of a first fragment. The frame is read anew: fragments are rare, and in the
/// kernel this is a function of its own.
#[inline(always)]
pub fn first<P: Frame, T: Tables>(frame: &P, tables: &T) {
    let Some(link) = link::parse(frame) else {
        return;
    };
    if link.ethertype == link::IPV4 {
        if let Ok(packet) = packet::parse4(frame, link.l3) {
            remember(frame, tables, &packet, NONE);
        }
    } else if let Ok(packet) = packet::parse6(frame, tables, link.l3) {
        remember(frame, tables, &packet, NONE);
    }
}

#[inline(always)]
fn remember<F: Family, P: Frame, T: Tables>(
    frame: &P,
    tables: &T,
    packet: &Packet<F>,
    server: u32,
) {
    if let Some(ports) = packet::ports(frame, packet) {
        let value = FragmentValue {
            ports: [ports.source, ports.target],
            tick: tables.now(),
            server,
            reserved: 0,
        };
        tables.remember_fragment(&key(packet), value);
    }
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
    let Part::Later(offset) = packet.part else {
        return Word::drop(Drop::Internal);
    };
    let now = tables.now();
    match tables.fragment(&key(packet)) {
        Some(value) if age(value.tick, now) <= LIFE => {
            // RFC 1858, 3; RFC 3128: a later fragment must not reach into the TCP header.
            // Nor into SCTP's, of which the first chunk says what is meant.
            if packet.protocol == TCP && offset < 20
                || packet.is_sctp() && offset < sctp::LEAST as u32
            {
                return Word::drop(Drop::BadFragment);
            }
            let [source, target] = value.ports;
            Word::server(source as u32 | (target as u32) << 16)
        }
        _ => unknown(tables, packet),
    }
}

/// A later fragment without its first one: held if it could be for us.
#[inline(always)]
fn unknown<F: Family, T: Tables>(tables: &T, packet: &Packet<F>) -> Word {
    let word = endpoint_word(0, packet.protocol, kind::ADDRESS);
    let ours = F::endpoint(tables, packet.target, word) != NONE
        || F::endpoint(tables, packet.source, word) != NONE;
    if ours {
        Word::HOLD
    } else {
        Word::pass(Pass::NotOurs)
    }
}
