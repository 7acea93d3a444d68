//! The one's complement sum of a stretch of a frame, of any length, in reach or not.

use core::arch::asm;
use core::ffi::c_void;

use aya_ebpf::helpers::generated::bpf_loop;
use shunt_datapath::checksum;

/// Bytes that one turn takes. On Linux 6.1 the stack has no room for more behind the walk and a
/// tunnel: 544 bytes of 512 with 64.
const PIECE: usize = 32;

/// No sum: more than 32 bits.
pub const MISSING: u64 = 1 << 32;

/// What a function of its own said.
#[inline(always)]
pub fn answer(said: u64) -> Option<u32> {
    if said >= MISSING {
        return None;
    }
    Some(said as u32)
}

/// A frame whose bytes the kernel copies out.
pub trait Bytes {
    /// Copies `length` bytes at `from` to a place on the stack. Negative if they are not there.
    fn load(&self, from: u32, to: *mut c_void, length: u32) -> i64;
}

/// The sum of `length` bytes from `from` on; [`MISSING`] if they are not there. For a function of
/// its own in the kernel: inlined, each use is verified anew.
#[inline(always)]
pub fn of<B: Bytes>(frame: &B, from: u32, length: u32) -> u64 {
    let mut job = Job {
        frame,
        from: u64::from(from),
        left: u64::from(length),
        sum: 0,
        failed: 0,
    };
    let turns = length.div_ceil(PIECE as u32);
    // SAFETY: the callback gets back the job, which lives until the loop is over.
    unsafe {
        bpf_loop(turns, step::<B> as *mut c_void, (&raw mut job).cast(), 0);
    }
    if job.failed != 0 || job.left != 0 {
        return MISSING;
    }
    job.sum
}

#[repr(C, align(8))]
struct Job<'a, B> {
    frame: &'a B,
    // Words, since the compiler may write two halves at once at a place that is none of a word's.
    from: u64,
    left: u64,
    sum: u64,
    failed: u64,
}

/// One turn; 1 ends it.
unsafe extern "C" fn step<B: Bytes>(_: u32, job: *mut c_void) -> i64 {
    // SAFETY: `of` passes its own job.
    let job = unsafe { &mut *job.cast::<Job<'_, B>>() };
    // Less one, so that one more is at least one: the verifier wants to see that.
    let rest = (job.left as u32).wrapping_sub(1);
    let last = PIECE as u32 - 1;
    let rest = if rest < last { rest } else { last };
    let length = (opaque(rest) & last) + 1;
    // An end that is no whole word counts as if followed by zeros (RFC 1071, 4.1).
    let mut piece = [nothing(); PIECE / 8];
    let to = (&raw mut piece).cast();
    if job.frame.load(job.from as u32, to, length) < 0 {
        job.failed = 1;
        return 1;
    }
    let mut sum = job.sum as u32;
    for word in piece {
        sum = checksum::add(sum, checksum::of_u64(word));
    }
    job.sum = u64::from(sum);
    job.from += u64::from(length);
    job.left -= u64::from(length);
    0
}

/// A word of zeros. The compiler would fill an array of plain zeros by a call of `memset`, which
/// takes 32 bytes of the stack on Linux 6.1.
#[inline(always)]
pub fn nothing() -> u64 {
    u64::from(opaque(0))
}

/// The same number, of which the compiler knows nothing: it would else leave out the bound that
/// the verifier asks for.
#[inline(always)]
pub fn opaque(value: u32) -> u32 {
    let mut value = u64::from(value);
    // SAFETY: a move of a register onto itself.
    unsafe { asm!("{0} = {0}", inout(reg) value, options(pure, nomem, nostack)) };
    value as u32
}
