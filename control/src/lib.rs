//! The core of control: machines that hear events and the time, and say what must be done.
//!
//! Nothing here opens a socket, reads a clock or touches the system; the daemon does that.

pub mod network;
