//! The differences between IPv4 and IPv6, as a type parameter of the walk.

use crate::checksum;
use crate::entry::{Bucket4, Bucket6, NONE};
use crate::flows::{Key, Layout, Narrow, Wide};
use crate::hash;
use crate::tables::Tables;

/// An address family.
pub trait Family: Copy {
    /// An address in wire order.
    type Address: Copy + PartialEq;
    /// The layout of flows.
    type Layout: Layout;
    /// The other family.
    type Other: Family;
    /// Whether the family is IPv6.
    const V6: bool;
    /// Bytes of the fixed IP header.
    const HEADER: usize;

    /// The key of a flow; `address` and `port` are the client's, in wire order.
    fn key(address: Self::Address, port: u16, endpoint: u32) -> Key;
    /// A bucket of flows.
    fn bucket<T: Tables>(tables: &T, index: u32) -> Option<T::Words>;
    /// The number of buckets of flows minus one.
    fn flow_mask<T: Tables>(tables: &T) -> u32;
    /// The word of [`crate::region`] that shows whether a region of the flows may have entries.
    fn occupied<T: Tables>(tables: &T, region: u32) -> Option<T::Words>;
    /// [`crate::track::cheapest`].
    fn cheapest<T: Tables>(tables: &T, hash: u64) -> u64;
    /// [`crate::lookup::wide`].
    fn wide<T: Tables>(tables: &T, address: Self::Address, word: u32) -> u32;
    /// [`crate::origin::find`].
    fn origin<T: Tables>(
        tables: &T,
        target: Self::Address,
        word: u32,
        source: Self::Address,
        interface: u32,
    ) -> u32;
    /// [`crate::template::recall`].
    fn recall<T: Tables>(tables: &T, service: u32, client: Self::Address, server: u32) -> u32;
    /// The id of an endpoint, or [`NONE`].
    fn endpoint<T: Tables>(tables: &T, address: Self::Address, word: u32) -> u32;
    /// The address as two words; IPv4 in the low half of the first.
    fn words(address: Self::Address) -> [u64; 2];
    /// The address from two words: the inverse of [`Family::words`].
    fn from_words(words: [u64; 2]) -> Self::Address;
    /// The address as schedulers hash it, in host order: an IPv6 address is the XOR of its four
    /// 32-bit words.
    fn folded(address: Self::Address) -> u32;
    /// The address's share in a checksum.
    fn sum(address: Self::Address) -> u32;
    /// Whether a client can have this address.
    fn may_be_client(address: Self::Address) -> bool;
    /// The hop that leads to a client, or 0: [`Tables::route4`] or [`Tables::route6`].
    fn route<T: Tables>(tables: &T, address: Self::Address) -> u32;
    /// The loopback address.
    fn loopback() -> Self::Address;
}

/// IPv4.
#[derive(Clone, Copy, Debug)]
pub struct V4;
/// IPv6.
#[derive(Clone, Copy, Debug)]
pub struct V6;

/// The hash of an IPv4 endpoint: address and `word` together are one 64-bit word.
#[inline(always)]
#[must_use]
pub fn endpoint_hash4(address: u32, word: u32, seed: u64) -> u64 {
    hash::narrow(address as u64 | (word as u64) << 32, 0, seed)
}

/// The hash of an IPv6 endpoint.
#[inline(always)]
#[must_use]
pub fn endpoint_hash6(address: [u64; 2], word: u32, seed: u64) -> u64 {
    hash::wide(address, word as u64, seed)
}

impl Family for V4 {
    type Address = u32;
    type Layout = Narrow;
    type Other = V6;
    const V6: bool = false;
    const HEADER: usize = 20;

    #[inline(always)]
    fn key(address: u32, port: u16, endpoint: u32) -> Key {
        Key::v4(address, port, endpoint)
    }

    #[inline(always)]
    fn bucket<T: Tables>(tables: &T, index: u32) -> Option<T::Words> {
        tables.flows4(index)
    }

    #[inline(always)]
    fn flow_mask<T: Tables>(tables: &T) -> u32 {
        tables.shape().flow4_mask
    }

    #[inline(always)]
    fn occupied<T: Tables>(tables: &T, region: u32) -> Option<T::Words> {
        tables.occupied4(region)
    }

    #[inline(always)]
    fn cheapest<T: Tables>(tables: &T, hash: u64) -> u64 {
        tables.cheapest4(hash)
    }

    #[inline(always)]
    fn wide<T: Tables>(tables: &T, address: u32, word: u32) -> u32 {
        tables.wide4(address, word)
    }

    #[inline(always)]
    fn origin<T: Tables>(tables: &T, target: u32, word: u32, source: u32, interface: u32) -> u32 {
        tables.origin4(target, word, source, interface)
    }

    #[inline(always)]
    fn recall<T: Tables>(tables: &T, service: u32, client: u32, server: u32) -> u32 {
        tables.recall4(service, client, server)
    }

    #[inline(always)]
    fn endpoint<T: Tables>(tables: &T, address: u32, word: u32) -> u32 {
        let shape = tables.shape();
        let mixed = endpoint_hash4(address, word, shape.seed);
        let Some(bucket) = tables.endpoint4(hash::first(mixed, shape.endpoint4_mask)) else {
            return NONE;
        };
        let (id, full) = endpoint_in4(bucket, address, word);
        if id != NONE || !full {
            return id;
        }
        match tables.endpoint4(hash::second(mixed, shape.endpoint4_mask)) {
            Some(bucket) => endpoint_in4(bucket, address, word).0,
            None => NONE,
        }
    }

    #[inline(always)]
    fn words(address: u32) -> [u64; 2] {
        [address as u64, 0]
    }

    #[inline(always)]
    fn from_words(words: [u64; 2]) -> u32 {
        words[0] as u32
    }

    #[inline(always)]
    fn folded(address: u32) -> u32 {
        u32::from_be(address)
    }

    #[inline(always)]
    fn sum(address: u32) -> u32 {
        address
    }

    #[inline(always)]
    fn may_be_client(address: u32) -> bool {
        let high = u32::from_be(address) >> 24;
        high != 0 && high != 127 && high < 224
    }

    #[inline(always)]
    fn route<T: Tables>(tables: &T, address: u32) -> u32 {
        tables.route4(address)
    }

    #[inline(always)]
    fn loopback() -> u32 {
        0x7f00_0001u32.to_be()
    }
}

impl Family for V6 {
    type Address = [u64; 2];
    type Layout = Wide;
    type Other = V4;
    const V6: bool = true;
    const HEADER: usize = 40;

    #[inline(always)]
    fn key(address: [u64; 2], port: u16, endpoint: u32) -> Key {
        Key::v6(address, port, endpoint)
    }

    #[inline(always)]
    fn bucket<T: Tables>(tables: &T, index: u32) -> Option<T::Words> {
        tables.flows6(index)
    }

    #[inline(always)]
    fn flow_mask<T: Tables>(tables: &T) -> u32 {
        tables.shape().flow6_mask
    }

    #[inline(always)]
    fn occupied<T: Tables>(tables: &T, region: u32) -> Option<T::Words> {
        tables.occupied6(region)
    }

    #[inline(always)]
    fn cheapest<T: Tables>(tables: &T, hash: u64) -> u64 {
        tables.cheapest6(hash)
    }

    #[inline(always)]
    fn wide<T: Tables>(tables: &T, address: [u64; 2], word: u32) -> u32 {
        tables.wide6(address, word)
    }

    #[inline(always)]
    fn origin<T: Tables>(
        tables: &T,
        target: [u64; 2],
        word: u32,
        source: [u64; 2],
        interface: u32,
    ) -> u32 {
        tables.origin6(target, word, source, interface)
    }

    #[inline(always)]
    fn recall<T: Tables>(tables: &T, service: u32, client: [u64; 2], server: u32) -> u32 {
        tables.recall6(service, client, server)
    }

    #[inline(always)]
    fn endpoint<T: Tables>(tables: &T, address: [u64; 2], word: u32) -> u32 {
        let shape = tables.shape();
        let mixed = endpoint_hash6(address, word, shape.seed);
        let Some(bucket) = tables.endpoint6(hash::first(mixed, shape.endpoint6_mask)) else {
            return NONE;
        };
        let (id, full) = endpoint_in6(bucket, address, word);
        if id != NONE || !full {
            return id;
        }
        match tables.endpoint6(hash::second(mixed, shape.endpoint6_mask)) {
            Some(bucket) => endpoint_in6(bucket, address, word).0,
            None => NONE,
        }
    }

    #[inline(always)]
    fn words(address: [u64; 2]) -> [u64; 2] {
        address
    }

    #[inline(always)]
    fn from_words(words: [u64; 2]) -> [u64; 2] {
        words
    }

    #[inline(always)]
    fn folded(address: [u64; 2]) -> u32 {
        let both = address[0] ^ address[1];
        u32::from_be(both as u32 ^ (both >> 32) as u32)
    }

    #[inline(always)]
    fn sum(address: [u64; 2]) -> u32 {
        checksum::add(checksum::of_u64(address[0]), checksum::of_u64(address[1]))
    }

    #[inline(always)]
    fn may_be_client(address: [u64; 2]) -> bool {
        let multicast = address[0] as u8 == 0xff;
        // The unspecified address and the loopback address: zeros except for the last bit.
        let nobody = address[0] == 0 && u64::from_be(address[1]) <= 1;
        // RFC 4291, 2.5.5.2: an IPv4-mapped address stands for an IPv4 node and is not on the wire.
        let mapped = address[0] == 0 && address[1] as u32 == 0xffff_0000;
        // RFC 4291, 2.5.6: routers must not forward packets with a link-local source.
        let local = address[0] as u16 & 0xc0ff == 0x80fe;
        !multicast && !nobody && !mapped && !local
    }

    #[inline(always)]
    fn route<T: Tables>(tables: &T, address: [u64; 2]) -> u32 {
        tables.route6(address)
    }

    #[inline(always)]
    fn loopback() -> [u64; 2] {
        [0, 1u64.to_be()]
    }
}

/// The id in this bucket, and whether the bucket has no free slot.
#[inline(always)]
fn endpoint_in4(bucket: &Bucket4, address: u32, word: u32) -> (u32, bool) {
    let [a, b, c, d] = &bucket.slots;
    if a.word == word && a.address == address {
        return (a.id, false);
    }
    if b.word == word && b.address == address {
        return (b.id, false);
    }
    if c.word == word && c.address == address {
        return (c.id, false);
    }
    if d.word == word && d.address == address {
        return (d.id, false);
    }
    (
        NONE,
        a.word != 0 && b.word != 0 && c.word != 0 && d.word != 0,
    )
}

#[inline(always)]
fn endpoint_in6(bucket: &Bucket6, address: [u64; 2], word: u32) -> (u32, bool) {
    let [a, b] = &bucket.slots;
    if a.word == word && a.address == address {
        return (a.id, false);
    }
    if b.word == word && b.address == address {
        return (b.id, false);
    }
    (NONE, a.word != 0 && b.word != 0)
}
