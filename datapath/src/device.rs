//! Whether a frame is addressed to this machine.

use crate::table::Tables;
use crate::table::device::{Device, STRICT};
use crate::table::entry::{Server, server_flag};
use crate::table::family::Family;
use crate::wire::frame::Frame;
use crate::wire::link;
use crate::wire::packet::Packet;

/// Whether a frame is addressed to this machine, as `eth_type_trans` decides. Frames for another
/// machine, broadcasts and multicasts are left to the kernel (`ip_vs_in` takes only `PACKET_HOST`).
/// On a device without an entry every frame is for this machine. Frames for a macvlan are not for
/// its parent device: the kernel passes them to the macvlan, which has a program of its own.
#[inline(always)]
pub fn is_ours<P: Frame, T: Tables>(frame: &P, tables: &T) -> bool {
    if frame.is_host() {
        return true;
    }
    match frame.view::<{ link::HEADER }>(0) {
        Some(header) => has(frame, tables, header.u64::<0>()),
        None => true,
    }
}

/// Whether a plain packet is in a frame for another machine. [`crate::walk::rest`] has checked the
/// frames of other packets before it parsed them.
#[inline(always)]
pub fn is_foreign<F: Family, P: Frame, T: Tables>(
    frame: &P,
    tables: &T,
    packet: &Packet<F>,
) -> bool {
    packet.plain && !frame.is_host() && !has(frame, tables, packet.mac)
}

/// Whether the device that a frame came by has the MAC address in the low 48 bits of `mac`. True if
/// the device has no entry.
#[inline(always)]
fn has<P: Frame, T: Tables>(frame: &P, tables: &T, mac: u64) -> bool {
    let interface = frame.interface();
    match tables.device(Device::place(interface)) {
        Some(device) => (mac ^ device.mac) << 16 == 0 || device.interface != interface,
        None => true,
    }
}

/// Whether an answer of this server came by a device that does not lead to it, and that is strict.
/// It may be anybody's.
#[inline(always)]
pub fn is_astray<F: Family, P: Frame, T: Tables>(frame: &P, tables: &T, server: &Server) -> bool {
    let interface = frame.interface();
    let ways = &server.ways;
    if F::V6 || interface == ways.interface || !ways.is_usable() {
        return false;
    }
    if server.flags & server_flag::SEVERAL_WAYS != 0 {
        return false;
    }
    match tables.device(Device::place(interface)) {
        Some(device) => device.interface == interface && device.mac & STRICT != 0,
        None => false,
    }
}
