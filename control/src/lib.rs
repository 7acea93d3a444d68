//! The core of control: what the tables must say, and machines that hear events and the time.
//!
//! Nothing here opens a socket, reads a clock or touches the system; the daemon does that.

pub mod director;
pub mod network;
pub mod pool;
pub mod rates;
pub mod table;
