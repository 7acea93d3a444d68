//! Settings and counters for decapsulation on a real server.
//!
//! The agent writes the settings; [`crate::decap`] and [`crate::clamp`] read them. A server without
//! the agent needs none of this.

use crate::table::family::Family;

/// Roles of an address on this machine, as bits.
pub mod role {
    /// An address of the machine, to which directors send tunnelled packets.
    pub const OWN: u32 = 1;
    /// A virtual address that the machine serves.
    pub const VIRTUAL: u32 = 2;
    /// A director.
    pub const DIRECTOR: u32 = 4;
}

/// The settings: the only entry of their table.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// The largest MSS, in bytes, that the server may announce to clients of an IPv4 virtual
    /// address; 0 is no limit.
    pub segment4: u16,
    /// The same limit for IPv6 virtual addresses.
    pub segment6: u16,
    /// Not 0: only a listed director's packets are decapsulated.
    pub listed: u8,
    /// Zero.
    pub reserved: u8,
    /// The UDP port of GUE tunnels, in wire order; 0 is none.
    pub gue_port: u16,
}

const _: () = assert!(size_of::<Settings>() == 8);

/// Counted events; the number is the counter's place.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Note {
    /// A packet was decapsulated.
    Decapsulated = 0,
    /// Dropped: a router marked congestion in the outer header, and the inner packet has no ECN
    /// (RFC 6040, 4.2).
    Congested = 1,
    /// The MSS option of a SYN was lowered.
    Clamped = 2,
    // Passed to the kernel unchanged:
    /// The outer destination is another machine.
    NotHere = 3,
    /// The outer source is no listed director.
    NotFromDirector = 4,
    /// The outer packet is a fragment.
    OuterFragment = 5,
    /// The outer header has more options or extension headers than can be removed.
    LongHeader = 6,
    /// The inner packet is not of the IP version that the tunnel announces.
    BadInner = 7,
    /// A tunnel within the tunnel.
    Nested = 8,
    /// The inner destination is no virtual address of this machine.
    NotVirtual = 9,
    /// The kernel could not move the headers.
    NoRoom = 10,
    /// The GUE or GRE header has fields that a director never sends.
    OtherHeader = 11,
    /// Dropped: the tunnel's checksum is wrong.
    BadChecksum = 12,
}

impl Note {
    /// All events, in the order of their counters.
    pub const ALL: [Note; 13] = [
        Note::Decapsulated,
        Note::Congested,
        Note::Clamped,
        Note::NotHere,
        Note::NotFromDirector,
        Note::OuterFragment,
        Note::LongHeader,
        Note::BadInner,
        Note::Nested,
        Note::NotVirtual,
        Note::NoRoom,
        Note::OtherHeader,
        Note::BadChecksum,
    ];

    /// The counter's name in output.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Note::Decapsulated => "decapsulated",
            Note::Congested => "congested",
            Note::Clamped => "clamped",
            Note::NotHere => "not_here",
            Note::NotFromDirector => "not_from_director",
            Note::OuterFragment => "outer_fragment",
            Note::LongHeader => "long_header",
            Note::BadInner => "bad_inner",
            Note::Nested => "nested",
            Note::NotVirtual => "not_virtual",
            Note::NoRoom => "no_room",
            Note::OtherHeader => "other_header",
            Note::BadChecksum => "bad_checksum",
        }
    }
}

/// What the agent has configured on this machine.
pub trait Knowledge {
    /// The roles of an address in the form of [`key`]; 0 for an unknown address.
    fn role(&self, address: [u64; 2]) -> u32;
    /// The settings.
    fn settings(&self) -> Settings;
    /// Counts an event on this CPU.
    fn count(&self, note: Note);
    /// Returns `value`, of which the kernel's verifier then knows no bounds:
    /// [`crate::table::Tables::blur`].
    fn blur(&self, value: usize) -> usize;
}

/// An address as its 16 bytes, IPv4 mapped into IPv6 (RFC 4291, 2.5.5.2), so that no address of
/// one family is taken for one of the other.
#[inline(always)]
#[must_use]
pub fn key<F: Family>(address: F::Address) -> [u64; 2] {
    let words = F::words(address);
    if F::V6 {
        words
    } else {
        [0, words[0] << 32 | 0xffff_0000]
    }
}
