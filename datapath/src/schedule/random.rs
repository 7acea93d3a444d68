//! twos and p2c: two servers are drawn by weight, and the less loaded one is picked.
//!
//! The lots lie behind the slots, prepared so that a draw costs the same in any pool (Walker's
//! alias method). The low half of a lot is the chance, of 2^32, that it is kept. Otherwise the lot
//! whose number is in its high half replaces it. A lot has the number of its slot.
//!
//! twos has one lot more, for the first server that is not overloaded: `ip_vs_twos_schedule` draws
//! from 0 to the sum of the weights, both inclusive, and 0 leads to the first server too.

use super::least::Loaded;
use super::slot;
use crate::table::Tables;
use crate::table::entry::{NONE, POOL_HEAD, PoolWord, scheduler};
use crate::table::flows::Words;

/// Limit of the draws until two servers that are not overloaded were found. If none was, the first
/// server that is not overloaded is picked.
const DRAWS: u32 = 32;

/// twos may draw the same server twice, as the kernel may; p2c draws two different servers.
// A separate function: with all schedulers inlined in one, the function took 208 bytes of stack and
// the chain of calls 544, of the 512 that Linux 6.1 has.
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
