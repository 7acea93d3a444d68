//! Shared words of memory in maps.
//!
//! Only `SeqCst` operations with a used result: with `Relaxed` ones LLVM 22 emits the instruction
//! that does not fetch (llvm-project issue 210280).

use core::intrinsics::{AtomicOrdering, atomic_cxchg, atomic_xadd};
use core::ptr::NonNull;

use aya_ebpf::helpers::generated::bpf_jiffies64;
use shunt_datapath::flows::{Layout, Words};

use super::context::blur;

/// A pointer to words in a map's value.
#[derive(Clone, Copy)]
pub struct MapWords(NonNull<u64>);

impl MapWords {
    /// # Safety
    /// `start` must point into a map's value, with as many words behind it as will be asked for.
    #[inline(always)]
    pub unsafe fn new(start: *mut u64) -> Option<Self> {
        NonNull::new(start).map(Self)
    }
}

impl Words for MapWords {
    #[inline(always)]
    fn skip(self, count: usize) -> Self {
        // SAFETY: the verifier refuses what lies outside the value.
        Self(unsafe { self.0.add(count) })
    }

    #[inline(always)]
    fn pick<L: Layout>(self, index: usize) -> Self {
        // SAFETY: the helper takes nothing.
        let noise = unsafe { bpf_jiffies64() };
        self.skip((blur(index as u64, noise) as usize & (L::SLOTS - 1)) * L::STRIDE)
    }

    #[inline(always)]
    fn load(self, at: usize) -> u64 {
        // SAFETY: as above. Volatile: other CPUs and the daemon write here.
        unsafe { self.0.add(at).read_volatile() }
    }

    #[inline(always)]
    fn store(self, at: usize, value: u64) {
        // SAFETY: as above.
        unsafe { self.0.add(at).write_volatile(value) }
    }

    #[inline(always)]
    fn swap(self, at: usize, from: u64, to: u64) -> bool {
        // SAFETY: as above.
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
        // SAFETY: as above.
        unsafe {
            atomic_xadd::<u64, u64, { AtomicOrdering::SeqCst }>(self.0.add(at).as_ptr(), value)
        }
    }
}
