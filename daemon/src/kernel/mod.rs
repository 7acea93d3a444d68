//! The packet path in the kernel: where it is pinned, how it is loaded or taken over, and its
//! tables as memory.

pub mod attach;
pub mod clock;
pub mod mapping;
pub mod object;
pub mod place;
pub mod replay;
mod routes;
pub mod scan;
pub mod tables;
pub mod traffic;
