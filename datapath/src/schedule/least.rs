//! lc, wlc, sed, nq: the server with the least load for its weight.
//!
//! A large pool has a short list: every few milliseconds the daemon puts the least loaded servers
//! there, and only these are compared. If the list is stale, or has no server that can be picked,
//! two servers are drawn from the whole pool and the less loaded one is picked.

use super::slot;
use crate::connection::TICK_MASK;
use crate::table::Tables;
use crate::table::entry::{NONE, PoolWord, SHORT_LENGTH, counts, scheduler};
use crate::table::flows::Words;

/// Ticks after which a short list is ignored.
pub const STALE_TICKS: u32 = 2;

/// Limit of the draws until two servers that can be picked were found.
const DRAWS: u32 = 32;

/// The load of a server by `rule`: `ip_vs_dest_conn_overhead` or `ip_vs_sed_dest_overhead`.
#[inline(always)]
pub(super) fn load(rule: u8, word: u64) -> u64 {
    let (active, inactive) = (counts::active(word) as u64, counts::inactive(word) as u64);
    if rule == scheduler::SED || rule == scheduler::NQ || rule == scheduler::P2C {
        active.wrapping_add(1)
    } else {
        (active << 8).wrapping_add(inactive)
    }
}

/// A server with its load and weight, for comparison.
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

    /// `None` for a server that may not be picked.
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

    /// Whether nq picks this server at once, since it is idle.
    #[inline(always)]
    fn is_idle(&self, rule: u8) -> bool {
        rule == scheduler::NQ && self.load == 0
    }

    /// Whether `other` has less load for its weight. The comparison multiplies crosswise, as the
    /// kernel does, so that nothing is rounded.
    #[inline(always)]
    pub(super) fn yields_to(&self, other: &Loaded) -> bool {
        self.server == NONE
            || self.load.wrapping_mul(other.weight) > other.load.wrapping_mul(self.weight)
    }
}

/// The first server with the least load for its weight. nq picks the first idle server at once.
// A separate function for its stack: see `random::draw`.
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

/// Whether the daemon has written the short list within [`STALE_TICKS`].
#[inline(always)]
fn is_fresh<T: Tables>(tables: &T, pool: PoolWord) -> bool {
    let Some(stamp) = tables.pool(pool.base().wrapping_add(1)) else {
        return false;
    };
    let age = tables.now().wrapping_sub(stamp.load(0) as u32) & TICK_MASK;
    age <= STALE_TICKS
}

/// The less loaded of two servers drawn from the whole of a large pool.
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
