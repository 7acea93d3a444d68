//! Shared words of memory in maps.
//!
//! Every atomic operation is `SeqCst`, and its result is used: for `Relaxed` ones LLVM 22 emits the
//! instruction that does not fetch (llvm-project issue 210280).

use core::intrinsics::{AtomicOrdering, atomic_cxchg, atomic_xadd};
use core::ptr::NonNull;

use shunt_datapath::flows::{Layout, Words};

use super::context::{blur, jiffies, opaque};

/// A pointer to words in a map's value.
#[derive(Clone, Copy)]
pub struct MapWords(NonNull<u64>);

impl MapWords {
    /// # Safety
    /// `start` must be null or point into a map's value, and every word that is asked for must lie
    /// in that value.
    #[inline(always)]
    pub unsafe fn new(start: *mut u64) -> Option<Self> {
        NonNull::new(start).map(Self)
    }
}

impl Words for MapWords {
    #[inline(always)]
    fn skip(self, count: usize) -> Self {
        // SAFETY: `new` was promised that the words lie in the value. The verifier checks it.
        Self(unsafe { self.0.add(count) })
    }

    #[inline(always)]
    fn pick<L: Layout>(self, index: usize) -> Self {
        self.skip((blur(index as u64, jiffies()) as usize & (L::SLOTS - 1)) * L::STRIDE)
    }

    #[inline(always)]
    fn load(self, at: usize) -> u64 {
        // SAFETY: `new` was promised that the word lies in the value, which outlives the program's
        // run. The read is volatile because other CPUs and the daemon write the word.
        unsafe { self.0.add(at).read_volatile() }
    }

    #[inline(always)]
    fn store(self, at: usize, value: u64) {
        // SAFETY: `new` was promised that the word lies in the value, which outlives the program's
        // run. The write is volatile because other CPUs and the daemon read the word.
        unsafe { self.0.add(at).write_volatile(value) }
    }

    #[inline(always)]
    fn swap(self, at: usize, from: u64, to: u64) -> bool {
        // SAFETY: `new` was promised that the word lies in the value; the map aligns values to
        // eight bytes.
        let (_, done) = unsafe {
            atomic_cxchg::<u64, { AtomicOrdering::SeqCst }, { AtomicOrdering::SeqCst }>(
                self.0.add(at).as_ptr(),
                from,
                to,
            )
        };
        done
    }

    #[inline(always)]
    fn add(self, at: usize, value: u64) -> u64 {
        // SAFETY: `new` was promised that the word lies in the value; the map aligns values to
        // eight bytes.
        unsafe {
            atomic_xadd::<u64, u64, { AtomicOrdering::SeqCst }>(self.0.add(at).as_ptr(), value)
        }
    }

    #[inline(always)]
    fn hide(value: u64) -> u64 {
        opaque(value as usize) as u64
    }
}
