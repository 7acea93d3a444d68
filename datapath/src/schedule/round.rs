//! rr and wrr: servers in turn.

use super::slot;
use crate::table::Tables;
use crate::table::entry::{NONE, PoolWord};
use crate::table::flows::Words;

/// The next place of the ring. All CPUs share the cursor, so the order is exact
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

/// The next place whose server is not overloaded, since the one in turn is.
// A separate function for its stack: see `random::draw`.
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
        // No server was picked, so the cursor goes back to where it was.
        state.add(0, 0u64.wrapping_sub(length));
    }
    found
}

/// Set in the second word of the head if servers of this pool have thresholds.
const LIMITED: u64 = 1 << 63;

/// wrr where the cycle is too long for a ring, or where servers have thresholds:
/// `ip_vs_wrr_schedule` itself. The cursor has the last place in its low half (1 is the first slot,
/// 0 the head of the list) and the current weight in its high half. The second word of the pool has
/// the greatest weight in its low half and the step of the weights in its high half.
// A separate function for its stack: see `random::draw`.
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
    // Passes that ask for a greater weight find no server, so they are skipped.
    let mut most = greatest;
    if bounds & LIMITED != 0 {
        let open = heaviest_open(tables, pool);
        if open == 0 {
            // The kernel has then tried all servers in vain, from the greatest weight down.
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
    // If another CPU moved the cursor first, both picked the same server, and the order goes on
    // from there.
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
