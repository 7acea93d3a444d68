//! Endpoints that also match the origin of a packet ([`crate::origin`]).

use crate::wire::version::Version;

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
    /// Port, protocol and kind: [`crate::table::entry::endpoint_word`].
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
    pub fn new<F: Version>(
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
