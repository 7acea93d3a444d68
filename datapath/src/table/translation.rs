//! Entries of the tables of translations and of local addresses.
//!
//! A translated flow is one whose rewriting does not follow from its server's entry alone. It has
//! two entries, each found by the addresses and ports of a packet as it comes: one for a client's
//! packets to the virtual address, one for the server's answers. Each names the addresses and ports
//! that its packets get, so either is the other with source and target swapped. The key of the
//! answers is entered only if it is free. That reserves the local port of a flow: no two flows have
//! the same key.

/// Addresses and ports of a packet.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tuple {
    /// Wire order; IPv4 in the low half of the first word.
    pub source: [u64; 2],
    /// Wire order; IPv4 in the low half of the first word.
    pub target: [u64; 2],
    /// Ports, protocol and family: see [`ends`].
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
    /// The tuple of an answer: source and target are swapped.
    #[inline(always)]
    #[must_use]
    pub fn turned(&self) -> Self {
        Self {
            source: self.target,
            target: self.source,
            ends: turned(self.ends),
        }
    }

    /// The source port in wire order.
    #[inline(always)]
    #[must_use]
    pub fn source_port(&self) -> u16 {
        self.ends as u16
    }

    /// The destination port in wire order.
    #[inline(always)]
    #[must_use]
    pub fn target_port(&self) -> u16 {
        (self.ends >> 16) as u16
    }

    /// Protocol number of the transport header.
    #[inline(always)]
    #[must_use]
    pub fn protocol(&self) -> u8 {
        (self.ends >> 32) as u8
    }

    /// Whether the packet is of IPv6.
    #[inline(always)]
    #[must_use]
    pub fn is_v6(&self) -> bool {
        self.ends >> 40 & 1 != 0
    }
}

/// [`ends`] with the ports swapped.
#[inline(always)]
#[must_use]
pub fn turned(ends: u64) -> u64 {
    ends & !0xffff_ffff | ends >> 16 & 0xffff | (ends & 0xffff) << 16
}

/// How the packets of a tuple are rewritten.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Translation {
    /// The addresses and ports that the packets get.
    pub to: Tuple,
    /// Low half: the endpoint in the flow's key. High half: the server's id.
    pub names: u64,
    /// Low half: the tick of the last packet. High half: [`flag`]s.
    pub time: u64,
    /// Words of the packet path: [`word::PROXY`], then zero.
    pub reserved: [u64; 3],
}
const _: () = assert!(size_of::<Translation>() == 80);
// `translate::enter` makes the other flags of [`flag::LOCAL`] by these shifts.
const _: () = assert!(flag::LOCAL << 2 == flag::TOA && flag::LOCAL << 3 == flag::PROXY);

/// Indexes of the words of a [`Translation`].
pub mod word {
    /// The two words of the source address.
    pub const SOURCE: usize = 0;
    /// The two words of the destination address.
    pub const TARGET: usize = 2;
    /// See [`Tuple::ends`](super::Tuple::ends).
    pub const ENDS: usize = 4;
    /// See [`Translation::names`](super::Translation::names).
    pub const NAMES: usize = 5;
    /// See [`Translation::time`](super::Translation::time).
    pub const TIME: usize = 6;
    /// How far the PROXY header of a connection is: [`crate::translate::proxy`].
    pub const PROXY: usize = 7;
    /// Number of words.
    pub const WORDS: usize = 10;
}

/// Bits in the high half of [`Translation::time`].
pub mod flag {
    /// The packets are a client's; otherwise they are a server's.
    pub const FORWARD: u64 = 1 << 32;
    /// The server sees a local address in place of the client's.
    pub const LOCAL: u64 = 1 << 33;
    /// Each datagram is a flow of its own, without an entry in the flow table.
    pub const ONE_PACKET: u64 = 1 << 34;
    /// The server is told who the client is, in an option of the SYN.
    pub const TOA: u64 = 1 << 35;
    /// The server is told who the client is, in a header before the first byte.
    pub const PROXY: u64 = 1 << 36;
    /// All flags.
    pub const ALL: u64 = 0xffff_ffff << 32;
}

impl Translation {
    /// The endpoint in the flow's key.
    #[inline(always)]
    #[must_use]
    pub fn service(&self) -> u32 {
        self.names as u32
    }

    /// The server's id.
    #[inline(always)]
    #[must_use]
    pub fn server(&self) -> u32 {
        (self.names >> 32) as u32
    }

    /// The tick of the last packet.
    #[inline(always)]
    #[must_use]
    pub fn tick(&self) -> u32 {
        self.time as u32
    }

    /// Whether a [`flag`] is set.
    #[inline(always)]
    #[must_use]
    pub fn has(&self, flag: u64) -> bool {
        self.time & flag != 0
    }
}

/// Limit of the local addresses of each family.
pub const LOCALS: u32 = 256;

/// A local address: what servers see in place of clients.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Local {
    /// Wire order; IPv4 in the low half of the first word.
    pub address: [u64; 2],
    /// The first of its ports, in host order.
    pub first: u32,
    /// The number of its ports.
    pub ports: u32,
    /// In the first entry of a family: the number of its local addresses.
    pub count: u32,
    /// Zero.
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
