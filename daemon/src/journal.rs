//! The daemon's memory as a file: first all of it, then each step since, in the order in which they
//! were done. Adding one costs as much as the step, however large the memory is.
//!
//! A record is a line: the checksum, the length, the text. The file is made beside the one in force
//! and put in its place by a rename, so its first record is always whole. The last one may be torn
//! by an end in the middle of it; then its change was not answered, and it is left out.
//!
//! When the steps have become longer than what they began with (and than [`SLACK`]), a thread makes
//! one memory of both. So the file is never longer than twice the memory, the slack, and the steps
//! done meanwhile. Nothing waits for the disk but such a change of files: what the file is about
//! lies in the kernel's memory and does not survive the machine either.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;

use serde::Serialize;
use serde::de::DeserializeOwned;
use shunt_control::director::{Memory, Recollection, Step};
use shunt_control::table::{Limits, Table};
use tracing::warn;

/// Steps of this many bytes are never worth a file of their own.
pub const SLACK: u64 = 1 << 20;

/// Why a journal cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum Unreadable {
    #[error("cannot read it: {0}")]
    Read(#[source] io::Error),
    #[error("record {number} at byte {at}: {why}")]
    Record {
        number: usize,
        at: usize,
        why: String,
    },
}

/// What a journal says.
#[derive(Debug)]
pub struct Told {
    pub memory: Memory,
    /// Bytes of a last record that is not whole.
    pub torn: usize,
}

/// Reads a journal.
pub fn read(text: &[u8]) -> Result<Told, Unreadable> {
    let mut records = Records {
        text,
        at: 0,
        number: 0,
    };
    let Some(memory) = records.next::<Memory>()? else {
        return Err(records.broken("the memory that it begins with is not there"));
    };
    let table = Table::new(Limits::default());
    let mut recollection =
        Recollection::new(memory, table).map_err(|refusal| records.broken(&refusal.text))?;
    while let Some(step) = records.next::<Step>()? {
        recollection
            .follow(step)
            .map_err(|refusal| records.broken(&refusal.text))?;
    }
    Ok(Told {
        memory: recollection.memory(),
        torn: text.len() - records.at,
    })
}

struct Records<'a> {
    text: &'a [u8],
    /// Where the next record begins.
    at: usize,
    number: usize,
}

impl Records<'_> {
    /// The next record; `None` where only a torn one is left.
    fn next<T: DeserializeOwned>(&mut self) -> Result<Option<T>, Unreadable> {
        let left = self.text.get(self.at..).unwrap_or_default();
        let Some(end) = left.iter().position(|byte| *byte == b'\n') else {
            return Ok(None);
        };
        self.number += 1;
        let Some(body) = body(&left[..end]) else {
            return Err(self.broken("its checksum or its length does not fit"));
        };
        let record =
            serde_json::from_slice(body).map_err(|error| self.broken(&error.to_string()))?;
        self.at += end + 1;
        Ok(Some(record))
    }

    fn broken(&self, why: &str) -> Unreadable {
        Unreadable::Record {
            number: self.number,
            at: self.at,
            why: why.to_owned(),
        }
    }
}

/// The text of a line whose checksum and length fit.
fn body(line: &[u8]) -> Option<&[u8]> {
    let mut parts = line.splitn(3, |byte| *byte == b' ');
    let mut word = || std::str::from_utf8(parts.next()?).ok();
    let sum = u32::from_str_radix(word()?, 16).ok()?;
    let length: usize = word()?.parse().ok()?;
    let body = parts.next()?;
    (body.len() == length && checksum(body) == sum).then_some(body)
}

/// A value as a record.
pub fn record(value: &impl Serialize) -> io::Result<Vec<u8>> {
    let body = serde_json::to_vec(value)?;
    let mut line = format!("{:08x} {} ", checksum(&body), body.len()).into_bytes();
    line.extend(body);
    line.push(b'\n');
    Ok(line)
}

/// CRC-32 as in ISO 3309, which Ethernet has too.
fn checksum(bytes: &[u8]) -> u32 {
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

/// The journal in force.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    file: File,
    /// Up to here all records are whole.
    length: u64,
    /// The length of the first record.
    first: u64,
    /// Makes one memory of the steps so far.
    packing: Option<JoinHandle<io::Result<Packed>>>,
}

/// A file that says the same as the journal said up to a place.
#[derive(Debug)]
struct Packed {
    file: File,
    length: u64,
    up_to: u64,
}

impl Journal {
    /// Begins one with this memory, in place of what is there.
    pub fn begin(path: &Path, memory: &Memory) -> io::Result<Self> {
        let next = path.with_extension("next");
        let (file, length) = write(&next, memory)?;
        fs::rename(&next, path)?;
        Ok(Self {
            path: path.to_owned(),
            file,
            length,
            first: length,
            packing: None,
        })
    }

    /// Adds a step. After an error the journal is as before, and does not know of it.
    pub fn add(&mut self, step: &Step) -> io::Result<()> {
        let line = record(step)?;
        if let Err(error) = self.file.write_all_at(&line, self.length) {
            let _ = self.file.set_len(self.length);
            return Err(error);
        }
        self.length += line.len() as u64;
        Ok(())
    }

    /// Keeps the file short; to be called now and then. Never waits for more than the steps that
    /// were added while the memory was packed.
    pub fn tend(&mut self) {
        if let Some(packing) = self.packing.take_if(|packing| packing.is_finished()) {
            let packed = packing
                .join()
                .unwrap_or_else(|_| Err(io::Error::other("a bug")));
            if let Err(error) = packed.and_then(|packed| self.take(packed)) {
                warn!(%error, action = "the file goes on growing", "journal not packed");
            }
        }
        let steps = self.length - self.first;
        if self.packing.is_none() && steps > self.first.max(SLACK) {
            let (path, length) = (self.path.clone(), self.length);
            let work = move || pack(&path, length);
            let thread = std::thread::Builder::new().name("journal".to_owned());
            self.packing = thread.spawn(work).ok();
        }
    }

    /// Waits for a packing that is under way, for a test and before another file is made.
    pub fn settle(&mut self) {
        while let Some(packing) = &self.packing {
            while !packing.is_finished() {
                std::thread::yield_now();
            }
            self.tend();
        }
    }

    /// Brings a packed file up to date and puts it in force.
    fn take(&mut self, packed: Packed) -> io::Result<()> {
        let mut since = vec![0; (self.length - packed.up_to) as usize];
        self.file.read_exact_at(&mut since, packed.up_to)?;
        packed.file.write_all_at(&since, packed.length)?;
        packed.file.sync_data()?;
        fs::rename(self.path.with_extension("packed"), &self.path)?;
        self.length = packed.length + since.len() as u64;
        self.first = packed.length;
        self.file = packed.file;
        Ok(())
    }
}

/// A file with the same memory as the first `length` bytes of a journal, beside it.
fn pack(path: &Path, length: u64) -> io::Result<Packed> {
    let mut text = vec![0; length as usize];
    File::open(path)?.read_exact_at(&mut text, 0)?;
    let told = read(&text).map_err(io::Error::other)?;
    let (file, packed) = write(&path.with_extension("packed"), &told.memory)?;
    Ok(Packed {
        file,
        length: packed,
        up_to: length,
    })
}

fn write(path: &Path, memory: &Memory) -> io::Result<(File, u64)> {
    let line = record(memory)?;
    let mut options = File::options();
    let options = options.read(true).write(true).create(true).truncate(true);
    let mut file = options.open(path)?;
    file.write_all(&line)?;
    file.sync_data()?;
    Ok((file, line.len() as u64))
}

#[cfg(test)]
mod tests;
