//! The Call-ID of a datagram: byte for byte what `ct_sip_get_header`
//! (net/netfilter/nf_conntrack_sip.c) returns to `ip_vs_pe_sip.c`.
//!
//! A header begins after an end of line, so the first line is never one. The Call-ID is a word, or
//! two words with an "@" between them (RFC 3261, 25.1), and the line ends right after it. The
//! header's short name is "i". One oddity comes from the kernel: a byte that follows an end of line
//! and begins no header is not examined again, so a header after an empty line of a lone LF is
//! missed.

use crate::table::Tables;
use crate::table::call::{LONGEST, TEXT, desk};
use crate::table::flows::Words;

/// Finds the Call-ID in the first `length` bytes of the text on the desk and puts it into the
/// desk's key. Returns the Call-ID's length in bytes, 0 if there is none.
#[inline(always)]
pub fn find<T: Tables>(tables: &T, length: u32) -> u32 {
    let Some(desk) = tables.desk() else {
        return 0;
    };
    let mut scan = Scan::default();
    tables.repeat(length, |at| {
        let word = desk
            .skip(desk::TEXT.wrapping_add((at >> 3) as usize & (TEXT / 8 - 1)))
            .load(0);
        scan.hear(at as u64, word >> ((at & 7) << 3) & 0xff)
    });
    let length = if scan.phase == phase::FOUND {
        scan.length as u32
    } else {
        0
    };
    let from = scan.value as u32;
    // Each word of the key is taken from two words of the text; bytes after the end are 0.
    tables.repeat(32, |number| {
        let at = from.wrapping_add(number << 3);
        let (first, shift) = ((at >> 3) as usize, (at & 7) << 3);
        let low = desk.skip(desk::TEXT.wrapping_add(first & (TEXT / 8 - 1)));
        let next = first.wrapping_add(1) & (TEXT / 8 - 1);
        let high = desk.skip(desk::TEXT.wrapping_add(next));
        // The shift to the left is done in two steps, because a shift by 64 bits shifts by none.
        let word = low.load(0) >> shift | high.load(0) << 1 << (63u32.wrapping_sub(shift) & 63);
        let left = length.saturating_sub(number << 3);
        let kept = if left >= 8 {
            u64::MAX
        } else {
            (1u64 << (left << 3 & 63)).wrapping_sub(1)
        };
        desk.skip(desk::ID.wrapping_add(number as usize & 31))
            .store(0, word & kept);
        true
    });
    length
}

/// Where the scan is in the text.
mod phase {
    /// In a line that is not the Call-ID's.
    pub const LINE: u64 = 0;
    /// After a CR, which an LF may follow.
    pub const AFTER_CR: u64 = 1;
    /// At the beginning of a line.
    pub const BEGIN: u64 = 2;
    /// In "Call-ID", after `count` of its letters.
    pub const NAME: u64 = 3;
    /// After "i" at the beginning of a line.
    pub const SHORT: u64 = 4;
    /// After the name, before the colon.
    pub const COLON: u64 = 5;
    /// After the colon, before the value.
    pub const VALUE: u64 = 6;
    /// After a CR before the colon or the value: a folded line may follow.
    pub const FOLDED_CR: u64 = 7;
    /// At the beginning of a line that must be a folded one (RFC 3261, 7.3.1).
    pub const FOLDED: u64 = 8;
    /// In the blanks at the beginning of a folded line.
    pub const BLANKS: u64 = 9;
    pub const FIRST_WORD: u64 = 10;
    pub const SECOND_WORD: u64 = 11;
    pub const FOUND: u64 = 12;
    pub const FAILED: u64 = 13;
}

/// A scan, byte by byte. All fields are 64-bit words: the kernel's verifier tracks the stack in
/// these.
#[derive(Clone, Copy, Debug, Default)]
struct Scan {
    phase: u64,
    /// Letters of the name that were read. In a folded line: 0 before the colon, 1 after it.
    count: u64,
    /// Where the value begins.
    value: u64,
    length: u64,
    /// Bytes of the second word.
    domain: u64,
    /// Ends of lines before this byte are ignored: see [`Scan::go_on`].
    resume: u64,
}

const CR: u64 = b'\r' as u64;
const LF: u64 = b'\n' as u64;

impl Scan {
    /// Takes in the next byte; false if the scan is over.
    #[inline(always)]
    fn hear(&mut self, at: u64, byte: u64) -> bool {
        match self.phase {
            phase::LINE => self.line(at, byte),
            phase::AFTER_CR if byte == LF => self.phase = phase::BEGIN,
            phase::AFTER_CR | phase::BEGIN => self.begin(byte),
            phase::NAME => self.name(byte, at),
            phase::SHORT if is_letter(byte) => self.line(at, byte),
            phase::SHORT | phase::COLON => self.colon(byte),
            phase::VALUE => self.value(at, byte),
            phase::FOLDED_CR if byte == LF => self.phase = phase::FOLDED,
            phase::FOLDED_CR | phase::FOLDED if is_blank(byte) => self.phase = phase::BLANKS,
            phase::BLANKS if is_blank(byte) => {}
            phase::BLANKS if self.count == 0 => self.at_colon(byte),
            phase::BLANKS => self.first(at, byte),
            phase::FIRST_WORD => self.first_word(at, byte),
            phase::SECOND_WORD => self.second_word(at, byte),
            _ => self.phase = phase::FAILED,
        }
        self.phase < phase::FOUND
    }

    #[inline(always)]
    fn line(&mut self, at: u64, byte: u64) {
        self.phase = if at < self.resume {
            phase::LINE
        } else if byte == CR {
            phase::AFTER_CR
        } else if byte == LF {
            phase::BEGIN
        } else {
            phase::LINE
        };
    }

    #[inline(always)]
    fn begin(&mut self, byte: u64) {
        self.count = 1;
        self.phase = match small(byte) {
            0x63 => phase::NAME,
            0x69 => phase::SHORT,
            _ => phase::LINE,
        };
    }

    /// Compares the next letter of the name. All bytes before were letters, so if this one differs
    /// it is the first that can end the line.
    #[inline(always)]
    fn name(&mut self, byte: u64, at: u64) {
        // "call-id", the first letter lowest.
        const NAME: u64 = u64::from_le_bytes(*b"call-id\0");
        if small(byte) != NAME >> (self.count << 3 & 63) & 0xff {
            self.line(at, byte);
            return;
        }
        self.count = self.count.wrapping_add(1);
        if self.count == 7 {
            self.phase = phase::COLON;
        }
    }

    #[inline(always)]
    fn colon(&mut self, byte: u64) {
        self.count = 0;
        if is_blank(byte) {
            self.phase = phase::COLON;
        } else if !self.folds(byte) {
            self.at_colon(byte);
        }
    }

    #[inline(always)]
    fn at_colon(&mut self, byte: u64) {
        self.phase = if byte == b':' as u64 {
            phase::VALUE
        } else {
            phase::FAILED
        };
    }

    #[inline(always)]
    fn value(&mut self, at: u64, byte: u64) {
        self.count = 1;
        if !is_blank(byte) && !self.folds(byte) {
            self.first(at, byte);
        }
    }

    /// Whether the line ends here; then a folded line must follow.
    #[inline(always)]
    fn folds(&mut self, byte: u64) -> bool {
        if byte == CR {
            self.phase = phase::FOLDED_CR;
        } else if byte == LF {
            self.phase = phase::FOLDED;
        }
        byte == CR || byte == LF
    }

    /// Begins the value at this byte.
    #[inline(always)]
    fn first(&mut self, at: u64, byte: u64) {
        self.value = at;
        self.length = 0;
        self.domain = 0;
        self.first_word(at, byte);
    }

    #[inline(always)]
    fn first_word(&mut self, at: u64, byte: u64) {
        self.phase = phase::FIRST_WORD;
        if is_word(byte) {
            self.length = self.length.wrapping_add(1);
        } else if self.length == 0 {
            self.go_on(at, byte);
        } else if byte == b'@' as u64 {
            self.length = self.length.wrapping_add(1);
            self.phase = phase::SECOND_WORD;
        } else {
            self.end(byte);
        }
    }

    #[inline(always)]
    fn second_word(&mut self, at: u64, byte: u64) {
        if is_word(byte) {
            self.length = self.length.wrapping_add(1);
            self.domain = 1;
        } else if self.domain == 0 {
            self.go_on(at, byte);
        } else {
            self.end(byte);
        }
    }

    /// Ends the value: a line end must follow the Call-ID.
    #[inline(always)]
    fn end(&mut self, byte: u64) {
        self.phase = if self.length <= LONGEST as u64 && (byte == CR || byte == LF) {
            phase::FOUND
        } else {
            phase::FAILED
        };
    }

    /// Searches on after a line whose value is no Call-ID. `get_callid` adds the value's place to
    /// the place where its search began, and searches from the sum.
    #[inline(always)]
    fn go_on(&mut self, at: u64, byte: u64) {
        self.resume = self.resume.wrapping_add(self.value);
        self.line(at, byte);
    }
}

#[inline(always)]
fn is_blank(byte: u64) -> bool {
    byte == b' ' as u64 || byte == b'\t' as u64
}

/// The lower-case form of an ASCII letter; any other byte is returned as it is.
#[inline(always)]
fn small(byte: u64) -> u64 {
    if byte >= b'A' as u64 && byte <= b'Z' as u64 {
        byte | 0x20
    } else {
        byte
    }
}

/// `isalpha` of the kernel, which takes bytes as Latin-1.
#[inline(always)]
fn is_letter(byte: u64) -> bool {
    let ascii = small(byte);
    ascii >= b'a' as u64 && ascii <= b'z' as u64 || is_latin(byte)
}

#[inline(always)]
fn is_latin(byte: u64) -> bool {
    byte >= 0xc0 && byte != 0xd7 && byte != 0xf7
}

/// `iswordc`: RFC 3261, 25.1, and the letters of Latin-1.
#[inline(always)]
fn is_word(byte: u64) -> bool {
    const LOW: u64 = bits(b"0123456789!\"%'()*+-./:<>?", 0);
    const HIGH: u64 = bits(
        b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz[\\]_`{}~",
        64,
    );
    if byte < 64 {
        LOW >> (byte & 63) & 1 != 0
    } else if byte < 128 {
        HIGH >> (byte & 63) & 1 != 0
    } else {
        is_latin(byte)
    }
}

// Evaluated by the compiler: an index out of range or an overflow does not compile.
#[allow(clippy::indexing_slicing, clippy::arithmetic_side_effects)]
const fn bits(bytes: &[u8], from: u8) -> u64 {
    let (mut bits, mut at) = (0, 0);
    while at < bytes.len() {
        bits |= 1 << (bytes[at] - from);
        at += 1;
    }
    bits
}

#[cfg(test)]
mod tests;
