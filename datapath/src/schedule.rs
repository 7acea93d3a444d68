//! Schedulers: which real server takes a new connection. Each decides as IPVS's does; p2c is not
//! IPVS's.
//!
//! The daemon prepares a pool: the order, the ring, the hash slots, the lots. Live counts are
//! looked up here. A pool is a run of words: two words of state (the cursor, then its parameters),
//! a slot for each server or place in IPVS's order, newest first, then the lots that a random
//! scheduler draws. Only hash tables have slots of weight 0, which are never picked. An overloaded
//! server counts as weight 0.

pub use crate::table::Client;
use crate::table::Tables;
use crate::table::entry::{
    NONE, POOL_HEAD, PoolWord, Service, scheduler, slot_is_limited, slot_server,
};
use crate::table::flows::Words;

mod hashes;
mod least;
mod locality;
pub mod overload;
mod priority;
mod random;
mod round;

pub use hashes::hsiphash;
pub use least::STALE_TICKS;

/// Picks a server, or [`NONE`] if none may take the connection.
#[inline(always)]
pub fn pick<T: Tables>(tables: &T, service: u32, client: Client) -> u32 {
    let Some(entry) = tables.service(service) else {
        return NONE;
    };
    let (pool, flags) = (PoolWord(entry.pool), entry.flags);
    let hashed = hashes::hashed(flags, client);
    match pool.scheduler() {
        scheduler::RING => round::ring(tables, pool),
        scheduler::WRR => round::weighted(tables, pool),
        scheduler::SH => hashes::source(tables, pool, flags, hashed),
        scheduler::DH => hashes::target(tables, pool, client),
        scheduler::MH => hashes::maglev(tables, pool, flags, hashed),
        scheduler::FO | scheduler::OVF => priority::first(tables, pool),
        scheduler::EMPTY => NONE,
        scheduler::TWOS | scheduler::P2C => random::draw(tables, pool),
        rule => by_load(tables, service, entry, rule, client),
    }
}

/// lc, wlc, sed, nq, lblc, lblcr.
#[inline(always)]
fn by_load<T: Tables>(tables: &T, service: u32, entry: &Service, rule: u8, client: Client) -> u32 {
    let pool = PoolWord(entry.pool);
    let local = rule == scheduler::LBLC || rule == scheduler::LBLCR;
    let key = locality::key(service, entry.epoch, client.target);
    if local {
        let known = locality::known(tables, pool, rule, &key);
        if known != NONE {
            return known;
        }
    }
    let least = least::least(tables, pool, rule);
    if local && least != NONE {
        locality::remember(tables, rule, &key, least);
    }
    least
}

/// The server and weight of a slot. The weight of an overloaded server is 0.
#[inline(always)]
fn slot<T: Tables>(tables: &T, pool: PoolWord, index: u32) -> (u32, u32) {
    let at = pool.base().wrapping_add(POOL_HEAD).wrapping_add(index);
    let Some(words) = tables.pool(at) else {
        return (NONE, 0);
    };
    let word = words.load(0);
    let server = slot_server(word);
    if slot_is_limited(word) && overload::is_overloaded(tables, server) {
        return (server, 0);
    }
    (server, (word >> 32) as u32)
}

/// The server of a flow that can have no entry. It is the same for each packet while the pool stays
/// as it is, and may be overloaded.
#[inline(always)]
pub fn by_hash<T: Tables>(tables: &T, service: &Service, hash: u64) -> u32 {
    let pool = PoolWord(service.pool);
    let Some(index) = (hash >> 11).checked_rem(pool.length() as u64) else {
        return NONE;
    };
    let first = pool.first_listed();
    let Some(words) = tables.pool(first.wrapping_add(index as u32)) else {
        return NONE;
    };
    let word = words.load(0);
    if word >> 32 != 0 {
        slot_server(word)
    } else {
        NONE
    }
}
