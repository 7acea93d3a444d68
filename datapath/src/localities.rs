//! What lblc and lblcr remember of each target. Part of the layout, as is [`crate::entry`].

/// What lblc and lblcr know their servers by.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct LocalityKey {
    /// Wire order; IPv4 in the first four bytes.
    pub target: [u64; 2],
    pub service: u32,
    /// A service whose scheduler begins anew has another one.
    pub epoch: u32,
}
const _: () = assert!(size_of::<LocalityKey>() == 24);

/// The servers of a target.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Locality {
    pub words: [u64; locality::WORDS],
}

/// The most servers of a target.
pub const LOCALITY_SERVERS: u32 = 16;

/// The words of a [`Locality`].
pub mod locality {
    /// The tick of its last use in the low half, that of its last change in the high one.
    pub const TIMES: usize = 0;
    /// How many servers there are.
    pub const COUNT: usize = 1;
    /// Their ids, the newest last.
    pub const SERVERS: usize = 2;
    pub const WORDS: usize = 18;
}
