//! The entry points.

use aya_ebpf::bindings::{TC_ACT_SHOT, __sk_buff, xdp_action, xdp_md};
use aya_ebpf::helpers::generated::{bpf_jiffies64, bpf_redirect};
use aya_ebpf::macros::{classifier, xdp};
use aya_ebpf::programs::{TcContext, XdpContext};
use shunt_datapath::verdict::{Drop, Verdict};
use shunt_datapath::walk::walk;

use crate::shell::maps::{Maps, count};
use crate::shell::skb::SkbFrame;
use crate::shell::xdp::XdpFrame;

/// `TCX_NEXT` and `TC_ACT_UNSPEC`: to whatever is attached behind us, then up.
const NEXT: i32 = -1;

/// Frames of a network card, before the kernel makes anything of them.
#[xdp]
pub fn director_xdp(context: XdpContext) -> u32 {
    on_xdp(context.ctx)
}

#[inline(always)]
fn on_xdp(context: *mut xdp_md) -> u32 {
    let mut frame = XdpFrame(context);
    // SAFETY: the kernel hands in a valid context.
    let interface = unsafe { (*context).ingress_ifindex };
    let mut verdict = walk(&mut frame, &Maps);
    if verdict == Verdict::Hold && !frame.hold() {
        verdict = Verdict::Drop(Drop::LostFragment);
    }
    count(verdict.counter());
    match verdict {
        Verdict::Pass(_) => xdp_action::XDP_PASS,
        Verdict::Bounce(_) => xdp_action::XDP_TX,
        Verdict::Send(to) if to == interface => xdp_action::XDP_TX,
        // SAFETY: the helper checks the interface.
        Verdict::Send(to) => unsafe { bpf_redirect(to, 0) as u32 },
        Verdict::Hold | Verdict::Drop(_) => xdp_action::XDP_DROP,
    }
}

/// Socket buffers, with offloads and all.
#[classifier]
pub fn director_tc(context: TcContext) -> i32 {
    on_tc(context.skb.skb)
}

#[inline(always)]
fn on_tc(context: *mut __sk_buff) -> i32 {
    let mut frame = SkbFrame::new(context);
    // SAFETY: the kernel hands in a valid context.
    let interface = unsafe { (*context).ingress_ifindex };
    let mut verdict = walk(&mut frame, &Maps);
    if verdict == Verdict::Hold && !frame.hold() {
        verdict = Verdict::Drop(Drop::LostFragment);
    }
    count(verdict.counter());
    match verdict {
        Verdict::Pass(_) => NEXT,
        // SAFETY: the helper checks the interface.
        Verdict::Bounce(_) => unsafe { bpf_redirect(interface, 0) as i32 },
        // SAFETY: as above.
        Verdict::Send(to) => unsafe { bpf_redirect(to, 0) as i32 },
        Verdict::Hold | Verdict::Drop(_) => TC_ACT_SHOT,
    }
}

/// Tells the daemon the kernel's clock: jiffies, in the first eight bytes of the frame.
#[xdp]
pub fn director_clock(context: XdpContext) -> u32 {
    let (data, end) = (context.data(), context.data_end());
    if data + 8 > end {
        return xdp_action::XDP_ABORTED;
    }
    // SAFETY: checked just above; the helper takes nothing.
    unsafe { (data as *mut u64).write_unaligned(bpf_jiffies64()) };
    xdp_action::XDP_PASS
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

// The kernel reads the licence here and gives the GPL helpers only to a compatible one.
#[used]
#[unsafe(link_section = "license")]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
