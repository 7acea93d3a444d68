//! Which regions of the flow tables may have entries, so that a sweep costs by the entries that
//! there are.
//!
//! A region is 64 buckets, described by one word. A walk marks a region before it takes a slot
//! there, and only if the region is not marked. Packets of known flows do not look at the word.
//!
//! A sweep empties a region in two steps. The sweep that finds only free slots writes [`DOUBTED`].
//! The next sweep that does writes [`EMPTY`], unless a walk wrote [`ENTERED`] in between. Every
//! walk that was running at the first step ends before the second. So the second look sees the
//! entry of a walk that read [`ENTERED`] just before the first step overwrote it.

use crate::table::flows::Words;

/// No entry: two sweeps found none, and no walk has entered one.
pub const EMPTY: u64 = 0;
/// A walk entered something, or is about to.
pub const ENTERED: u64 = 1;
/// A sweep found no entry; the next sweep looks again.
pub const DOUBTED: u64 = 2;

/// Buckets of a region, as a power of two: one page of memory for IPv4.
const SHIFT: u32 = 6;
/// Buckets of a region.
pub const BUCKETS: u32 = 1 << SHIFT;

/// The region of a bucket.
#[inline(always)]
#[must_use]
pub fn of(bucket: u32) -> u32 {
    bucket >> SHIFT
}

/// The number of regions of a table whose last bucket has the number `mask`.
#[must_use]
pub fn count(mask: u32) -> u32 {
    of(mask).saturating_add(1)
}

/// Places of the hash tables' words, one word for each table.
pub mod table {
    /// The table of translations.
    pub const TRANSLATIONS: u32 = 0;
    /// The table of calls.
    pub const CALLS: u32 = 1;
    /// Number of tables.
    pub const COUNT: usize = 2;
}

/// Marks a region before an entry is written there.
#[inline(always)]
pub fn mark<W: Words>(word: Option<W>) {
    if let Some(word) = word
        && word.load(0) != ENTERED
    {
        word.store(0, ENTERED);
    }
}

/// Notes that a sweep found no entry. True if the next sweep must look again.
pub fn settle<W: Words>(word: W) -> bool {
    if word.swap(0, DOUBTED, EMPTY) {
        return false;
    }
    word.swap(0, ENTERED, DOUBTED)
}
