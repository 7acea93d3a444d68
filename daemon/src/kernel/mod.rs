//! The packet path in the kernel: where it is pinned, how it is loaded or taken over, and its
//! tables as memory.

pub mod attach;
pub mod batch;
pub mod callers;
pub mod calls;
pub mod clock;
mod endpoints;
pub mod features;
pub mod fragments;
pub mod hanging;
pub mod heap;
pub mod listing;
pub mod made;
pub mod mapping;
pub mod object;
mod peers;
pub mod pins;
pub mod place;
pub mod ports;
pub mod presence;
pub mod rcu;
mod routes;
mod running;
pub mod shared;
pub mod succession;
pub mod sweep;
pub mod tables;
pub mod traffic;
pub mod translations;
