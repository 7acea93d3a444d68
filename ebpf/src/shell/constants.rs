//! Words that the daemon sets before it loads the programs. The verifier knows their values.

use core::arch::asm;

use aya_ebpf::Global;

/// The seed of all hashes, drawn at random when the tables are made.
#[unsafe(no_mangle)]
pub static SEED: Global<u64> = Global::new(0x5eed);

/// The value of a word that the daemon set. Unlike with `Global::load`, the compiler drops a load
/// whose result is unused and merges equal loads: with `Global::load`, the three shapes that an
/// established packet asks for cost 30 instructions.
#[inline(always)]
pub fn constant(global: &'static Global<u32>) -> u32 {
    let value: u64;
    // SAFETY: `Global<u32>` is a transparent cell of its value, and the reference to it is valid.
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

/// The value of a long word that the daemon set, as [`constant`] loads it.
#[inline(always)]
pub fn long_constant(global: &'static Global<u64>) -> u64 {
    let value: u64;
    // SAFETY: `Global<u64>` is a transparent cell of its value, and the reference to it is valid.
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
