//! Headers, checksums and parsers: what a frame's bytes mean, and how they are written.
//!
//! Nothing here decides what becomes of a packet.

pub mod checksum;
pub mod crc;
pub mod frame;
pub mod length;
pub mod link;
pub mod packet;
pub mod ports;
pub mod pseudo;
pub mod sctp;
pub mod toa;
pub mod version;
