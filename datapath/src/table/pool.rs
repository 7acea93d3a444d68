//! The pools of services: which servers a scheduler may pick.

use super::id::ID_LIMIT;

/// The numbers of the schedulers in a [`PoolWord`].
pub mod scheduler {
    /// No server may be picked.
    pub const EMPTY: u8 = 0;
    /// The slots in turn: rr, and wrr if one turn of it fits a ring.
    pub const RING: u8 = 1;
    /// lc: least connections.
    pub const LC: u8 = 2;
    /// wlc: least connections by weight.
    pub const WLC: u8 = 3;
    /// sed: shortest expected delay.
    pub const SED: u8 = 4;
    /// nq: an idle server, else as sed.
    pub const NQ: u8 = 5;
    /// sh: hash of the source address.
    pub const SH: u8 = 6;
    /// mh: maglev hash of the source address.
    pub const MH: u8 = 7;
    /// wrr by IPVS's rule, for turns that do not fit a ring and for servers with thresholds.
    pub const WRR: u8 = 8;
    /// dh: hash of the destination address.
    pub const DH: u8 = 9;
    /// fo: the heaviest server.
    pub const FO: u8 = 10;
    /// ovf: the heaviest server with no more active connections than weight.
    pub const OVF: u8 = 11;
    /// twos: the less loaded of two servers drawn by weight.
    pub const TWOS: u8 = 12;
    /// lblc: one server for each destination address.
    pub const LBLC: u8 = 13;
    /// lblcr: a set of servers for each destination address.
    pub const LBLCR: u8 = 14;
    /// p2c: two different servers are drawn by weight, and the less loaded one is picked.
    pub const P2C: u8 = 15;
    /// The bit that is set for lc, wlc, sed, nq, lblc or lblcr if the pool has a short list.
    pub const SHORT: u8 = 0x80;
}

/// A service's pool: the index of its first word (32 bits), its number of slots (24 bits) and its
/// scheduler (8 bits).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PoolWord(pub u64);

impl PoolWord {
    /// Packs the word: index of the first word, number of slots, scheduler.
    #[inline(always)]
    #[must_use]
    pub fn new(base: u32, length: u32, scheduler: u8) -> Self {
        Self((base as u64) | ((length & 0xff_ffff) as u64) << 32 | (scheduler as u64) << 56)
    }

    /// The index of the pool's first word.
    #[inline(always)]
    #[must_use]
    pub fn base(self) -> u32 {
        self.0 as u32
    }

    /// The number of slots.
    #[inline(always)]
    #[must_use]
    pub fn length(self) -> u32 {
        ((self.0 >> 32) as u32) & 0xff_ffff
    }

    /// The [`scheduler`].
    #[inline(always)]
    #[must_use]
    pub fn scheduler(self) -> u8 {
        (self.0 >> 56) as u8 & !scheduler::SHORT
    }

    /// Whether the pool has a short list before the slots ([`scheduler::SHORT`]).
    #[inline(always)]
    #[must_use]
    pub fn is_short(self) -> bool {
        self.0 >> 63 != 0
    }

    /// The number of slots that the scheduler compares for a new connection.
    #[inline(always)]
    #[must_use]
    pub fn compared(self) -> u32 {
        if self.is_short() {
            SHORT_LENGTH
        } else {
            self.length()
        }
    }

    /// The index of the first slot, after the short list.
    #[inline(always)]
    #[must_use]
    pub fn first_listed(self) -> u32 {
        let short = if self.is_short() { SHORT_LENGTH } else { 0 };
        self.base().wrapping_add(POOL_HEAD).wrapping_add(short)
    }
}

/// A pool is a range of 64-bit words: this many words of state, then one word per slot.
pub const POOL_HEAD: u32 = 2;
/// Slots in the short list of a large pool. Unused slots at its end have weight 0.
pub const SHORT_LENGTH: u32 = 128;

/// A slot of a pool: a server and its weight. A server with weight 0 is not picked.
#[inline(always)]
#[must_use]
pub fn pool_slot(server: u32, weight: u32) -> u64 {
    (server as u64) | (weight as u64) << 32
}

/// The bit of a slot whose server has thresholds.
pub const SLOT_LIMITED: u64 = 1 << 31;

/// The id of a slot's server.
#[inline(always)]
#[must_use]
pub fn slot_server(slot: u64) -> u32 {
    slot as u32 & (ID_LIMIT - 1)
}

/// Whether a slot's server has thresholds.
#[inline(always)]
#[must_use]
pub fn slot_is_limited(slot: u64) -> bool {
    slot & SLOT_LIMITED != 0
}
