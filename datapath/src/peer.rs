//! Directors that are real servers of each other.
//!
//! A director that has itself and others by direct routing in one pool may be such another's
//! server. What that one forwards comes from its MAC address, and is not to be scheduled again: two
//! directors would send it to and fro. It is for the director itself, as a real server.

use crate::frame::Frame;
use crate::link;
use crate::tables::Tables;

/// Whether a frame for this service was forwarded by a peer: it comes from the MAC address of a
/// server, and not with the server's own address. In the kernel a function of its own.
#[inline(always)]
pub fn forwarded<P: Frame, T: Tables>(
    frame: &P,
    tables: &T,
    service: u32,
    source: [u64; 2],
) -> bool {
    let Some(header) = frame.view::<{ link::HEADER }>(0) else {
        return false;
    };
    let key = PeerKey {
        mac: header.u16::<6>() as u64 | (header.u32::<8>() as u64) << 16,
        service,
        reserved: 0,
    };
    match tables.peer(&key) {
        Some(address) => address != source,
        None => false,
    }
}

/// Another director that is a server of a service, by where its frames come from.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerKey {
    /// Its MAC address in the low 48 bits as they lie in memory.
    pub mac: u64,
    pub service: u32,
    pub reserved: u32,
}
const _: () = assert!(size_of::<PeerKey>() == 16);
