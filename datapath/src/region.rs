//! Which regions of the tables of flows have entries, so that a sweep costs by what is there.
//!
//! A region is 64 buckets; one word says whether it may have entries. A walk marks the region of a
//! slot before it takes the slot, and only if the region is not marked: a known flow does neither.
//! A sweep empties a region in two steps. It finds only free slots and writes [`DOUBTED`]; the next
//! sweep finds the same and writes [`EMPTY`], unless a walk has written [`ENTERED`] in between.
//! Between the two every walk that was under way has ended, and with it the one that read
//! [`ENTERED`] just before it was overwritten: what that walk entered the second look sees.

use crate::flows::Words;

/// Nothing was entered since the last look.
pub const EMPTY: u64 = 0;
/// A walk entered something, or is about to.
pub const ENTERED: u64 = 1;
/// A sweep found nothing; what lies there is looked at once more.
pub const DOUBTED: u64 = 2;

/// Buckets of a region, as a power of two: a page of memory.
const SHIFT: u32 = 6;
pub const BUCKETS: u32 = 1 << SHIFT;

/// The region of a bucket.
#[inline(always)]
#[must_use]
pub fn of(bucket: u32) -> u32 {
    bucket >> SHIFT
}

/// The regions of a table, of whose buckets the last one has this number.
#[must_use]
pub fn count(mask: u32) -> u32 {
    of(mask).saturating_add(1)
}

/// The places of the hash tables' words, one for each table.
pub mod table {
    pub const TRANSLATIONS: u32 = 0;
    pub const CALLS: u32 = 1;
    pub const COUNT: usize = 2;
}

/// Says that something is about to be entered.
#[inline(always)]
pub fn mark<W: Words>(word: Option<W>) {
    if let Some(word) = word
        && word.load(0) != ENTERED
    {
        word.store(0, ENTERED);
    }
}

/// A sweep found nothing. True if that is in doubt until the next one.
pub fn settle<W: Words>(word: W) -> bool {
    if word.swap(0, DOUBTED, EMPTY) {
        return false;
    }
    word.swap(0, ENTERED, DOUBTED)
}
