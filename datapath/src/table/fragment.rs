//! What is known of datagrams in fragments ([`crate::fragment`]).

/// The key that all fragments of a datagram share (RFC 791; RFC 8200, 4.5).
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct FragmentKey {
    /// Wire order; IPv4 in the low half of the first word.
    pub source: [u64; 2],
    /// Wire order; IPv4 in the low half of the first word.
    pub target: [u64; 2],
    /// The identification in wire order.
    pub id: u32,
    /// Protocol number of the transport header.
    pub protocol: u8,
    /// 1 for IPv6, else 0.
    pub family: u8,
    /// Zero.
    pub reserved: u16,
}
const _: () = assert!(size_of::<FragmentKey>() == 40);

/// What is known of a datagram by its first fragment.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FragmentValue {
    /// Source and destination port in wire order.
    pub ports: [u16; 2],
    /// The tick at which the entry was written.
    pub tick: u32,
    /// The server that got the first fragment, where no entry of a flow names it
    /// ([`crate::table::entry::service_flag::ONE_PACKET`]).
    pub server: u32,
    /// [`told`]: 0 if the ports are known.
    pub portless: u32,
}

/// Why the ports of a datagram in fragments are unknown. The kernel gets all its fragments.
pub mod told {
    /// Its first fragment is too short for them.
    pub const NO_PORTS: u32 = 1;
    /// Its first fragment did not come in time.
    pub const NOTHING: u32 = 2;
}
