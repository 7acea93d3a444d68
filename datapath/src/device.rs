//! What the walk knows of the devices that it sees frames of, and whether a frame is for this
//! machine at all.

use crate::family::Family;
use crate::frame::Frame;
use crate::link;
use crate::packet::Packet;
use crate::tables::Tables;

/// Places of the table. A device's place is its interface's number within it.
pub const DEVICES: u32 = 4096;

/// A device that the packet path hangs on.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Device {
    /// Its MAC address in the low 48 bits as they lie in memory; [`REDIRECTS`] above.
    pub mac: u64,
    /// Of two devices with one place the first has it; nothing is known of the other.
    pub interface: u32,
    pub reserved: u32,
}
const _: () = assert!(size_of::<Device>() == 16);

/// The bit of [`Device::mac`] that says that a frame goes back by a redirect, not by `XDP_TX`: the
/// two ends of a veth pair see what was transmitted only if both have an XDP program.
pub const REDIRECTS: u64 = 1 << 48;

impl Device {
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

/// Whether a frame is addressed to this machine, as `eth_type_trans` tells: what is another
/// machine's, and what is for many, is the kernel's business (`ip_vs_in` looks at `PACKET_HOST`
/// only). A device of which nothing is known has any address. A macvlan's frames are not its parent
/// device's: the kernel gives them to the macvlan, which has a program of its own.
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

/// Whether a packet is in a frame for another machine. Of a frame that is not plain
/// [`crate::walk::rest`] has asked before it was read.
#[inline(always)]
pub fn is_foreign<F: Family, P: Frame, T: Tables>(
    frame: &P,
    tables: &T,
    packet: &Packet<F>,
) -> bool {
    packet.plain && !frame.is_host() && !has(frame, tables, packet.mac)
}

/// Whether the device that a frame came by has this MAC address. Above it may be anything.
#[inline(always)]
fn has<P: Frame, T: Tables>(frame: &P, tables: &T, mac: u64) -> bool {
    let interface = frame.interface();
    match tables.device(Device::place(interface)) {
        Some(device) => (mac ^ device.mac) << 16 == 0 || device.interface != interface,
        None => true,
    }
}
