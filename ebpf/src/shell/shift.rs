//! Moving a stretch of a frame, in reach or not.

use core::ffi::c_void;

use aya_ebpf::helpers::generated::{bpf_jiffies64, bpf_loop};

use super::context::blur;
use super::sum::{Bytes, nothing, opaque};

/// Bytes that one turn takes.
const PIECE: usize = 32;

/// A frame whose bytes the kernel copies in.
pub trait Stores: Bytes {
    /// Copies `length` bytes from a place on the stack to `to`. Negative if they are not there.
    fn store(&self, to: u32, from: *const c_void, length: u32) -> i64;
}

/// Moves `length` bytes at `from` by so many bytes towards the end, or less than none towards the
/// front; 0 if they are not there. For a function of its own in the kernel.
#[inline(always)]
pub fn by<B: Stores>(frame: &B, from: u32, bytes: u32, length: u32) -> u32 {
    let mut job = Job {
        frame,
        from: u64::from(from),
        bytes: u64::from(bytes),
        forth: u64::from(bytes >> 31),
        left: u64::from(length),
        failed: 0,
    };
    let turns = length.div_ceil(PIECE as u32);
    // SAFETY: the callback gets back the job, which lives until the loop is over.
    unsafe {
        bpf_loop(turns, step::<B> as *mut c_void, (&raw mut job).cast(), 0);
    }
    u32::from(job.failed == 0 && job.left == 0)
}

#[repr(C, align(8))]
struct Job<'a, B> {
    frame: &'a B,
    // Words, since the compiler may write two halves at once at a place that is none of a word's.
    from: u64,
    bytes: u64,
    /// 1: towards the front.
    forth: u64,
    left: u64,
    failed: u64,
}

/// One turn; 1 ends it. Both places overlap, so it goes from the end, or from the front.
unsafe extern "C" fn step<B: Stores>(_: u32, job: *mut c_void) -> i64 {
    // SAFETY: `by` passes its own job.
    let job = unsafe { &mut *job.cast::<Job<'_, B>>() };
    // Less one, so that one more is at least one: the verifier wants to see that.
    let rest = (job.left as u32).wrapping_sub(1);
    let last = PIECE as u32 - 1;
    let rest = if rest < last { rest } else { last };
    let length = (opaque(rest) & last) + 1;
    let mut piece = [nothing(); PIECE / 8];
    let last = (job.from as u32).wrapping_add((job.left as u32).wrapping_sub(length));
    let at = if job.forth == 0 {
        last
    } else {
        job.from as u32
    };
    let to = at.wrapping_add(job.bytes as u32);
    let place = (&raw mut piece).cast::<c_void>();
    let done = job.frame.load(at, place, length) >= 0;
    if !done || job.frame.store(to, place.cast_const(), length) < 0 {
        job.failed = 1;
        return 1;
    }
    job.from = job
        .from
        .wrapping_add(u64::from(length).wrapping_mul(job.forth));
    // The verifier would else see another range each turn, and never an end.
    // SAFETY: the helper takes nothing.
    job.left = blur(job.left - u64::from(length), unsafe { bpf_jiffies64() });
    0
}
