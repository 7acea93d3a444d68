//! Directors that are real servers of each other.
//!
//! A pool may contain the director itself beside other directors by direct routing. A packet that
//! such a peer forwarded comes from the peer's MAC address. The director takes it as a real server
//! and does not schedule it again, since two directors would send it to and fro.

use crate::table::Tables;
use crate::table::peer::PeerKey;
use crate::wire::frame::Frame;
use crate::wire::link;

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
