//! The daemon's memory as a file: first all of it, then what each step changed, in the order in
//! which the steps were done. Adding one costs as much as the step, however large the memory is.
//!
//! A line is a checksum, a length and a list of records (`record.rs`). A line or record that makes
//! no sense is named and left out, and all others are kept. The file is made beside the one in
//! force and put in its place by a rename, so it begins whole. The last line may be torn by an end
//! in the middle of it; then its change was not answered, and it is left out.
//!
//! When the steps have become longer than what they began with (and than [`SLACK`]), a thread makes
//! one memory of both. So the file is never longer than twice the memory, the slack, and the steps
//! done meanwhile. Nothing waits for the disk but such a change of files: what the file is about
//! lies in the kernel's memory and does not survive the machine either. There lies a second copy of
//! the journal too (`duplicate.rs`), beside the tables that it is about.

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

use crate::kernel::object::Made;

pub use duplicate::Duplicate;
pub use line::{Fault, of as line, with_checksum};
pub use record::Record;

/// Steps of this many bytes are never worth a file of their own.
pub const SLACK: u64 = 1 << 20;

/// Everything that survives a daemon.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Saved {
    pub memory: Snapshot,
    /// What deleted servers carried, which their service goes on counting.
    pub retired: BTreeMap<ServiceKey, Counters>,
    /// Endpoints that stand in the packet path since a record about them was lost.
    pub unclaimed: BTreeSet<(IpAddr, u32)>,
    /// The packet path that the ids are about.
    pub path: Option<Made>,
}

/// What a journal says.
#[derive(Debug, Default)]
pub struct Told {
    pub saved: Saved,
    /// How many records were taken in.
    pub records: usize,
    /// What could not be read, or made no sense.
    pub faults: Vec<Fault>,
    /// Bytes of a last line that is not whole.
    pub torn: usize,
}

/// Reads a journal. It never fails: what cannot be read is among the faults.
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
                other => {
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

    /// All of it as a journal.
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
    /// Up to here all lines are whole.
    length: u64,
    /// The length of the memory that it begins with.
    first: u64,
    duplicate: Option<Duplicate>,
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
    /// Begins one with this memory, in place of what is there. `duplicate` is where its second copy
    /// is pinned.
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
                        error = format!("{error:#}"),
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

    /// Makes sure that so many bytes can be added. An error says why they cannot.
    pub fn make_room(&self, bytes: u64) -> io::Result<()> {
        let keep = FallocateFlags::FALLOC_FL_KEEP_SIZE;
        match fallocate(&self.file, keep, self.length as i64, bytes as i64) {
            // A file system that cannot set room aside says so when it is written to.
            Ok(()) | Err(Errno::EOPNOTSUPP | Errno::ENOSYS | Errno::EINTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Adds what belongs together. After an error the journal is as before, and does not know of
    /// it.
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

/// A file with the same memory as the first `length` bytes of a journal, beside it.
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

/// Writes a file that its owner alone may read.
fn write(path: &Path, text: &[u8]) -> io::Result<File> {
    // What an end in the middle of this left may be everybody's to read.
    let _ = fs::remove_file(path);
    let mut options = File::options();
    let options = options.read(true).write(true).create_new(true).mode(0o600);
    let mut file = options.open(path)?;
    file.write_all(text)?;
    file.sync_data()?;
    Ok(file)
}

/// Puts a file in the place of another, whatever happens meanwhile.
fn put(from: &Path, to: &Path) -> io::Result<()> {
    fs::rename(from, to)?;
    match to.parent() {
        Some(folder) => File::open(folder)?.sync_all(),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests;
