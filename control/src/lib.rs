//! The core of control: what the packet path's tables must contain, as machines that take in events
//! and the time.
//!
//! Nothing here opens a socket, reads a clock or touches the system. The daemon does that.

// A kind that is added to an enum must not be ignored in silence. Tests look for one kind.
#![cfg_attr(not(test), warn(clippy::wildcard_enum_match_arm))]

pub mod answers;
pub mod director;
pub mod dropping;
pub mod eligibility;
pub mod fragments;
pub mod network;
pub mod node;
pub mod pool;
pub mod programs;
pub mod rates;
pub mod retired;
pub mod samples;
pub mod table;
pub mod unclaimed;
pub mod unwritten;
