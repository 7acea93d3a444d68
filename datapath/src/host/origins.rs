//! The longest prefix of a source, as the kernel's trie finds it.

use crate::table::entry::{NONE, OriginKey};

/// The endpoint with the longest prefix of this key's source, or [`NONE`].
pub fn longest(origins: &[(OriginKey, u32, u32)], key: &OriginKey) -> u32 {
    let bits = |address: [u64; 2]| {
        let [high, low] = address.map(|word| u128::from(u64::from_be(word)));
        high << 64 | low
    };
    let fits = |entry: &&(OriginKey, u32, u32)| {
        let (other, length, _) = *entry;
        let fixed = |key: &OriginKey| (key.word, key.interface, key.target);
        let differing = bits(other.source) ^ bits(key.source);
        fixed(other) == fixed(key) && differing.leading_zeros() >= *length
    };
    let found = origins.iter().filter(fits);
    let longest = found.max_by_key(|(_, length, _)| *length);
    longest.map_or(NONE, |(_, _, id)| *id)
}
