//! The command line: `shunt`, and the faces that speak the language of the original programs.
//!
//! The crate is a client of the daemon's local API. It never touches a map, a device or a file of
//! the daemon.

pub mod client;
pub mod demo;
pub mod ipvs;
pub mod ipvsadm;
pub mod shunt;
