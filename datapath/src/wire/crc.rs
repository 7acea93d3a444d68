//! The change of a CRC32c (RFC 9260, appendix A) when two of the bytes that it covers change.
//!
//! A CRC is linear: the difference of two CRCs is the CRC of the bits that differ, followed by a
//! zero byte for each byte that follows them. So a port is rewritten without reading the payload,
//! and a packet that arrived with a wrong checksum leaves with a wrong one.
//!
//! Polynomials are reflected, as in the checksum on the wire: the highest bit is the coefficient of
//! x^0.

/// x^32 + x^28 + x^27 + ... + 1, without the term x^32.
const POLYNOMIAL: u32 = 0x82f6_3b78;

/// Bits of a length in bytes, as in the length field of an IP header.
const LENGTH_BITS: usize = 16;

/// The CRC that each half byte of a CRC becomes after 2^k zero bytes, by k, the half byte's place
/// and its value. A table, because the verifier of Linux 6.18 follows two paths at each computed
/// bit: one multiplication would exceed its limit of a million instructions.
static SKIPS: [[[u32; 16]; 8]; LENGTH_BITS] = skips();

// Every index is below the length, and nothing here runs for a packet.
#[allow(clippy::indexing_slicing, clippy::arithmetic_side_effects)]
const fn skips() -> [[[u32; 16]; 8]; LENGTH_BITS] {
    // x^8.
    let mut power = 1 << (31 - 8);
    let mut skips = [[[0; 16]; 8]; LENGTH_BITS];
    let mut at = 0;
    while at < LENGTH_BITS * 8 * 16 {
        let (bit, place, value) = (at >> 7, at >> 4 & 7, at & 15);
        skips[bit][place][value] = multiply((value as u32) << (place * 4), power);
        at += 1;
        if at & 127 == 0 {
            power = multiply(power, power);
        }
    }
    skips
}

/// A polynomial times x.
#[inline(always)]
const fn shifted(value: u32) -> u32 {
    value >> 1 ^ POLYNOMIAL & 0u32.wrapping_sub(value & 1)
}

/// The product of two polynomials.
#[inline(always)]
const fn multiply(a: u32, b: u32) -> u32 {
    let (mut product, mut term, mut at) = (0, b, 0u32);
    while at < 32 {
        let bit = a >> (31u32.wrapping_sub(at)) & 1;
        product ^= term & 0u32.wrapping_sub(bit);
        term = shifted(term);
        at = at.wrapping_add(1);
    }
    product
}

/// The bits of the checksum that change when two bytes change. `changed` has the bits of the two
/// bytes that differ, in memory order. `behind` is the number of bytes that follow, at most 65,533.
#[inline(always)]
#[must_use]
pub fn change(changed: u16, behind: u32) -> u32 {
    // The CRC also advances over the two changed bytes.
    let zeros = behind.wrapping_add(2);
    let mut crc = changed as u32;
    for (bit, skip) in SKIPS.iter().enumerate() {
        if zeros >> bit & 1 != 0 {
            crc = skipped(skip, crc);
        }
    }
    crc
}

#[inline(always)]
fn skipped(skip: &[[u32; 16]; 8], crc: u32) -> u32 {
    let (mut sum, mut rest) = (0, crc);
    for place in skip {
        sum ^= place.get((rest & 15) as usize).copied().unwrap_or(0);
        rest >>= 4;
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The CRC of all bytes, computed bit by bit.
    fn whole(bytes: &[u8]) -> u32 {
        let crc = bytes.iter().fold(u32::MAX, |crc, byte| {
            (0..8).fold(crc ^ u32::from(*byte), |crc, _| shifted(crc))
        });
        !crc
    }

    // RFC 3720, B.4: 32 bytes of zeros, of ones, and of 0 to 31.
    #[test]
    fn the_examples_of_rfc_3720_come_out_as_printed() {
        let counted: std::vec::Vec<u8> = (0..32).collect();
        assert_eq!(whole(&[0; 32]).to_le_bytes(), [0xaa, 0x36, 0x91, 0x8a]);
        assert_eq!(whole(&[0xff; 32]).to_le_bytes(), [0x43, 0xab, 0xa8, 0x62]);
        assert_eq!(whole(&counted).to_le_bytes(), [0x4e, 0x79, 0xdd, 0x46]);
    }

    proptest! {
        #[test]
        fn a_change_equals_a_new_checksum(
            mut bytes in prop::collection::vec(any::<u8>(), 4..2000),
            at in any::<prop::sample::Index>(),
            to in any::<[u8; 2]>(),
        ) {
            let before = whole(&bytes);
            let at = at.index(bytes.len() - 1);
            let was = u16::from_le_bytes([bytes[at], bytes[at + 1]]);
            bytes[at..at + 2].copy_from_slice(&to);
            let changed = was ^ u16::from_le_bytes(to);
            let behind = (bytes.len() - at - 2) as u32;
            prop_assert_eq!(before ^ change(changed, behind), whole(&bytes));
        }
    }

    #[test]
    fn the_longest_packet_comes_out_right() {
        let mut bytes = std::vec![0x5a; 65_535];
        let before = whole(&bytes);
        bytes[2..4].copy_from_slice(&[0x1f, 0x90]);
        let changed = 0x5a5a ^ u16::from_le_bytes([0x1f, 0x90]);
        assert_eq!(before ^ change(changed, 65_531), whole(&bytes));
    }
}
