//! twos and p2c: two servers are drawn by weight, and the one with less load takes it.
//!
//! Behind the slots lie the lots, prepared so that a draw costs the same in any pool (Walker's
//! alias method): a lot is kept with the chance in its low half, else exchanged for the lot whose
//! number is in its high half. The number of a lot is that of a slot. twos has one lot more, which
//! stands for the first server that is not overloaded: `ip_vs_twos_schedule` draws from 0 to the
//! sum of the weights, both inclusive, and 0 is the first one's too.

use super::least::Loaded;
use super::slot;
use crate::entry::{NONE, POOL_HEAD, PoolWord, scheduler};
use crate::flows::Words;
use crate::tables::Tables;

/// Draws until two servers were met that are not overloaded; then the first that is not is taken.
const DRAWS: u32 = 32;

/// twos draws both from all, so that both may be the same; p2c draws two different ones.
// A function of its own: with all schedulers in one, that took 208 bytes of the stack, and the
// whole chain 544 of the 512 that Linux 6.1 has.
#[inline(never)]
pub(super) fn draw<T: Tables>(tables: &T, pool: PoolWord) -> u32 {
    let rule = pool.scheduler();
    let (open, open_weight) = first_open(tables, pool);
    let mut first = Loaded::NOBODY;
    let mut best = Loaded::NOBODY;
    tables.repeat(DRAWS, |_| {
        let lot = lot(tables, pool);
        let (server, weight) = if lot >= pool.length() {
            (open, open_weight)
        } else {
            slot(tables, pool, lot)
        };
        let Some(other) = Loaded::new(tables, rule, server, weight) else {
            return true;
        };
        if first.server == NONE {
            (first, best) = (other, other);
            return true;
        }
        if rule == scheduler::P2C && other.server == first.server {
            return true;
        }
        if first.yields_to(&other) {
            best = other;
        }
        false
    });
    if best.server == NONE {
        return open;
    }
    best.server
}

#[inline(always)]
fn lot<T: Tables>(tables: &T, pool: PoolWord) -> u32 {
    let more = if pool.scheduler() == scheduler::TWOS {
        1
    } else {
        0
    };
    let lots = pool.length().wrapping_add(more);
    let number = ((tables.random() as u64).wrapping_mul(lots as u64) >> 32) as u32;
    let at = pool
        .base()
        .wrapping_add(POOL_HEAD)
        .wrapping_add(pool.length())
        .wrapping_add(number);
    let Some(words) = tables.pool(at) else {
        return number;
    };
    let word = words.load(0);
    if tables.random() < word as u32 {
        number
    } else {
        (word >> 32) as u32
    }
}

#[inline(always)]
fn first_open<T: Tables>(tables: &T, pool: PoolWord) -> (u32, u32) {
    let mut found = (NONE, 0);
    tables.repeat(pool.length(), |index| {
        found = slot(tables, pool, index);
        found.1 == 0
    });
    if found.1 == 0 { (NONE, 0) } else { found }
}
