//! Words that the daemon sets before it loads us, of which the verifier knows what they say.

use core::arch::asm;

use aya_ebpf::Global;

/// What the daemon has put into a word before it loaded us. Unlike `Global::load` this is left out
/// where nobody uses it, and done once where it is used twice: the three shapes that an
/// established packet asks for are 30 instructions otherwise.
#[inline(always)]
pub fn constant(global: &'static Global<u32>) -> u32 {
    let value: u64;
    // SAFETY: a load of the word itself; `Global` is nothing but its value.
    unsafe {
        asm!(
            "{value} = *(u32 *)({from} + 0)",
            value = out(reg) value,
            from = in(reg) global,
            options(pure, readonly, nostack)
        );
    }
    value as u32
}

/// As [`constant`].
#[inline(always)]
pub fn long_constant(global: &'static Global<u64>) -> u64 {
    let value: u64;
    // SAFETY: as above.
    unsafe {
        asm!(
            "{value} = *(u64 *)({from} + 0)",
            value = out(reg) value,
            from = in(reg) global,
            options(pure, readonly, nostack)
        );
    }
    value
}
