//! Lines of a journal: `checksum length text`. Checksum and length confine damage to its line.

use std::fmt;
use std::io;

use super::Record;

/// A line or record of a journal that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The number of the line, from 1.
    pub number: usize,
    /// The offset of the line in bytes.
    pub at: usize,
    /// The reason as a clause, with the name of the record if that is known.
    pub why: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { number, at, why } = self;
        write!(f, "record {number} at byte {at}: {why}")
    }
}

/// The place of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    number: usize,
    at: usize,
}

impl Place {
    pub(super) fn fault(self, why: String) -> Fault {
        let Self { number, at } = self;
        Fault { number, at, why }
    }
}

/// A reader of the lines of a journal.
#[derive(Debug)]
pub(super) struct Lines<'a> {
    text: &'a [u8],
    at: usize,
    number: usize,
}

impl<'a> Lines<'a> {
    pub(super) fn new(text: &'a [u8]) -> Self {
        Self {
            text,
            at: 0,
            number: 0,
        }
    }

    /// The place and text of the next line, or its fault; `None` if no whole line is left.
    pub(super) fn next_line(&mut self) -> Option<Result<(Place, &'a [u8]), Fault>> {
        let left = self.text.get(self.at..).unwrap_or_default();
        let place = Place {
            number: self.number + 1,
            at: self.at,
        };
        // The line's own length comes first, since its line feed may be damaged.
        if let Some(body) = body(left)
            && let Some(end) = body.end.checked_add(1).filter(|end| *end <= left.len())
        {
            self.number += 1;
            self.at += end;
            return Some(Ok((place, left.get(body).unwrap_or_default())));
        }
        let end = left.iter().position(|byte| *byte == b'\n')?;
        self.number += 1;
        self.at += end + 1;
        let why = "its checksum or its length does not fit".to_owned();
        Some(Err(place.fault(why)))
    }

    /// Bytes that are left when there is no next line.
    pub(super) fn torn(&self) -> usize {
        self.text.len() - self.at
    }
}

/// The range of the first line's text, if checksum and length fit.
fn body(left: &[u8]) -> Option<std::ops::Range<usize>> {
    let sum = u32::from_str_radix(std::str::from_utf8(left.get(..8)?).ok()?, 16).ok()?;
    let rest = left.get(8..)?.strip_prefix(b" ")?;
    let digits = rest.iter().take(20).position(|byte| *byte == b' ')?;
    let length = std::str::from_utf8(rest.get(..digits)?).ok()?;
    let length: usize = length.parse().ok()?;
    let from = 8 + 1 + digits + 1;
    let range = from..from.checked_add(length)?;
    (checksum(left.get(range.clone())?) == sum).then_some(range)
}

/// Records as a line.
pub fn of(records: &[Record]) -> io::Result<Vec<u8>> {
    let body = serde_json::to_vec(records)?;
    Ok(with_checksum(&body))
}

/// A text as a line.
pub fn with_checksum(body: &[u8]) -> Vec<u8> {
    let mut line = format!("{:08x} {} ", checksum(body), body.len()).into_bytes();
    line.extend(body);
    line.push(b'\n');
    line
}

/// CRC-32 as in ISO 3309, which Ethernet has too.
pub(super) fn checksum(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |sum: u32, byte| {
        sum >> 8 ^ SUMS[(sum as u8 ^ byte) as usize]
    })
}

const SUMS: [u32; 256] = {
    let mut sums = [0; 256];
    let mut at = 0;
    while at < 256 {
        let mut sum = at as u32;
        let mut bit = 0;
        while bit < 8 {
            sum = if sum & 1 == 1 {
                sum >> 1 ^ 0xedb8_8320
            } else {
                sum >> 1
            };
            bit += 1;
        }
        sums[at] = sum;
        at += 1;
    }
    sums
};
