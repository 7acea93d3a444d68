//! Reading packet pointers out of a context so that they stay pointers.
//!
//! The context's fields are 32 bits wide to the compiler and 64 to the verifier, which puts
//! pointers there. Read as a `u32`, a pointer may be moved with a 32-bit instruction, after which
//! the verifier sees a number ("invalid mem access 'scalar'"). Assembly hides the width.

use core::arch::asm;
use core::ffi::c_void;

use aya_ebpf::helpers::generated::bpf_jiffies64;

/// The packet pointer at offset `AT` of a context.
///
/// # Safety
/// `context` must be the program's own context, and `AT` the offset of one of its packet pointers.
#[inline(always)]
pub unsafe fn pointer<const AT: usize>(context: *const c_void) -> usize {
    let value: usize;
    // SAFETY: the caller promises that `context` is valid and has a field of four bytes at `AT`.
    unsafe {
        asm!(
            "{value} = *(u32 *)({context} + {at})",
            value = out(reg) value,
            context = in(reg) context,
            at = const AT,
            options(pure, readonly, nostack)
        );
    }
    value
}

/// The kernel's clock, in jiffies since it started.
#[inline(always)]
pub fn jiffies() -> u64 {
    // SAFETY: `bpf_jiffies64` takes no argument and only reads the kernel's clock.
    unsafe { bpf_jiffies64() }
}

/// Returns the same number, but hides its value and origin from the compiler. A later bounds check
/// then stays in the code, where the verifier sees it.
#[inline(always)]
pub fn opaque(value: usize) -> usize {
    let mut value = value;
    // It also keeps the compiler from checking one sum and using another.
    // SAFETY: the instruction moves a register onto itself; it touches no memory and no other
    // register.
    unsafe { asm!("{0} = {0}", inout(reg) value, options(pure, nomem, nostack)) };
    value
}

/// Returns the same number, but hides its value from the compiler and the verifier: it is combined
/// twice by exclusive or with `noise`, which neither of them knows.
#[inline(always)]
pub fn blur(value: u64, noise: u64) -> u64 {
    let mut value = value;
    // SAFETY: both instructions change only the register of `value`; they touch no memory.
    unsafe {
        asm!(
            "{value} ^= {noise}",
            "{value} ^= {noise}",
            value = inout(reg) value,
            noise = in(reg) noise,
            options(pure, nomem, nostack)
        );
    }
    value
}

/// The address of the byte at `offset` of the packet that begins at `data`.
///
/// One addition of the pointer and a number that is not negative makes the address. Otherwise the
/// compiler would check `data + l3` and use `data + (l3 - 2)`; the verifier refuses negative terms.
#[inline(always)]
pub fn place(data: usize, offset: usize) -> usize {
    if core::intrinsics::is_val_statically_known(offset) {
        data + offset
    } else {
        opaque(data + opaque(offset))
    }
}
