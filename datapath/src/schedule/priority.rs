//! fo and ovf: the first server that can still take one, in order of weight.
//!
//! The pool is sorted: heaviest first, and of equals the newest.

use super::slot;
use crate::entry::{NONE, PoolWord, counts, scheduler};
use crate::flows::Words;
use crate::tables::Tables;

/// `ip_vs_fo_schedule`; `ip_vs_ovf_schedule` passes over servers with more active connections than
/// weight.
// A function of its own, as `random::draw` is.
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
