//! The shell of the packet path: frames of both hooks, the maps, the kernel's helpers. It decides
//! nothing.

pub mod calls;
pub mod constants;
pub mod context;
pub mod fib;
pub mod flows;
pub mod maps;
pub mod ports;
pub mod quoted;
pub mod secured;
pub mod shift;
pub mod skb;
pub mod subprograms;
pub mod sum;
pub mod translated;
pub mod words;
pub mod xdp;
