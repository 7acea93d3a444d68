//! The devices of the packet path.

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

/// The bit of [`Device::mac`] that says that the kernel takes packets on the device only from
/// addresses that lead back by it (`rp_filter` 1, for IPv4 alone).
pub const STRICT: u64 = 1 << 49;

impl Device {
    /// The same device with a strict `rp_filter`.
    #[must_use]
    pub fn strict(self, strict: bool) -> Self {
        let flag = if strict { STRICT } else { 0 };
        Self {
            mac: self.mac & !STRICT | flag,
            ..self
        }
    }

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
