//! Both ends of a wire. `BPF_PROG_TEST_RUN` with live frames sends; the other end counts and drops
//! the frames that come back.

use aya_ebpf::bindings::{xdp_action, xdp_md};
use aya_ebpf::btf_maps::PerCpuArray;
use aya_ebpf::helpers::generated::bpf_redirect;
use aya_ebpf::macros::btf_map;

use crate::driver::{make, traffic};

/// The number of frames sent, and of frames that came back.
#[btf_map]
static COUNTED: PerCpuArray<u64, 2> = PerCpuArray::new();

#[inline(always)]
fn count(which: u32) {
    if let Some(value) = COUNTED.get_ptr_mut(which) {
        // SAFETY: `value` points to this CPU's value of the map, which lives as long as the map.
        unsafe { *value = (*value).wrapping_add(1) };
    }
}

/// Makes the next packet and sends it on the interface.
#[unsafe(no_mangle)]
#[unsafe(link_section = "xdp")]
pub extern "C" fn generate(context: *mut xdp_md) -> u32 {
    let Some(traffic) = traffic() else {
        return xdp_action::XDP_ABORTED;
    };
    if make(context, traffic).is_none() {
        return xdp_action::XDP_ABORTED;
    }
    count(0);
    // SAFETY: `bpf_redirect` takes only numbers; an unknown interface drops the frame.
    unsafe { bpf_redirect(traffic.interface, 0) as u32 }
}

/// Counts and drops a frame that came back.
#[unsafe(no_mangle)]
#[unsafe(link_section = "xdp")]
pub extern "C" fn sink(_: *mut xdp_md) -> u32 {
    count(1);
    xdp_action::XDP_DROP
}
