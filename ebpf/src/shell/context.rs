//! Reading packet pointers out of a context so that they stay pointers.
//!
//! The context's fields are 32 bits wide to the compiler and 64 to the verifier, which puts
//! pointers there. Read as a `u32`, a pointer may be moved with a 32-bit instruction, after which
//! the verifier sees a number ("invalid mem access 'scalar'"). Assembly hides the width.

use core::arch::asm;
use core::ffi::c_void;

/// The packet pointer at `AT` of a context.
///
/// # Safety
/// `context` must be the program's own context, and `AT` the place of `data` or `data_end`.
#[inline(always)]
pub unsafe fn pointer<const AT: usize>(context: *const c_void) -> usize {
    let value: usize;
    // SAFETY: a load from the context, which the caller promises.
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

/// The same number, of which the compiler knows nothing: what is then checked is checked where
/// the verifier sees it.
#[inline(always)]
pub fn opaque(value: usize) -> usize {
    let mut value = value;
    // Also keeps the compiler from checking one sum and using another.
    // SAFETY: a move of a register onto itself.
    unsafe { asm!("{0} = {0}", inout(reg) value, options(pure, nomem, nostack)) };
    value
}

/// The same number, of which neither the compiler nor the verifier knows anything any more: it is
/// combined twice with one that they do not know, which gives it back.
#[inline(always)]
pub fn blur(value: u64, noise: u64) -> u64 {
    let mut value = value;
    // SAFETY: two moves between registers.
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

/// The place in the packet that lies `offset` bytes behind `data`.
///
/// The sum is made once, of the pointer and one number that is not negative: the compiler would
/// else check `data + l3` where `data + (l3 - 2)` is used, and the verifier refuses negative parts.
#[inline(always)]
pub fn place(data: usize, offset: usize) -> usize {
    if core::intrinsics::is_val_statically_known(offset) {
        data + offset
    } else {
        opaque(data + opaque(offset))
    }
}
