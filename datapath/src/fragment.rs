//! Fragments follow their first one: it alone has the ports, which are remembered for the rest.

use crate::entry::{NONE, endpoint_word, kind};
use crate::family::Family;
use crate::packet::{Packet, Part, Ports, TCP};
use crate::tables::{FragmentKey, FragmentValue, Tables};
use crate::verdict::{Drop, Note, Pass, Word};

/// Ticks for which a first fragment is remembered: `ip_frag_time` of the kernel is 30 s.
const LIFE: u32 = 32;

#[inline(always)]
fn key<F: Family>(packet: &Packet<F>) -> FragmentKey {
    FragmentKey {
        source: F::words(packet.source),
        target: F::words(packet.target),
        id: packet.fragment,
        protocol: packet.protocol,
        family: F::V6 as u8,
        reserved: 0,
    }
}

/// Remembers the ports of a first fragment.
#[inline(always)]
pub fn remember<F: Family, T: Tables>(tables: &T, packet: &Packet<F>, ports: &Ports) {
    let value = FragmentValue { ports: [ports.source, ports.target], tick: tables.now() };
    tables.remember_fragment(&key(packet), value);
}

/// The ports of a later fragment, or what becomes of it without.
#[inline(always)]
pub fn recall<F: Family, T: Tables>(tables: &T, packet: &Packet<F>) -> Result<Ports, Word> {
    let Part::Later(offset) = packet.part else { return Err(Word::drop(Drop::Internal)) };
    let now = tables.now();
    match tables.fragment(&key(packet)) {
        Some(value) if now.wrapping_sub(value.tick) & crate::connection::TICK_MASK <= LIFE => {
            // RFC 1858, 3; RFC 3128: a later fragment must not reach into the TCP header.
            if packet.protocol == TCP && offset < 20 {
                return Err(Word::drop(Drop::BadFragment));
            }
            tables.count(Note::FragmentFollowed.counter());
            let [source, target] = value.ports;
            Ok(Ports { source, target, flags: 0 })
        }
        _ => Err(unknown(tables, packet)),
    }
}

/// A later fragment without its first one: held if it could be for us.
#[inline(always)]
fn unknown<F: Family, T: Tables>(tables: &T, packet: &Packet<F>) -> Word {
    let word = endpoint_word(0, packet.protocol, kind::ADDRESS);
    let ours = F::endpoint(tables, packet.target, word) != NONE
        || F::endpoint(tables, packet.source, word) != NONE;
    if ours { Word::HOLD } else { Word::pass(Pass::NotOurs) }
}
