//! The shell of control: sockets, netlink, tables, the API. It touches the system and decides
//! nothing.

// The packet path restricts the daemon to 64-bit little-endian Linux.
#![allow(clippy::cast_possible_truncation)]
// A kind that is added to an enum must not be ignored in silence. Tests look for one kind.
#![cfg_attr(not(test), warn(clippy::wildcard_enum_match_arm))]

pub mod api;
mod chain;
mod ephemeral;
mod events;
mod file;
pub mod journal;
pub mod kernel;
mod log;
mod memory;
pub mod netlink;
pub mod options;
pub mod run;
mod shell;
mod socket;
