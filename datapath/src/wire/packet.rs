//! Parses a frame into a packet whose headers are all present, or gives the reason why it cannot.
//!
//! Nothing is changed here. Options and extension headers are skipped up to a limit. A packet
//! beyond the limit, or one that contradicts itself, is left to the kernel.

use super::checksum;
use super::frame::Frame;
use super::length;
pub use super::ports::Ports;
use super::sctp;
use super::version::{V4, V6, Version};
use crate::table::Tables;

/// ICMP's protocol number (RFC 792).
pub const ICMP: u8 = 1;
/// TCP's protocol number (RFC 9293).
pub const TCP: u8 = 6;
/// UDP's protocol number (RFC 768).
pub const UDP: u8 = 17;
/// ICMPv6's next header value (RFC 4443).
pub const ICMPV6: u8 = 58;
/// SCTP's protocol number (RFC 9260).
pub const SCTP: u8 = 132;

/// Which part of a datagram a packet carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// Not fragmented.
    Whole,
    /// The first fragment, which begins with the transport header.
    First,
    /// A later fragment: see [`Packet::offset`].
    Later,
}

/// The network layer of a packet.
#[derive(Clone, Copy, Debug)]
pub struct Packet<F: Version> {
    /// Offset of the network header in the frame, in bytes.
    pub l3: usize,
    /// Offset of the transport header in the frame, in bytes.
    pub l4: usize,
    /// The source address.
    pub source: F::Address,
    /// The destination address.
    pub target: F::Address,
    /// Bytes from the network header to the end of the packet.
    pub length: u32,
    /// Protocol number of the transport header.
    pub protocol: u8,
    /// TTL or hop limit.
    pub ttl: u8,
    /// Whether the packet is a fragment, and which.
    pub part: Part,
    /// Fragment offset in bytes.
    pub offset: u32,
    /// The identification that all fragments of a datagram share, in wire order.
    pub fragment: u32,
    /// The destination MAC address of a plain frame, in the low 48 bits.
    pub mac: u64,
    /// Known to be TCP or UDP, to the compiler too, so that such a packet pays nothing for other
    /// protocols.
    pub plain: bool,
}

impl<F: Version> Packet<F> {
    /// Whether no header can hold the packet's length.
    #[inline(always)]
    #[must_use]
    pub fn is_beyond(&self) -> bool {
        let header = if F::V6 { 40 } else { 0 };
        !self.plain && self.length > length::LONGEST.wrapping_add(header)
    }

    /// Whether the packet has a jumbo header. The kernel removes it when it cuts the frame, but not
    /// within a tunnel, where each segment would keep it and be dropped.
    #[inline(always)]
    #[must_use]
    pub fn is_jumbo(&self) -> bool {
        F::V6 && self.is_beyond() && self.l4.wrapping_sub(self.l3) > 40
    }

    /// Whether the packet is SCTP's. The compiler knows that a plain one is not.
    #[inline(always)]
    #[must_use]
    pub fn is_sctp(&self) -> bool {
        !self.plain && self.protocol == SCTP
    }
}

/// Why a packet could not be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unread {
    /// Too short, too long a chain of headers, or contradictory.
    NotUnderstood,
    /// The checksum of the IPv4 header is wrong.
    BadChecksum,
}

/// ```text
///  0                   1                   2                   3
///  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// |Version|  IHL  |Type of Service|          Total Length         |
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// |         Identification        |Flags|      Fragment Offset    |
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// |  Time to Live |    Protocol   |         Header Checksum       |
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// |                       Source Address                          |
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// |                    Destination Address                        |
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// ```
/// RFC 791, 3.1.
#[inline(always)]
pub fn parse4<P: Frame>(frame: &P, l3: usize) -> Result<Packet<V4>, Unread> {
    let ip = frame.view::<20>(l3).ok_or(Unread::NotUnderstood)?;
    let first = ip.u8::<0>();
    let header = ((first & 15) as usize) << 2;
    let room = frame.length().wrapping_sub(l3) as u32;
    let length = length::of(u16::from_be(ip.u16::<2>()) as u32, 0, room);
    if first >> 4 != 4 || header < 20 || length < header as u32 || length > room {
        return Err(Unread::NotUnderstood);
    }
    let sum = checksum::add(
        checksum::add(
            checksum::of_u64(ip.u64::<0>()),
            checksum::of_u64(ip.u64::<8>()),
        ),
        ip.u32::<16>(),
    );
    if header == 20 {
        if checksum::fold(sum) != 0xffff {
            return Err(Unread::BadChecksum);
        }
    } else {
        let options = frame.options(l3, header).ok_or(Unread::NotUnderstood)?;
        if checksum::fold(checksum::add(sum, options)) != 0xffff {
            return Err(Unread::BadChecksum);
        }
    }
    let fragmentation = u16::from_be(ip.u16::<6>());
    let offset = ((fragmentation & 0x1fff) as u32) << 3;
    Ok(Packet {
        l3,
        l4: l3.wrapping_add(header),
        source: ip.u32::<12>(),
        target: ip.u32::<16>(),
        length,
        protocol: ip.u8::<9>(),
        ttl: ip.u8::<8>(),
        part: if offset != 0 {
            Part::Later
        } else if fragmentation & 0x2000 != 0 {
            Part::First
        } else {
            Part::Whole
        },
        offset,
        fragment: ip.u16::<4>() as u32,
        mac: 0,
        plain: false,
    })
}

/// The checksum's sum over the options of an IPv4 header of `header` bytes: at most ten words.
#[inline(always)]
pub fn options<P: Frame>(frame: &P, l3: usize, header: usize) -> Option<u32> {
    let mut sum = 0;
    let mut at = 20usize;
    for _ in 0..10 {
        if at >= header {
            break;
        }
        let word = frame.view::<4>(l3.wrapping_add(at))?;
        sum = checksum::add(sum, word.u32::<0>());
        at = at.wrapping_add(4);
    }
    Some(sum)
}

/// Limit of the extension headers that are skipped.
const EXTENSIONS: usize = 6;
/// Limit of the bytes from the network header to the transport header.
const EXTENSION_BYTES: usize = 512;

const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
/// The fragment header's next header value (RFC 8200, 4.5).
pub const FRAGMENT: u8 = 44;
const DESTINATION: u8 = 60;

/// ```text
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// |Version| Traffic Class |           Flow Label                  |
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// |         Payload Length        |  Next Header  |   Hop Limit   |
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// |                 Source Address (128 bits)                     |
/// |               Destination Address (128 bits)                  |
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// ```
/// RFC 8200, 3.
#[inline(always)]
pub fn parse6<P: Frame, T: Tables>(frame: &P, tables: &T, l3: usize) -> Result<Packet<V6>, Unread> {
    let mut packet = read6(frame, l3)?;
    // The bound is checked again for the kernel's verifier, by a mask: before Linux 6.13 the
    // verifier does not derive the bounds of a number from the bounds of that number less 40.
    let behind = tables.blur(packet.l4.wrapping_sub(l3)) & (EXTENSION_BYTES.wrapping_sub(1));
    if behind < 40 {
        return Err(Unread::NotUnderstood);
    }
    packet.l4 = l3.wrapping_add(behind);
    Ok(packet)
}

/// [`parse6`] for programs so small that the verifier may track where the headers are.
#[inline(always)]
pub fn read6<P: Frame>(frame: &P, l3: usize) -> Result<Packet<V6>, Unread> {
    let ip = frame.view::<40>(l3).ok_or(Unread::NotUnderstood)?;
    let room = frame.length().wrapping_sub(l3) as u32;
    let length = length::of(u16::from_be(ip.u16::<4>()) as u32, 40, room);
    if ip.u8::<0>() >> 4 != 6 || length > room {
        return Err(Unread::NotUnderstood);
    }
    let mut packet = Packet {
        l3,
        l4: l3.wrapping_add(40),
        source: [ip.u64::<8>(), ip.u64::<16>()],
        target: [ip.u64::<24>(), ip.u64::<32>()],
        length,
        protocol: ip.u8::<6>(),
        ttl: ip.u8::<7>(),
        part: Part::Whole,
        offset: 0,
        fragment: 0,
        mac: 0,
        plain: false,
    };
    if packet.protocol != TCP && packet.protocol != UDP && packet.protocol != ICMPV6 {
        let extensions = Extensions(frame.extensions(l3, packet.protocol));
        let behind = extensions.behind();
        if behind == 0 || behind as u32 > length {
            return Err(Unread::NotUnderstood);
        }
        packet.l4 = l3.wrapping_add(behind);
        packet.protocol = extensions.protocol();
        packet.part = extensions.part();
        packet.offset = extensions.offset();
        packet.fragment = extensions.fragment();
    }
    Ok(packet)
}

/// The result of skipping extension headers, in one word, since a separate function of the kernel
/// returns it. From the top: 16 bits of fragment offset and flags, 8 bits for the offset of the
/// transport header in units of 8 bytes, 8 bits for its protocol, 32 bits of identification. 0 if
/// the headers were not understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extensions(pub u64);

impl Extensions {
    const NOT_UNDERSTOOD: Self = Self(0);

    /// Bytes from the network header to the transport header, 40 at least; 0 if not understood.
    #[inline(always)]
    fn behind(self) -> usize {
        (self.0 >> 37) as usize & (0xff << 3)
    }

    #[inline(always)]
    fn protocol(self) -> u8 {
        (self.0 >> 32) as u8
    }

    #[inline(always)]
    fn fragment(self) -> u32 {
        self.0 as u32
    }

    #[inline(always)]
    fn offset(self) -> u32 {
        (self.0 >> 48) as u32 & 0xfff8
    }

    #[inline(always)]
    fn part(self) -> Part {
        match (self.0 >> 48) as u32 {
            0 => Part::Whole,
            1 => Part::First,
            _ => Part::Later,
        }
    }
}

/// Skips the extension headers of the packet at `l3`. `first` is the first one's type.
#[inline(always)]
pub fn extensions<P: Frame>(frame: &P, l3: usize, first: u8) -> Extensions {
    let mut protocol = first;
    let mut at = 40usize;
    // The fragment offset, and the M flag as the lowest bit.
    let mut part = 0u16;
    let mut name = 0u32;
    for _ in 0..EXTENSIONS {
        let fragment = protocol == FRAGMENT;
        let plain = protocol == HOP_BY_HOP || protocol == ROUTING || protocol == DESTINATION;
        if !fragment && !plain {
            break;
        }
        if at > EXTENSION_BYTES {
            return Extensions::NOT_UNDERSTOOD;
        }
        let Some(header) = frame.view::<8>(l3.wrapping_add(at)) else {
            return Extensions::NOT_UNDERSTOOD;
        };
        protocol = header.u8::<0>();
        if fragment {
            // RFC 6946: an atomic fragment is a whole packet.
            part = u16::from_be(header.u16::<2>()) & 0xfff9;
            name = header.u32::<4>();
            at = at.wrapping_add(8);
            if part > 1 {
                part &= 0xfff8;
                break;
            }
        } else {
            at = at.wrapping_add(((header.u8::<1>() as usize).wrapping_add(1)) << 3);
        }
    }
    // The chain of extension headers goes beyond the limit.
    if protocol == HOP_BY_HOP
        || protocol == ROUTING
        || protocol == DESTINATION
        || at > EXTENSION_BYTES
    {
        return Extensions::NOT_UNDERSTOOD;
    }
    let place = (at as u64) << 37 | (protocol as u64) << 32;
    Extensions((part as u64) << 48 | place | name as u64)
}

/// Reads the transport header of a whole packet or a first fragment.
#[inline(always)]
pub fn ports<P: Frame, F: Version>(frame: &P, packet: &Packet<F>) -> Option<Ports> {
    let behind = (packet.l4 as u32).wrapping_sub(packet.l3 as u32);
    if packet.protocol == TCP {
        let tcp = frame.view::<20>(packet.l4)?;
        // RFC 9293, 3.1: the data offset counts words, five at least.
        let header = ((tcp.u8::<12>() >> 4) as u32) << 2;
        if header < 20 || behind.wrapping_add(header) > packet.length {
            return None;
        }
        Some(Ports {
            source: tcp.u16::<0>(),
            target: tcp.u16::<2>(),
            flags: tcp.u8::<13>(),
        })
    } else if packet.is_sctp() {
        sctp::ports(
            frame,
            packet.l4,
            packet.l3.wrapping_add(packet.length as usize),
        )
    } else {
        let udp = frame.view::<8>(packet.l4)?;
        if behind.wrapping_add(8) > packet.length {
            return None;
        }
        Some(Ports {
            source: udp.u16::<0>(),
            target: udp.u16::<2>(),
            flags: 0,
        })
    }
}

/// The place of the checksum in a TCP or UDP packet.
#[inline(always)]
pub fn checksum_at<F: Version>(packet: &Packet<F>) -> crate::wire::frame::Transport {
    if packet.protocol == TCP {
        crate::wire::frame::Transport {
            field: packet.l4.wrapping_add(16),
            optional: false,
        }
    } else {
        crate::wire::frame::Transport {
            field: packet.l4.wrapping_add(6),
            optional: true,
        }
    }
}
