//! The control path's pure core: what the table of services is, and what a change of it means.
//!
//! Nothing here touches the system: time, randomness and the outside come in as arguments.

pub mod carried;
pub mod table;
