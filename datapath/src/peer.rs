//! Directors that are real servers of each other.
//!
//! A pool may contain the director itself beside other directors by direct routing. A packet that
//! such a peer forwarded comes from the peer's MAC address. The director takes it as a real server
//! and does not schedule it again, since two directors would send it to and fro.

use crate::frame::Frame;
use crate::link;
use crate::tables::Tables;

/// Whether a peer forwarded this frame of a service: it comes from the MAC address of a server, but
/// not from that server's own address. `source` is the packet's source address in wire order. In
/// the kernel this is a separate function.
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

/// A peer as a server of a service, known by the source MAC address of its frames.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerKey {
    /// The MAC address in the low 48 bits, as it lies in memory.
    pub mac: u64,
    /// Id of the service.
    pub service: u32,
    /// Zero.
    pub reserved: u32,
}
const _: () = assert!(size_of::<PeerKey>() == 16);
