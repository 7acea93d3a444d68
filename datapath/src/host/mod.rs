//! The packet path's shell on the host: frames in a vector, tables in plain memory, and functions
//! that fill the tables. For tests and simulations; `ebpf` is the shell in the kernel.

#![allow(clippy::arithmetic_side_effects, clippy::indexing_slicing)]
#![allow(clippy::expect_used)]

mod calls;
mod choices;
mod fill;
mod frame;
mod origins;
mod run;
mod sweep;
mod tables;
mod tally;
mod time;
mod words;

pub use self::words::HostWords;
pub use calls::{CALLS, Calls};
pub use fill::{NewServer, mac, words};
pub use frame::{Hook, HostFrame};
pub use run::HELD_BYTES;
pub use tables::{HostTables, Sizes};
pub use tally::Tally;
