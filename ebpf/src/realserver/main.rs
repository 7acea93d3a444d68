//! The packet path of a real server: it unwraps the director's tunnel, lowers the segment size of
//! answers, and gives programs the client's address behind full NAT.
//!
//! Shell only: `shunt_datapath::decap`, `clamp` and `toa` decide. All other frames go on as they
//! came.

#![cfg_attr(target_arch = "bpf", no_std, no_main)]
#![cfg_attr(target_arch = "bpf", feature(core_intrinsics, asm_experimental_arch))]
#![warn(clippy::undocumented_unsafe_blocks)]
#![allow(internal_features)]
// A program has no users: rustc finds what is unused in it, whether it is public or not.
#![allow(unreachable_pub)]
// A map reads its key and value where they lie. By value, the compiler could copy them once more.
#![allow(clippy::needless_borrows_for_generic_args)]

#[cfg(target_arch = "bpf")]
mod client;
#[cfg(target_arch = "bpf")]
#[path = "../shell/context.rs"]
#[allow(dead_code)] // The director uses all of it.
mod context;
#[cfg(target_arch = "bpf")]
mod frame;
#[cfg(target_arch = "bpf")]
mod maps;
#[cfg(target_arch = "bpf")]
mod program;
#[cfg(target_arch = "bpf")]
#[path = "../shell/sum.rs"]
mod sum;

#[cfg(not(target_arch = "bpf"))]
fn main() {}
