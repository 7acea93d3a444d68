//! ICMP errors about a flow between both families: the message, its header and the quoted header
//! are translated to the other family (RFC 7915, 4.2, 4.3, 5.2 and 5.3).
//!
//! As in [`super::super::error`], the director is the source of the translated error. All that is
//! rewritten lies in one stretch, from the network header to the end of the quoted header.

use crate::icmp::{self, Quote};
use crate::method as methods;
use crate::table::Tables;
use crate::table::entry::{Server, Ways};
use crate::table::family::{Family, V4, V6};
use crate::table::flows::Words;
use crate::table::translation::{Tuple, ends, flag, turned, word};
use crate::traffic;
use crate::verdict::{Drop, Note, Pass, Word};
use crate::way;
use crate::wire::checksum;
use crate::wire::frame::Frame;
use crate::wire::link;
use crate::wire::packet::{self, ICMP, ICMPV6, Packet};

use super::header::{self, BYTES4, BYTES6, Header, WHOLE};

/// Bytes of an ICMP header.
const MESSAGE: u32 = 8;
/// RFC 8200, 5: the least MTU of IPv6. A sender does not accept less.
const LEAST6: u32 = 1280;

/// Translates and forwards an IPv4 ICMP packet that [`super::super::error`] has left to the other
/// family. Parses the frame again.
#[inline(always)]
pub fn follow4<P: Frame, T: Tables>(frame: &mut P, tables: &T) -> Word {
    match link::parse(frame).map(|link| packet::parse4(frame, link.l3)) {
        Some(Ok(packet)) => related::<V4, P, T>(frame, tables, &packet),
        _ => Word::drop(Drop::Internal),
    }
}

/// Translates and forwards an ICMPv6 packet that [`super::super::error`] has left to the other
/// family.
#[inline(always)]
pub fn follow6<P: Frame, T: Tables>(frame: &mut P, tables: &T) -> Word {
    match link::parse(frame).map(|link| packet::parse6(frame, tables, link.l3)) {
        Some(Ok(packet)) => related::<V6, P, T>(frame, tables, &packet),
        _ => Word::drop(Drop::Internal),
    }
}

#[inline(always)]
fn related<F: Family, P: Frame, T: Tables>(frame: &mut P, tables: &T, packet: &Packet<F>) -> Word {
    let Some(quote) = icmp::quoted::<F, P>(frame, packet) else {
        return Word::pass(Pass::Icmp);
    };
    let answer = Tuple {
        source: F::words(quote.target),
        target: F::words(quote.source),
        ends: ends(quote.target_port, quote.source_port, quote.protocol, F::V6),
    };
    let Some(words) = tables.translation(&answer) else {
        return Word::pass(Pass::Icmp);
    };
    let (ways, id, server) = match way::<F, T>(tables, words) {
        Ok(found) => found,
        Err(verdict) => return verdict,
    };
    if packet.ttl <= 1 {
        // RFC 1122, 3.2.2: an error is never answered with an error.
        return Word::drop(Drop::Expired);
    }
    let Some(head) = frame.view::<8>(packet.l4) else {
        return Word::drop(Drop::Internal);
    };
    let given = Message {
        head: head.u16::<0>(),
        rest: head.u32::<4>(),
    };
    let plan = Plan::of(packet, &quote);
    let said = if F::V6 {
        in4(given, ways.mtu(), plan.quoted)
    } else {
        in6(given, ways.mtu())
    };
    if said == NOTHING {
        return Word::drop(Drop::Untranslatable);
    }
    let said = Message {
        head: said as u16,
        rest: (said >> 32) as u32,
    };
    if plan.new.wrapping_add(plan.length) > ways.mtu() {
        return Word::drop(Drop::TooBig);
    }
    if words.load(word::TIME) & flag::FORWARD != 0 {
        traffic::count_in(tables, id, packet.length);
    } else {
        traffic::count_out(tables, server, id, packet.length);
    }
    tables.count(Note::IcmpRelated.counter());
    let done = write::<F, P, T>(frame, tables, packet, &quote, words, &plan, said);
    methods::finish(frame, done, &ways)
}

/// A way, and the id and entry of the server at one end of the flow.
type Way<'a> = (Ways, u32, &'a Server);

/// The way to the receiver of the error, who is of the other family.
#[inline(always)]
fn way<F: Family, T: Tables>(tables: &T, words: T::Words) -> Result<Way<'_>, Word> {
    let id = (words.load(word::NAMES) >> 32) as u32;
    let server = tables.server(id).ok_or(Word::drop(Drop::Internal))?;
    let ways = if words.load(word::TIME) & flag::FORWARD != 0 {
        if !server.is_present() {
            return Err(Word::drop(Drop::ServerGone));
        }
        server.ways
    } else {
        let target = super::super::address::<F::Other, T::Words>(words, word::TARGET);
        let hop = F::Other::route(tables, target) & 0x3ff;
        way::known_way::<F::Other, T>(tables, hop, target).ok_or(Word::drop(Drop::NoWayBack))?
    };
    if !ways.is_usable() {
        return Err(Word::drop(Drop::NoNextHop));
    }
    Ok((ways, id, server))
}

/// Type and code as they lie in memory, and the word behind the checksum.
#[derive(Clone, Copy, Debug)]
struct Message {
    head: u16,
    rest: u32,
}

/// A message without a counterpart in the other family.
const NOTHING: u64 = 0;

/// Packs type, code and the word behind the checksum, which is in host order.
#[inline(always)]
fn message(kind: u8, code: u8, rest: u32) -> u64 {
    kind as u64 | (code as u64) << 8 | (rest.to_be() as u64) << 32
}

/// Translates an ICMP message to ICMPv6 (RFC 7915, 4.2). `mtu` is that of the message's way, in
/// bytes.
#[inline(always)]
fn in6(given: Message, mtu: u32) -> u64 {
    let (kind, code) = (given.head as u8, (given.head >> 8) as u8);
    let rest = u32::from_be(given.rest);
    match (kind, code) {
        // RFC 7915, 4.2: the pointer leads to the next header field, byte 6.
        (3, 2) => message(4, 1, 6),
        (3, 3) => message(1, 4, 0),
        (3, 4) => message(2, 0, longer(rest & 0xffff, mtu)),
        (3, 9 | 10 | 13 | 15) => message(1, 1, 0),
        (3, 0 | 1 | 5..=8 | 11 | 12) => message(1, 0, 0),
        (11, 0 | 1) => message(3, code, 0),
        (12, 0 | 2) => match rest >> 24 {
            at @ (0 | 1) => message(4, 0, at),
            2 | 3 => message(4, 0, 4),
            8 => message(4, 0, 7),
            9 => message(4, 0, 6),
            12..=15 => message(4, 0, 8),
            16..=19 => message(4, 0, 24),
            _ => NOTHING,
        },
        _ => NOTHING,
    }
}

/// The MTU for IPv6, in bytes, by the MTU for IPv4 that a router told. A router older than RFC 1191
/// tells 0.
#[inline(always)]
fn longer(told: u32, mtu: u32) -> u32 {
    let told = told.wrapping_add(BYTES6.wrapping_sub(BYTES4));
    let told = if told < mtu { told } else { mtu };
    if told < LEAST6 { LEAST6 } else { told }
}

/// Translates an ICMPv6 message to ICMP (RFC 7915, 5.2). `headers` are the bytes of the quoted
/// packet's IPv6 headers, `mtu` is that of the message's way, in bytes.
#[inline(always)]
fn in4(given: Message, mtu: u32, headers: u32) -> u64 {
    let (kind, code) = (given.head as u8, (given.head >> 8) as u8);
    let rest = u32::from_be(given.rest);
    match (kind, code) {
        (1, 0 | 2 | 3) => message(3, 1, 0),
        (1, 1) => message(3, 10, 0),
        (1, 4) => message(3, 3, 0),
        (2, _) => {
            let told = rest.saturating_sub(headers.wrapping_sub(BYTES4));
            message(3, 4, if told < mtu { told } else { mtu })
        }
        (3, 0 | 1) => message(11, code, 0),
        (4, 0) => match rest {
            at @ (0 | 1) => message(12, 0, at << 24),
            4 | 5 => message(12, 0, 2 << 24),
            6 => message(12, 0, 9 << 24),
            7 => message(12, 0, 8 << 24),
            8..=23 => message(12, 0, 12 << 24),
            24..=39 => message(12, 0, 16 << 24),
            _ => NOTHING,
        },
        (4, 1) => message(3, 2, 0),
        _ => NOTHING,
    }
}

/// Lengths in bytes.
struct Plan {
    /// The quoted network header as it came.
    quoted: u32,
    /// Each of both network headers as it is sent.
    new: u32,
    /// The whole message as it is sent, without its network header.
    length: u32,
}

impl Plan {
    #[inline(always)]
    fn of<F: Family>(packet: &Packet<F>, quote: &Quote<F>) -> Self {
        let quoted = (quote.l4 as u32).wrapping_sub(quote.l3 as u32);
        let before = (quote.l4 as u32).wrapping_sub(packet.l3 as u32);
        let rest = packet.length.wrapping_sub(before);
        let new = if F::V6 { BYTES4 } else { BYTES6 };
        let length = rest.wrapping_add(new).wrapping_add(MESSAGE);
        Self {
            quoted,
            new,
            length,
        }
    }
}

/// Writes the network header, the ICMP header and the quoted header. The quoted transport checksum
/// stays, as in [`crate::icmp`].
#[inline(always)]
fn write<F: Family, P: Frame, T: Tables>(
    frame: &mut P,
    tables: &T,
    packet: &Packet<F>,
    quote: &Quote<F>,
    words: T::Words,
    plan: &Plan,
    said: Message,
) -> Option<()> {
    let length = quoted_length::<F, P>(frame, quote)?;
    let inner = said_by::<F, P>(frame, quote.l3, quote.protocol, (length, 0))?;
    let check = check::<F, P, T::Words>(frame, packet, quote, words, plan, (said, &inner))?;
    let icmp = if F::V6 { ICMP } else { ICMPV6 };
    let outer = said_by::<F, P>(frame, packet.l3, icmp, (plan.length, 1))?;
    let old = quote.l4.wrapping_sub(packet.l3);
    let new = (plan.new << 1).wrapping_add(MESSAGE) as usize;
    let l3 = header::refit(frame, tables, packet.l3, (old, new), !F::V6)?;
    let at = l3.wrapping_add(if F::V6 { 20 } else { 40 });
    let mut head = frame.edit::<8>(at)?;
    head.set_u16::<0>(said.head);
    head.set_u16::<2>(check);
    head.set_u32::<4>(said.rest);
    let ([a, b], [c, d]) = both(words);
    let quoted = at.wrapping_add(MESSAGE as usize);
    if F::V6 {
        header::write4(frame, l3, &outer, a as u32, c as u32)?;
        header::write4(frame, quoted, &inner, c as u32, a as u32)
    } else {
        header::write6(frame, l3, &outer, ([a, b], [c, d]), false)?;
        header::write6(frame, quoted, &inner, ([c, d], [a, b]), false)
    }
}

/// Source and target address of a translated packet.
#[inline(always)]
fn both<W: Words>(words: W) -> ([u64; 2], [u64; 2]) {
    let at = |place: usize| [words.load(place), words.load(place.wrapping_add(1))];
    (at(word::SOURCE), at(word::TARGET))
}

/// Writes the quoted ports, and returns the checksum of the message, updated by all that changes.
#[inline(always)]
fn check<F: Family, P: Frame, W: Words>(
    frame: &mut P,
    packet: &Packet<F>,
    quote: &Quote<F>,
    words: W,
    plan: &Plan,
    (said, inner): (Message, &Header),
) -> Option<u16> {
    let mut ports = frame.edit::<4>(quote.l4)?;
    let after = turned(words.load(word::ENDS)) as u32;
    let mut delta = checksum::change(ports.view().u32::<0>(), after);
    ports.set_u32::<0>(after);
    let head = frame.view::<8>(packet.l4)?;
    let check = head.u16::<2>();
    delta = checksum::add(delta, checksum::change(head.u32::<4>(), said.rest));
    delta = checksum::add(delta, checksum::change_u16(head.u16::<0>(), said.head));
    let quoted = frame.sum(quote.l3, plan.quoted as usize)?;
    delta = checksum::add(delta, !quoted);
    if F::V6 {
        let length = packet.length.wrapping_add(packet.l3 as u32);
        let length = length.wrapping_sub(packet.l4 as u32);
        let addresses = checksum::add(F::sum(packet.source), F::sum(packet.target));
        delta = checksum::add(delta, !checksum::add(addresses, pseudo(length)));
    } else {
        let ([a, b], [c, d]) = both(words);
        let source = checksum::add(checksum::of_u64(a), checksum::of_u64(b));
        let target = checksum::add(checksum::of_u64(c), checksum::of_u64(d));
        // Both addresses are in the pseudo-header and in the quoted header. An IPv4 header sums to
        // nothing.
        let addresses = checksum::add(source, target);
        delta = checksum::add(delta, checksum::add(addresses, addresses));
        delta = checksum::add(delta, pseudo(plan.length));
        delta = checksum::add(delta, header::fixed6(inner));
    }
    Some(checksum::update(check, delta))
}

/// The sum of ICMPv6's pseudo-header without the addresses.
#[inline(always)]
fn pseudo(length: u32) -> u32 {
    ((length as u16).to_be() as u32).wrapping_add((ICMPV6 as u32) << 8)
}

/// Bytes behind the header of a quoted packet, of which fewer may be quoted.
#[inline(always)]
fn quoted_length<F: Family, P: Frame>(frame: &P, quote: &Quote<F>) -> Option<u32> {
    let head = frame.view::<20>(quote.l3)?;
    let length = if F::V6 {
        (u16::from_be(head.u16::<4>()) as u32).wrapping_add(BYTES6)
    } else {
        u16::from_be(head.u16::<2>()) as u32
    };
    let headers = (quote.l4 as u32).wrapping_sub(quote.l3 as u32);
    Some(length.saturating_sub(headers))
}

/// The fields of the network header or the quoted one, with this protocol and length. The TTL is
/// lowered by `hops`.
#[inline(always)]
fn said_by<F: Family, P: Frame>(
    frame: &P,
    l3: usize,
    protocol: u8,
    (length, hops): (u32, u8),
) -> Option<Header> {
    let ip = frame.view::<20>(l3)?;
    let (service, ttl) = if F::V6 {
        let first = u16::from_be(ip.u16::<0>());
        ((first >> 4) as u8, ip.u8::<7>())
    } else {
        (ip.u8::<1>(), ip.u8::<8>())
    };
    Some(Header {
        service,
        ttl: ttl.wrapping_sub(hops),
        protocol,
        length,
        identification: 0,
        cut: WHOLE,
    })
}
