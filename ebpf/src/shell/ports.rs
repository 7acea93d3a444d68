//! How a frame leaves the XDP hook: by the driver, or, where a device takes no frames from XDP, by
//! a tc program of the device that the frame came by.
//!
//! A bridge, a VLAN, a tunnel, a device without Ethernet headers, an end of a veth pair whose other
//! end does not poll: the kernel takes a redirect to these and drops the frame without a word. Such
//! a frame goes up as a socket buffer with a note in front of it, which says where to send it.

use core::mem::offset_of;

use aya_ebpf::bindings::{__sk_buff, xdp_action, xdp_md};
use aya_ebpf::btf_maps::{Array, DevMapHash};
use aya_ebpf::helpers::generated::{bpf_redirect, bpf_xdp_adjust_meta};
use aya_ebpf::macros::btf_map;
use shunt_datapath::device::{DEVICES as PLACES, Device, REDIRECTS};

use super::constants::long_constant;
use super::context::pointer;
use super::maps::SEED;

/// The devices that the packet path hangs on, each in its place.
#[btf_map]
static DEVICES: Array<Device, { PLACES as usize }> = Array::new();
/// The devices that take frames from XDP, each under its own number.
#[btf_map]
static PORTS: DevMapHash<{ PLACES as usize }> = DevMapHash::new();

/// What a tc program is to do with a frame that XDP has dealt with.
#[repr(C)]
struct Note {
    /// Whose note it is: a number that was drawn when the packet path was made.
    from: u32,
    /// The interface to send by.
    to: u32,
}

/// Names this packet path in its notes; never 0.
#[inline(always)]
fn seed() -> u32 {
    long_constant(&SEED) as u32 | 1
}

/// What is known of the device that has this place.
#[inline(always)]
pub fn device(place: u32) -> Option<&'static Device> {
    DEVICES.get(place)
}

/// Sends a frame out of an interface, which may be the one that it came by. `XDP_ABORTED` if it
/// cannot be done.
#[inline(always)]
pub fn send(context: *mut xdp_md, to: u32) -> u32 {
    // SAFETY: the kernel hands in a valid context.
    if to == unsafe { (*context).ingress_ifindex } && transmits(to) {
        return xdp_action::XDP_TX;
    }
    match PORTS.redirect(to, 0) {
        Ok(action) => action,
        Err(_) => hand_on(context, to),
    }
}

/// Whether a frame goes back by a device through `XDP_TX`.
#[inline(always)]
fn transmits(interface: u32) -> bool {
    match DEVICES.get(Device::place(interface)) {
        Some(device) => device.interface != interface || device.mac & REDIRECTS == 0,
        None => true,
    }
}

/// Leaves a frame to [`take`], with a note of where it is to go. `XDP_ABORTED` where the driver has
/// no room for notes.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn hand_on(context: *mut xdp_md, to: u32) -> u32 {
    const BYTES: usize = size_of::<Note>();
    // SAFETY: the helper checks the room.
    if unsafe { bpf_xdp_adjust_meta(context, -(BYTES as i32)) } != 0 {
        return xdp_action::XDP_ABORTED;
    }
    // SAFETY: both are fields of the context that hold pointers.
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
    // SAFETY: checked just above; the kernel holds notes at multiples of four.
    unsafe { (start as *mut Note).write(note) };
    xdp_action::XDP_PASS
}

/// Sends a frame that [`hand_on`] left here. `None` if there is no note of ours before it: XDP has
/// left it to the kernel.
#[inline(always)]
pub fn take(context: *mut __sk_buff) -> Option<i32> {
    const BYTES: usize = size_of::<Note>();
    // SAFETY: both are fields of the context that hold pointers.
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
    // SAFETY: checked just above.
    unsafe {
        if (*note).from != seed() {
            return None;
        }
        // Nobody reads it again: the frame may come to another director on this machine.
        (*note).from = 0;
        Some(bpf_redirect((*note).to, 0) as i32)
    }
}
