//! The journal's second copy: a map that is pinned beside the tables that it describes. While the
//! packet path exists the copy exists, whatever happens to the file.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

use aya::maps::MapData;
use tracing::warn;

use crate::chain::chain;
use crate::file::{self, cannot};
use crate::kernel::batch;
use crate::kernel::mapping::{self, Mapping};

/// Why there is no second copy.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the journal of {0} bytes is too long for a map")]
    TooLong(usize),
    #[error(transparent)]
    Make(#[from] batch::Error),
    #[error(transparent)]
    Mapping(#[from] mapping::Error),
    #[error(transparent)]
    File(#[from] file::Error),
    #[error("cannot read the journal")]
    Read(#[source] io::Error),
    #[error("no room for the journal")]
    NoRoom,
}

/// A fresh copy has room for records of its own length and for this many bytes more.
const ROOM: usize = 1 << 16;

/// The copy in force. Its first word is the length in bytes, the rest is the text.
#[derive(Debug)]
pub struct Duplicate {
    pin: PathBuf,
    mapping: Mapping,
    length: usize,
}

impl Duplicate {
    /// Makes a copy in place of the one that is pinned.
    pub fn make(pin: &Path, text: &[u8]) -> Result<Self, Error> {
        let words = 1 + (2 * text.len() + ROOM).div_ceil(8);
        let words = u32::try_from(words).map_err(|_| Error::TooLong(text.len()))?;
        let map = batch::make_array("journal", words)?;
        let mapping = Mapping::new(&map, 1)?;
        let mut duplicate = Self {
            pin: pin.to_owned(),
            mapping,
            length: 0,
        };
        if !duplicate.add(text) {
            return Err(Error::NoRoom);
        }
        // The BPF file system refuses names with a dot.
        let next = pin.with_file_name("journal-next");
        let _ = fs::remove_file(&next);
        let map: MapData = map;
        map.pin(&next).map_err(cannot("pin", &next))?;
        fs::rename(&next, pin).map_err(cannot("pin", pin))?;
        Ok(duplicate)
    }

    /// Replaces the copy by the first `length` bytes of a journal; `None` if that fails.
    pub fn anew(&self, journal: &File, length: u64) -> Option<Self> {
        let mut text = vec![0; length as usize];
        let read = journal.read_exact_at(&mut text, 0);
        let made = read.map_err(Error::Read);
        let made = made.and_then(|()| Self::make(&self.pin, &text));
        made.inspect_err(|error| {
            // A copy that lacks records is worse than no copy.
            let _ = fs::remove_file(&self.pin);
            warn!(
                error = chain(error),
                action = "the file alone must do",
                "no second copy of the journal"
            );
        })
        .ok()
    }

    /// Adds bytes; false if there is no room. The length is written last, so a reader sees all of
    /// them or none.
    pub fn add(&mut self, bytes: &[u8]) -> bool {
        let end = self.length + bytes.len();
        if 1 + end.div_ceil(8) > self.mapping.len() {
            return false;
        }
        let mut left = bytes;
        let mut at = self.length;
        while !left.is_empty() {
            let offset = at % 8;
            let (piece, rest) = left.split_at(left.len().min(8 - offset));
            let Some([word, ..]) = self.mapping.value(1 + at / 8) else {
                return false;
            };
            let mut value = word.load(Ordering::Relaxed).to_le_bytes();
            if let Some(place) = value.get_mut(offset..offset + piece.len()) {
                place.copy_from_slice(piece);
            }
            word.store(u64::from_le_bytes(value), Ordering::Relaxed);
            (left, at) = (rest, at + piece.len());
        }
        if let Some([word, ..]) = self.mapping.value(0) {
            word.store(end as u64, Ordering::Release);
        }
        self.length = end;
        true
    }

    /// The text of the copy that is pinned there.
    pub fn read(pin: &Path) -> Result<Vec<u8>, Error> {
        let map = MapData::from_pin(pin).map_err(cannot("open", pin))?;
        let mapping = Mapping::new(&map, 1)?;
        let word = |at: usize| match mapping.value(at) {
            Some([word, ..]) => word.load(Ordering::Acquire),
            _ => 0,
        };
        let length = (word(0) as usize).min((mapping.len() - 1) * 8);
        let words = (1..=length.div_ceil(8)).map(word);
        let mut text: Vec<u8> = words.flat_map(u64::to_le_bytes).collect();
        text.truncate(length);
        Ok(text)
    }
}
