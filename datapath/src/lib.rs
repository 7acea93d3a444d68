//! The packet core: takes a frame and the tables, and returns a verdict.
//!
//! It is `no_std` and generic over [`frame::Frame`] and [`table::Tables`]; the same code runs in
//! the kernel and on the host. It never allocates, logs, panics or reads a clock. It supports
//! little-endian machines only, because it reads words as they lie in memory.
//!
//! The path of a packet: [`walk`], then [`link`] and [`packet`], then [`track`] (over [`flows`] and
//! [`connection`], [`sctp`]) or, for a new connection, [`open`] and [`schedule`]; then [`method`],
//! and out as a [`verdict`]. [`icmp`] handles ICMP errors; [`reply`] makes the director's own
//! answers. [`steps`] lists what the kernel's verifier checks apart.

#![no_std]
// Casts between integers of known widths are what this crate is made of.
#![allow(clippy::cast_possible_truncation, clippy::cast_lossless)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]
#![cfg_attr(test, allow(clippy::indexing_slicing, clippy::arithmetic_side_effects))]

#[cfg(any(test, feature = "host"))]
extern crate std;

pub mod call;
pub mod caller;
pub mod claim;
pub mod clamp;
pub mod connection;
pub mod decap;
pub mod device;
pub mod fragment;
pub mod here;
#[cfg(any(test, feature = "host"))]
pub mod host;
pub mod icmp;
pub mod method;
pub mod open;
pub mod origin;
pub mod peer;
pub mod plain;
pub mod policy;
pub mod quoted;
pub mod realserver;
pub mod reply;
mod reread;
pub mod reset;
pub mod schedule;
pub mod secured;
pub mod steps;
#[cfg(any(test, feature = "host"))]
pub mod sweep;
pub mod table;
pub mod template;
pub mod track;
pub mod traffic;
pub mod translate;
pub mod tunnel;
pub mod verdict;
pub mod walk;
pub mod way;
pub mod wire;

pub use connection::sctp;
pub use table::{endpoint, entry, family, flows, hash, lookup, region, translation};
pub use wire::{checksum, crc, frame, link, packet, toa};

#[cfg(target_endian = "big")]
compile_error!("the packet path reads words as they lie in memory: little-endian machines only");
