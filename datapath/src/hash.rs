//! Where keys lie in tables: seeded hashes, and the two buckets that a hash names.
//!
//! Keys are counted up: neighbouring addresses, ports and ids, often two of them at once. So each
//! bit of a key reaches every bit of a bucket's number. A product carries a bit upwards only; the
//! bytes are turned round behind it, so that what has arrived at the top begins again at the
//! bottom. Where a word joins, no byte of it meets a byte of another that was multiplied only once:
//! two that are counted together would cancel each other. The seed is drawn when the tables are
//! made, so that nobody outside knows which keys share a bucket.

/// Of a dozen odd numbers the one with which counted keys spread best (`tests`).
const FACTOR: u64 = 0xd6e8_feb8_6659_fd93;

/// The low bits of a product depend on few bits of its factors: they get the high ones.
#[inline(always)]
fn folded(product: u64) -> u64 {
    product ^ product >> 32 ^ product >> 47
}

/// The hash of one word, and of a byte in bits 24 to 31 that found no room in it.
#[inline(always)]
#[must_use]
pub fn narrow(word: u64, byte: u64, seed: u64) -> u64 {
    let a = (word ^ seed).wrapping_mul(FACTOR).swap_bytes();
    folded((a ^ byte).wrapping_mul(FACTOR))
}

/// The hash of an IPv6 address, and of up to 56 bits beside it.
#[inline(always)]
#[must_use]
pub fn wide(address: [u64; 2], rest: u64, seed: u64) -> u64 {
    let [network, host] = address;
    let a = (host ^ seed).wrapping_mul(FACTOR).swap_bytes();
    // The last byte of the address has reached the lowest byte only, which is left to it.
    let a = (a ^ rest << 8).wrapping_mul(FACTOR).swap_bytes();
    let a = (a ^ network).wrapping_mul(FACTOR).swap_bytes();
    folded(a.wrapping_mul(FACTOR))
}

/// The first bucket of a hash.
#[inline(always)]
#[must_use]
pub fn first(hash: u64, mask: u32) -> u32 {
    hash as u32 & mask
}

/// The second one: of all buckets whose number is odd where the first one's is even, and even where
/// it is odd. So there always are two, if the table has two.
#[inline(always)]
#[must_use]
pub fn second(hash: u64, mask: u32) -> u32 {
    let other = (hash.wrapping_mul(FACTOR) >> 32) as u32;
    (other & !1 | !(hash as u32) & 1) & mask
}

#[cfg(test)]
mod tests;
