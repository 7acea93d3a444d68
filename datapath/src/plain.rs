//! Plain frames: untagged, with a whole TCP or UDP packet without options or extension headers.
//!
//! Every header lies at a place that the compiler knows. So all of them are read in one stretch of
//! the frame, and link and network header are written in one.

use crate::table::entry::Ways;
use crate::table::family::{Family, V4, V6};
use crate::verdict::{Drop, Word};
use crate::wire::checksum;
use crate::wire::frame::{Edit, Frame};
use crate::wire::link;
use crate::wire::packet::{Packet, Part, Ports, TCP, UDP, checksum_at};

const L3: usize = link::HEADER;
/// Both headers, without options.
const HEADERS4: usize = L3.saturating_add(20);
const HEADERS6: usize = L3.saturating_add(40);
/// Both, and the ports behind them.
const PORTS4: usize = HEADERS4.saturating_add(4);
const PORTS6: usize = HEADERS6.saturating_add(4);
/// The change of a checksum by a TTL that became one less: [`checksum::change_u16`] of the word
/// whose first byte on the wire it is.
const ONE_LESS: u32 = 0xfffe;

/// Bytes of the headers, without options (RFC 768; RFC 9293, 3.1).
const UDP_HEADER: usize = 8;
const TCP_HEADER: usize = 20;

/// Parses an untagged frame with a whole TCP or UDP packet without options. `None` for every other
/// frame and every error: [`crate::wire::packet::parse4`] knows what it is.
#[inline(always)]
pub fn read4<P: Frame>(frame: &P) -> Option<(Packet<V4>, Ports)> {
    const FRAGMENT: u16 = 0x3fffu16.to_be();
    let ip = frame.view::<{ HEADERS4.saturating_add(UDP_HEADER) }>(0)?;
    let length = u16::from_be(ip.u16::<{ L3.saturating_add(2) }>()) as u32;
    let room = frame.length().wrapping_sub(L3) as u32;
    let fragmentation = ip.u16::<{ L3.saturating_add(6) }>();
    let protocol = ip.u8::<{ L3.saturating_add(9) }>();
    if ip.u16::<12>() != link::IPV4
        || ip.u8::<L3>() != 0x45
        || fragmentation & FRAGMENT != 0
        || protocol != TCP && protocol != UDP
        || length < 20
        || length > room
    {
        return None;
    }
    let source = ip.u32::<{ L3.saturating_add(12) }>();
    let target = ip.u32::<{ L3.saturating_add(16) }>();
    // Five words of 32 bits do not overflow 64: the carries are folded in once.
    let sum = (ip.u32::<L3>() as u64)
        .wrapping_add(ip.u32::<{ L3.saturating_add(4) }>() as u64)
        .wrapping_add(ip.u32::<{ L3.saturating_add(8) }>() as u64)
        .wrapping_add(source as u64)
        .wrapping_add(target as u64);
    let sum = (sum & 0xffff_ffff).wrapping_add(sum >> 32);
    let sum = (sum & 0xffff).wrapping_add(sum >> 16);
    let sum = (sum & 0xffff).wrapping_add(sum >> 16);
    if sum != 0xffff {
        return None;
    }
    let (both, tcp) = (
        ip.u32::<HEADERS4>(),
        frame.view::<{ HEADERS4.saturating_add(TCP_HEADER) }>(0),
    );
    let state = tcp.map(|tcp| tcp.u16::<{ HEADERS4.saturating_add(12) }>());
    let ports = ports(protocol, both, state, length.wrapping_sub(20))?;
    let packet = Packet {
        l3: L3,
        l4: HEADERS4,
        source,
        target,
        length,
        protocol,
        ttl: ip.u8::<{ L3.saturating_add(8) }>(),
        part: Part::Whole,
        offset: 0,
        fragment: 0,
        mac: ip.u64::<0>(),
        plain: true,
    };
    Some((packet, ports))
}

/// [`read4`] for IPv6: a whole TCP or UDP packet without extension headers.
#[inline(always)]
pub fn read6<P: Frame>(frame: &P) -> Option<(Packet<V6>, Ports)> {
    let ip = frame.view::<{ HEADERS6.saturating_add(UDP_HEADER) }>(0)?;
    let length = (u16::from_be(ip.u16::<{ L3.saturating_add(4) }>()) as u32).wrapping_add(40);
    let room = frame.length().wrapping_sub(L3) as u32;
    let protocol = ip.u8::<{ L3.saturating_add(6) }>();
    if ip.u16::<12>() != link::IPV6
        || ip.u8::<L3>() >> 4 != 6
        || protocol != TCP && protocol != UDP
        // 41 to `room` bytes: what says that it has no payload may be beyond 64 kB.
        || length.wrapping_sub(41) >= room.wrapping_sub(40)
    {
        return None;
    }
    let (both, tcp) = (
        ip.u32::<HEADERS6>(),
        frame.view::<{ HEADERS6.saturating_add(TCP_HEADER) }>(0),
    );
    let state = tcp.map(|tcp| tcp.u16::<{ HEADERS6.saturating_add(12) }>());
    let ports = ports(protocol, both, state, length.wrapping_sub(40))?;
    let packet = Packet {
        l3: L3,
        l4: HEADERS6,
        source: [
            ip.u64::<{ L3.saturating_add(8) }>(),
            ip.u64::<{ L3.saturating_add(16) }>(),
        ],
        target: [
            ip.u64::<{ L3.saturating_add(24) }>(),
            ip.u64::<{ L3.saturating_add(32) }>(),
        ],
        length,
        protocol,
        ttl: ip.u8::<{ L3.saturating_add(7) }>(),
        part: Part::Whole,
        offset: 0,
        fragment: 0,
        mac: ip.u64::<0>(),
        plain: true,
    };
    Some((packet, ports))
}

/// The ports of a packet: [`crate::wire::packet::ports`]. `both` are the first four bytes of its
/// transport header, `state` the two that hold the length of a TCP header and its flags, where
/// there is room for one. `length` are the packet's bytes from there on.
#[inline(always)]
fn ports(protocol: u8, both: u32, state: Option<u16>, length: u32) -> Option<Ports> {
    let (header, flags) = if protocol == TCP {
        let state = state?;
        ((state as u32 & 0xf0) >> 2, (state >> 8) as u8)
    } else {
        (8, 0)
    };
    if protocol == TCP && header < 20 || header > length {
        return None;
    }
    Some(Ports {
        source: both as u16,
        target: (both >> 16) as u16,
        flags,
    })
}

/// Sends a frame on its way, with its TTL one less.
#[inline(always)]
pub fn send<F: Family, P: Frame>(frame: &mut P, ways: &Ways) -> Word {
    let sent = if F::V6 {
        frame.edit::<HEADERS6>(0).map(|mut headers| {
            address(&mut headers, ways);
            let limit = headers.view().u8::<{ L3.saturating_add(7) }>();
            headers.set_u8::<{ L3.saturating_add(7) }>(limit.wrapping_sub(1));
        })
    } else {
        frame.edit::<HEADERS4>(0).map(|mut headers| {
            address(&mut headers, ways);
            let ttl = headers.view().u8::<{ L3.saturating_add(8) }>();
            let sum = headers.view().u16::<{ L3.saturating_add(10) }>();
            headers.set_u8::<{ L3.saturating_add(8) }>(ttl.wrapping_sub(1));
            headers.set_u16::<{ L3.saturating_add(10) }>(one_less(sum));
        })
    };
    match sent {
        Some(()) => Word::send(ways.interface),
        None => Word::drop(Drop::NoRoom),
    }
}

/// Which address and port are rewritten, and to what. Ports in wire order; 0 keeps the packet's
/// port.
#[derive(Clone, Copy, Debug)]
pub enum Side<F: Family> {
    Source(F::Address, u16),
    Target(F::Address, u16),
}

/// Rewrites one address and port of a frame, and sends it on its way with its TTL one less. The
/// deltas are the changes of a checksum by the address and by the port.
#[inline(always)]
pub fn rewrite<F: Family, P: Frame>(
    frame: &mut P,
    packet: &Packet<F>,
    side: Side<F>,
    (address_delta, port_delta): (u32, u32),
    ways: &Ways,
) -> Word {
    frame.carry(checksum_at(packet), address_delta, port_delta);
    let sent = if F::V6 {
        frame.edit::<PORTS6>(0).map(|mut headers| {
            address(&mut headers, ways);
            let limit = headers.view().u8::<{ L3.saturating_add(7) }>();
            headers.set_u8::<{ L3.saturating_add(7) }>(limit.wrapping_sub(1));
            match side {
                Side::Source(address, port) => {
                    let [a, b] = F::words(address);
                    headers.set_u64::<{ L3.saturating_add(8) }>(a);
                    headers.set_u64::<{ L3.saturating_add(16) }>(b);
                    if port != 0 {
                        headers.set_u16::<HEADERS6>(port);
                    }
                }
                Side::Target(address, port) => {
                    let [a, b] = F::words(address);
                    headers.set_u64::<{ L3.saturating_add(24) }>(a);
                    headers.set_u64::<{ L3.saturating_add(32) }>(b);
                    if port != 0 {
                        headers.set_u16::<{ HEADERS6.saturating_add(2) }>(port);
                    }
                }
            }
        })
    } else {
        frame.edit::<PORTS4>(0).map(|mut headers| {
            address(&mut headers, ways);
            let ttl = headers.view().u8::<{ L3.saturating_add(8) }>();
            let sum = headers.view().u16::<{ L3.saturating_add(10) }>();
            headers.set_u8::<{ L3.saturating_add(8) }>(ttl.wrapping_sub(1));
            let delta = checksum::add(address_delta, ONE_LESS);
            headers.set_u16::<{ L3.saturating_add(10) }>(checksum::update(sum, delta));
            match side {
                Side::Source(address, port) => {
                    headers.set_u32::<{ L3.saturating_add(12) }>(F::words(address)[0] as u32);
                    if port != 0 {
                        headers.set_u16::<HEADERS4>(port);
                    }
                }
                Side::Target(address, port) => {
                    headers.set_u32::<{ L3.saturating_add(16) }>(F::words(address)[0] as u32);
                    if port != 0 {
                        headers.set_u16::<{ HEADERS4.saturating_add(2) }>(port);
                    }
                }
            }
        })
    };
    match sent {
        Some(()) => Word::send(ways.interface),
        None => Word::drop(Drop::NoRoom),
    }
}

/// Writes the MAC addresses of a way: [`link::address`].
#[inline(always)]
fn address<const N: usize>(headers: &mut Edit<'_, N>, ways: &Ways) {
    headers.set_u64::<0>((ways.target & 0xffff_ffff_ffff) | ways.source << 48);
    headers.set_u32::<8>((ways.source >> 16) as u32);
}

/// The checksum of an IPv4 header whose TTL, the first byte of its word on the wire, became one
/// less: RFC 1624, equation 3, for this one change.
#[inline(always)]
#[must_use]
pub fn one_less(sum: u16) -> u16 {
    let sum = (sum as u32).wrapping_add(1);
    sum.wrapping_add((sum >= 0xffff) as u32) as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ttl_that_is_one_less_changes_the_checksum_as_rfc_1624_has_it() {
        for sum in 0..=u16::MAX {
            let change = checksum::change_u16(0x0640, 0x063f);

            assert_eq!(change, ONE_LESS);
            assert_eq!(one_less(sum), checksum::update(sum, change));
        }
    }
}
