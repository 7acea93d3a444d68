//! fo and ovf: the heaviest server that can take a connection.
//!
//! The pool is sorted: heaviest first, and of equal weights the newest first.

use super::slot;
use crate::table::Tables;
use crate::table::entry::{NONE, PoolWord, counts, scheduler};
use crate::table::flows::Words;

/// `ip_vs_fo_schedule`, and `ip_vs_ovf_schedule`, which skips servers with more active connections
/// than weight.
// A separate function for its stack: see `random::draw`.
#[inline(never)]
pub(super) fn first<T: Tables>(tables: &T, pool: PoolWord) -> u32 {
    let overflows = pool.scheduler() == scheduler::OVF;
    let mut found = NONE;
    tables.repeat(pool.length(), |index| {
        let (server, weight) = slot(tables, pool, index);
        let mut takes = weight != 0;
        if takes
            && overflows
            && let Some(words) = tables.counts(server)
        {
            takes = counts::active(words.load(0)) <= weight;
        }
        if takes {
            found = server;
        }
        !takes
    });
    found
}
