//! How a frame leaves the XDP hook: through the driver of the device, or, if that device takes no
//! frames from XDP, through a tc program of the device by which the frame came.
//!
//! Bridges, VLANs, tunnels, devices without Ethernet headers, and a veth whose peer does not poll
//! take no frames from XDP. The kernel accepts a redirect to such a device and drops the frame
//! without a trace. So XDP passes the frame on as a socket buffer, with a note in its metadata that
//! names the interface to send by.

use core::mem::offset_of;

use aya_ebpf::bindings::{__sk_buff, xdp_action, xdp_md};
use aya_ebpf::btf_maps::{Array, DevMapHash};
use aya_ebpf::helpers::generated::{bpf_redirect, bpf_xdp_adjust_meta};
use aya_ebpf::macros::btf_map;
use shunt_datapath::table::device::{DEVICES as PLACES, Device, REDIRECTS};

use super::constants::{SEED, long_constant};
use super::context::pointer;

/// The devices that the packet path is attached to, each at its place.
#[btf_map]
static DEVICES: Array<Device, { PLACES as usize }> = Array::new();
/// The devices that take frames from XDP, by interface index.
#[btf_map]
static PORTS: DevMapHash<{ PLACES as usize }> = DevMapHash::new();

/// What a tc program shall do with a frame that XDP has rewritten.
#[repr(C)]
struct Note {
    /// The packet path that wrote the note, by its [`seed`].
    from: u32,
    /// The index of the interface to send by.
    to: u32,
}

/// The number of this packet path in its notes, drawn when its tables were made. Never 0.
#[inline(always)]
fn seed() -> u32 {
    long_constant(&SEED) as u32 | 1
}

/// The device at this place.
#[inline(always)]
pub fn device(place: u32) -> Option<&'static Device> {
    DEVICES.get(place)
}

/// Sends a frame by an interface, which may be the one by which it came. `XDP_ABORTED` if the frame
/// cannot be sent.
#[inline(always)]
pub fn send(context: *mut xdp_md, to: u32) -> u32 {
    // SAFETY: `context` is the program's own, which the kernel keeps valid while the program runs.
    if to == unsafe { (*context).ingress_ifindex } && transmits(to) {
        return xdp_action::XDP_TX;
    }
    match PORTS.redirect(to, 0) {
        Ok(action) => action,
        Err(_) => hand_on(context, to),
    }
}

/// Whether `XDP_TX` sends a frame that came by this device.
#[inline(always)]
fn transmits(interface: u32) -> bool {
    match DEVICES.get(Device::place(interface)) {
        Some(device) => device.interface != interface || device.mac & REDIRECTS == 0,
        None => true,
    }
}

/// Passes a frame on to [`take`], with a note of the interface to send by. `XDP_ABORTED` if the
/// driver has no room for metadata.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn hand_on(context: *mut xdp_md, to: u32) -> u32 {
    const BYTES: usize = size_of::<Note>();
    // SAFETY: `context` is the program's own; the helper refuses a move out of the headroom.
    if unsafe { bpf_xdp_adjust_meta(context, -(BYTES as i32)) } != 0 {
        return xdp_action::XDP_ABORTED;
    }
    // SAFETY: `context` is the program's own, and both offsets are fields with packet pointers.
    let (start, data) = unsafe {
        (
            pointer::<{ offset_of!(xdp_md, data_meta) }>(context.cast()),
            pointer::<{ offset_of!(xdp_md, data) }>(context.cast()),
        )
    };
    if start + BYTES > data {
        return xdp_action::XDP_ABORTED;
    }
    let note = Note { from: seed(), to };
    // SAFETY: the comparison with `data` proved that the note's bytes are metadata of this frame;
    // the kernel aligns metadata to four bytes.
    unsafe { (start as *mut Note).write(note) };
    xdp_action::XDP_PASS
}

/// Sends a frame that [`hand_on`] passed on. `None` if the frame has no note of this packet path:
/// XDP then left the frame to the kernel.
#[inline(always)]
pub fn take(context: *mut __sk_buff) -> Option<i32> {
    const BYTES: usize = size_of::<Note>();
    // SAFETY: `context` is the program's own, and both offsets are fields with packet pointers.
    let (start, data) = unsafe {
        (
            pointer::<{ offset_of!(__sk_buff, data_meta) }>(context.cast()),
            pointer::<{ offset_of!(__sk_buff, data) }>(context.cast()),
        )
    };
    if start + BYTES > data {
        return None;
    }
    let note = start as *mut Note;
    // SAFETY: the comparison with `data` proved that the note's bytes are metadata of this frame,
    // aligned to four bytes by the kernel; the helper checks the interface.
    unsafe {
        if (*note).from != seed() {
            return None;
        }
        // The note must not be read twice: another director on this machine may see the frame.
        (*note).from = 0;
        Some(bpf_redirect((*note).to, 0) as i32)
    }
}
