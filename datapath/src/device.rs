//! The devices of the packet path, and whether a frame is addressed to this machine.

use crate::family::Family;
use crate::frame::Frame;
use crate::link;
use crate::packet::Packet;
use crate::tables::Tables;

/// Places in the table of devices. A device's place is its interface index modulo this number.
pub const DEVICES: u32 = 4096;

/// A device to which the packet path is attached.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Device {
    /// The MAC address in the low 48 bits, in memory order; [`REDIRECTS`] above it.
    pub mac: u64,
    /// The interface index. Of two devices with the same place, only the first has an entry.
    pub interface: u32,
    /// Zero.
    pub reserved: u32,
}
const _: () = assert!(size_of::<Device>() == 16);

/// The bit of [`Device::mac`] that is set if frames go back by a redirect and not by `XDP_TX`: a
/// veth device delivers what it transmits by `XDP_TX` only if both ends have an XDP program.
pub const REDIRECTS: u64 = 1 << 48;

impl Device {
    /// The entry of a device; `redirects` sets [`REDIRECTS`].
    #[must_use]
    pub fn new(interface: u32, mac: [u8; 6], redirects: bool) -> Self {
        let [a, b, c, d, e, f] = mac;
        let flag = if redirects { REDIRECTS } else { 0 };
        Self {
            mac: u64::from_le_bytes([a, b, c, d, e, f, 0, 0]) | flag,
            interface,
            reserved: 0,
        }
    }

    /// The place of an interface in the table.
    #[inline(always)]
    #[must_use]
    pub fn place(interface: u32) -> u32 {
        interface & (DEVICES - 1)
    }
}

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
