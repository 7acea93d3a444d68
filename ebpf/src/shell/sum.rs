//! The one's complement sum (RFC 1071) of bytes of a frame, which need not lie in its linear part.

use core::arch::asm;
use core::ffi::c_void;

use aya_ebpf::helpers::generated::bpf_loop;
use shunt_datapath::checksum;

/// Bytes that one turn of the loop reads. With 64, the walk, a tunnel and this loop would together
/// take 544 bytes of stack, and Linux 6.1 allows 512.
const PIECE: usize = 32;

/// There is no sum. The number does not fit into 32 bits, as every sum does.
pub const MISSING: u64 = 1 << 32;

/// Turns the number that a subprogram returned into a sum, or `None` for [`MISSING`].
#[inline(always)]
pub fn answer(returned: u64) -> Option<u32> {
    if returned >= MISSING {
        return None;
    }
    Some(returned as u32)
}

/// A frame from which the kernel copies bytes.
pub trait Bytes {
    /// Copies `length` bytes at offset `from` to `to`. Returns a negative number if the frame has
    /// fewer bytes.
    fn load(&self, from: u32, to: *mut c_void, length: u32) -> i64;
}

/// The sum of `length` bytes from offset `from` on, or [`MISSING`] if the frame has fewer bytes. A
/// subprogram calls it: if it were inlined, the verifier would check each use again.
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
    // SAFETY: `step` takes a pointer to a `Job<B>`; `job` lives until `bpf_loop` returns, and
    // nothing else touches it until then.
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
    // Each field has 64 bits. The compiler may write two fields of 32 bits at once, at an address
    // that is not a multiple of eight, and the verifier refuses that.
    from: u64,
    left: u64,
    sum: u64,
    failed: u64,
}

/// One turn of the loop. It returns 1 to end the loop.
unsafe extern "C" fn step<B: Bytes>(_: u32, job: *mut c_void) -> i64 {
    // SAFETY: `of` passes a pointer to its `Job<B>`, which nothing else touches during the loop.
    let job = unsafe { &mut *job.cast::<Job<'_, B>>() };
    // Less one, so that one more is at least one: the verifier wants to see that.
    let rest = (job.left as u32).wrapping_sub(1);
    let last = PIECE as u32 - 1;
    let rest = if rest < last { rest } else { last };
    let length = (opaque(rest) & last) + 1;
    // RFC 1071, 4.1: an odd byte at the end is summed as if a zero byte followed it.
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

/// Returns the same number, but hides its value from the compiler, which would otherwise remove the
/// bounds check that the verifier needs.
#[inline(always)]
pub fn opaque(value: u32) -> u32 {
    let mut value = u64::from(value);
    // SAFETY: the instruction moves a register onto itself; it touches no memory and no other
    // register.
    unsafe { asm!("{0} = {0}", inout(reg) value, options(pure, nomem, nostack)) };
    value as u32
}
