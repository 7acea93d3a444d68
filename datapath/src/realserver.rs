//! What a real server must know to take its packets out of a tunnel, and what it counts.
//!
//! The agent writes it, [`crate::decap`] and [`crate::clamp`] read it. A server without the agent
//! needs none of this.

use crate::family::Family;

/// What an address means to this machine. Roles add up.
pub mod role {
    /// An address of the machine, to which directors send tunnelled packets.
    pub const OWN: u32 = 1;
    /// A virtual address that the machine serves.
    pub const VIRTUAL: u32 = 2;
    /// A director.
    pub const DIRECTOR: u32 = 4;
}

/// Entry of the one-entry table of settings.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// The largest segments (MSS) that clients of IPv4 and of IPv6 virtual addresses may be told;
    /// 0: as the server likes.
    pub segment4: u16,
    pub segment6: u16,
    /// Not 0: tunnelled packets are taken from listed directors only.
    pub listed: u8,
    pub reserved: u8,
    /// The UDP port that GUE tunnels end at, wire order; 0: none does.
    pub gue_port: u16,
}

const _: () = assert!(size_of::<Settings>() == 8);

/// What happened, by its counter.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Note {
    /// Taken out of its tunnel.
    Decapsulated = 0,
    /// Dropped: a router marked the tunnel's header, and the packet cannot carry the mark.
    Congested = 1,
    /// A SYN was told a smaller segment.
    Clamped = 2,
    // Passed up as they came:
    /// The tunnel ends at another machine.
    NotHere = 3,
    NotFromDirector = 4,
    OuterFragment = 5,
    /// More options or extension headers than can be taken off.
    LongHeader = 6,
    /// What is inside is no packet of the version that was announced.
    BadInner = 7,
    /// A tunnel within the tunnel.
    Nested = 8,
    /// What is inside is for no virtual address of ours.
    NotVirtual = 9,
    /// The kernel could not move the headers.
    NoRoom = 10,
    /// A GUE or GRE header that says more, or other things, than a director's does.
    OtherHeader = 11,
    /// Dropped: the tunnel's checksum is wrong.
    BadChecksum = 12,
}

impl Note {
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

    /// As it is shown.
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

/// What the agent told this machine.
pub trait Knowledge {
    /// The roles of an address, given as [`key`] makes it; 0 if nothing is known of it.
    fn role(&self, address: [u64; 2]) -> u32;
    fn settings(&self) -> Settings;
    fn count(&self, note: Note);
    /// The same number: [`crate::tables::Tables::blur`].
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
