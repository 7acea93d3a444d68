//! The bench's programs: the packet driver, and the programs that the director is compared with.
//!
//! Nothing here is part of the product; `cargo xtask bench` loads it.

#![cfg_attr(target_arch = "bpf", no_std, no_main)]
#![cfg_attr(target_arch = "bpf", feature(core_intrinsics, asm_experimental_arch))]
#![warn(clippy::undocumented_unsafe_blocks)]
#![allow(internal_features)]
// A program has no users: rustc finds what is unused in it, whether it is public or not.
#![allow(unreachable_pub)]
// A map reads its key and value where they lie. By value, the compiler could copy them once more.
#![allow(clippy::needless_borrows_for_generic_args)]

#[cfg(target_arch = "bpf")]
#[path = "../shell/context.rs"]
#[allow(dead_code)]
mod context;
#[cfg(target_arch = "bpf")]
mod driver;
#[cfg(target_arch = "bpf")]
mod floors;
#[cfg(target_arch = "bpf")]
mod headers;
#[cfg(target_arch = "bpf")]
mod wire;

#[cfg(not(target_arch = "bpf"))]
fn main() {}

#[cfg(target_arch = "bpf")]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

// The kernel reads the licence here and gives the GPL helpers only to a compatible one.
#[cfg(target_arch = "bpf")]
#[used]
#[unsafe(link_section = "license")]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
