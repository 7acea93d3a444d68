//! lc, wlc, sed, nq: the server with the least load for its weight.
//!
//! A large pool is in the short form: the daemon lays the servers with the least load in front,
//! every few milliseconds, and only those are compared. Should the daemon be away, two of all
//! servers are drawn and the better one taken.

use super::slot;
use crate::connection::TICK_MASK;
use crate::entry::{NONE, PoolWord, SHORT_LENGTH, counts, scheduler};
use crate::flows::Words;
use crate::tables::Tables;

/// Ticks after which a short list is no longer believed.
pub const STALE_TICKS: u32 = 2;

/// Draws until two servers were met that are not overloaded.
const DRAWS: u32 = 32;

/// The load of a server by rule: what `ip_vs_dest_conn_overhead` and `ip_vs_sed_dest_overhead` say.
#[inline(always)]
pub(super) fn load(rule: u8, word: u64) -> u64 {
    let (active, inactive) = (counts::active(word) as u64, counts::inactive(word) as u64);
    if rule == scheduler::SED || rule == scheduler::NQ || rule == scheduler::P2C {
        active.wrapping_add(1)
    } else {
        (active << 8).wrapping_add(inactive)
    }
}

/// A server with its load, to be compared with others.
#[derive(Clone, Copy)]
pub(super) struct Loaded {
    pub(super) server: u32,
    load: u64,
    weight: u64,
}

impl Loaded {
    pub(super) const NOBODY: Loaded = Loaded {
        server: NONE,
        load: 0,
        weight: 0,
    };

    /// `None` for who may not be picked.
    #[inline(always)]
    pub(super) fn new<T: Tables>(tables: &T, rule: u8, server: u32, weight: u32) -> Option<Self> {
        if weight == 0 {
            return None;
        }
        let word = tables.counts(server)?.load(0);
        let idle = rule == scheduler::NQ && counts::active(word) == 0;
        Some(Self {
            server,
            load: if idle { 0 } else { load(rule, word) },
            weight: if rule == scheduler::LC {
                1
            } else {
                weight as u64
            },
        })
    }

    /// nq: idle, to be taken at once.
    #[inline(always)]
    fn is_idle(&self, rule: u8) -> bool {
        rule == scheduler::NQ && self.load == 0
    }

    /// Whether the other has less load for its weight. Compared crosswise, as the kernel does, so
    /// that nothing is rounded.
    #[inline(always)]
    pub(super) fn yields_to(&self, other: &Loaded) -> bool {
        self.server == NONE
            || self.load.wrapping_mul(other.weight) > other.load.wrapping_mul(self.weight)
    }
}

/// The first of those with the least load for their weight. nq takes the first idle server at once.
// A function of its own, as `random::draw` is.
#[inline(never)]
pub(super) fn least<T: Tables>(tables: &T, pool: PoolWord, rule: u8) -> u32 {
    let mut best = Loaded::NOBODY;
    if !pool.is_short() || is_fresh(tables, pool) {
        tables.repeat(pool.compared(), |index| {
            let (server, weight) = slot(tables, pool, index);
            let Some(other) = Loaded::new(tables, rule, server, weight) else {
                return true;
            };
            if other.is_idle(rule) {
                best = other;
                return false;
            }
            if best.yields_to(&other) {
                best = other;
            }
            true
        });
    }
    if best.server == NONE && pool.is_short() {
        return drawn(tables, pool, rule);
    }
    best.server
}

/// Whether the daemon has been at the short list lately.
#[inline(always)]
fn is_fresh<T: Tables>(tables: &T, pool: PoolWord) -> bool {
    let Some(stamp) = tables.pool(pool.base().wrapping_add(1)) else {
        return false;
    };
    let age = tables.now().wrapping_sub(stamp.load(0) as u32) & TICK_MASK;
    age <= STALE_TICKS
}

/// The better of two servers drawn from the whole of a large pool.
#[inline(always)]
fn drawn<T: Tables>(tables: &T, pool: PoolWord, rule: u8) -> u32 {
    let mut best = Loaded::NOBODY;
    let mut met = 0u32;
    tables.repeat(DRAWS, |_| {
        let place = (tables.random() as u64).wrapping_mul(pool.length() as u64) >> 32;
        let index = SHORT_LENGTH.wrapping_add(place as u32);
        let (server, weight) = slot(tables, pool, index);
        let Some(other) = Loaded::new(tables, rule, server, weight) else {
            return true;
        };
        if best.yields_to(&other) {
            best = other;
        }
        met = met.wrapping_add(1);
        met < 2
    });
    best.server
}
