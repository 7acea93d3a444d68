//! What stands in the table of translations, and in that of local addresses.
//!
//! A translated flow is one whose rewriting does not follow from its server's entry alone. It has
//! two entries, each found by the addresses and ports of a packet as it comes: that of a client's
//! packets to the virtual address, and that of the server's answers. Each says what becomes of
//! them, so that either is the other one turned round. Entering an answer's key where nobody has it
//! is what gives a flow its local port: two flows never have the same.

use crate::family::Family;
use crate::packet::{Packet, Ports};

/// Addresses and ports of a packet.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tuple {
    /// Wire order; IPv4 in the low half of the first word.
    pub source: [u64; 2],
    pub target: [u64; 2],
    /// [`ends`].
    pub ends: u64,
}
const _: () = assert!(size_of::<Tuple>() == 40);

/// Both ports in wire order, the protocol, and 1 for IPv6.
#[inline(always)]
#[must_use]
pub fn ends(source: u16, target: u16, protocol: u8, v6: bool) -> u64 {
    source as u64 | (target as u64) << 16 | (protocol as u64) << 32 | (v6 as u64) << 40
}

impl Tuple {
    /// That of a packet.
    #[inline(always)]
    pub fn of<F: Family>(packet: &Packet<F>, ports: &Ports) -> Self {
        Self {
            source: F::words(packet.source),
            target: F::words(packet.target),
            ends: ends(ports.source, ports.target, packet.protocol, F::V6),
        }
    }

    /// That of an answer.
    #[inline(always)]
    #[must_use]
    pub fn turned(&self) -> Self {
        Self {
            source: self.target,
            target: self.source,
            ends: turned(self.ends),
        }
    }

    #[inline(always)]
    #[must_use]
    pub fn source_port(&self) -> u16 {
        self.ends as u16
    }

    #[inline(always)]
    #[must_use]
    pub fn target_port(&self) -> u16 {
        (self.ends >> 16) as u16
    }

    #[inline(always)]
    #[must_use]
    pub fn protocol(&self) -> u8 {
        (self.ends >> 32) as u8
    }

    #[inline(always)]
    #[must_use]
    pub fn is_v6(&self) -> bool {
        self.ends >> 40 & 1 != 0
    }
}

/// The same with the ports exchanged.
#[inline(always)]
#[must_use]
pub fn turned(ends: u64) -> u64 {
    ends & !0xffff_ffff | ends >> 16 & 0xffff | (ends & 0xffff) << 16
}

/// What becomes of the packets of a tuple.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Translation {
    /// Their addresses and ports from here on.
    pub to: Tuple,
    /// The id that the flow's key has in the low half, that of its server in the high one.
    pub names: u64,
    /// The tick of its last packet in the low half, [`flag`]s in the high one.
    pub time: u64,
    pub reserved: [u64; 3],
}
const _: () = assert!(size_of::<Translation>() == 80);
// What makes one of the other in `translate::enter`.
const _: () = assert!(flag::LOCAL << 2 == flag::TOA && flag::LOCAL << 3 == flag::PROXY);

/// The words of a [`Translation`].
pub mod word {
    pub const SOURCE: usize = 0;
    pub const TARGET: usize = 2;
    pub const ENDS: usize = 4;
    pub const NAMES: usize = 5;
    pub const TIME: usize = 6;
    /// How far the client was introduced: [`crate::translate::proxy`].
    pub const PROXY: usize = 7;
    pub const WORDS: usize = 10;
}

/// Bits in the high half of [`Translation::time`].
pub mod flag {
    /// Of a client's packets; without it, of a server's.
    pub const FORWARD: u64 = 1 << 32;
    /// The server sees a local address in place of the client's.
    pub const LOCAL: u64 = 1 << 33;
    /// Each datagram is a flow of its own: there is no entry to tell of an answer.
    pub const ONE_PACKET: u64 = 1 << 34;
    /// The server is told who the client is, in an option of the SYN.
    pub const TOA: u64 = 1 << 35;
    /// The server is told who the client is, in a header before the first byte.
    pub const PROXY: u64 = 1 << 36;
    pub const ALL: u64 = 0xffff_ffff << 32;
}

impl Translation {
    #[inline(always)]
    #[must_use]
    pub fn service(&self) -> u32 {
        self.names as u32
    }

    #[inline(always)]
    #[must_use]
    pub fn server(&self) -> u32 {
        (self.names >> 32) as u32
    }

    #[inline(always)]
    #[must_use]
    pub fn tick(&self) -> u32 {
        self.time as u32
    }

    #[inline(always)]
    #[must_use]
    pub fn has(&self, flag: u64) -> bool {
        self.time & flag != 0
    }
}

/// Local addresses of each family.
pub const LOCALS: u32 = 256;

/// A local address: what servers see in place of clients.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Local {
    /// Wire order; IPv4 in the low half of the first word.
    pub address: [u64; 2],
    /// The first of its ports, and how many there are: numbers.
    pub first: u32,
    pub ports: u32,
    /// In the first entry of a family: how many there are.
    pub count: u32,
    pub reserved: u32,
}
const _: () = assert!(size_of::<Local>() == 32);

/// The place of a local address in its table.
#[inline(always)]
#[must_use]
pub fn place(v6: bool, number: u32) -> u32 {
    let base = if v6 { LOCALS } else { 0 };
    base | number & (LOCALS.wrapping_sub(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tuple_turned_twice_is_the_same() {
        let tuple = Tuple {
            source: [1, 2],
            target: [3, 4],
            ends: ends(5, 6, 17, true),
        };
        let turned = tuple.turned();
        assert_eq!((turned.source_port(), turned.target_port()), (6, 5));
        assert_eq!((turned.protocol(), turned.is_v6()), (17, true));
        assert_eq!(turned.turned(), tuple);
    }
}
