//! The shim (RFC 9601): the header between the outer IP header and the packet, and its checksum.
//! IP in IP has none; the others are GUE and GRE.

use crate::table::family::{Family, V4, V6};
use crate::wire::checksum;
use crate::wire::frame::{Frame, Transport};
use crate::wire::link;
use crate::wire::packet::{Packet, Part, UDP};

use crate::realserver::Knowledge;

use super::{GRE, INNER_V4, INNER_V6, sum_of};

/// A shim header; 0 bytes for IP in IP.
#[derive(Clone, Copy, Debug)]
pub struct Shim {
    pub bytes: usize,
    pub inner_v6: bool,
    /// The header has a checksum over itself and the packet.
    pub summed: bool,
    /// The sender left the packet's transport checksum to this machine.
    pub is_remote: bool,
    pub remote: Ends,
}

/// Remote checksum offload (draft-ietf-intarea-gue-extensions, 5.4.1): the sum of the packet from
/// `start` on belongs into `field`. Both are offsets from the packet's first byte.
#[derive(Clone, Copy, Debug, Default)]
pub struct Ends {
    start: u32,
    field: u32,
}

/// Reads the header at `l4`, after the outer IP header; `None` if a director does not send such.
#[inline(always)]
pub fn read<P: Frame>(frame: &P, protocol: u8, l4: usize, payload: u32) -> Option<Shim> {
    match protocol {
        UDP => gue(frame, l4, payload),
        GRE => gre(frame, l4),
        protocol => Some(Shim {
            bytes: 0,
            inner_v6: protocol == INNER_V6,
            summed: false,
            is_remote: false,
            remote: Ends::default(),
        }),
    }
}

/// Reads a GUE header; `tunnel::gue_header` has the drawing. The only accepted option is the one
/// that the kernel's IPVS sends: private flags with remote checksum offload.
#[inline(always)]
fn gue<P: Frame>(frame: &P, l4: usize, payload: u32) -> Option<Shim> {
    // `GUE_FLAG_PRIV` and `GUE_PFLAG_REMCSUM` (include/net/gue.h).
    const PRIVATE: u16 = 0x0001u16.to_be();
    const REMOTE: u32 = 0x8000_0000u32.to_be();
    let header = frame.view::<12>(l4)?;
    let length = u16::from_be(header.u16::<4>()) as u32;
    let carried = header.u8::<9>();
    if length != payload || (carried != INNER_V4 && carried != INNER_V6) {
        return None;
    }
    let plain = Shim {
        bytes: 12,
        inner_v6: carried == INNER_V6,
        summed: header.u16::<6>() != 0,
        is_remote: false,
        remote: Ends::default(),
    };
    // Version 0, a data message, and as many words of options as the flags require.
    match (header.u8::<8>(), header.u16::<10>()) {
        (0, 0) => Some(plain),
        (2, PRIVATE) => {
            let options = frame.view::<8>(l4.wrapping_add(12))?;
            if options.u32::<0>() != REMOTE {
                return None;
            }
            Some(Shim {
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

/// Reads a GRE header (RFC 2784). `None` with a key or a sequence number (RFC 2890), or if the
/// version is not 0.
#[inline(always)]
fn gre<P: Frame>(frame: &P, l4: usize) -> Option<Shim> {
    const CHECKSUM: u16 = 0x8000u16.to_be();
    let header = frame.view::<4>(l4)?;
    let (flags, carried) = (header.u16::<0>(), header.u16::<2>());
    let is_known = flags == 0 || flags == CHECKSUM;
    if !is_known || (carried != link::IPV4 && carried != link::IPV6) {
        return None;
    }
    Some(Shim {
        bytes: if flags == CHECKSUM { 8 } else { 4 },
        inner_v6: carried == link::IPV6,
        summed: flags == CHECKSUM,
        is_remote: false,
        remote: Ends::default(),
    })
}

/// Whether the tunnel's checksum over its header and the `room` bytes from `at` on is right.
///
/// If the inner packet has a transport checksum, that checksum gives the sum of the payload. The
/// kernel verifies it later, so that no payload is summed twice.
#[inline(always)]
pub fn is_right<F: Family, P: Frame>(
    frame: &P,
    outer: &Packet<F>,
    shim: &Shim,
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
        // A sender on this machine left the checksum to a device, and the packet never passed one:
        // the field holds only the pseudo-header's sum.
        let field = frame.view::<8>(l4).map(|udp| udp.u16::<6>());
        if field == Some(checksum::fold(pseudo)) {
            return true;
        }
        sum = checksum::add(sum, pseudo);
    }
    match carried(frame, shim, at, room) {
        Some(carried) => checksum::fold(checksum::add(sum, carried)) == 0xffff,
        None => false,
    }
}

/// The sum of the inner packet.
#[inline(always)]
fn carried<P: Frame>(frame: &P, shim: &Shim, at: usize, room: u32) -> Option<u32> {
    // With remote checksum offload, the packet does not have its transport checksum yet.
    if !shim.is_remote {
        if shim.inner_v6 {
            if let Some(packet) = plain6(frame, at, room) {
                return sum_of::<V6, P>(frame, &packet);
            }
        } else if let Some(packet) = plain4(frame, at, room) {
            return sum_of::<V4, P>(frame, &packet);
        }
    }
    frame.sum(at, room as usize)
}

/// An IPv4 packet of exactly `room` bytes, without options and no fragment.
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

/// An IPv6 packet of exactly `room` bytes. Extension headers are not read: [`sum_of`] knows only
/// transport protocols.
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

/// The largest accepted offset of a transport checksum from the packet's first byte.
const FURTHEST: u32 = 600;

impl Ends {
    /// Computes the checksum for a packet of `room` bytes at `at`; [`Remote::NONE`] if the offsets
    /// are not within the packet.
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
            // The field changes from the pseudo-header's sum to the complement of the whole sum.
            change: checksum::fold(checksum::add(sum, old)) as u32,
        }
    }
}

/// A transport checksum to fill in: its offset from the packet's first byte, and its change.
#[derive(Clone, Copy, Debug)]
pub struct Remote {
    field: u32,
    change: u32,
}

impl Remote {
    /// No checksum. The change of a real one is not 0: bytes that are not all zero have a sum that
    /// is not 0.
    pub const NONE: Remote = Remote {
        field: 0,
        change: 0,
    };

    #[inline(always)]
    pub fn is_none(self) -> bool {
        self.change == 0
    }

    /// Writes the checksum into the decapsulated packet, which begins at `l3`.
    #[inline(always)]
    pub fn put<P: Frame, K: Knowledge>(self, frame: &mut P, known: &K, l3: usize) {
        if self.is_none() {
            return;
        }
        // The mask repeats for the kernel's verifier that the offset is at most `FURTHEST`.
        let field = known.blur(self.field as usize) & 0x3ff;
        let transport = Transport {
            field: l3.wrapping_add(field),
            // UDP sends a sum of zero as all ones (RFC 768); both are the same sum to other
            // protocols.
            optional: true,
        };
        // Only the field changes, not the bytes that it covers, as when addresses change.
        frame.carry(transport, self.change, 0);
    }
}
