//! The core of control: machines that hear events and the time, and say what must be done.
//!
//! Nothing here opens a socket, reads a clock or touches the system; the daemon does that.

pub mod network;
//! The control path's pure core: what the table of services is, and what a change of it means.
//!
//! Nothing here touches the system: time, randomness and the outside come in as arguments.

pub mod carried;
pub mod table;
