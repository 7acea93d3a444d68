//! The core of control: what the packet path's tables must contain, as machines that take in events
//! and the time.
//!
//! Nothing here opens a socket, reads a clock or touches the system. The daemon does that.

pub mod director;
pub mod eligibility;
pub mod network;
pub mod pool;
pub mod rates;
pub mod table;
