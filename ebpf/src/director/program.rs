//! The entry points.

use aya_ebpf::bindings::{__sk_buff, TC_ACT_SHOT, xdp_action, xdp_md};
use aya_ebpf::helpers::generated::{bpf_jiffies64, bpf_redirect};
use shunt_datapath::frame::Frame;
use shunt_datapath::verdict::{Drop, Verdict, Word};
use shunt_datapath::walk::walk;

use crate::shell::maps::{Maps, count};
use crate::shell::parts;
use crate::shell::skb::SkbFrame;
use crate::shell::xdp::XdpFrame;

/// `TCX_NEXT` and `TC_ACT_UNSPEC`: to whatever is attached behind us, then up.
const NEXT: i32 = -1;

/// Frames of a network card, before the kernel makes anything of them.
// Written out, not by `#[xdp]`: the macro's inner function is not inlined, and a call costs 9 ns.
#[unsafe(no_mangle)]
#[unsafe(link_section = "xdp")]
pub extern "C" fn director_xdp(context: *mut xdp_md) -> u32 {
    let mut frame = XdpFrame(context);
    // SAFETY: the kernel hands in a valid context.
    let interface = unsafe { (*context).ingress_ifindex };
    let mut verdict = walk(&mut frame, &Maps);
    if verdict == Word::RELATED {
        verdict = Word(parts::related_xdp(context));
    }
    if let Some(server) = verdict.tunnelled() {
        verdict = Word(parts::tunnel_xdp(context, server));
    }
    if let Some((bounce, mtu)) = verdict.due() {
        verdict = Word(parts::answer_xdp(context, bounce, mtu));
    }
    if verdict == Word::HOLD && !frame.hold() {
        verdict = Word::drop(Drop::LostFragment);
    }
    count(verdict.counter());
    match verdict.verdict() {
        Verdict::Pass(_) => xdp_action::XDP_PASS,
        Verdict::Bounce(_) => xdp_action::XDP_TX,
        Verdict::Send(to) if to == interface => xdp_action::XDP_TX,
        // SAFETY: the helper checks the interface.
        Verdict::Send(to) => unsafe { bpf_redirect(to, 0) as u32 },
        _ => xdp_action::XDP_DROP,
    }
}

/// Socket buffers, with offloads and all.
#[unsafe(no_mangle)]
#[unsafe(link_section = "classifier")]
pub extern "C" fn director_tc(context: *mut __sk_buff) -> i32 {
    let mut frame = SkbFrame::new(context);
    let mut verdict = walk(&mut frame, &Maps);
    if verdict == Word::RELATED {
        verdict = Word(parts::related_tc(context));
    }
    if let Some(server) = verdict.tunnelled() {
        verdict = Word(parts::tunnel_tc(context, server));
    }
    if let Some((bounce, mtu)) = verdict.due() {
        verdict = Word(parts::answer_tc(context, bounce, mtu));
    }
    if verdict == Word::HOLD && !frame.hold() {
        verdict = Word::drop(Drop::LostFragment);
    }
    count(verdict.counter());
    match verdict.verdict() {
        Verdict::Pass(_) => NEXT,
        // Read here, not before the walk: there it would lie on a stack that is full on Linux 6.1.
        // SAFETY: the kernel hands in a valid context, and the helper checks the interface.
        Verdict::Bounce(_) => unsafe { bpf_redirect((*context).ingress_ifindex, 0) as i32 },
        // SAFETY: as above.
        Verdict::Send(to) => unsafe { bpf_redirect(to, 0) as i32 },
        _ => TC_ACT_SHOT,
    }
}

/// Tells the daemon the kernel's clock: jiffies, in the first eight bytes of the frame.
#[unsafe(no_mangle)]
#[unsafe(link_section = "xdp")]
pub extern "C" fn director_clock(context: *mut xdp_md) -> u32 {
    let mut frame = XdpFrame(context);
    let Some(mut start) = frame.edit::<8>(0) else {
        return xdp_action::XDP_ABORTED;
    };
    // SAFETY: the helper takes nothing.
    start.set_u64::<0>(unsafe { bpf_jiffies64() });
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
