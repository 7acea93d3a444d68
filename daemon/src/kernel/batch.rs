//! Many entries of a map in one call of the kernel, and single entries of a hash map. One of the
//! few modules of the daemon with `unsafe` code: the calls are made by hand.
//!
//! The kernel reads and writes as many bytes as the map has for a key and a value. So a map is
//! held with the types of both ([`Held`]), whose sizes are compared once, and no call can be made
//! with others.

use std::io;
use std::marker::PhantomData;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

use anyhow::{Context, Result, bail};
use aya::maps::MapData;

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

/// Plain data that the kernel may write: any bytes are a value.
///
/// # Safety
/// Integers and arrays of them only, without padding.
pub unsafe trait Plain: Copy + Default {}

// SAFETY: integers.
unsafe impl Plain for u32 {}
// SAFETY: integers.
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

/// Its part for a single element.
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
    // SAFETY: the question is as long as we say; what it points to is the callers' to vouch for.
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
pub fn make_array(name: &str, words: u32) -> Result<MapData> {
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
    // SAFETY: the question is as long as we say, and points nowhere.
    let made =
        unsafe { libc::syscall(libc::SYS_bpf, CREATE, &raw mut making, size_of::<Making>()) };
    let Ok(descriptor) = i32::try_from(made) else {
        bail!("the kernel made no descriptor: {made}");
    };
    if descriptor < 0 {
        return Err(io::Error::last_os_error()).context("cannot make a map");
    }
    // SAFETY: the kernel made it for us a moment ago.
    let owned = unsafe { OwnedFd::from_raw_fd(descriptor) };
    MapData::from_fd(owned).context("cannot hold a map")
}

/// A map whose keys are as long as `K`, and the values of a key as `width` of `V`.
#[derive(Debug)]
pub struct Held<K, V> {
    map: OwnedFd,
    width: usize,
    types: PhantomData<fn(K) -> V>,
}

impl<K: Plain, V: Plain> Held<K, V> {
    /// Holds a map with one value a key.
    pub fn new(map: &MapData) -> Result<Self> {
        Self::wide(map, 1, size_of::<V>())
    }

    /// Holds a map of counters: `words` of them on each CPU, of which the kernel gives all.
    pub fn per_cpu(map: &MapData, words: usize, cpus: usize) -> Result<Self> {
        Self::wide(map, words * cpus, words * size_of::<V>())
    }

    fn wide(map: &MapData, width: usize, value: usize) -> Result<Self> {
        let info = map.info().context("cannot ask for the sizes of a map")?;
        let found = (info.key_size() as usize, info.value_size() as usize);
        if found != (size_of::<K>(), value) {
            bail!(
                "map {:?} has keys of {} and values of {} bytes, not {} and {value}; it is \
                 another's, or of another layout",
                info.name_as_str(),
                found.0,
                found.1,
                size_of::<K>(),
            );
        }
        let map = map.fd().as_fd().try_clone_to_owned();
        Ok(Self {
            map: map.context("cannot hold a map")?,
            width,
            types: PhantomData,
        })
    }

    fn number(&self) -> u32 {
        self.map.as_raw_fd() as u32
    }

    /// How many of `V` belong to a key.
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

    /// Enters a value whose key is not there. False if it is, or if there is no room.
    pub fn enter(&self, key: &K, value: &V) -> bool {
        self.update(key, value, NEW)
    }

    /// Puts another value in place of one that is there. False if there is none.
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

    /// Takes a key out. False if it was not there.
    pub fn delete(&self, key: &K) -> bool {
        let mut question = Element {
            map: self.number(),
            key: (&raw const *key) as u64,
            ..Element::default()
        };
        call(DELETE, &mut question).is_ok()
    }

    /// A way through all entries.
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

/// Words of what the kernel writes to go on with: the number of a bucket for a hash map (`u32` of
/// `htab_map_lookup_batch`), a key for any other.
const CURSOR: usize = 64;

/// A way through all entries of a map.
#[derive(Debug)]
pub struct Batches<'a, K, V> {
    map: &'a Held<K, V>,
    /// Where the next call goes on; the kernel's own to understand.
    next: [u64; CURSOR],
    is_begun: bool,
    over: bool,
}

impl<K: Plain, V: Plain> Batches<'_, K, V> {
    const KEY_FITS: () = assert!(size_of::<K>() <= CURSOR * 8);

    /// Reads the next entries, at most as many as there are keys and room for their values. How
    /// many were read; nothing is the end.
    pub fn read(&mut self, keys: &mut [K], values: &mut [V]) -> Result<usize> {
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
            Ok(()) if question.count == 0 => {
                bail!("the kernel gives no entries of a map and no end of them")
            }
            Ok(()) => {}
            // The map ends here.
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => self.over = true,
            Err(error) => return Err(error).context("cannot read a map"),
        }
        Ok(question.count as usize)
    }
}
