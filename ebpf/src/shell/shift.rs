//! Moving bytes within a frame. The bytes need not lie in its linear part.

use core::ffi::c_void;

use aya_ebpf::helpers::generated::bpf_loop;

use super::context::{blur, jiffies};
use super::sum::{Bytes, nothing, opaque};

/// Bytes that one turn of the loop moves.
const PIECE: usize = 32;

/// A frame into which the kernel copies bytes.
pub trait Stores: Bytes {
    /// Copies `length` bytes from memory at `from` to offset `to` of the frame. Returns a negative
    /// number if the frame has fewer bytes.
    fn store(&self, to: u32, from: *const c_void, length: u32) -> i64;
}

/// Moves `length` bytes at offset `from` by `bytes` towards the end. A `bytes` that is negative as
/// an `i32` moves them towards the front. Returns 1, or 0 if the frame has fewer bytes. A
/// subprogram calls it.
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
    // SAFETY: `step` takes a pointer to a `Job<B>`; `job` lives until `bpf_loop` returns, and
    // nothing else touches it until then.
    unsafe {
        bpf_loop(turns, step::<B> as *mut c_void, (&raw mut job).cast(), 0);
    }
    u32::from(job.failed == 0 && job.left == 0)
}

#[repr(C, align(8))]
struct Job<'a, B> {
    frame: &'a B,
    // Each field has 64 bits. The compiler may write two fields of 32 bits at once, at an address
    // that is not a multiple of eight, and the verifier refuses that.
    from: u64,
    bytes: u64,
    /// 1 if the bytes move towards the front, or else 0.
    forth: u64,
    left: u64,
    failed: u64,
}

/// One turn of the loop. It returns 1 to end the loop. Source and target overlap, so a move towards
/// the end begins with the last bytes, and a move towards the front with the first.
unsafe extern "C" fn step<B: Stores>(_: u32, job: *mut c_void) -> i64 {
    // SAFETY: `by` passes a pointer to its `Job<B>`, which nothing else touches during the loop.
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
    // Without `blur` the verifier would see a different range in each turn, and find no end.
    job.left = blur(job.left - u64::from(length), jiffies());
    0
}
