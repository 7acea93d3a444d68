//! The Internet checksum (RFC 1071) and its changes (RFC 1624), on words in wire order.
//!
//! A sum is a `u32` of one's complement additions with the carries not yet folded in. Since one's
//! complement addition does not mind the byte order (RFC 1071, 2.B), nothing is ever swapped.

/// Adds two sums with end-around carry.
#[inline(always)]
#[must_use]
pub fn add(a: u32, b: u32) -> u32 {
    let sum = (a as u64).wrapping_add(b as u64);
    (sum as u32).wrapping_add((sum >> 32) as u32)
}

/// Folds a sum to 16 bits.
#[inline(always)]
#[must_use]
pub fn fold(sum: u32) -> u16 {
    let sum = (sum & 0xffff).wrapping_add(sum >> 16);
    let sum = (sum & 0xffff).wrapping_add(sum >> 16);
    sum as u16
}

/// The sum of the 16-bit words of a 64-bit value.
#[inline(always)]
#[must_use]
pub fn of_u64(value: u64) -> u32 {
    add(value as u32, (value >> 32) as u32)
}

/// The amount by which replacing `from` with `to` changes a sum.
#[inline(always)]
#[must_use]
pub fn change(from: u32, to: u32) -> u32 {
    add(!from, to)
}

/// The amount by which replacing one 16-bit word changes a sum.
#[inline(always)]
#[must_use]
pub fn change_u16(from: u16, to: u16) -> u32 {
    ((!from) as u32).wrapping_add(to as u32)
}

/// RFC 1624, equation 3: HC' = ~(~HC + ~m + m'), with `delta` = ~m + m'.
#[inline(always)]
#[must_use]
pub fn update(checksum: u16, delta: u32) -> u16 {
    !fold(add((!checksum) as u32, delta))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn whole(words: &[u16]) -> u16 {
        let mut sum = 0u64;
        for word in words {
            sum += u64::from(*word);
        }
        while sum >> 16 != 0 {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        !(sum as u16)
    }

    // RFC 1071, 3: the example's words sum to ddf2.
    #[test]
    fn the_example_of_rfc_1071_sums_as_printed() {
        let sum = add(add(0x0001, 0xf203), add(0xf4f5, 0xf6f7));
        assert_eq!(fold(sum), 0xddf2);
    }

    // RFC 1624, 4: HC = dd2f, m = 5555, m' = 3285 gives 0000.
    #[test]
    fn the_example_of_rfc_1624_updates_as_printed() {
        assert_eq!(update(0xdd2f, change_u16(0x5555, 0x3285)), 0x0000);
    }

    proptest! {
        #[test]
        fn an_update_equals_a_new_sum(mut words in prop::collection::vec(any::<u16>(), 2..40), at in any::<prop::sample::Index>(), to in any::<u16>()) {
            // 0 and ffff are the same sum; only a header of zeros, which does not occur, has sum 0.
            words[0] |= 1;
            let before = whole(&words);
            let at = 1 + at.index(words.len() - 1);
            let delta = change_u16(words[at], to);
            words[at] = to;
            prop_assert_eq!(update(before, delta), whole(&words));
        }
    }
}
