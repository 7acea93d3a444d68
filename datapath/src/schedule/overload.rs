//! Thresholds: a server that reaches its upper threshold of connections takes no new ones until it
//! has fewer than its lower threshold.
//!
//! `ip_vs_bind_dest` sets `IP_VS_DEST_F_OVERLOAD` when a connection opens; `ip_vs_unbind_dest`
//! clears it when one ends. Here the flag is set when a connection opens and cleared when it is
//! next read: in between the counts can only have fallen. Servers without thresholds cost nothing:
//! flags in the pool's slot and in the server's entry mark the others.

use crate::table::Tables;
use crate::table::entry::{counts, standing};
use crate::table::flows::Words;

/// Whether this server, which has thresholds, is overloaded. Clears the flag if it is over.
#[inline(always)]
pub fn is_overloaded<T: Tables>(tables: &T, server: u32) -> bool {
    let Some(standing) = tables.standing(server) else {
        return false;
    };
    if standing.load(standing::OVERLOADED) == 0 {
        return false;
    }
    if total(tables, server) < standing.load(standing::BOUNDS) >> 32 {
        standing.store(standing::OVERLOADED, 0);
        return false;
    }
    true
}

/// Sets or clears the flag of a server with thresholds, after a connection was opened and counted.
#[inline(always)]
pub fn opened<T: Tables>(tables: &T, server: u32) {
    let Some(standing) = tables.standing(server) else {
        return;
    };
    let (bounds, total) = (standing.load(standing::BOUNDS), total(tables, server));
    let upper = bounds & 0xffff_ffff;
    if upper != 0 && total >= upper {
        standing.store(standing::OVERLOADED, 1);
    } else if total <= bounds >> 32 && standing.load(standing::OVERLOADED) != 0 {
        // There were fewer than the lower threshold before this one came.
        standing.store(standing::OVERLOADED, 0);
    }
}

/// `ip_vs_dest_totalconns`: active and inactive connections.
#[inline(always)]
fn total<T: Tables>(tables: &T, server: u32) -> u64 {
    match tables.counts(server) {
        Some(words) => {
            let word = words.load(0);
            (counts::active(word) as u64).wrapping_add(counts::inactive(word) as u64)
        }
        None => 0,
    }
}
