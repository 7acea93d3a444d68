//! Offloads of a device, by the ethtool ioctl: work that the kernel leaves to the hardware.
//!
//! A veth pair has no hardware. A frame whose checksum was left to hardware is valid only as a
//! socket buffer. XDP sees, and sends on, the unfinished checksum.

use std::io;
use std::os::fd::AsRawFd;

use anyhow::{Context, Result, bail};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

use crate::host::Host;

/// Work on packets that a device, or the kernel for it, does on whole batches of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offload {
    /// Checksums of sent packets.
    TxChecksum,
    /// Segmentation of large TCP segments on sending (TSO).
    Tso,
    /// Segmentation of large packets of any protocol just before sending (GSO).
    Gso,
    /// Joining received segments (GRO). On veth it also wakes the receiver of XDP's frames.
    Gro,
}

impl Offload {
    /// ETHTOOL_G* and ETHTOOL_S* of linux/ethtool.h.
    fn commands(self) -> (u32, u32) {
        match self {
            Offload::TxChecksum => (0x16, 0x17),
            Offload::Tso => (0x1e, 0x1f),
            Offload::Gso => (0x23, 0x24),
            Offload::Gro => (0x2b, 0x2c),
        }
    }
}

/// What XDP on veth needs at both ends: complete checksums, no super-packets, a receiver that
/// wakes.
const WIRE: [(Offload, bool); 4] = [
    (Offload::TxChecksum, false),
    (Offload::Tso, false),
    (Offload::Gso, false),
    (Offload::Gro, true),
];

impl Host {
    /// Makes a device carry frames as a cable does: one by one and complete. If the device answers
    /// by XDP_TX, its peer also needs [`Host::pass_xdp`].
    pub fn wire(&self, device: &str) -> Result<()> {
        self.offloads(device, &WIRE)
    }

    /// Switches an offload of a device on or off.
    pub fn offload(&self, device: &str, offload: Offload, on: bool) -> Result<()> {
        self.offloads(device, &[(offload, on)])
    }

    /// Whether an offload of a device is on.
    pub fn has_offload(&self, device: &str, offload: Offload) -> Result<bool> {
        self.run(|| {
            ethtool(device, offload.commands().0, 0)
                .map(|value| value != 0)
                .with_context(|| format!("cannot read {offload:?} of {device}"))
        })
    }

    fn offloads(&self, device: &str, wanted: &[(Offload, bool)]) -> Result<()> {
        self.run(|| {
            for &(offload, on) in wanted {
                // An offload with the wanted value may be fixed: an XDP program turns off its
                // peer's TSO.
                if ethtool(device, offload.commands().0, 0).is_ok_and(|now| (now != 0) == on) {
                    continue;
                }
                let word = if on { "on" } else { "off" };
                ethtool(device, offload.commands().1, on.into())
                    .with_context(|| format!("cannot turn {offload:?} {word} on {device}"))?;
            }
            Ok(())
        })
    }
}

/// struct ethtool_value of linux/ethtool.h.
#[repr(C)]
struct Value {
    command: u32,
    data: u32,
}

/// Makes the request in the namespace of the calling thread.
fn ethtool(device: &str, command: u32, data: u32) -> Result<u32> {
    const SIOCETHTOOL: libc::Ioctl = 0x8946;
    let socket = socket(
        AddressFamily::Inet,
        SockType::Datagram,
        SockFlag::SOCK_CLOEXEC,
        None,
    )?;
    let mut value = Value { command, data };
    // SAFETY: an ifreq of zeroes is valid; all its fields are integers or a null pointer.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    if device.len() >= request.ifr_name.len() {
        bail!("{device:?} is too long for a device name");
    }
    for (slot, byte) in request.ifr_name.iter_mut().zip(device.bytes()) {
        *slot = byte as libc::c_char;
    }
    request.ifr_ifru.ifru_data = (&raw mut value).cast();
    // SAFETY: the request and the value it points to outlive the call, and the kernel reads and
    // writes no more than the eight bytes of the value for these commands.
    if unsafe { libc::ioctl(socket.as_raw_fd(), SIOCETHTOOL, &raw mut request) } < 0 {
        return Err(io::Error::last_os_error().into());
    }
    Ok(value.data)
}
