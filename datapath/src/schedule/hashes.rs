//! sh, dh, mh: the server by a hash of an address.
//!
//! A client whose hash leads to a quiesced or overloaded server gets none. With sh and mh the
//! search goes on if the service has the fallback flag (`sh-fallback`, `mh-fallback`).

use super::{Client, slot};
use crate::table::Tables;
use crate::table::entry::{NONE, PoolWord, service_flag};
use crate::wire::version::{V6, Version};

/// What sh and mh hash: the client's address, plus its port if the service has the port flag
/// (`sh-port`, `mh-port`).
#[inline(always)]
pub(super) fn hashed(flags: u8, client: Client) -> u32 {
    let port = if flags & service_flag::PORT != 0 {
        client.port as u32
    } else {
        0
    };
    port.wrapping_add(client.address)
}

/// `hash_32` of the kernel (include/linux/hash.h) to eight bits.
#[inline(always)]
fn hash_8(value: u32) -> u32 {
    value.wrapping_mul(0x61c8_8647) >> 24
}

/// sh: `ip_vs_sh_hashkey`. 256 slots.
// A separate function for its stack: see `random::draw`.
#[inline(never)]
pub(super) fn source<T: Tables>(tables: &T, pool: PoolWord, flags: u8, value: u32) -> u32 {
    let hash = hash_8(value);
    let (server, weight) = slot(tables, pool, hash);
    if weight != 0 || flags & service_flag::FALLBACK == 0 {
        return if weight != 0 { server } else { NONE };
    }
    // ip_vs_sh_get_fallback: offsets begin at the first hash and wrap round; each is added to the
    // hash.
    let mut found = NONE;
    tables.repeat(256, |offset| {
        let round = offset.wrapping_add(hash) & 255;
        let at = round.wrapping_add(hash_8(value)) & 255;
        let (server, weight) = slot(tables, pool, at);
        if weight != 0 {
            found = server;
        }
        weight == 0 && server != NONE
    });
    found
}

/// dh: `ip_vs_dh_hashkey`. 256 slots.
#[inline(always)]
pub(super) fn target<T: Tables>(tables: &T, pool: PoolWord, client: Client) -> u32 {
    // An IPv4 address fills half of the first word, so folding it as IPv6 leaves it unchanged.
    let (server, weight) = slot(tables, pool, hash_8(V6::folded(client.target)));
    if weight != 0 { server } else { NONE }
}

/// The keys of `generate_hash_secret` in ip_vs_mh.c.
const MH_KEY: u64 = 2_654_435_761;

/// mh: `ip_vs_mh_get` and `ip_vs_mh_get_fallback`.
// A separate function for its stack: see `random::draw`.
#[inline(never)]
pub(super) fn maglev<T: Tables>(tables: &T, pool: PoolWord, flags: u8, value: u32) -> u32 {
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
