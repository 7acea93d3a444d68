//! Seeded hashes of keys, and the two buckets that a hash gives.
//!
//! Keys count up: neighbouring addresses, ports and ids, often two of them at once. So each bit of
//! a key must reach every bit of a bucket's number. A multiplication carries bits only upwards.
//! After it the bytes are reversed, so that the next multiplication carries the highest ones on
//! from the bottom. A word joins where none of its bytes meets another word's byte that was
//! multiplied only once: two bytes that count together would cancel each other. The seed is drawn
//! when the tables are made, so that no sender knows which keys share a bucket.

/// The number that spreads keys that count up best, of a dozen odd ones (`tests`).
const FACTOR: u64 = 0xd6e8_feb8_6659_fd93;

/// Adds the high bits of a product to its low ones, which depend on few bits of the factors.
#[inline(always)]
fn folded(product: u64) -> u64 {
    product ^ product >> 32 ^ product >> 47
}

/// The hash of one word, and of a byte that does not fit into it, in bits 24 to 31 of `byte`.
#[inline(always)]
#[must_use]
pub fn narrow(word: u64, byte: u64, seed: u64) -> u64 {
    let a = (word ^ seed).wrapping_mul(FACTOR).swap_bytes();
    folded((a ^ byte).wrapping_mul(FACTOR))
}

/// The hash of an IPv6 address and of the 56 low bits of `rest`.
#[inline(always)]
#[must_use]
pub fn wide(address: [u64; 2], rest: u64, seed: u64) -> u64 {
    let [network, host] = address;
    let a = (host ^ seed).wrapping_mul(FACTOR).swap_bytes();
    // The address's last byte has reached only the lowest byte of `a`, so `rest` joins above it.
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

/// The second bucket of a hash. Its number is odd if the first one's is even, and even if that is
/// odd, so that both differ in any table with two buckets.
#[inline(always)]
#[must_use]
pub fn second(hash: u64, mask: u32) -> u32 {
    let other = (hash.wrapping_mul(FACTOR) >> 32) as u32;
    (other & !1 | !(hash as u32) & 1) & mask
}

/// A number whose low bits spread over words that are counted up.
#[inline(always)]
#[must_use]
pub fn phase(word: u64) -> u32 {
    word.wrapping_mul(FACTOR).swap_bytes() as u32
}

#[cfg(test)]
mod tests;
