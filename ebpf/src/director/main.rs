//! The packet path of the director: one walk behind two hooks, XDP and tc.
//!
//! Shell only: it turns the walk's verdict into the hook's action, and counts the verdict.

#![cfg_attr(target_arch = "bpf", no_std, no_main)]
#![cfg_attr(target_arch = "bpf", feature(core_intrinsics, asm_experimental_arch))]
#![warn(clippy::undocumented_unsafe_blocks)]
#![allow(internal_features)]
// A program has no users: rustc finds what is unused in it, whether it is public or not.
#![allow(unreachable_pub)]
// A map reads its key and value where they lie. By value, the compiler could copy them once more.
#![allow(clippy::needless_borrows_for_generic_args)]

#[cfg(target_arch = "bpf")]
mod caller;
#[cfg(target_arch = "bpf")]
mod leave;
#[cfg(target_arch = "bpf")]
mod program;
#[cfg(target_arch = "bpf")]
#[path = "../shell/mod.rs"]
mod shell;

#[cfg(not(target_arch = "bpf"))]
fn main() {}
