//! The header between the outer IP header and the packet: none, GUE or GRE, and its checksum.

use crate::checksum;
use crate::family::{Family, V4, V6};
use crate::frame::{Frame, Transport};
use crate::link;
use crate::packet::{Packet, Part, UDP};

use crate::realserver::Knowledge;

use super::{GRE, INNER_V4, INNER_V6, sum_of};

/// The header that is there.
#[derive(Clone, Copy, Debug)]
pub struct Own {
    pub bytes: usize,
    pub inner_v6: bool,
    /// It has a checksum, over itself and the packet.
    pub summed: bool,
    /// It leaves a checksum to us.
    pub is_remote: bool,
    pub remote: Ends,
}

/// What a sender left to us: the packet's checksum from `start` on belongs to `field`, both from
/// the packet's first byte (draft-ietf-intarea-gue-extensions, 5.4.1).
#[derive(Clone, Copy, Debug, Default)]
pub struct Ends {
    start: u32,
    field: u32,
}

/// Reads the header behind an outer one.
#[inline(always)]
pub fn read<P: Frame>(frame: &P, protocol: u8, l4: usize, payload: u32) -> Option<Own> {
    match protocol {
        UDP => gue(frame, l4, payload),
        GRE => gre(frame, l4),
        protocol => Some(Own {
            bytes: 0,
            inner_v6: protocol == INNER_V6,
            summed: false,
            is_remote: false,
            remote: Ends::default(),
        }),
    }
}

/// A header as `tunnel::gue_header` draws it, with the one option that the kernel's IPVS sends:
/// flags of its own kind, and a remote checksum.
#[inline(always)]
fn gue<P: Frame>(frame: &P, l4: usize, payload: u32) -> Option<Own> {
    /// `GUE_FLAG_PRIV`, `GUE_PFLAG_REMCSUM` of the kernel.
    const PRIVATE: u16 = 0x0001u16.to_be();
    const REMOTE: u32 = 0x8000_0000u32.to_be();
    let header = frame.view::<12>(l4)?;
    let length = u16::from_be(header.u16::<4>()) as u32;
    let carried = header.u8::<9>();
    if length != payload || (carried != INNER_V4 && carried != INNER_V6) {
        return None;
    }
    let plain = Own {
        bytes: 12,
        inner_v6: carried == INNER_V6,
        summed: header.u16::<6>() != 0,
        is_remote: false,
        remote: Ends::default(),
    };
    // Version 0, data, and as many words of options as the flags ask for.
    match (header.u8::<8>(), header.u16::<10>()) {
        (0, 0) => Some(plain),
        (2, PRIVATE) => {
            let options = frame.view::<8>(l4.wrapping_add(12))?;
            if options.u32::<0>() != REMOTE {
                return None;
            }
            Some(Own {
                bytes: 20,
                is_remote: true,
                remote: Ends {
                    start: u16::from_be(options.u16::<4>()) as u32,
                    field: u16::from_be(options.u16::<6>()) as u32,
                },
                ..plain
            })
        }
        _ => None,
    }
}

/// RFC 2784: neither keys nor sequence numbers (RFC 2890), nor another version.
#[inline(always)]
fn gre<P: Frame>(frame: &P, l4: usize) -> Option<Own> {
    const CHECKSUM: u16 = 0x8000u16.to_be();
    let header = frame.view::<4>(l4)?;
    let (flags, carried) = (header.u16::<0>(), header.u16::<2>());
    let is_known = flags == 0 || flags == CHECKSUM;
    if !is_known || (carried != link::IPV4 && carried != link::IPV6) {
        return None;
    }
    Some(Own {
        bytes: if flags == CHECKSUM { 8 } else { 4 },
        inner_v6: carried == link::IPV6,
        summed: flags == CHECKSUM,
        is_remote: false,
        remote: Ends::default(),
    })
}

/// Whether the checksum of the tunnel is right, over its header and the `room` bytes from `at` on.
///
/// Where the packet within has a transport checksum, which the stack will look at, it stands for
/// the payload: nothing is summed twice.
#[inline(always)]
pub fn is_right<F: Family, P: Frame>(
    frame: &P,
    outer: &Packet<F>,
    own: &Own,
    l4: usize,
    at: usize,
    room: u32,
) -> bool {
    let before = at.wrapping_sub(l4);
    let Some(mut sum) = frame.sum(l4, before) else {
        return false;
    };
    if outer.protocol == UDP {
        let addresses = checksum::add(F::sum(outer.source), F::sum(outer.target));
        let length = room.wrapping_add(before as u32);
        let rest = ((length as u16).to_be() as u32).wrapping_add((UDP as u32) << 8);
        let pseudo = checksum::add(addresses, rest);
        // What a neighbour on this machine left to a device that was never there: the field holds
        // the pseudo-header alone.
        let field = frame.view::<8>(l4).map(|udp| udp.u16::<6>());
        if field == Some(checksum::fold(pseudo)) {
            return true;
        }
        sum = checksum::add(sum, pseudo);
    }
    match carried(frame, own, at, room) {
        Some(carried) => checksum::fold(checksum::add(sum, carried)) == 0xffff,
        None => false,
    }
}

/// The sum of the packet that is carried.
#[inline(always)]
fn carried<P: Frame>(frame: &P, own: &Own, at: usize, room: u32) -> Option<u32> {
    // What was left to us is not in the packet yet.
    if !own.is_remote {
        if own.inner_v6 {
            if let Some(packet) = plain6(frame, at, room) {
                return sum_of::<V6, P>(frame, &packet);
            }
        } else if let Some(packet) = plain4(frame, at, room) {
            return sum_of::<V4, P>(frame, &packet);
        }
    }
    frame.sum(at, room as usize)
}

/// A whole packet of `room` bytes without options.
#[inline(always)]
fn plain4<P: Frame>(frame: &P, at: usize, room: u32) -> Option<Packet<V4>> {
    const FRAGMENT: u16 = 0x3fffu16.to_be();
    let ip = frame.view::<20>(at)?;
    let length = u16::from_be(ip.u16::<2>()) as u32;
    if ip.u8::<0>() != 0x45 || ip.u16::<6>() & FRAGMENT != 0 || length != room {
        return None;
    }
    Some(Packet {
        l3: at,
        l4: at.wrapping_add(20),
        source: ip.u32::<12>(),
        target: ip.u32::<16>(),
        length,
        protocol: ip.u8::<9>(),
        ttl: ip.u8::<8>(),
        part: Part::Whole,
        offset: 0,
        fragment: 0,
        mac: 0,
        plain: false,
    })
}

/// The same of IPv6, without extension headers as far as a transport protocol says so.
#[inline(always)]
fn plain6<P: Frame>(frame: &P, at: usize, room: u32) -> Option<Packet<V6>> {
    let ip = frame.view::<40>(at)?;
    let length = (u16::from_be(ip.u16::<4>()) as u32).wrapping_add(40);
    if length != room {
        return None;
    }
    Some(Packet {
        l3: at,
        l4: at.wrapping_add(40),
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
    })
}

/// A transport checksum lies no further behind the packet's first byte.
const FURTHEST: u32 = 600;

impl Ends {
    /// Computes the checksum for a packet of `room` bytes at `at`; none if it lies elsewhere.
    #[inline(always)]
    pub fn sum<P: Frame>(self, frame: &P, at: usize, room: u32) -> Remote {
        let Ends { start, field } = self;
        if start > field || field > FURTHEST || field.wrapping_add(2) > room {
            return Remote::NONE;
        }
        let from = at.wrapping_add(start as usize);
        let place = at.wrapping_add(field as usize);
        let Some(sum) = frame.sum(from, room.wrapping_sub(start) as usize) else {
            return Remote::NONE;
        };
        let Some(old) = frame.sum(place, 2) else {
            return Remote::NONE;
        };
        Remote {
            field,
            // From what is there, the pseudo-header's sum, to the complement of it all.
            change: checksum::fold(checksum::add(sum, old)) as u32,
        }
    }
}

/// A checksum that was left to us: where, from the packet's first byte, and what it changes by.
#[derive(Clone, Copy, Debug)]
pub struct Remote {
    field: u32,
    change: u32,
}

impl Remote {
    /// Bytes that are not all zero sum to something.
    pub const NONE: Remote = Remote {
        field: 0,
        change: 0,
    };

    #[inline(always)]
    pub fn is_none(self) -> bool {
        self.change == 0
    }

    /// Puts it in place in the packet, which is at `l3` by then.
    #[inline(always)]
    pub fn put<P: Frame, K: Knowledge>(self, frame: &mut P, known: &K, l3: usize) {
        if self.is_none() {
            return;
        }
        // Said again for the kernel's verifier: it is below `FURTHEST`.
        let field = known.blur(self.field as usize) & 0x3ff;
        let transport = Transport {
            field: l3.wrapping_add(field),
            // A sum of zero is sent as all ones (RFC 768), which no other protocol minds.
            optional: true,
        };
        // The field changes and nothing that it sums does, as with addresses.
        frame.carry(transport, self.change, 0);
    }
}
