//! The journal: the daemon's state as a file. It begins with the whole state. Each step adds the
//! records that it changed, so its cost does not depend on the size of the state.
//!
//! A line is a checksum, a length and a list of records (`record.rs`). A line or record that cannot
//! be read is reported and skipped; all others are kept. A rename puts a finished file in the place
//! of the one before, so the first line is whole. If the daemon ends in the middle of a write, the
//! last line is torn and skipped. The change of a torn line was not acknowledged.
//!
//! When the records of the steps are longer than the state before them (and than [`SLACK`]), a
//! thread packs both into one state. So the file is at most twice the state, the slack, and the
//! steps done meanwhile. Only the replacement of a file waits for the disk: the tables that the
//! file describes lie in the kernel's memory and do not survive a reboot either. A second copy of
//! the journal (`duplicate.rs`) is pinned beside them.

mod duplicate;
mod line;
mod record;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, Write};
use std::net::IpAddr;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;

use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, fallocate};
use shunt_control::director::{Recollection, Snapshot};
use shunt_control::table::{Limits, Table};
use shunt_model::{Counters, ServiceKey};
use tracing::warn;

use crate::chain::chain;
use crate::kernel::object::Made;

pub use duplicate::Duplicate;
pub use line::{Fault, of as line, with_checksum};
pub use record::Record;

/// The file is not packed before the steps have this many bytes.
pub const SLACK: u64 = 1 << 20;

/// The state that survives the daemon.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Saved {
    /// The director's part: the table and the ids.
    pub memory: Snapshot,
    /// The counters of deleted servers, which their services still include.
    pub retired: BTreeMap<ServiceKey, Counters>,
    /// Endpoints that stay in the packet path because the record of their service was lost.
    pub unclaimed: BTreeSet<(IpAddr, u32)>,
    /// The packet path in which the ids are used.
    pub path: Option<Made>,
}

/// The content of a journal.
#[derive(Debug, Default)]
pub struct Told {
    /// The state after the last record that was read.
    pub saved: Saved,
    /// The number of records that were read.
    pub records: usize,
    /// The lines and records that could not be read.
    pub faults: Vec<Fault>,
    /// The length of a torn last line in bytes.
    pub torn: usize,
}

/// Reads a journal. It never fails: a line that cannot be read becomes a fault.
#[must_use]
pub fn read(text: &[u8]) -> Told {
    let mut told = Told::default();
    let mut recollection = Recollection::new(Table::new(Limits::default()));
    let mut lines = line::Lines::new(text);
    while let Some(line) = lines.next_line() {
        let (place, body) = match line {
            Ok(line) => line,
            Err(fault) => {
                told.faults.push(fault);
                continue;
            }
        };
        for record in record::of_line(body) {
            let taken = record.and_then(|record| match record {
                Record::Director(record) => recollection.take(record),
                other @ (Record::Path(_) | Record::Retired(..) | Record::Unclaimed(_)) => {
                    told.saved.take(other);
                    Ok(())
                }
            });
            match taken {
                Ok(()) => told.records += 1,
                Err(why) => told.faults.push(place.fault(why)),
            }
        }
    }
    told.torn = lines.torn();
    told.saved.memory = recollection.snapshot();
    told
}

impl Saved {
    fn take(&mut self, record: Record) {
        match record {
            Record::Director(_) => {}
            Record::Path(made) => self.path = Some(made),
            Record::Retired(key, Some(counters)) => drop(self.retired.insert(key, counters)),
            Record::Retired(key, None) => drop(self.retired.remove(&key)),
            Record::Unclaimed(endpoints) => self.unclaimed = endpoints,
        }
    }

    /// The whole state as the text of a journal.
    pub fn text(&self) -> io::Result<Vec<u8>> {
        let mut text = Vec::new();
        if let Some(made) = &self.path {
            text.extend(line::of(&[Record::Path(made.clone())])?);
        }
        for records in self.memory.lines() {
            let records: Vec<Record> = records.into_iter().map(Record::Director).collect();
            text.extend(line::of(&records)?);
        }
        if !self.unclaimed.is_empty() {
            text.extend(line::of(&[Record::Unclaimed(self.unclaimed.clone())])?);
        }
        for (key, counters) in &self.retired {
            text.extend(line::of(&[Record::Retired(*key, Some(*counters))])?);
        }
        Ok(text)
    }
}

/// The journal in force.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    file: File,
    /// The length up to which all lines are whole.
    length: u64,
    /// The length of the state at the beginning of the file.
    first: u64,
    duplicate: Option<Duplicate>,
    /// The thread that packs the file.
    packing: Option<JoinHandle<io::Result<Packed>>>,
}

/// A file with the same state as the first bytes of the journal.
#[derive(Debug)]
struct Packed {
    file: File,
    length: u64,
    up_to: u64,
}

impl Journal {
    /// Begins a journal with this state, in place of the file at `path`. `duplicate` is the pin of
    /// its second copy.
    pub fn begin(path: &Path, saved: &Saved, duplicate: Option<&Path>) -> io::Result<Self> {
        let text = saved.text()?;
        let next = path.with_extension("next");
        let file = write(&next, &text)?;
        put(&next, path)?;
        let length = text.len() as u64;
        let duplicate = duplicate.and_then(|pin| {
            Duplicate::make(pin, &text)
                .inspect_err(|error| {
                    warn!(
                        error = chain(error),
                        action = "the file alone must do",
                        "no second copy of the journal"
                    );
                })
                .ok()
        });
        Ok(Self {
            path: path.to_owned(),
            file,
            length,
            first: length,
            duplicate,
            packing: None,
        })
    }

    /// Reserves room for so many bytes.
    pub fn make_room(&self, bytes: u64) -> io::Result<()> {
        let keep = FallocateFlags::FALLOC_FL_KEEP_SIZE;
        match fallocate(&self.file, keep, self.length as i64, bytes as i64) {
            // On a file system that cannot reserve room, the write itself fails.
            Ok(()) | Err(Errno::EOPNOTSUPP | Errno::ENOSYS | Errno::EINTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Adds the records of one step. After an error the journal is unchanged and lacks the step.
    pub fn add(&mut self, records: &[Record]) -> io::Result<()> {
        let line = line::of(records)?;
        if let Err(error) = self.file.write_all_at(&line, self.length) {
            let _ = self.file.set_len(self.length);
            return Err(error);
        }
        self.length += line.len() as u64;
        if let Some(duplicate) = &mut self.duplicate
            && !duplicate.add(&line)
        {
            self.duplicate = duplicate.anew(&self.file, self.length);
        }
        Ok(())
    }

    /// Keeps the file short. The daemon calls it now and then. It waits at most for the copying of
    /// the steps that were added during the packing.
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

    /// Waits for the packing thread, for a test and before another file is made.
    pub fn settle(&mut self) {
        while let Some(packing) = &self.packing {
            while !packing.is_finished() {
                std::thread::yield_now();
            }
            self.tend();
        }
    }

    /// Adds the latest steps to a packed file, and replaces the journal by it.
    fn take(&mut self, packed: Packed) -> io::Result<()> {
        let mut since = vec![0; (self.length - packed.up_to) as usize];
        self.file.read_exact_at(&mut since, packed.up_to)?;
        packed.file.write_all_at(&since, packed.length)?;
        packed.file.sync_data()?;
        put(&self.path.with_extension("packed"), &self.path)?;
        self.length = packed.length + since.len() as u64;
        self.first = packed.length;
        self.file = packed.file;
        if let Some(duplicate) = &self.duplicate {
            self.duplicate = duplicate.anew(&self.file, self.length);
        }
        Ok(())
    }
}

/// Writes a file beside the journal, with the state of its first `length` bytes.
fn pack(path: &Path, length: u64) -> io::Result<Packed> {
    let mut text = vec![0; length as usize];
    File::open(path)?.read_exact_at(&mut text, 0)?;
    let told = read(&text);
    if let Some(fault) = told.faults.first() {
        return Err(io::Error::other(fault.to_string()));
    }
    let text = told.saved.text()?;
    let file = write(&path.with_extension("packed"), &text)?;
    Ok(Packed {
        file,
        length: text.len() as u64,
        up_to: length,
    })
}

/// Writes a file that only its owner may read.
fn write(path: &Path, text: &[u8]) -> io::Result<File> {
    // A file that an interrupted run left may be readable by all.
    let _ = fs::remove_file(path);
    let mut options = File::options();
    let options = options.read(true).write(true).create_new(true).mode(0o600);
    let mut file = options.open(path)?;
    file.write_all(text)?;
    file.sync_data()?;
    Ok(file)
}

/// Replaces a file by another, so that even a crash leaves one of them whole.
fn put(from: &Path, to: &Path) -> io::Result<()> {
    fs::rename(from, to)?;
    match to.parent() {
        Some(folder) => File::open(folder)?.sync_all(),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests;
