//! Array maps, mapped into the daemon's memory and shared with the packet path. It is one of the
//! few modules of the daemon with `unsafe` code, all of it for the mapping.
//!
//! Values are 64-bit words that the packet path reads and writes at the same time, so every access
//! is atomic. The entry types of `datapath` define the layout for both sides.

use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::sync::atomic::{AtomicU64, Ordering};

use aya::maps::{MapData, MapError};
use shunt_datapath::flows::{Layout, Words};

/// Why a map cannot be mapped.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the text of each variant describes it")]
pub enum Error {
    #[error("cannot ask for the size of a map")]
    Size(#[source] MapError),
    #[error("map {name:?} has values of {value} bytes, not {stride} words")]
    Foreign {
        name: Option<String>,
        value: usize,
        stride: usize,
    },
    #[error("cannot map {name:?}")]
    Map {
        name: Option<String>,
        source: io::Error,
    },
}

/// A mapped array map.
#[derive(Debug)]
pub struct Mapping {
    start: *mut AtomicU64,
    words: usize,
    bytes: usize,
    stride: usize,
}

// SAFETY: the mapping belongs to the process, not to a thread, and all access to it is atomic.
unsafe impl Send for Mapping {}
// SAFETY: all access to the mapping is atomic.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Maps an array map whose values are `stride` words long.
    pub fn new(map: &MapData, stride: usize) -> Result<Self, Error> {
        let info = map.info().map_err(Error::Size)?;
        let value = info.value_size() as usize;
        if value.div_ceil(8) != stride {
            return Err(Error::Foreign {
                name: info.name_as_str().map(str::to_owned),
                value,
                stride,
            });
        }
        let words = stride * info.max_entries() as usize;
        let page = 4096;
        let bytes = (words * 8).next_multiple_of(page);
        // SAFETY: the kernel chooses an unused address, and checks descriptor and length.
        let start = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                bytes,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED,
                map.fd().as_fd().as_raw_fd(),
                0,
            )
        };
        if start == libc::MAP_FAILED {
            return Err(Error::Map {
                name: info.name_as_str().map(str::to_owned),
                source: io::Error::last_os_error(),
            });
        }
        Ok(Self {
            start: start.cast(),
            words,
            bytes,
            stride,
        })
    }

    /// The number of values.
    #[must_use]
    pub fn len(&self) -> usize {
        self.words / self.stride
    }

    /// Whether there is no value.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.words == 0
    }

    fn all(&self) -> &[AtomicU64] {
        // SAFETY: the mapping has `words` words, is page-aligned, and lives as long as `self`.
        unsafe { std::slice::from_raw_parts(self.start, self.words) }
    }

    /// The words of value `index`.
    #[must_use]
    pub fn value(&self, index: usize) -> Option<&[AtomicU64]> {
        let from = index.checked_mul(self.stride)?;
        self.all().get(from..from.checked_add(self.stride)?)
    }

    /// The words of value `index` and of all later values.
    #[must_use]
    pub fn from(&self, index: usize) -> Option<&[AtomicU64]> {
        self.all().get(index.checked_mul(self.stride)?..)
    }

    /// A value as an entry type of the packet path.
    #[must_use]
    pub fn read<T: Plain>(&self, index: usize) -> Option<T> {
        let words = self.value(index)?;
        let mut entry = T::default();
        for (word, place) in words.iter().zip(entry.words_mut()) {
            *place = word.load(Ordering::Acquire);
        }
        Some(entry)
    }

    /// Stores the words of an entry that differ, the last word first. The word that makes the rest
    /// valid (a service's pool, a server's way) is the first one of its entry type.
    pub fn write<T: Plain>(&self, index: usize, entry: T) -> bool {
        let Some(words) = self.value(index) else {
            return false;
        };
        let mut entry = entry;
        for (word, value) in words.iter().zip(entry.words_mut()).rev() {
            if word.load(Ordering::Relaxed) != *value {
                word.store(*value, Ordering::Release);
            }
        }
        true
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: `new` made this mapping with this length, and every reference into it borrows
        // `self`.
        unsafe { libc::munmap(self.start.cast(), self.bytes) };
    }
}

/// An entry type: plain words without padding or pointers.
///
/// # Safety
/// Every bit pattern must be a value of the type. Its size must be a multiple of eight.
pub unsafe trait Plain: Copy + Default {
    /// The words of which the entry consists.
    fn words_mut(&mut self) -> std::slice::IterMut<'_, u64> {
        let words = size_of::<Self>() / 8;
        let start = std::ptr::from_mut(self).cast::<u64>();
        // SAFETY: the trait promises that the type consists of `words` words, aligned to eight
        // bytes.
        unsafe { std::slice::from_raw_parts_mut(start, words) }.iter_mut()
    }
}

macro_rules! plain {
    ($($type:ty),*) => { $(
        const _: () = assert!(size_of::<$type>() % 8 == 0 && align_of::<$type>() == 8);
        // SAFETY: the type consists of integers and byte arrays; size and alignment are asserted
        // above.
        unsafe impl Plain for $type {}
    )* };
}

use shunt_datapath::entry;
plain!(
    entry::Service,
    entry::Server,
    entry::Bucket4,
    entry::Bucket6,
    entry::Hop,
    shunt_datapath::translation::Local,
    SettingsWords
);

/// [`entry::Settings`] has no sensible default of its own.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug)]
pub struct SettingsWords(pub entry::Settings);

impl Default for SettingsWords {
    fn default() -> Self {
        Self(entry::Settings {
            timeouts: [0; shunt_datapath::connection::STATES],
            switches: 0,
            masquerades: 0,
            icmp_limit: 0,
            wide: 0,
            drop_rate: 0,
            reserved: 0,
        })
    }
}

/// A bucket of flows, as `datapath` accesses it.
#[derive(Clone, Copy, Debug)]
pub struct BucketWords<'a>(pub &'a [AtomicU64]);

impl Words for BucketWords<'_> {
    fn skip(self, count: usize) -> Self {
        Self(self.0.get(count..).unwrap_or_default())
    }

    fn pick<L: Layout>(self, index: usize) -> Self {
        self.skip(index * L::STRIDE)
    }

    fn load(self, at: usize) -> u64 {
        self.0
            .get(at)
            .map_or(0, |word| word.load(Ordering::Acquire))
    }

    fn store(self, at: usize, value: u64) {
        if let Some(word) = self.0.get(at) {
            word.store(value, Ordering::Release);
        }
    }

    fn swap(self, at: usize, from: u64, to: u64) -> bool {
        self.0.get(at).is_some_and(|word| {
            word.compare_exchange(from, to, Ordering::AcqRel, Ordering::Acquire)
                .is_ok()
        })
    }

    fn add(self, at: usize, value: u64) -> u64 {
        self.0
            .get(at)
            .map_or(0, |word| word.fetch_add(value, Ordering::AcqRel))
    }
}
