//! What a real server needs besides its service, for direct routing and tunnels: `shunt agent`.
//!
//! It puts virtual addresses on the loopback device, keeps the machine from answering ARP for
//! them, lets packets in whose way back is another, takes the directors' tunnels off by eBPF, and
//! lowers the segment size of what the virtual addresses answer. It changes only what is needed,
//! writes down what was there before it changes it, and restores exactly that. It never touches
//! the services. A server that was set up by hand works as well, and `check` says so.
//!
//! [`join`] and [`check`] read the same list of `wanted` things; [`leave`] reads `memory`. All
//! act in the network namespace of the calling thread.

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
