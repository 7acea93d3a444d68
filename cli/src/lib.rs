//! The command line: `shunt`, and the faces of the original's programs.
//!
//! A client of the daemon's local API. It never touches a map, a device or a file of the daemon.

pub mod client;
pub mod demo;
pub mod ipvs;
pub mod ipvsadm;
pub mod shunt;
