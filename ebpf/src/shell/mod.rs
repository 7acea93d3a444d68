//! The shell of the packet path: frames of both hooks, the maps, the kernel's helpers. It decides
//! nothing.

pub mod calls;
pub mod choices;
pub mod constants;
pub mod context;
pub mod crc;
pub mod fib;
pub mod flows;
pub mod maps;
pub mod ports;
pub mod shift;
pub mod skb;
pub mod steps;
pub mod sum;
pub mod words;
pub mod xdp;
