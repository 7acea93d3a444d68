//! Tells a server of full NAT who the client is by the PROXY protocol: a header of version 2 before
//! the first byte of a connection.
//!
//! ```text
//! +--------------------------------------------------------------+
//! | 0d 0a 0d 0a 00 0d 0a 51 55 49 54 0a                          |
//! +-------------+--------------+---------------------------------+
//! | 21: version | 11: TCP/IPv4 |  bytes that follow: 12 or 36    |
//! | 2, PROXY    | 21: TCP/IPv6 |                                 |
//! +-------------+--------------+---------------------------------+
//! | source address, target address, source port, target port     |
//! +--------------------------------------------------------------+
//! ```
//! "The PROXY protocol", versions 1 and 2, 2.2.
//!
//! The header goes with the client's first segment after the SYN, even an empty one, and with each
//! segment that begins at the same byte, until the server has acknowledged the header. So the
//! client's retransmissions repeat it. After the header, the client's sequence numbers are larger
//! at the server by its length, and the server's acknowledgement numbers are smaller at the client.

use crate::connection::flag as tcp;
use crate::reread::reread;
use crate::table::Tables;
use crate::table::family::Family;
use crate::table::flows::Words;
use crate::table::translation::{Tuple, turned, word};
use crate::verdict::{Drop, Word};
use crate::wire::checksum;
use crate::wire::frame::Frame;
use crate::wire::packet::{self, Packet, Part, TCP, checksum_at};

/// Bytes of a header, by the client's family.
const BYTES4: usize = 28;
const BYTES6: usize = 52;

/// Bits in the high half of the word [`word::PROXY`] of a client's translation. The low half is the
/// sequence number of the connection's first byte.
mod state {
    /// The SYN was seen.
    pub const KNOWN: u64 = 1 << 32;
    /// The header was sent.
    pub const SENT: u64 = 1 << 33;
    /// The server has acknowledged it.
    pub const DONE: u64 = 1 << 34;
    /// Data without room for the header went without it, after the header had been sent.
    pub const TRUSTED: u64 = 1 << 35;
}

/// Adds the header to a client's packet, or raises its sequence number. The packet is not rewritten
/// yet. Parses the frame again: in the kernel this is a separate function.
#[inline(always)]
pub fn introduce<P: Frame, T: Tables>(frame: &mut P, tables: &T) -> Word {
    each(frame, tables, true)
}

/// Lowers the acknowledgement numbers of a server's packet, which is not rewritten yet. Parses the
/// frame again: in the kernel this is a separate function.
#[inline(always)]
pub fn acknowledge<P: Frame, T: Tables>(frame: &mut P, tables: &T) -> Word {
    each(frame, tables, false)
}

#[inline(always)]
fn each<P: Frame, T: Tables>(frame: &mut P, tables: &T, to_server: bool) -> Word {
    let done = reread!(
        frame,
        tables,
        |packet: F| either::<F, P, T>(frame, tables, &packet, to_server),
        None
    );
    done.unwrap_or(Word::drop(Drop::NoRoom))
}

/// The packet goes on to be rewritten.
const DONE: Word = Word::server(1);

/// Writes the header into a frame that [`introduce`] left: before its payload, or in place of it if
/// `kept` is 0. Parses the frame again: in the kernel this is a separate function, since moving
/// bytes takes more stack than Linux 6.1 has left after the decision.
#[inline(always)]
pub fn put<P: Frame, T: Tables>(frame: &mut P, tables: &T, kept: u32) -> Word {
    let done = reread!(
        frame,
        tables,
        |packet: F| insert::<F, P, T>(frame, tables, &packet, kept),
        None
    );
    done.map_or(Word::drop(Drop::NoRoom), |()| DONE)
}

#[inline(always)]
fn either<F: Family, P: Frame, T: Tables>(
    frame: &mut P,
    tables: &T,
    packet: &Packet<F>,
    to_server: bool,
) -> Option<Word> {
    // A later fragment has no sequence number, and neither has UDP.
    if packet.protocol != TCP || packet.part == Part::Later {
        return Some(DONE);
    }
    let ports = packet::ports(frame, packet)?;
    let tuple = Tuple::of(packet, &ports);
    let words = tables.translation(&tuple)?;
    if to_server {
        return forward::<F, P, T>(frame, tables, packet, words);
    }
    let client = Tuple {
        source: [
            words.load(word::TARGET),
            words.load(word::TARGET.wrapping_add(1)),
        ],
        target: [
            words.load(word::SOURCE),
            words.load(word::SOURCE.wrapping_add(1)),
        ],
        ends: turned(words.load(word::ENDS)),
    };
    match tables.translation(&client) {
        Some(client) => back::<F, P, T::Words>(frame, packet, words, client).map(|()| DONE),
        None => Some(DONE),
    }
}

const fn bytes<F: Family>() -> u32 {
    if F::V6 { BYTES6 as u32 } else { BYTES4 as u32 }
}

#[inline(always)]
fn forward<F: Family, P: Frame, T: Tables>(
    frame: &mut P,
    tables: &T,
    packet: &Packet<F>,
    words: T::Words,
) -> Option<Word> {
    let head = frame.view::<20>(packet.l4)?;
    let (number, flags) = (u32::from_be(head.u32::<4>()), head.u8::<13>());
    let header = ((head.u8::<12>() >> 4) as u32) << 2;
    if flags & tcp::SYN != 0 {
        let first = number.wrapping_add(1);
        words.store(word::PROXY, first as u64 | state::KNOWN);
        return Some(DONE);
    }
    let before = words.load(word::PROXY);
    let ahead = number.wrapping_sub(before as u32) as i32;
    if before & state::KNOWN == 0 {
        return Some(DONE);
    }
    if before & state::DONE != 0 || ahead > 0 {
        return shift::<F, P>(frame, packet, number).map(|()| DONE);
    }
    if ahead < 0 || flags & tcp::RST != 0 {
        return Some(DONE);
    }
    let network = (packet.l4 as u32).wrapping_sub(packet.l3 as u32);
    let payload = packet.length.wrapping_sub(network).wrapping_sub(header);
    let server = tables.server((words.load(word::NAMES) >> 32) as u32)?;
    let grown = packet.length.wrapping_add(bytes::<F>());
    let mtu = if super::crosses::<F, T::Words>(words) {
        super::cross::limit(packet, server.ways.mtu())
    } else {
        server.ways.mtu()
    };
    let fits = frame.segment() == 0 && grown <= mtu;
    if payload != 0 && !fits && before & (state::SENT | state::TRUSTED) == state::SENT {
        words.store(word::PROXY, before | state::TRUSTED);
        return shift::<F, P>(frame, packet, number).map(|()| DONE);
    }
    words.store(word::PROXY, (before | state::SENT) & !state::TRUSTED);
    Some(Word::put(payload == 0 || fits))
}

/// Raises a segment's sequence number to the server's.
#[inline(always)]
fn shift<F: Family, P: Frame>(frame: &mut P, packet: &Packet<F>, number: u32) -> Option<()> {
    let after = number.wrapping_add(bytes::<F>());
    frame.edit::<8>(packet.l4)?.set_u32::<4>(after.to_be());
    let delta = checksum::change(number.to_be(), after.to_be());
    frame.carry(checksum_at(packet), 0, delta);
    Some(())
}

#[inline(always)]
fn insert<F: Family, P: Frame, T: Tables>(
    frame: &mut P,
    tables: &T,
    packet: &Packet<F>,
    keeps: u32,
) -> Option<()> {
    let bytes = bytes::<F>();
    let network = packet.l4.wrapping_sub(packet.l3);
    let behind = ((frame.view::<20>(packet.l4)?.u8::<12>() >> 4) as usize) << 2;
    let at = packet.l4.wrapping_add(behind);
    let headers = (network as u32).wrapping_add(behind as u32);
    let payload = packet.length.wrapping_sub(headers);
    let kept = payload.wrapping_mul(keeps);
    let mut other = 0;
    let end = at.wrapping_add(bytes as usize).wrapping_add(kept as usize);
    if kept == payload {
        if !frame.insert(at, bytes as usize) {
            return None;
        }
    } else {
        other = !checksum::fold(frame.sum(at, payload as usize)?) as u32;
        if !frame.truncate(end) || !frame.extend(end) {
            return None;
        }
    }
    // Offsets are bounded again: the verifier knows nothing of a frame whose length has changed.
    let l3 = packet.l3;
    let l4 = l3.wrapping_add(tables.blur(network) & 0x1ff);
    let at = l4.wrapping_add(tables.blur(behind) & 0x3f);
    let mut head = frame.edit::<20>(l4)?;
    let (ports, flags) = (head.view().u32::<0>(), head.view().u16::<12>());
    if kept != payload {
        // A FIN must follow the data, which was left out.
        let open = flags & !((tcp::FIN as u16) << 8);
        head.set_u16::<12>(open);
        other = checksum::add(other, checksum::change_u16(flags, open));
    }
    other = checksum::add(other, write::<F, P>(frame, at, packet, ports)?);
    let length = packet
        .length
        .wrapping_sub(payload)
        .wrapping_add(kept)
        .wrapping_add(bytes);
    let grown = checksum::change_u16((packet.length as u16).to_be(), (length as u16).to_be());
    let placed = Packet { l3, l4, ..*packet };
    frame.carry(checksum_at(&placed), grown, other);
    super::announce::length::<F, P>(frame, l3, length, grown)
}

/// Writes the header; returns its sum for the checksum. `ports` are as in the TCP header.
#[inline(always)]
fn write<F: Family, P: Frame>(
    frame: &mut P,
    at: usize,
    packet: &Packet<F>,
    ports: u32,
) -> Option<u32> {
    const A: u64 = u64::from_le_bytes([0x0d, 0x0a, 0x0d, 0x0a, 0x00, 0x0d, 0x0a, 0x51]);
    const B: u32 = u32::from_le_bytes([0x55, 0x49, 0x54, 0x0a]);
    let c = if F::V6 {
        u32::from_le_bytes([0x21, 0x21, 0, 36])
    } else {
        u32::from_le_bytes([0x21, 0x11, 0, 12])
    };
    let ([s, s2], [t, t2]) = (F::words(packet.source), F::words(packet.target));
    if F::V6 {
        let mut header = frame.edit::<BYTES6>(at)?;
        header.set_u64::<0>(A);
        header.set_u32::<8>(B);
        header.set_u32::<12>(c);
        header.set_u64::<16>(s);
        header.set_u64::<24>(s2);
        header.set_u64::<32>(t);
        header.set_u64::<40>(t2);
        header.set_u32::<48>(ports);
    } else {
        let mut header = frame.edit::<BYTES4>(at)?;
        header.set_u64::<0>(A);
        header.set_u32::<8>(B);
        header.set_u32::<12>(c);
        header.set_u32::<16>(s as u32);
        header.set_u32::<20>(t as u32);
        header.set_u32::<24>(ports);
    }
    let constant = checksum::add(checksum::of_u64(A), checksum::add(B, c));
    let addresses = checksum::add(F::sum(packet.source), F::sum(packet.target));
    Some(checksum::add(constant, checksum::add(addresses, ports)))
}

#[inline(always)]
fn back<F: Family, P: Frame, W: Words>(
    frame: &mut P,
    packet: &Packet<F>,
    answer: W,
    words: W,
) -> Option<()> {
    let state = words.load(word::PROXY);
    if state & state::SENT == 0 {
        return Some(());
    }
    let first = state as u32;
    // The header has the client's family.
    let bytes = if super::crosses::<F, W>(answer) {
        bytes::<F::Other>()
    } else {
        bytes::<F>()
    };
    let mut head = frame.edit::<20>(packet.l4)?;
    if head.view().u8::<13>() & tcp::ACK == 0 {
        return Some(());
    }
    let header = ((head.view().u8::<12>() >> 4) as usize) << 2;
    let before = u32::from_be(head.view().u32::<8>());
    let after = known(first, before, bytes);
    head.set_u32::<8>(after.to_be());
    let mut delta = checksum::change(before.to_be(), after.to_be());
    if after != before && before.wrapping_sub(first) >= bytes && state & state::DONE == 0 {
        words.store(word::PROXY, state | state::DONE);
    }
    if header > 20 {
        delta = checksum::add(
            delta,
            selective::<F, P>(frame, packet, header, (first, bytes))?,
        );
    }
    frame.carry(checksum_at(packet), 0, delta);
    Some(())
}

/// The client's number for an acknowledgement number of the server, to whom the header is `bytes`
/// long from `first` on.
#[inline(always)]
fn known(first: u32, number: u32, bytes: u32) -> u32 {
    let ahead = number.wrapping_sub(first) as i32;
    if ahead <= 0 {
        number
    } else if ahead < bytes as i32 {
        first
    } else {
        number.wrapping_sub(bytes)
    }
}

/// Limits of the TCP options that are read, and of the edges in a selective acknowledgement (RFC
/// 2018, 3).
const OPTIONS: usize = 8;
const EDGES: usize = 8;

/// Lowers the edges of a selective acknowledgement to the client's numbers; returns what this adds
/// to the checksum.
#[inline(always)]
fn selective<F: Family, P: Frame>(
    frame: &mut P,
    packet: &Packet<F>,
    header: usize,
    known: (u32, u32),
) -> Option<u32> {
    let mut at = 20usize;
    for _ in 0..OPTIONS {
        at &= 0x3f;
        if at.wrapping_add(2) > header {
            break;
        }
        let option = frame.view::<2>(packet.l4.wrapping_add(at))?;
        let (kind, length) = (option.u8::<0>(), option.u8::<1>() as usize);
        if kind == 5 {
            return edges(frame, packet.l4, at, length, known);
        }
        if kind == 0 || kind != 1 && length < 2 {
            break;
        }
        at = at.wrapping_add(if kind == 1 { 1 } else { length & 0x3f });
    }
    Some(0)
}

#[inline(always)]
fn edges<P: Frame>(
    frame: &mut P,
    l4: usize,
    at: usize,
    length: usize,
    (first, bytes): (u32, u32),
) -> Option<u32> {
    let mut delta = 0;
    for number in 0..EDGES {
        let from = number.wrapping_mul(4).wrapping_add(2);
        if from.wrapping_add(4) > length {
            break;
        }
        let place = l4.wrapping_add(at.wrapping_add(from));
        let mut edge = frame.edit::<4>(place)?;
        let before = u32::from_be(edge.view().u32::<0>());
        let after = known(first, before, bytes);
        edge.set_u32::<0>(after.to_be());
        let changed = checksum::fold(checksum::change(before.to_be(), after.to_be()));
        // At an odd offset the bytes of each word are swapped in the sum (RFC 1071, 2.B).
        let changed = if at & 1 == 0 {
            changed
        } else {
            changed.swap_bytes()
        };
        delta = checksum::add(delta, changed as u32);
    }
    Some(delta)
}
