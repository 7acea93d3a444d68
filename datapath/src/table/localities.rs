//! The servers that lblc and lblcr remember for each target address. Part of the map layout, like
//! [`crate::table::entry`].

/// The key under which lblc and lblcr remember servers: a target address and a service.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct LocalityKey {
    /// Wire order; IPv4 in the first four bytes.
    pub target: [u64; 2],
    /// Id of the service.
    pub service: u32,
    /// Changes when the service's scheduler starts over, so that the earlier entries are not found.
    pub epoch: u32,
}
const _: () = assert!(size_of::<LocalityKey>() == 24);

/// The servers remembered for one target.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Locality {
    /// Indexed as in [`locality`].
    pub words: [u64; locality::WORDS],
}

/// Limit of the servers remembered for one target.
pub const LOCALITY_SERVERS: u32 = 16;

/// Indexes of the words of a [`Locality`].
pub mod locality {
    /// Low half: tick of the last use. High half: tick of the last change to the servers.
    pub const TIMES: usize = 0;
    /// Number of servers.
    pub const COUNT: usize = 1;
    /// First of the servers' ids, the most recently added last.
    pub const SERVERS: usize = 2;
    /// Number of words.
    pub const WORDS: usize = 18;
}
