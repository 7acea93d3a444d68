//! Which real server takes a new connection: IPVS's schedulers, decision for decision.
//!
//! What can be prepared lies ready in the pool (the order, the ring, the hash slots); what depends
//! on live counts looks at them here. A pool is a stretch of words: two of state (the cursor, then
//! what it is understood with: the bounds of wrr, and what a ring's cursor began with, which only
//! the daemon reads), then a slot for each server or place, in IPVS's own order, newest first.
//! Slots of weight 0 stand only in hash tables and are never picked.

use crate::entry::{NONE, POOL_HEAD, PoolWord, Service, counts, scheduler, service_flag};
use crate::flows::Words;
use crate::tables::Tables;

/// What a choice may depend on.
#[derive(Clone, Copy, Debug)]
pub struct Client {
    /// The address, folded ([`crate::family::Family::folded`]), in host order.
    pub address: u32,
    /// The source port in host order.
    pub port: u16,
}

/// Picks a server, or [`NONE`] if none may take the connection.
#[inline(always)]
pub fn pick<T: Tables>(tables: &T, service: u32, client: Client) -> u32 {
    let Some(service) = tables.service(service) else {
        return NONE;
    };
    let pool = PoolWord(service.pool);
    match pool.scheduler() {
        scheduler::RING => ring(tables, pool),
        scheduler::SH => source_hash(tables, pool, service.flags, client),
        scheduler::MH => maglev(tables, pool, service.flags, client),
        scheduler::WRR => weighted_round(tables, pool),
        scheduler::EMPTY => NONE,
        rule => least(tables, pool, rule),
    }
}

#[inline(always)]
fn slot<T: Tables>(tables: &T, pool: PoolWord, index: u32) -> (u32, u32) {
    let at = pool.base().wrapping_add(POOL_HEAD).wrapping_add(index);
    match tables.pool(at) {
        Some(words) => {
            let word = words.load(0);
            (word as u32, (word >> 32) as u32)
        }
        None => (NONE, 0),
    }
}

/// rr, wrr: the next place of the ring. The cursor is shared by all CPUs, so that the order is
/// kept exactly (`ip_vs_rr_schedule`, `ip_vs_wrr_schedule`).
#[inline(always)]
fn ring<T: Tables>(tables: &T, pool: PoolWord) -> u32 {
    let (Some(state), length) = (tables.pool(pool.base()), pool.length()) else {
        return NONE;
    };
    let turn = state.add(0, 1);
    match turn.checked_rem(length as u64) {
        Some(index) => slot(tables, pool, index as u32).0,
        None => NONE,
    }
}

/// The load of a server by rule: what `ip_vs_dest_conn_overhead` and `ip_vs_sed_dest_overhead` say.
#[inline(always)]
fn load(rule: u8, word: u64) -> u64 {
    let (active, inactive) = (counts::active(word) as u64, counts::inactive(word) as u64);
    if rule == scheduler::SED || rule == scheduler::NQ {
        active.wrapping_add(1)
    } else {
        (active << 8).wrapping_add(inactive)
    }
}

/// lc, wlc, sed, nq: the first of those with the least load for their weight. nq takes the first
/// idle server at once.
#[inline(always)]
fn least<T: Tables>(tables: &T, pool: PoolWord, rule: u8) -> u32 {
    let (mut best, mut best_load, mut best_weight) = (NONE, 0u64, 0u64);
    tables.repeat(pool.length(), |index| {
        let (server, weight) = slot(tables, pool, index);
        let weight = if rule == scheduler::LC {
            1
        } else {
            weight as u64
        };
        let Some(words) = tables.counts(server) else {
            return true;
        };
        let word = words.load(0);
        if rule == scheduler::NQ && counts::active(word) == 0 {
            (best, best_load, best_weight) = (server, 0, weight);
            return false;
        }
        let load = load(rule, word);
        // Compared crosswise, as the kernel does, so that nothing is rounded.
        if best == NONE || best_load.wrapping_mul(weight) > load.wrapping_mul(best_weight) {
            (best, best_load, best_weight) = (server, load, weight);
        }
        true
    });
    best
}

/// `hash_32` of the kernel (include/linux/hash.h) to eight bits.
#[inline(always)]
fn hash_8(value: u32) -> u32 {
    value.wrapping_mul(0x61c8_8647) >> 24
}

/// sh: `ip_vs_sh_hashkey`. 256 slots.
#[inline(always)]
fn source_hash<T: Tables>(tables: &T, pool: PoolWord, flags: u8, client: Client) -> u32 {
    let port = if flags & service_flag::PORT != 0 {
        client.port as u32
    } else {
        0
    };
    let hash = hash_8(port.wrapping_add(client.address));
    let (server, weight) = slot(tables, pool, hash);
    if weight != 0 || flags & service_flag::FALLBACK == 0 {
        return if weight != 0 { server } else { NONE };
    }
    // ip_vs_sh_get_fallback: the offset takes part in the hash, from the first hash on and round.
    let mut found = NONE;
    tables.repeat(256, |offset| {
        let round = offset.wrapping_add(hash) & 255;
        let at = round.wrapping_add(hash_8(port.wrapping_add(client.address))) & 255;
        let (server, weight) = slot(tables, pool, at);
        if weight != 0 {
            found = server;
        }
        weight == 0 && server != NONE
    });
    found
}

/// The keys of `generate_hash_secret` in ip_vs_mh.c.
const MH_KEY: u64 = 2_654_435_761;

/// mh: `ip_vs_mh_get` and `ip_vs_mh_get_fallback`.
#[inline(always)]
fn maglev<T: Tables>(tables: &T, pool: PoolWord, flags: u8, client: Client) -> u32 {
    let port = if flags & service_flag::PORT != 0 {
        client.port as u32
    } else {
        0
    };
    let value = port.wrapping_add(client.address);
    let Some(hash) = hsiphash(value, MH_KEY).checked_rem(pool.length()) else {
        return NONE;
    };
    let (server, weight) = slot(tables, pool, hash);
    if weight != 0 || flags & service_flag::FALLBACK == 0 {
        return if weight != 0 { server } else { NONE };
    }
    let mut found = NONE;
    tables.repeat(pool.length(), |offset| {
        let round = offset
            .wrapping_add(hash)
            .checked_rem(pool.length())
            .unwrap_or(0);
        let at = hsiphash(value.wrapping_add(round), MH_KEY)
            .checked_rem(pool.length())
            .unwrap_or(0);
        let (server, weight) = slot(tables, pool, at);
        if weight != 0 {
            found = server;
        }
        weight == 0 && server != NONE
    });
    found
}

/// `hsiphash` of one 32-bit word: SipHash-1-3 cut to 32 bits on 64-bit machines (lib/siphash.c).
#[inline(always)]
#[must_use]
pub fn hsiphash(value: u32, key: u64) -> u32 {
    let mut v = [
        0x736f_6d65_7073_6575 ^ key,
        0x646f_7261_6e64_6f6d ^ key,
        0x6c79_6765_6e65_7261 ^ key,
        0x7465_6462_7974_6573 ^ key,
    ];
    // Four bytes: the only block holds the length in its highest byte and the bytes below.
    let block = 4u64 << 56 | value as u64;
    v[3] ^= block;
    sip_round(&mut v);
    v[0] ^= block;
    v[2] ^= 0xff;
    sip_round(&mut v);
    sip_round(&mut v);
    sip_round(&mut v);
    (v[0] ^ v[1] ^ v[2] ^ v[3]) as u32
}

#[inline(always)]
fn sip_round(v: &mut [u64; 4]) {
    v[0] = v[0].wrapping_add(v[1]);
    v[1] = v[1].rotate_left(13) ^ v[0];
    v[0] = v[0].rotate_left(32);
    v[2] = v[2].wrapping_add(v[3]);
    v[3] = v[3].rotate_left(16) ^ v[2];
    v[0] = v[0].wrapping_add(v[3]);
    v[3] = v[3].rotate_left(21) ^ v[0];
    v[2] = v[2].wrapping_add(v[1]);
    v[1] = v[1].rotate_left(17) ^ v[2];
    v[2] = v[2].rotate_left(32);
}

/// wrr where the turn is too long for a ring: `ip_vs_wrr_schedule` itself. The state is the last
/// place (1 is the first slot, 0 the head of the list) in the low half and the current weight in
/// the high half of the cursor; the second word of the pool holds the greatest weight and what
/// the weights step by.
#[inline(always)]
fn weighted_round<T: Tables>(tables: &T, pool: PoolWord) -> u32 {
    let Some(state) = tables.pool(pool.base()) else {
        return NONE;
    };
    let Some(bounds) = tables.pool(pool.base().wrapping_add(1)) else {
        return NONE;
    };
    let (greatest, step) = (bounds.load(0) as u32, (bounds.load(0) >> 32) as u32);
    let cursor = state.load(0);
    let (mut place, mut current) = (cursor as u32, (cursor >> 32) as u32);
    let mut found = NONE;
    tables.repeat(pool.length().wrapping_mul(2).wrapping_add(2), |_| {
        if place >= pool.length() {
            place = tables.blur(0) as u32;
            current = if current > step {
                current.wrapping_sub(step)
            } else {
                greatest
            };
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

/// The server of a flow that can have no entry: the same for each of its packets while the pool
/// stays as it is.
#[inline(always)]
pub fn by_hash<T: Tables>(tables: &T, service: &Service, hash: u64) -> u32 {
    let pool = PoolWord(service.pool);
    let Some(index) = (hash >> 11).checked_rem(pool.length() as u64) else {
        return NONE;
    };
    let (server, weight) = slot(tables, pool, index as u32);
    if weight != 0 { server } else { NONE }
}
