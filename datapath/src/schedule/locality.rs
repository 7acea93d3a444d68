//! lblc and lblcr: the server, or the set of servers, that packets for an address went to before.
//!
//! There is an entry for each service and target: the tick of the last use, the tick of the last
//! change, and the servers, most recent last. lblc has one server. The kernel removes entries that
//! were unused for a day every half hour. Here such an entry is ignored, and a full table replaces
//! the least recently used entry. The daemon never writes here.

use super::least::Loaded;
use super::overload;
use crate::connection::TICK_MASK;
use crate::table::Tables;
use crate::table::entry::{LOCALITY_SERVERS, LocalityKey, locality as word};
use crate::table::entry::{
    NONE, POOL_HEAD, PoolWord, counts, scheduler, server_flag, slot_server, standing,
};
use crate::table::flows::Words;
use crate::table::lookup;

/// `sysctl_lblc_expiration` and `sysctl_lblcr_expiration`: a day.
const EXPIRATION: u32 = 24 * 60 * 60;

/// The entry's key for packets to this address.
#[inline(always)]
pub(super) fn key(service: u32, epoch: u32, target: [u64; 2]) -> LocalityKey {
    LocalityKey {
        target,
        service,
        epoch,
    }
}

#[inline(always)]
fn age(now: u32, then: u32) -> u32 {
    now.wrapping_sub(then) & TICK_MASK
}

/// The server remembered for this target, if it can take another connection; else [`NONE`].
// A separate function for its stack: see `random::draw`.
#[inline(never)]
pub(super) fn known<T: Tables>(tables: &T, pool: PoolWord, rule: u8, key: &LocalityKey) -> u32 {
    let now = tables.now();
    let Some(entry) = tables.locality(key) else {
        return NONE;
    };
    let times = entry.load(word::TIMES);
    if age(now, times as u32) > EXPIRATION {
        entry.store(word::COUNT, 0);
        return NONE;
    }
    if times as u32 != now {
        entry.store(word::TIMES, now as u64 | times >> 32 << 32);
    }
    let known = if rule == scheduler::LBLC {
        let server = entry.load(word::SERVERS) as u32;
        let (weight, present) = weight_of(tables, key.service, server);
        if entry.load(word::COUNT) != 0 && weight != 0 && present {
            server
        } else {
            NONE
        }
    } else {
        of_set(tables, key, now, (times >> 32) as u32)
    };
    if known != NONE && is_crowded(tables, pool, known) {
        return NONE;
    }
    known
}

/// The weight of a server of this service, and whether it is in its pool.
#[inline(always)]
fn weight_of<T: Tables>(tables: &T, service: u32, server: u32) -> (u32, bool) {
    let (Some(entry), Some(standing)) = (tables.server(server), tables.standing(server)) else {
        return (0, false);
    };
    // The id may belong to a server of another service by now.
    if lookup::service_of(tables, entry.service) != service {
        return (0, false);
    }
    let present = entry.flags & server_flag::PRESENT != 0;
    (standing.load(standing::WEIGHT) as u32, present)
}

/// Server number `at` of a set. The mask is for the verifier.
#[inline(always)]
fn member<W: Words>(entry: W, at: u32) -> W {
    entry.skip(word::SERVERS).skip((at & 15) as usize)
}

/// The least loaded server of a set (`ip_vs_dest_set_min`). If the set has not changed for a day,
/// its most loaded server is removed (`ip_vs_dest_set_max`, `ip_vs_dest_set_erase`).
#[inline(always)]
fn of_set<T: Tables>(tables: &T, key: &LocalityKey, now: u32, changed: u32) -> u32 {
    let Some(entry) = tables.locality(key) else {
        return NONE;
    };
    let count = entry.load(word::COUNT) as u32;
    let (mut least, mut most, mut place) = (Loaded::NOBODY, Loaded::NOBODY, 0u32);
    tables.repeat(LOCALITY_SERVERS, |index| {
        let at = count.wrapping_sub(1).wrapping_sub(index);
        if at >= LOCALITY_SERVERS {
            return false;
        }
        let Some(entry) = tables.locality(key) else {
            return false;
        };
        let server = member(entry, at).load(0) as u32;
        let (weight, present) = weight_of(tables, key.service, server);
        let Some(other) = Loaded::new(tables, scheduler::WLC, server, weight) else {
            return true;
        };
        if most.server == NONE || other.yields_to(&most) {
            (most, place) = (other, at);
        }
        if present && least.yields_to(&other) && !overload::is_overloaded(tables, server) {
            least = other;
        }
        true
    });
    if count > 1 && age(now, changed) > EXPIRATION && most.server != NONE {
        erase(tables, key, place, count, now);
    }
    least.server
}

/// Removes the server at `place` from a set.
#[inline(always)]
fn erase<T: Tables>(tables: &T, key: &LocalityKey, place: u32, count: u32, now: u32) {
    tables.repeat(LOCALITY_SERVERS, |index| {
        let Some(entry) = tables.locality(key) else {
            return false;
        };
        let next = index.wrapping_add(1);
        if index >= place && next < LOCALITY_SERVERS {
            let moved = member(entry, next).load(0);
            member(entry, index).store(0, moved);
        }
        true
    });
    if let Some(entry) = tables.locality(key) {
        entry.store(word::COUNT, count.wrapping_sub(1) as u64);
        entry.store(word::TIMES, now as u64 | (now as u64) << 32);
    }
}

/// `is_overloaded` of ip_vs_lblc.c: the server has more active connections than weight, and some
/// server has fewer than half its weight. Thresholds do not count.
#[inline(always)]
fn is_crowded<T: Tables>(tables: &T, pool: PoolWord, server: u32) -> bool {
    let (Some(words), Some(standing)) = (tables.counts(server), tables.standing(server)) else {
        return false;
    };
    if counts::active(words.load(0)) <= standing.load(standing::WEIGHT) as u32 {
        return false;
    }
    let mut crowded = false;
    tables.repeat(pool.compared(), |index| {
        let at = pool.base().wrapping_add(POOL_HEAD).wrapping_add(index);
        let Some(slot) = tables.pool(at) else {
            return false;
        };
        let slot = slot.load(0);
        let Some(words) = tables.counts(slot_server(slot)) else {
            return true;
        };
        crowded = (counts::active(words.load(0)) as u64) << 1 < slot >> 32;
        !crowded
    });
    crowded
}

/// Remembers a server for this target. lblc replaces the server; lblcr adds it to the set.
// A separate function for its stack: see `random::draw`.
#[inline(never)]
pub(super) fn remember<T: Tables>(tables: &T, rule: u8, key: &LocalityKey, server: u32) {
    let now = tables.now() as u64;
    let times = now | now << 32;
    if tables.locality(key).is_none() {
        tables.add_locality(key);
    }
    // If there is no room for an entry, the server is used without one.
    let Some(entry) = tables.locality(key) else {
        return;
    };
    let count = entry.load(word::COUNT) as u32;
    if rule == scheduler::LBLC || count == 0 {
        entry.store(word::SERVERS, server as u64);
        entry.store(word::COUNT, 1);
        entry.store(word::TIMES, times);
        return;
    }
    // ip_vs_dest_set_insert: a set has each server once.
    let mut known = false;
    tables.repeat(LOCALITY_SERVERS, |index| {
        let Some(entry) = tables.locality(key) else {
            return false;
        };
        let other = member(entry, index).load(0) as u32;
        known = index < count && other == server;
        index < count && !known
    });
    if known {
        return;
    }
    // A full set loses its oldest server.
    let mut count = count;
    if count >= LOCALITY_SERVERS {
        erase(tables, key, 0, LOCALITY_SERVERS, now as u32);
        count = LOCALITY_SERVERS.wrapping_sub(1);
    }
    let Some(entry) = tables.locality(key) else {
        return;
    };
    member(entry, count).store(0, server as u64);
    entry.store(word::COUNT, count.wrapping_add(1) as u64);
    entry.store(word::TIMES, times);
}
