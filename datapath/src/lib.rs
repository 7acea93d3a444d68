//! The packet core: takes a frame and the tables, and returns a verdict.
//!
//! It is `no_std` and generic over [`frame::Frame`] and [`tables::Tables`]; the same code runs in
//! the kernel and on the host. It never allocates, logs, panics or reads a clock. It supports
//! little-endian machines only, because it reads words as they lie in memory.
//!
//! The path of a packet: [`walk`], then [`link`] and [`packet`], then [`track`] (over [`flows`] and
//! [`connection`], [`sctp`]) or, for a new connection, [`open`] and [`schedule`]; then [`method`],
//! and out as a [`verdict`]. [`icmp`] handles ICMP errors; [`reply`] makes the director's own
//! answers.

#![no_std]
// Casts between integers of known widths are what this crate is made of.
#![allow(clippy::cast_possible_truncation, clippy::cast_lossless)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]
#![cfg_attr(test, allow(clippy::indexing_slicing, clippy::arithmetic_side_effects))]

#[cfg(any(test, feature = "host"))]
extern crate std;

pub mod call;
pub mod caller;
pub mod checksum;
pub mod claim;
pub mod clamp;
pub mod connection;
pub mod crc;
pub mod decap;
pub mod device;
pub mod endpoint;
pub mod entry;
pub mod family;
pub mod flows;
pub mod fragment;
pub mod frame;
pub mod hash;
pub mod here;
#[cfg(any(test, feature = "host"))]
pub mod host;
pub mod icmp;
pub mod link;
pub mod localities;
pub mod lookup;
pub mod method;
pub mod open;
pub mod origin;
pub mod packet;
pub mod peer;
pub mod policy;
pub mod quoted;
pub mod realserver;
pub mod region;
pub mod reply;
mod reread;
pub mod reset;
pub mod schedule;
pub mod sctp;
pub mod secured;
#[cfg(any(test, feature = "host"))]
pub mod sweep;
pub mod switches;
pub mod tables;
pub mod template;
pub mod toa;
pub mod track;
pub mod traffic;
pub mod translate;
pub mod translation;
pub mod tunnel;
pub mod verdict;
pub mod walk;
pub mod way;

#[cfg(target_endian = "big")]
compile_error!("the packet path reads words as they lie in memory: little-endian machines only");
