//! Endpoints that also match the origin of a packet: a network of clients, an input device, or
//! both.
//!
//! The walk looks here only if rules ask for an origin, and only for a packet that matches no
//! ordinary endpoint. The narrowest rule wins: first a port before every port, then a device before
//! any device, then the longest prefix of the source.

use crate::entry::{NONE, kind, with_port};
use crate::family::Family;
use crate::frame::Frame;
use crate::packet::Packet;
use crate::reread::reread;
use crate::tables::Tables;

/// Limit of the endpoints that match an origin.
pub const ORIGINS: u32 = 65_536;

/// Bits of `Settings::wide`: further look-ups for a packet whose address and port have no endpoint.
pub mod wide_flag {
    /// Some endpoints stand for every port.
    pub const EVERY_PORT: u32 = 1;
    /// Some endpoints match a port and an origin.
    pub const ORIGIN_PORT: u32 = 2;
    /// Some endpoints match every port and an origin.
    pub const ORIGIN_EVERY_PORT: u32 = 4;
    /// Some endpoints match an input device.
    pub const ORIGIN_DEVICE: u32 = 8;
}

/// The key of an endpoint that matches an origin, in a table by longest prefix
/// (`BPF_MAP_TYPE_LPM_TRIE`).
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct OriginKey {
    /// Length of the prefix in bits, over all fields that follow. A packet asks for
    /// [`OriginKey::BITS`].
    pub bits: u32,
    /// Port, protocol and kind: [`crate::entry::endpoint_word`].
    pub word: u32,
    /// Index of the input device, 0 for any. [`OriginKey::V6`] is set for IPv6.
    pub interface: u32,
    /// Zero.
    pub reserved: u32,
    /// The destination address in wire order; IPv4 in the first four bytes.
    pub target: [u64; 2],
    /// The prefix of the source address in wire order; IPv4 in the first four bytes.
    pub source: [u64; 2],
}
const _: () = assert!(size_of::<OriginKey>() == 4 + OriginKey::BYTES);

impl OriginKey {
    /// Set in [`OriginKey::interface`] for IPv6.
    pub const V6: u32 = 1 << 31;
    /// Bits before the source, which every prefix has in full.
    pub const FIXED: u32 = 224;
    /// Bits of a whole key, as a packet asks for.
    pub const BITS: u32 = 352;
    /// Bytes of a whole key without [`OriginKey::bits`].
    pub const BYTES: usize = 44;

    /// The key in the order of bytes in which the kernel compares it.
    #[must_use]
    pub fn bytes(&self) -> [u8; Self::BYTES] {
        let fixed = [self.word, self.interface, self.reserved].into_iter();
        let addresses = self.target.into_iter().chain(self.source);
        let all = fixed
            .flat_map(u32::to_ne_bytes)
            .chain(addresses.flat_map(u64::to_ne_bytes));
        let mut bytes = [0; Self::BYTES];
        for (place, byte) in bytes.iter_mut().zip(all) {
            *place = byte;
        }
        bytes
    }

    /// The key that a packet with this `endpoint_word`, source and input device asks for.
    #[inline(always)]
    #[must_use]
    pub fn new<F: Family>(
        target: F::Address,
        word: u32,
        source: F::Address,
        interface: u32,
    ) -> Self {
        Self {
            bits: Self::BITS,
            word,
            interface: if F::V6 {
                interface | Self::V6
            } else {
                interface
            },
            reserved: 0,
            target: F::words(target),
            source: F::words(source),
        }
    }
}

/// The endpoint that matches the origin of this frame, else the endpoint of every port, else
/// [`NONE`]. `word` is the [`crate::entry::endpoint_word`] of the frame. Parses the frame again: in
/// the kernel this is a separate function.
#[inline(always)]
pub fn of_frame<P: Frame, T: Tables>(frame: &P, tables: &T, word: u32) -> u32 {
    let interface = frame.interface();
    reread!(
        frame,
        tables,
        |packet: F| or_wide::<F, T>(tables, &packet, word, interface),
        NONE
    )
}

#[inline(always)]
fn or_wide<F: Family, T: Tables>(tables: &T, packet: &Packet<F>, word: u32, interface: u32) -> u32 {
    match F::origin(tables, packet.target, word, packet.source, interface) {
        NONE => F::wide(tables, packet.target, word),
        id => id,
    }
}

/// The endpoint of a target for packets from this source and interface, or [`NONE`].
#[inline(always)]
pub fn find<F: Family, T: Tables>(
    tables: &T,
    target: F::Address,
    word: u32,
    source: F::Address,
    interface: u32,
) -> u32 {
    let Some(settings) = tables.settings() else {
        return NONE;
    };
    // Most packets that come here match no endpoint, and this look-up is the cheapest way to know.
    let address = word & 0x00ff_0000 | (kind::ADDRESS as u32) << 24;
    if F::endpoint(tables, target, address) == NONE {
        return NONE;
    }
    let mut key = OriginKey::new::<F>(target, word, source, interface);
    if settings.wide & wide_flag::ORIGIN_PORT != 0 {
        let id = by_device(tables, settings.wide, &mut key);
        if id != NONE {
            return id;
        }
    }
    if settings.wide & wide_flag::ORIGIN_EVERY_PORT == 0 {
        return NONE;
    }
    let mut key = OriginKey::new::<F>(target, word & !0xffff, source, interface);
    match by_device(tables, settings.wide, &mut key) {
        NONE => NONE,
        id => with_port(id, word as u16),
    }
}

#[inline(always)]
fn by_device<T: Tables>(tables: &T, wide: u32, key: &mut OriginKey) -> u32 {
    if wide & wide_flag::ORIGIN_DEVICE != 0 {
        let id = tables.origin(key);
        if id != NONE {
            return id;
        }
    }
    key.interface &= OriginKey::V6;
    tables.origin(key)
}
