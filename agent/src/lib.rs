//! `shunt agent`: sets up a real server for direct routing and tunnels.
//!
//! The agent puts virtual addresses on the loopback device, keeps the machine from answering ARP
//! for them, relaxes the reverse path filter, decapsulates the directors' tunnels by eBPF, and
//! lowers the segment size that the virtual addresses announce. It changes only what is needed,
//! records the earlier state before each change, and restores exactly that. It never touches the
//! services. A server that was set up by hand works as well, and `check` confirms it.
//!
//! [`join`] and [`check`] read the same list of `wanted` things; [`leave`] reads `memory`. All of
//! them act in the network namespace of the calling thread.

mod arguments;
mod folder;
mod machine;
mod member;
mod memory;
mod options;
mod program;
mod report;
mod setting;
pub mod toa;
mod wanted;

pub use arguments::{Arguments, main};
pub use member::{check, join, leave, run};
pub use options::{Hook, Kind, Options};
pub use report::{Item, Report, State};
