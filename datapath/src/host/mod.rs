//! The packet path's other side on the host: frames in a vector, tables in plain memory, and words
//! to fill the tables with. For tests and simulations; the kernel has its own (`ebpf`).

#![allow(clippy::arithmetic_side_effects, clippy::indexing_slicing)]
#![allow(clippy::expect_used)]

mod calls;
mod fill;
mod frame;
mod origins;
mod sweep;
mod tables;
mod time;
mod words;

pub use self::words::HostWords;
pub use calls::{CALLS, Calls};
pub use fill::{NewServer, mac, words};
pub use frame::{Hook, HostFrame};
pub use tables::{HELD_BYTES, HostTables, Sizes};
