//! The packet path of a real server: out of the director's tunnel, the segment size of its
//! answers, and who the client is behind full NAT.
//!
//! Shell only: `shunt_datapath::decap` and `clamp` decide. A frame that is no affair of ours goes
//! on as it came.

#![cfg_attr(target_arch = "bpf", no_std, no_main)]
#![cfg_attr(target_arch = "bpf", feature(core_intrinsics, asm_experimental_arch))]
#![allow(internal_features)]

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
