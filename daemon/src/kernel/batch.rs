//! System calls on many entries of a map, and on single entries of a hash map. It is one of the few
//! modules of the daemon with `unsafe` code, because it makes the calls itself.
//!
//! The kernel reads and writes as many bytes as the map has for a key and a value. So [`Held`]
//! binds a map to the types of both, and compares their sizes once.

use std::io;
use std::marker::PhantomData;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

use aya::maps::{MapData, MapError};

// `enum bpf_cmd` in `linux/bpf.h`.
const CREATE: libc::c_long = 0;
const LOOKUP: libc::c_long = 1;
const UPDATE: libc::c_long = 2;
const DELETE: libc::c_long = 3;
const LOOKUP_BATCH: libc::c_long = 24;
/// `BPF_NOEXIST`.
const NEW: u64 = 1;
/// `BPF_EXIST`.
const THERE: u64 = 2;

/// Why a map cannot be made, held or read.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the text of each variant describes it")]
pub enum Error {
    #[error("cannot make a map")]
    Make(#[source] io::Error),
    #[error("cannot hold a map")]
    Adopt(#[source] MapError),
    #[error("cannot hold a map")]
    Hold(#[source] io::Error),
    #[error("cannot ask for the sizes of a map")]
    Sizes(#[source] MapError),
    #[error(
        "map {name:?} has keys of {} and values of {} bytes, not {} and {}; it is another's, or of \
         another layout",
        found.0, found.1, wanted.0, wanted.1
    )]
    Foreign {
        name: Option<String>,
        /// The bytes of a key and of a value.
        found: (usize, usize),
        wanted: (usize, usize),
    },
    #[error("cannot read a map")]
    Read(#[source] io::Error),
    #[error("the kernel gives no entries of a map and no end of them")]
    Endless,
}

/// Plain data that the kernel may write.
///
/// # Safety
/// The type must consist of integers and arrays of integers, without padding, so that any bytes are
/// a value.
pub unsafe trait Plain: Copy + Default {}

// SAFETY: `u32` is an integer.
unsafe impl Plain for u32 {}
// SAFETY: `u64` is an integer.
unsafe impl Plain for u64 {}

/// The `batch` of `union bpf_attr`.
#[repr(C)]
#[derive(Default)]
struct Batch {
    from: u64,
    to: u64,
    keys: u64,
    values: u64,
    count: u32,
    map: u32,
    element_flags: u64,
    flags: u64,
}

/// The part of `union bpf_attr` for a single element.
#[repr(C)]
#[derive(Default)]
struct Element {
    map: u32,
    reserved: u32,
    key: u64,
    value: u64,
    flags: u64,
}

fn call<T>(command: libc::c_long, question: &mut T) -> io::Result<()> {
    // SAFETY: `question` is valid for the length passed; each caller keeps the memory valid to
    // which its pointers point.
    let done = unsafe { libc::syscall(libc::SYS_bpf, command, &raw mut *question, size_of::<T>()) };
    if done == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// The first words of `union bpf_attr` for `BPF_MAP_CREATE`.
#[repr(C)]
#[derive(Default)]
struct Making {
    kind: u32,
    key: u32,
    value: u32,
    entries: u32,
    flags: u32,
    inner: u32,
    node: u32,
    name: [u8; 16],
}

/// Makes an array of 64-bit words that can be mapped.
pub fn make_array(name: &str, words: u32) -> Result<MapData, Error> {
    // `BPF_MAP_TYPE_ARRAY` and `BPF_F_MMAPABLE`.
    let mut making = Making {
        kind: 2,
        key: 4,
        value: 8,
        entries: words,
        flags: 1 << 10,
        ..Making::default()
    };
    for (place, byte) in making.name.iter_mut().take(15).zip(name.bytes()) {
        *place = byte;
    }
    // SAFETY: the attributes are valid for the length passed, and contain no pointers.
    let made =
        unsafe { libc::syscall(libc::SYS_bpf, CREATE, &raw mut making, size_of::<Making>()) };
    let descriptor = match i32::try_from(made) {
        Ok(descriptor) if descriptor >= 0 => descriptor,
        _ => return Err(Error::Make(io::Error::last_os_error())),
    };
    // SAFETY: the call succeeded, so this is an open descriptor that nothing else owns.
    let owned = unsafe { OwnedFd::from_raw_fd(descriptor) };
    MapData::from_fd(owned).map_err(Error::Adopt)
}

/// A map whose keys have the size of `K`, and whose values have the size of `width` times `V`.
#[derive(Debug)]
pub struct Held<K, V> {
    map: OwnedFd,
    width: usize,
    types: PhantomData<fn(K) -> V>,
}

impl<K: Plain, V: Plain> Held<K, V> {
    /// Holds a map with one value a key.
    pub fn new(map: &MapData) -> Result<Self, Error> {
        Self::wide(map, 1, size_of::<V>())
    }

    /// Holds a map of counters, `words` on each CPU. The kernel copies the counters of all CPUs.
    pub fn per_cpu(map: &MapData, words: usize, cpus: usize) -> Result<Self, Error> {
        Self::wide(map, words * cpus, words * size_of::<V>())
    }

    fn wide(map: &MapData, width: usize, value: usize) -> Result<Self, Error> {
        let info = map.info().map_err(Error::Sizes)?;
        let found = (info.key_size() as usize, info.value_size() as usize);
        let wanted = (size_of::<K>(), value);
        if found != wanted {
            return Err(Error::Foreign {
                name: info.name_as_str().map(str::to_owned),
                found,
                wanted,
            });
        }
        let map = map.fd().as_fd().try_clone_to_owned();
        Ok(Self {
            map: map.map_err(Error::Hold)?,
            width,
            types: PhantomData,
        })
    }

    fn number(&self) -> u32 {
        self.map.as_raw_fd() as u32
    }

    /// The number of `V` in the value of a key.
    #[must_use]
    pub fn width(&self) -> usize {
        self.width
    }

    /// A value of a hash map.
    #[must_use]
    pub fn lookup(&self, key: &K) -> Option<V> {
        let mut value = V::default();
        if self.width != 1 {
            return None;
        }
        let mut question = Element {
            map: self.number(),
            key: (&raw const *key) as u64,
            value: (&raw mut value) as u64,
            ..Element::default()
        };
        call(LOOKUP, &mut question).ok().map(|()| value)
    }

    /// Inserts a value for a key. False if the key is present or the map is full.
    pub fn enter(&self, key: &K, value: &V) -> bool {
        self.update(key, value, NEW)
    }

    /// Replaces the value of a key. False if the key is absent.
    pub fn replace(&self, key: &K, value: &V) -> bool {
        self.update(key, value, THERE)
    }

    fn update(&self, key: &K, value: &V, flags: u64) -> bool {
        if self.width != 1 {
            return false;
        }
        let mut question = Element {
            map: self.number(),
            key: (&raw const *key) as u64,
            value: (&raw const *value) as u64,
            flags,
            ..Element::default()
        };
        call(UPDATE, &mut question).is_ok()
    }

    /// Removes a key. False if it was absent.
    pub fn delete(&self, key: &K) -> bool {
        let mut question = Element {
            map: self.number(),
            key: (&raw const *key) as u64,
            ..Element::default()
        };
        call(DELETE, &mut question).is_ok()
    }

    /// Begins a walk over all entries.
    #[must_use]
    pub fn batches(&self) -> Batches<'_, K, V> {
        Batches {
            map: self,
            next: [0; CURSOR],
            is_begun: false,
            over: false,
        }
    }
}

/// The size of the cursor in words. The kernel writes the number of a bucket for a hash map (`u32`
/// of `htab_map_lookup_batch`), and a key for any other map.
const CURSOR: usize = 64;

/// A walk over all entries of a map.
#[derive(Debug)]
pub struct Batches<'a, K, V> {
    map: &'a Held<K, V>,
    /// The kernel's cursor for the next call.
    next: [u64; CURSOR],
    is_begun: bool,
    over: bool,
}

impl<K: Plain, V: Plain> Batches<'_, K, V> {
    const KEY_FITS: () = assert!(size_of::<K>() <= CURSOR * 8);

    /// Reads the next entries, as many as fit into `keys` and `values`. Returns how many were read,
    /// 0 at the end.
    pub fn read(&mut self, keys: &mut [K], values: &mut [V]) -> Result<usize, Error> {
        let () = Self::KEY_FITS;
        if self.over {
            return Ok(0);
        }
        let most = keys.len().min(values.len() / self.map.width.max(1));
        let (from, mut to) = (self.next, [0u64; CURSOR]);
        let mut question = Batch {
            from: if self.is_begun {
                (&raw const from) as u64
            } else {
                0
            },
            to: (&raw mut to) as u64,
            keys: keys.as_mut_ptr() as u64,
            values: values.as_mut_ptr() as u64,
            count: u32::try_from(most).unwrap_or(u32::MAX),
            map: self.map.number(),
            ..Batch::default()
        };
        let done = call(LOOKUP_BATCH, &mut question);
        (self.next, self.is_begun) = (to, true);
        match done {
            Ok(()) if question.count == 0 => return Err(Error::Endless),
            Ok(()) => {}
            // The map ends here.
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => self.over = true,
            Err(error) => return Err(Error::Read(error)),
        }
        Ok(question.count as usize)
    }
}
