//! rr and wrr: servers in turn.

use super::slot;
use crate::entry::{NONE, PoolWord};
use crate::flows::Words;
use crate::tables::Tables;

/// The next place of the ring. The cursor is shared by all CPUs, so that the order is kept exactly
/// (`ip_vs_rr_schedule`, `ip_vs_wrr_schedule`).
#[inline(always)]
pub(super) fn ring<T: Tables>(tables: &T, pool: PoolWord) -> u32 {
    let (Some(state), length) = (tables.pool(pool.base()), pool.length()) else {
        return NONE;
    };
    let turn = state.add(0, 1);
    let Some(index) = turn.checked_rem(length as u64) else {
        return NONE;
    };
    let (server, weight) = slot(tables, pool, index as u32);
    if weight != 0 {
        return server;
    }
    next_open(tables, pool)
}

/// The place whose turn it was is overloaded: the next one that is not.
// A function of its own, as `random::draw` is.
#[inline(never)]
fn next_open<T: Tables>(tables: &T, pool: PoolWord) -> u32 {
    let length = pool.length() as u64;
    let mut found = NONE;
    tables.repeat(pool.length().wrapping_sub(1), |_| {
        let Some(state) = tables.pool(pool.base()) else {
            return false;
        };
        let index = state.add(0, 1).checked_rem(length).unwrap_or(0);
        let (server, weight) = slot(tables, pool, index as u32);
        if weight != 0 {
            found = server;
        }
        weight == 0
    });
    if found == NONE
        && let Some(state) = tables.pool(pool.base())
    {
        // Nobody was chosen: it is as if nobody had asked.
        state.add(0, 0u64.wrapping_sub(length));
    }
    found
}

/// In the second word of the head: servers of this pool have thresholds.
const LIMITED: u64 = 1 << 63;

/// wrr where the turn is too long for a ring, or may have to pass over overloaded servers:
/// `ip_vs_wrr_schedule` itself. The state is the last place (1 is the first slot, 0 the head of the
/// list) in the low half and the current weight in the high half of the cursor; the second word of
/// the pool holds the greatest weight and what the weights step by.
// A function of its own, as `random::draw` is.
#[inline(never)]
pub(super) fn weighted<T: Tables>(tables: &T, pool: PoolWord) -> u32 {
    let Some(state) = tables.pool(pool.base()) else {
        return NONE;
    };
    let Some(bounds) = tables.pool(pool.base().wrapping_add(1)) else {
        return NONE;
    };
    let bounds = bounds.load(0);
    let (greatest, step) = (bounds as u32, (bounds >> 32) as u32 & 0x7fff_ffff);
    let cursor = state.load(0);
    let (mut place, mut current) = (cursor as u32, (cursor >> 32) as u32);
    // Passes that ask for more than this find nobody, and need not be made.
    let mut most = greatest;
    if bounds & LIMITED != 0 {
        let open = heaviest_open(tables, pool);
        if open == 0 {
            // The kernel has then asked all of them in vain, from the greatest weight down.
            if place == 0 || current > step {
                state.swap(0, cursor, (greatest as u64) << 32);
            }
            return NONE;
        }
        most = open.wrapping_sub(step.wrapping_sub(1));
    }
    let mut found = NONE;
    tables.repeat(pool.length().wrapping_mul(2).wrapping_add(2), |_| {
        if place >= pool.length() {
            place = tables.blur(0) as u32;
            current = if current > step {
                current.wrapping_sub(step)
            } else {
                greatest
            };
            if current > most {
                current = most;
            }
        }
        let (server, weight) = slot(tables, pool, place);
        place = place.wrapping_add(1);
        if weight >= current && weight != 0 {
            found = server;
        }
        found == NONE
    });
    // If another CPU was faster, both chose the same server, and the order goes on from there.
    state.swap(0, cursor, place as u64 | (current as u64) << 32);
    found
}

#[inline(always)]
fn heaviest_open<T: Tables>(tables: &T, pool: PoolWord) -> u32 {
    let mut heaviest = 0;
    tables.repeat(pool.length(), |index| {
        let (_, weight) = slot(tables, pool, index);
        if weight > heaviest {
            heaviest = weight;
        }
        true
    });
    heaviest
}
