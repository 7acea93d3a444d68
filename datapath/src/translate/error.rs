//! ICMP errors about a translated flow: an error about a packet that the director forwarded goes to
//! that packet's sender.
//!
//! The quoted packet with source and target swapped is a tuple of the opposite direction. The
//! translation of that tuple gives the sender of the quoted packet, and the addresses and ports
//! that the sender used.

use crate::icmp::{self, Quote};
use crate::reread::reread;
use crate::table::Tables;
use crate::table::family::Family;
use crate::table::flows::Words;
use crate::table::translation::{Tuple, ends, flag, turned, word};
use crate::traffic;
use crate::verdict::{Drop, Note, Pass, Word};
use crate::way;
use crate::wire::checksum;
use crate::wire::frame::{Frame, Transport};
use crate::wire::packet::Packet;

/// Translates and forwards an ICMP packet that [`crate::icmp`] left. Parses the frame again.
#[inline(always)]
pub fn follow<P: Frame, T: Tables>(frame: &mut P, tables: &T) -> Word {
    reread!(
        frame,
        tables,
        |packet: F| related::<F, P, T>(frame, tables, &packet),
        Word::pass(Pass::NotUnderstood)
    )
}

#[inline(always)]
fn related<F: Family, P: Frame, T: Tables>(frame: &mut P, tables: &T, packet: &Packet<F>) -> Word {
    let not_ours = Word::pass(Pass::Icmp);
    let Some(quote) = icmp::quoted::<F, P>(frame, packet) else {
        return not_ours;
    };
    let answer = Tuple {
        source: F::words(quote.target),
        target: F::words(quote.source),
        ends: ends(quote.target_port, quote.source_port, quote.protocol, F::V6),
    };
    let Some(words) = tables.translation(&answer) else {
        return not_ours;
    };
    if super::crosses::<F, T::Words>(words) {
        return Word::cross(F::V6);
    }
    let (time, id) = (words.load(word::TIME), words.load(word::NAMES) >> 32);
    let id = id as u32;
    let target = super::address::<F, T::Words>(words, word::TARGET);
    let Some(server) = tables.server(id) else {
        return Word::drop(Drop::Internal);
    };
    let ways = if time & flag::FORWARD != 0 {
        if !server.is_present() {
            return Word::drop(Drop::ServerGone);
        }
        traffic::count_in(tables, id, packet.length);
        server.ways
    } else {
        let hop = F::route(tables, target) & 0x3ff;
        let Some(ways) = way::known_way::<F, T>(tables, hop, target) else {
            return Word::drop(Drop::NoWayBack);
        };
        traffic::count_out(tables, server, id, packet.length);
        ways
    };
    tables.count(Note::IcmpRelated.counter());
    match translate::<F, P, T::Words>(frame, packet, &quote, words, time) {
        Some(()) => icmp::send(frame, packet, &ways),
        None => Word::drop(Drop::NoRoom),
    }
}

/// Rewrites the outer and the quoted header. The quoted transport checksum stays, as in
/// [`crate::icmp`].
#[inline(always)]
fn translate<F: Family, P: Frame, W: Words>(
    frame: &mut P,
    packet: &Packet<F>,
    quote: &Quote<F>,
    words: W,
    time: u64,
) -> Option<()> {
    let receiver = super::address::<F, W>(words, word::TARGET);
    let partner = super::address::<F, W>(words, word::SOURCE);
    let mut ports = frame.edit::<4>(quote.l4)?;
    let before = ports.view().u32::<0>();
    let after = turned(words.load(word::ENDS)) as u32;
    ports.set_u32::<0>(after);
    let port_delta = checksum::change(before, after);
    let quote_delta = checksum::add(
        checksum::change(F::sum(quote.source), F::sum(receiver)),
        checksum::change(F::sum(quote.target), F::sum(partner)),
    );
    // An error about an answer keeps its source if the server sees the client's own address. Every
    // other error gets the address by which its receiver knows the other end.
    let source = if time & flag::FORWARD != 0 && time & flag::LOCAL == 0 {
        packet.source
    } else {
        partner
    };
    let outer_delta = checksum::add(
        checksum::change(F::sum(packet.source), F::sum(source)),
        checksum::change(F::sum(packet.target), F::sum(receiver)),
    );
    let field = Transport {
        field: packet.l4.wrapping_add(2),
        optional: false,
    };
    super::addresses::<F, P>(frame, quote.l3, receiver, partner, quote_delta)?;
    if F::V6 {
        frame.carry(field, outer_delta, checksum::add(quote_delta, port_delta));
    } else {
        // The checksum of the quoted header takes up the change of its addresses, so that ICMP's
        // checksum does not change by it.
        frame.carry(field, 0, port_delta);
    }
    super::addresses::<F, P>(frame, packet.l3, source, receiver, outer_delta)
}
