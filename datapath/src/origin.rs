//! Endpoints for packets from somewhere: from a network of clients, by a device, or both.
//!
//! Only where rules ask for an origin does the walk come here, and only with a packet that no
//! ordinary endpoint is for. The narrowest rule counts: that of the port before that of every
//! port, that of the device before that of any, and then that of the longest prefix.

use crate::entry::{NONE, kind, with_port};
use crate::family::Family;
use crate::frame::Frame;
use crate::packet::Packet;
use crate::reread::reread;
use crate::tables::Tables;

/// Endpoints of packets from somewhere, at the most.
pub const ORIGINS: u32 = 65_536;

/// Where else a packet's endpoint is looked for, if there is none of just its address and port.
pub mod lookup {
    /// Among the endpoints of every port.
    pub const EVERY_PORT: u32 = 1;
    /// Among those of packets from somewhere, by their port.
    pub const ORIGIN_PORT: u32 = 2;
    /// And by no port.
    pub const ORIGIN_EVERY_PORT: u32 = 4;
    /// Some of these mind the device.
    pub const ORIGIN_DEVICE: u32 = 8;
}

/// What an endpoint of packets from somewhere is found by: the longest prefix of the source.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct OriginKey {
    /// How many bits of what follows are asked for: all.
    pub bits: u32,
    /// [`crate::entry::endpoint_word`].
    pub word: u32,
    /// The device by its index, 0 for any; [`OriginKey::V6`] is set for IPv6.
    pub interface: u32,
    pub reserved: u32,
    /// Wire order; IPv4 in the first four bytes, as in the source.
    pub target: [u64; 2],
    pub source: [u64; 2],
}
const _: () = assert!(size_of::<OriginKey>() == 4 + OriginKey::BYTES);

impl OriginKey {
    pub const V6: u32 = 1 << 31;
    /// Bits before those of the source.
    pub const FIXED: u32 = 224;
    /// All bits, as a packet has them.
    pub const BITS: u32 = 352;
    pub const BYTES: usize = 44;

    /// As the kernel compares it: byte by byte from the first.
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

/// The endpoint for this frame, whose ports make this word: of somewhere, or else of every port; or
/// [`NONE`]. The frame is read anew: in
/// the kernel this is a function of its own.
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
    // Most packets here are for nobody, and this is the cheapest way to know.
    let address = word & 0x00ff_0000 | (kind::ADDRESS as u32) << 24;
    if F::endpoint(tables, target, address) == NONE {
        return NONE;
    }
    let mut key = OriginKey::new::<F>(target, word, source, interface);
    if settings.wide & lookup::ORIGIN_PORT != 0 {
        let id = by_device(tables, settings.wide, &mut key);
        if id != NONE {
            return id;
        }
    }
    if settings.wide & lookup::ORIGIN_EVERY_PORT == 0 {
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
    if wide & lookup::ORIGIN_DEVICE != 0 {
        let id = tables.origin(key);
        if id != NONE {
            return id;
        }
    }
    key.interface &= OriginKey::V6;
    tables.origin(key)
}
