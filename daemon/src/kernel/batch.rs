//! Many entries of a map in one call of the kernel, and single entries of a hash map. One of the
//! few modules of the daemon with `unsafe` code: the calls are made by hand.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use anyhow::{Context, Result, bail};

// `enum bpf_cmd` in `linux/bpf.h`.
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

/// A way through all entries of a map.
#[derive(Debug)]
pub struct Batches<'a> {
    map: &'a OwnedFd,
    /// Where the next call goes on; the kernel's own to understand.
    next: Option<u32>,
    over: bool,
}

impl<'a> Batches<'a> {
    #[must_use]
    pub fn new(map: &'a OwnedFd) -> Self {
        Self {
            map,
            next: None,
            over: false,
        }
    }

    /// Reads the next entries, at most as many as there are keys. `width` values belong to a key.
    /// How many were read; nothing is the end.
    pub fn read<K: Plain, V: Plain>(
        &mut self,
        keys: &mut [K],
        values: &mut [V],
        width: usize,
    ) -> Result<usize> {
        if self.over {
            return Ok(0);
        }
        let most = keys.len().min(values.len() / width.max(1));
        let (from, mut to) = (self.next.unwrap_or_default(), 0u32);
        let mut question = Batch {
            from: match self.next {
                None => 0,
                Some(_) => (&raw const from) as u64,
            },
            to: (&raw mut to) as u64,
            keys: keys.as_mut_ptr() as u64,
            values: values.as_mut_ptr() as u64,
            count: u32::try_from(most).unwrap_or(u32::MAX),
            map: self.map.as_raw_fd() as u32,
            ..Batch::default()
        };
        let done = call(LOOKUP_BATCH, &mut question);
        self.next = Some(to);
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

/// A value of a hash map.
#[must_use]
pub fn lookup<K: Plain, V: Plain>(map: &OwnedFd, key: &K) -> Option<V> {
    let mut value = V::default();
    let mut question = Element {
        map: map.as_raw_fd() as u32,
        key: (&raw const *key) as u64,
        value: (&raw mut value) as u64,
        ..Element::default()
    };
    call(LOOKUP, &mut question).ok().map(|()| value)
}

/// Enters a value whose key is not there. False if it is, or if there is no room.
pub fn enter<K: Plain, V: Plain>(map: &OwnedFd, key: &K, value: &V) -> bool {
    let mut question = Element {
        map: map.as_raw_fd() as u32,
        key: (&raw const *key) as u64,
        value: (&raw const *value) as u64,
        flags: NEW,
        ..Element::default()
    };
    call(UPDATE, &mut question).is_ok()
}

/// Puts another value in place of one that is there. False if there is none.
pub fn replace<K: Plain, V: Plain>(map: &OwnedFd, key: &K, value: &V) -> bool {
    let mut question = Element {
        map: map.as_raw_fd() as u32,
        key: (&raw const *key) as u64,
        value: (&raw const *value) as u64,
        flags: THERE,
        ..Element::default()
    };
    call(UPDATE, &mut question).is_ok()
}

/// Takes a key out. False if it was not there.
pub fn delete<K: Plain>(map: &OwnedFd, key: &K) -> bool {
    let mut question = Element {
        map: map.as_raw_fd() as u32,
        key: (&raw const *key) as u64,
        ..Element::default()
    };
    call(DELETE, &mut question).is_ok()
}
