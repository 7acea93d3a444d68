//! The bytes of transfers: an endless, reproducible stream in which a lost, doubled or moved byte
//! shows, and a checksum of what was received.

/// The output of an xorshift generator (Marsaglia 2003, the triple 13, 7, 17).
#[derive(Clone, Debug)]
pub(crate) struct Pattern {
    state: u64,
    word: [u8; 8],
    used: usize,
}

impl Pattern {
    pub(crate) fn new() -> Pattern {
        Pattern {
            state: 0x9e37_79b9_7f4a_7c15,
            word: [0; 8],
            used: 8,
        }
    }

    pub(crate) fn fill(&mut self, bytes: &mut [u8]) {
        for byte in bytes {
            if self.used == self.word.len() {
                self.state ^= self.state << 13;
                self.state ^= self.state >> 7;
                self.state ^= self.state << 17;
                self.word = self.state.to_le_bytes();
                self.used = 0;
            }
            *byte = self.word[self.used];
            self.used += 1;
        }
    }
}

/// FNV-1a over 64 bits. Streams that differ in any byte have different sums; how a stream is cut
/// into pieces does not matter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sum(u64);

impl Sum {
    pub(crate) fn new() -> Sum {
        Sum(0xcbf2_9ce4_8422_2325)
    }

    pub(crate) fn add(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }

    pub(crate) fn text(self) -> String {
        format!("{:016x}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pieces_in_which_a_stream_is_taken_do_not_matter() {
        let (mut whole, mut pieces) = (vec![0; 1000], vec![0; 1000]);
        Pattern::new().fill(&mut whole);
        let mut pattern = Pattern::new();
        for piece in pieces.chunks_mut(7) {
            pattern.fill(piece);
        }
        assert_eq!(whole, pieces);

        let (mut once, mut twice) = (Sum::new(), Sum::new());
        once.add(&whole);
        twice.add(&whole[..333]);
        twice.add(&whole[333..]);
        assert_eq!(once, twice);
    }

    #[test]
    fn exchanged_bytes_change_the_sum() {
        let (mut one, mut other) = (Sum::new(), Sum::new());
        one.add(b"ab");
        other.add(b"ba");
        assert_ne!(one, other);
    }
}
