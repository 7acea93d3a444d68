//! The tables of IPv4 and of IPv6, as a type parameter of the walk.

use crate::table::Tables;
use crate::table::entry::{Bucket4, Bucket6, NONE};
use crate::table::flows::{Key, Layout, Narrow, Wide};
use crate::table::hash;
pub use crate::wire::version::{V4, V6, Version};

/// An address family with its tables.
pub trait Family: Version {
    /// The layout of flows.
    type Layout: Layout;
    /// The other family.
    type Other: Family;

    /// The key of a flow; `address` and `port` are the client's, in wire order.
    fn key(address: Self::Address, port: u16, endpoint: u32) -> Key;
    /// A bucket of flows.
    fn bucket<T: Tables>(tables: &T, index: u32) -> Option<T::Words>;
    /// The number of buckets of flows minus one.
    fn flow_mask<T: Tables>(tables: &T) -> u32;
    /// The word of [`super::region`] that shows whether a region of the flows may have entries.
    fn occupied<T: Tables>(tables: &T, region: u32) -> Option<T::Words>;
    /// The id of an endpoint, or [`NONE`].
    fn endpoint<T: Tables>(tables: &T, address: Self::Address, word: u32) -> u32;
    /// The hop that leads to a client, or 0: [`Tables::route4`] or [`Tables::route6`].
    fn route<T: Tables>(tables: &T, address: Self::Address) -> u32;
}

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
    type Layout = Narrow;
    type Other = V6;

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
    fn route<T: Tables>(tables: &T, address: u32) -> u32 {
        tables.route4(address)
    }
}

impl Family for V6 {
    type Layout = Wide;
    type Other = V4;

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
    fn route<T: Tables>(tables: &T, address: [u64; 2]) -> u32 {
        tables.route6(address)
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
