//! How the entries of each family lie in a bucket of flows: [`crate::table::flows`] draws it.

/// The layout of one family's entries in a bucket of eight words.
pub trait Layout {
    /// Entries per bucket.
    const SLOTS: usize;
    /// Words per entry.
    const STRIDE: usize;
    /// The mask of the endpoint's bits in the last word.
    const TAG: u64;
}

/// IPv4 entries.
#[derive(Clone, Copy, Debug)]
pub struct Narrow;
/// IPv6 entries.
#[derive(Clone, Copy, Debug)]
pub struct Wide;

impl Layout for Narrow {
    const SLOTS: usize = 4;
    const STRIDE: usize = 2;
    const TAG: u64 = 0xff << 24;
}

impl Layout for Wide {
    const SLOTS: usize = 2;
    const STRIDE: usize = 4;
    const TAG: u64 = 0;
}
