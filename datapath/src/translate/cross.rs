//! Translated flows between a client of one family and a server of the other: each packet gets a
//! network header of the other family in place of its own (RFC 7915).
//!
//! An IPv6 header is 20 bytes longer, so a packet that fits one side may not fit the other. Its
//! sender gets the MTU that is left, and the MSS of a SYN is lowered to it. Options and extension
//! headers are removed. A whole packet never becomes a fragment.

pub mod error;
pub mod header;

use crate::clamp;
use crate::connection::flag as tcp;
use crate::device;
use crate::fragment;
use crate::method as methods;
use crate::policy;
use crate::steps::{Choices, Steps};
use crate::table::Tables;
use crate::table::entry::{self, Ways};
use crate::table::family::{Family, V4, V6, Version};
use crate::table::flows::Words;
use crate::table::hash;
use crate::table::translation::{Tuple, flag, word};
use crate::track::{self, Heard};
use crate::traffic;
use crate::verdict::{Bounce, Drop, Pass, Word};
use crate::way;
use crate::wire::checksum;
use crate::wire::frame::Frame;
use crate::wire::link;
use crate::wire::packet::{self, Packet, Part, Ports, TCP, UDP, checksum_at};

use header::{BYTES4, BYTES6, FRAGMENT6, Header, WHOLE};

/// RFC 7915, 5.1: an IPv4 packet up to this length may be fragmented on its way, since an IPv6
/// sender need not accept an MTU below 1280.
const MAY_BE_CUT: u32 = 1260;

/// The longest packet with this packet's headers, in bytes, that fits a way of the other family.
#[inline(always)]
pub fn limit<F: Family>(packet: &Packet<F>, mtu: u32) -> u32 {
    let now = (packet.l4 as u32).wrapping_sub(packet.l3 as u32);
    mtu.wrapping_add(now).saturating_sub(needed(packet))
}

/// Bytes of the network header that a packet needs in the other family.
#[inline(always)]
fn needed<F: Family>(packet: &Packet<F>) -> u32 {
    if F::V6 {
        BYTES4
    } else if packet.part == Part::Whole {
        BYTES6
    } else {
        BYTES6.wrapping_add(FRAGMENT6)
    }
}

/// Forwards an IPv4 packet that [`super::carry`] has left to the other family. Parses the frame
/// again: in the kernel this is a separate function, as [`carry6`] is.
#[inline(always)]
pub fn carry4<P: Steps, T: Choices>(frame: &mut P, tables: &T) -> Word {
    match link::parse(frame).map(|link| packet::parse4(frame, link.l3)) {
        Some(Ok(packet)) => either::<V4, P, T>(frame, tables, &packet),
        _ => Word::drop(Drop::Internal),
    }
}

/// Forwards an IPv6 packet that [`super::carry`] has left to the other family.
#[inline(always)]
pub fn carry6<P: Steps, T: Choices>(frame: &mut P, tables: &T) -> Word {
    match link::parse(frame).map(|link| packet::parse6(frame, tables, link.l3)) {
        Some(Ok(packet)) => either::<V6, P, T>(frame, tables, &packet),
        _ => Word::drop(Drop::Internal),
    }
}

#[inline(always)]
fn either<F: Family, P: Steps, T: Choices>(frame: &mut P, tables: &T, packet: &Packet<F>) -> Word {
    let ports = match fragment::ports(frame, tables, packet) {
        Ok(ports) => ports,
        Err(verdict) => return verdict,
    };
    let Some(words) = tables.translation(&Tuple::of(packet, &ports)) else {
        return Word::drop(Drop::Internal);
    };
    let id = (words.load(word::NAMES) >> 32) as u32;
    let Some(server) = tables.server(id) else {
        return Word::drop(Drop::Internal);
    };
    let ways = if words.load(word::TIME) & flag::FORWARD != 0 {
        server.ways
    } else {
        match answer::<F, P, T>(frame, tables, packet, ports, words, server) {
            Ok(ways) => ways,
            Err(verdict) => return verdict,
        }
    };
    if has_no_sum::<F, P>(frame, packet) {
        return Word::drop(Drop::Untranslatable);
    }
    // The MTU of the server's way limits the segments of the server and those sent to it.
    let header = if F::V6 != (words.load(word::TIME) & flag::FORWARD != 0) {
        BYTES6
    } else {
        BYTES4
    };
    let segment = server.ways.mtu().saturating_sub(header).saturating_sub(20);
    let done = transport::<F, P, T::Words>(frame, packet, ports, words, segment as u16)
        .and_then(|()| network::<F, P, T>(frame, tables, packet, words));
    methods::finish(frame, done, &ways)
}

/// Does for an answer what [`super::carry`] does within a family: its flow is of the client's
/// family. Returns the way to the client.
#[inline(always)]
fn answer<F: Family, P: Steps, T: Choices>(
    frame: &P,
    tables: &T,
    packet: &Packet<F>,
    ports: Ports,
    words: T::Words,
    server: &entry::Server,
) -> Result<Ways, Word> {
    let settings = tables.settings().ok_or(Word::drop(Drop::Internal))?;
    if device::is_astray::<F, P, T>(frame, tables, server) {
        return Err(Word::pass(Pass::WrongDevice));
    }
    if !server.is_present() && server.fate & entry::fate::RESET != 0 {
        return Err(policy::told(packet.protocol, ports.flags));
    }
    let (now, time) = (tables.now(), words.load(word::TIME));
    let names = words.load(word::NAMES);
    let id = (names >> 32) as u32;
    let client = super::address::<F::Other, T::Words>(words, word::TARGET);
    let telling = ports.flags & (tcp::SYN | tcp::FIN | tcp::RST) != 0;
    let must_tell = telling || time as u32 != now || packet.protocol != TCP;
    if must_tell && time & flag::ONE_PACKET == 0 {
        let port = (words.load(word::ENDS) >> 16) as u16;
        let key = F::Other::key(client, port, names as u32);
        let heard = Heard::of(packet, ports);
        if track::tell::<F::Other, T>(tables, settings, &key, id, heard).is_none() {
            return Err(policy::unasked(settings, packet, ports));
        }
    }
    super::touch(words, now);
    let hop = F::Other::route(tables, client) & 0x3ff;
    let from = super::address::<F::Other, T::Words>(words, word::SOURCE);
    let ways = way::way_back::<F::Other, P, T>(frame, tables, hop, from, client)
        .ok_or(Word::drop(Drop::NoWayBack))?;
    if packet.ttl <= 1 {
        return Err(Word::answer(Bounce::TimeExceeded, 0));
    }
    let mtu = limit(packet, ways.mtu());
    if methods::does_not_fit(frame, packet, mtu, 0) {
        return Err(Word::answer(Bounce::TooBig, mtu));
    }
    if super::is_cut(packet, ports, words) {
        return Err(Word::drop(Drop::CutChecksum));
    }
    traffic::count_out(tables, server, id, packet.length);
    Ok(ways)
}

/// Whether a datagram has no checksum and is a fragment. IPv6 asks for a checksum, and a fragment
/// is too little to compute it from (RFC 7915, 4.5).
#[inline(always)]
fn has_no_sum<F: Family, P: Frame>(frame: &P, packet: &Packet<F>) -> bool {
    if F::V6 || packet.protocol != UDP || packet.part == Part::Later {
        return false;
    }
    let is_one = packet.part == Part::Whole && frame.segment() == 0;
    match frame.view::<8>(packet.l4) {
        Some(udp) => udp.u16::<6>() == 0 && !is_one,
        None => true,
    }
}

/// Writes both ports, updates the checksum for ports and addresses, and lowers the MSS of a SYN.
#[inline(always)]
fn transport<F: Family, P: Frame, W: Words>(
    frame: &mut P,
    packet: &Packet<F>,
    ports: Ports,
    words: W,
    segment: u16,
) -> Option<()> {
    let asked = words.load(word::ENDS) as u32;
    if packet.is_sctp() {
        // SCTP's checksum does not cover the addresses (RFC 9260, 6.8).
        return if packet.part == Part::Whole {
            methods::associate::<F, P>(frame, packet, asked)
        } else {
            Some(())
        };
    }
    if packet.part == Part::Later {
        return Some(());
    }
    let source = super::address::<F::Other, W>(words, word::SOURCE);
    let target = super::address::<F::Other, W>(words, word::TARGET);
    let after = checksum::add(F::Other::sum(source), F::Other::sum(target));
    let before = checksum::add(F::sum(packet.source), F::sum(packet.target));
    let mut header = frame.edit::<8>(packet.l4)?;
    let (given, check) = (header.view().u32::<0>(), header.view().u16::<6>());
    header.set_u32::<0>(asked);
    if !F::V6 && packet.protocol == UDP && check == 0 {
        return sum::<F, P>(frame, packet, after);
    }
    let delta = checksum::change(before, after);
    frame.carry(checksum_at(packet), delta, checksum::change(given, asked));
    if packet.protocol == TCP
        && ports.flags & tcp::SYN != 0
        && let Some(change) = clamp::lower(frame, packet, segment)
    {
        clamp::apply(frame, &change)?;
    }
    Some(())
}

/// Computes the checksum of a whole datagram, which IPv4 lets it go without (RFC 7915, 4.5).
#[inline(always)]
fn sum<F: Family, P: Frame>(frame: &mut P, packet: &Packet<F>, addresses: u32) -> Option<()> {
    let header = (packet.l4 as u32).wrapping_sub(packet.l3 as u32);
    let length = packet.length.wrapping_sub(header);
    let pseudo = ((length as u16).to_be() as u32).wrapping_add((UDP as u32) << 8);
    let all = frame.sum(packet.l4, length as usize)?;
    let sum = checksum::add(all, checksum::add(addresses, pseudo));
    let sum = match !checksum::fold(sum) {
        0 => 0xffff,
        sum => sum,
    };
    frame.edit::<8>(packet.l4)?.set_u16::<6>(sum);
    Some(())
}

/// Replaces the network header by one of the other family.
#[inline(always)]
fn network<F: Family, P: Frame, T: Tables>(
    frame: &mut P,
    tables: &T,
    packet: &Packet<F>,
    words: T::Words,
) -> Option<()> {
    let old = packet.l4.wrapping_sub(packet.l3);
    let length = packet.length.wrapping_sub(old as u32);
    let header = if F::V6 {
        said6(frame, tables, packet, length)?
    } else {
        said4(frame, packet, length)?
    };
    let new = needed(packet) as usize;
    if length.wrapping_add(new as u32) > 0xffff {
        return None;
    }
    let l3 = header::refit(frame, tables, packet.l3, (old, new), !F::V6)?;
    let [a, b] = [
        words.load(word::SOURCE),
        words.load(word::SOURCE.wrapping_add(1)),
    ];
    let [c, d] = [
        words.load(word::TARGET),
        words.load(word::TARGET.wrapping_add(1)),
    ];
    if F::V6 {
        header::write4(frame, l3, &header, a as u32, c as u32)
    } else {
        let is_cut = packet.part != Part::Whole;
        header::write6(frame, l3, &header, ([a, b], [c, d]), is_cut)
    }
}

/// The fields of an IPv4 header, for one of IPv6.
#[inline(always)]
fn said4<F: Family, P: Frame>(frame: &P, packet: &Packet<F>, length: u32) -> Option<Header> {
    let ip = frame.view::<20>(packet.l3)?;
    Some(Header {
        service: ip.u8::<1>(),
        ttl: packet.ttl.wrapping_sub(1),
        protocol: packet.protocol,
        length,
        identification: (ip.u16::<4>() as u32) << 16,
        cut: ip.u16::<6>(),
    })
}

/// The fields of an IPv6 header, for one of IPv4.
#[inline(always)]
fn said6<F: Family, P: Frame, T: Tables>(
    frame: &P,
    tables: &T,
    packet: &Packet<F>,
    length: u32,
) -> Option<Header> {
    let first = u16::from_be(frame.view::<40>(packet.l3)?.u16::<0>());
    let (identification, cut) = if packet.part != Part::Whole {
        // The fragment header is the last extension header.
        let fragment = frame.view::<8>(packet.l4.wrapping_sub(8))?;
        (fragment.u32::<4>(), header::cut4(fragment.u16::<2>()))
    } else {
        let segment = frame.segment() as u32;
        let each = if segment == 0 {
            length
        } else {
            segment.wrapping_add(20)
        };
        if each.wrapping_add(BYTES4) <= MAY_BE_CUT {
            (named(frame, tables, packet.l4)?, 0)
        } else {
            (0, WHOLE)
        }
    };
    Some(Header {
        service: (first >> 4) as u8,
        ttl: packet.ttl.wrapping_sub(1),
        protocol: packet.protocol,
        length,
        identification,
        cut,
    })
}

/// An identification hashed from the packet's content: two packets with the same one are nearly
/// always copies.
#[inline(always)]
fn named<P: Frame, T: Tables>(frame: &P, tables: &T, l4: usize) -> Option<u32> {
    let a = frame.view::<8>(l4)?.u64::<0>();
    let b = frame.view::<20>(l4).map_or(0, |head| head.u64::<12>());
    let mixed = hash::wide([a, b], 0, tables.shape().seed);
    Some((mixed as u32) << 16)
}
