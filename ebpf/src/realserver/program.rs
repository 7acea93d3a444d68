//! The entry points.

use aya_ebpf::bindings::{__sk_buff, TC_ACT_SHOT, xdp_action, xdp_md};
use shunt_datapath::clamp;
use shunt_datapath::decap::{self, Outcome};

use crate::frame::{SkbFrame, XdpFrame};
use crate::maps::Maps;

/// `TCX_NEXT` and `TC_ACT_UNSPEC`: the frame goes to the program attached after this one, then on.
const NEXT: i32 = -1;

/// Frames of a network card, before the kernel makes socket buffers of them.
#[unsafe(no_mangle)]
#[unsafe(link_section = "xdp.frags")]
pub extern "C" fn realserver_xdp(context: *mut xdp_md) -> u32 {
    match decap::receive(&mut XdpFrame(context), &Maps) {
        Outcome::Untouched | Outcome::Decapsulated => xdp_action::XDP_PASS,
        Outcome::Drop => xdp_action::XDP_DROP,
    }
}

/// Socket buffers that come in.
#[unsafe(no_mangle)]
#[unsafe(link_section = "classifier")]
pub extern "C" fn realserver_in(context: *mut __sk_buff) -> i32 {
    match decap::receive(&mut SkbFrame::new(context), &Maps) {
        Outcome::Untouched | Outcome::Decapsulated => NEXT,
        Outcome::Drop => TC_ACT_SHOT,
    }
}

/// Socket buffers that go out.
#[unsafe(no_mangle)]
#[unsafe(link_section = "classifier")]
pub extern "C" fn realserver_out(context: *mut __sk_buff) -> i32 {
    let frame = SkbFrame(context);
    if let Some(change) = clamp::look(&frame, &Maps) {
        frame.announce(&change);
    }
    NEXT
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

// The kernel reads the licence here and gives the GPL helpers only to a compatible one.
#[used]
#[unsafe(link_section = "license")]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
