//! Directors that are real servers of each other ([`crate::peer`]).

/// A peer as a server of a service, known by the source MAC address of its frames.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerKey {
    /// The MAC address in the low 48 bits, as it lies in memory.
    pub mac: u64,
    /// Id of the service.
    pub service: u32,
    /// Zero.
    pub reserved: u32,
}
const _: () = assert!(size_of::<PeerKey>() == 16);
