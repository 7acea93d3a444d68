//! The entry points.
//!
//! Each hook has seven programs. The verifier checks each alone, and each has a stack of its own.
//! The first takes plain frames of TCP and UDP. It jumps to programs for other frames, ICMP, ICMP
//! errors that open a connection, translated flows, SIP calls, and IPsec.

use aya_ebpf::bindings::{__sk_buff, TC_ACT_SHOT, xdp_action, xdp_md};
use aya_ebpf::helpers::generated::bpf_redirect;
use aya_ebpf::programs::{TcContext, XdpContext};
use shunt_datapath::frame::Frame;
use shunt_datapath::link;
use shunt_datapath::translate;
use shunt_datapath::verdict::{Drop, Pass, Verdict, Word};
use shunt_datapath::walk::{rest, walk};
use shunt_ebpf::{CALL, FIRST, QUOTED, RELATED, REST, SECURED, TRANSLATE};

use crate::shell::context::jiffies;
use crate::shell::maps::{Maps, PROGRAMS_TC, PROGRAMS_XDP, count, hand, handed};
use crate::shell::ports;
use crate::shell::skb::SkbFrame;
use crate::shell::steps;
use crate::shell::xdp::XdpFrame;

/// `TCX_NEXT` and `TC_ACT_UNSPEC`: the frame goes to the program attached after this one, then up.
const NEXT: i32 = -1;

/// Frames of a network card, before the kernel makes socket buffers of them.
// `#[xdp]` is not used, because it does not inline its inner function, and a call costs 9 ns.
#[unsafe(no_mangle)]
#[unsafe(link_section = "xdp")]
pub extern "C" fn director_xdp(context: *mut xdp_md) -> u32 {
    let mut verdict = walk(&mut XdpFrame(context), &Maps);
    if let Some(to) = verdict.sent() {
        return leave_xdp(context, to);
    }
    if verdict == Word::REST {
        jump_xdp(context, REST);
        verdict = Word::pass(Pass::NoRest);
    }
    end_xdp(context, verdict)
}

/// Frames that [`director_xdp`] leaves.
#[unsafe(no_mangle)]
#[unsafe(link_section = "xdp")]
pub extern "C" fn director_xdp_rest(context: *mut xdp_md) -> u32 {
    let mut frame = XdpFrame(context);
    let mut verdict = rest(&mut frame, &Maps);
    if verdict == Word::RELATED {
        jump_xdp(context, RELATED);
        verdict = Word::pass(Pass::NoRest);
    }
    if verdict == Word::SECURED {
        jump_xdp(context, SECURED);
        verdict = Word::pass(Pass::NoRest);
    }
    if verdict == Word::HOLD && !frame.hold() {
        verdict = Word::pass(Pass::LostFragment);
    }
    end_xdp(context, verdict)
}

/// ICMP messages, which [`director_xdp_rest`] leaves.
#[unsafe(no_mangle)]
#[unsafe(link_section = "xdp")]
pub extern "C" fn director_xdp_icmp(context: *mut xdp_md) -> u32 {
    end_xdp(context, Word(steps::xdp::related(context)))
}

/// Packets of translated flows, which the other programs leave.
#[unsafe(no_mangle)]
#[unsafe(link_section = "xdp")]
pub extern "C" fn director_xdp_translate(context: *mut xdp_md) -> u32 {
    let verdict = translate::run(&mut XdpFrame(context), &Maps, handed());
    act_xdp(context, verdict)
}

/// Packets that may belong to a SIP call, which the other programs leave.
#[unsafe(no_mangle)]
#[unsafe(link_section = "xdp")]
pub extern "C" fn director_xdp_call(context: *mut xdp_md) -> u32 {
    let endpoint = handed();
    let mut verdict = Word(steps::xdp::choose(context, endpoint));
    if let Ok(server) = verdict.open() {
        verdict = Word(steps::xdp::call(context, endpoint, server));
    }
    end_xdp(context, verdict)
}

/// ESP and AH, which [`director_xdp_rest`] leaves.
#[unsafe(no_mangle)]
#[unsafe(link_section = "xdp")]
pub extern "C" fn director_xdp_secured(context: *mut xdp_md) -> u32 {
    act_xdp(context, Word(steps::xdp::secured(context)))
}

/// ICMP errors that open a connection, which [`director_xdp_icmp`] leaves.
#[unsafe(no_mangle)]
#[unsafe(link_section = "xdp")]
pub extern "C" fn director_xdp_quoted(context: *mut xdp_md) -> u32 {
    let mut verdict = Word(steps::xdp::quoted(context, handed()));
    if let Ok(server) = verdict.open() {
        verdict = Word(steps::xdp::bring(context, server));
    }
    end_xdp(context, verdict)
}

/// Jumps to the program at `place`. Returns only if that place is empty.
#[inline(always)]
fn jump_xdp(context: *mut xdp_md, place: u32) {
    // SAFETY: `context` is the program's own, and no caller has a value whose drop the jump would
    // skip.
    unsafe { PROGRAMS_XDP.tail_call(&XdpContext::new(context), place) };
}

/// What nearly every packet comes to.
#[inline(always)]
fn leave_xdp(context: *mut xdp_md, to: u32) -> u32 {
    let action = ports::send(context, to);
    if action == xdp_action::XDP_ABORTED {
        count(Word::drop(Drop::NotCarried).counter());
    } else {
        count(Word::send(to).counter());
    }
    action
}

/// Acts on a verdict, or jumps to the program that must go on with the frame.
#[inline(always)]
fn end_xdp(context: *mut xdp_md, verdict: Word) -> u32 {
    let mut verdict = verdict;
    if let Some(detail) = verdict.onward() {
        hand(detail);
        let place = if verdict.calling().is_some() {
            CALL
        } else if verdict.quoting().is_some() {
            QUOTED
        } else {
            TRANSLATE
        };
        jump_xdp(context, place);
        // The kernel must not get the frame: it would answer the client that the port is closed.
        verdict = Word::drop(Drop::Internal);
    }
    act_xdp(context, verdict)
}

/// Counts a verdict, and returns the hook's action for it.
#[inline(always)]
fn act_xdp(context: *mut xdp_md, verdict: Word) -> u32 {
    let mut verdict = verdict;
    if let Some(server) = verdict.tunnelled() {
        verdict = Word(steps::xdp::tunnel(context, server));
    }
    if let Some((bounce, mtu)) = verdict.due() {
        verdict = Word(steps::xdp::answer(context, bounce, mtu));
    }
    let action = match verdict.verdict() {
        Verdict::Pass(_) => xdp_action::XDP_PASS,
        Verdict::Bounce(_) => ports::send(context, XdpFrame(context).interface()),
        Verdict::Send(to) => ports::send(context, to),
        Verdict::Hold | Verdict::Drop(_) => xdp_action::XDP_DROP,
    };
    if action == xdp_action::XDP_ABORTED {
        verdict = Word::drop(Drop::NotCarried);
    }
    count(verdict.counter());
    action
}

/// Socket buffers of a device that has XDP. It sends the frames that XDP could not send itself.
#[unsafe(no_mangle)]
#[unsafe(link_section = "classifier")]
pub extern "C" fn director_handed(context: *mut __sk_buff) -> i32 {
    ports::take(context).unwrap_or(NEXT)
}

/// Socket buffers of a device whose frames have no Ethernet header. They get a header with zero
/// addresses. The kernel removes it if such a device sends the frame.
#[unsafe(no_mangle)]
#[unsafe(link_section = "classifier")]
pub extern "C" fn director_bare(context: *mut __sk_buff) -> i32 {
    // SAFETY: `context` is the program's own, which the kernel keeps valid while the program runs.
    let ethertype = unsafe { (*context).protocol } as u16;
    let mut verdict = Word::pass(Pass::NotIp);
    if ethertype == link::IPV4 || ethertype == link::IPV6 {
        if SkbFrame(context).head(ethertype) {
            jump_tc(context, FIRST);
        }
        verdict = Word::pass(Pass::NoRest);
    }
    count(verdict.counter());
    NEXT
}

/// Socket buffers, whose checksum and segmentation may be left to a device.
#[unsafe(no_mangle)]
#[unsafe(link_section = "classifier")]
pub extern "C" fn director_tc(context: *mut __sk_buff) -> i32 {
    let mut verdict = walk(&mut SkbFrame::new(context), &Maps);
    if let Some(to) = verdict.sent() {
        count(verdict.counter());
        // SAFETY: the helper checks the interface.
        return unsafe { bpf_redirect(to, 0) as i32 };
    }
    if verdict == Word::REST {
        jump_tc(context, REST);
        verdict = Word::pass(Pass::NoRest);
    }
    end_tc(context, verdict)
}

/// Socket buffers that [`director_tc`] leaves. It has brought their headers into the linear part.
#[unsafe(no_mangle)]
#[unsafe(link_section = "classifier")]
pub extern "C" fn director_tc_rest(context: *mut __sk_buff) -> i32 {
    let mut frame = SkbFrame(context);
    let mut verdict = rest(&mut frame, &Maps);
    if verdict == Word::RELATED {
        jump_tc(context, RELATED);
        verdict = Word::pass(Pass::NoRest);
    }
    if verdict == Word::SECURED {
        jump_tc(context, SECURED);
        verdict = Word::pass(Pass::NoRest);
    }
    if verdict == Word::HOLD && !frame.hold() {
        verdict = Word::pass(Pass::LostFragment);
    }
    end_tc(context, verdict)
}

/// ICMP messages, which [`director_tc_rest`] leaves.
#[unsafe(no_mangle)]
#[unsafe(link_section = "classifier")]
pub extern "C" fn director_tc_icmp(context: *mut __sk_buff) -> i32 {
    end_tc(context, Word(steps::tc::related(context)))
}

/// Packets of translated flows, which the other programs leave.
#[unsafe(no_mangle)]
#[unsafe(link_section = "classifier")]
pub extern "C" fn director_tc_translate(context: *mut __sk_buff) -> i32 {
    let verdict = translate::run(&mut SkbFrame(context), &Maps, handed());
    act_tc(context, verdict)
}

/// Packets that may belong to a SIP call, which the other programs leave.
#[unsafe(no_mangle)]
#[unsafe(link_section = "classifier")]
pub extern "C" fn director_tc_call(context: *mut __sk_buff) -> i32 {
    let endpoint = handed();
    let mut verdict = Word(steps::tc::choose(context, endpoint));
    if let Ok(server) = verdict.open() {
        verdict = Word(steps::tc::call(context, endpoint, server));
    }
    end_tc(context, verdict)
}

/// ESP and AH, which [`director_tc_rest`] leaves.
#[unsafe(no_mangle)]
#[unsafe(link_section = "classifier")]
pub extern "C" fn director_tc_secured(context: *mut __sk_buff) -> i32 {
    act_tc(context, Word(steps::tc::secured(context)))
}

/// ICMP errors that open a connection, which [`director_tc_icmp`] leaves.
#[unsafe(no_mangle)]
#[unsafe(link_section = "classifier")]
pub extern "C" fn director_tc_quoted(context: *mut __sk_buff) -> i32 {
    let mut verdict = Word(steps::tc::quoted(context, handed()));
    if let Ok(server) = verdict.open() {
        verdict = Word(steps::tc::bring(context, server));
    }
    end_tc(context, verdict)
}

/// Jumps to the program at `place`. Returns only if that place is empty.
#[inline(always)]
fn jump_tc(context: *mut __sk_buff, place: u32) {
    // SAFETY: `context` is the program's own, and no caller has a value whose drop the jump would
    // skip.
    unsafe { PROGRAMS_TC.tail_call(&TcContext::new(context), place) };
}

/// Acts on a verdict, or jumps to the program that must go on with the frame.
#[inline(always)]
fn end_tc(context: *mut __sk_buff, verdict: Word) -> i32 {
    let mut verdict = verdict;
    if let Some(detail) = verdict.onward() {
        hand(detail);
        let place = if verdict.calling().is_some() {
            CALL
        } else if verdict.quoting().is_some() {
            QUOTED
        } else {
            TRANSLATE
        };
        jump_tc(context, place);
        // The kernel must not get the frame: it would answer the client that the port is closed.
        verdict = Word::drop(Drop::Internal);
    }
    act_tc(context, verdict)
}

/// Counts a verdict, and returns the hook's action for it.
#[inline(always)]
fn act_tc(context: *mut __sk_buff, verdict: Word) -> i32 {
    let mut verdict = verdict;
    if let Some(server) = verdict.tunnelled() {
        verdict = Word(steps::tc::tunnel(context, server));
    }
    if let Some((bounce, mtu)) = verdict.due() {
        verdict = Word(steps::tc::answer(context, bounce, mtu));
    }
    count(verdict.counter());
    match verdict.verdict() {
        Verdict::Pass(_) => NEXT,
        // The interface is read here. Read before the walk, it would lie on the stack meanwhile,
        // which is full on Linux 6.1.
        Verdict::Bounce(_) => redirect(SkbFrame(context).interface()),
        Verdict::Send(to) => redirect(to),
        Verdict::Hold | Verdict::Drop(_) => TC_ACT_SHOT,
    }
}

/// Sends a socket buffer by this interface when the program returns the action.
#[inline(always)]
fn redirect(interface: u32) -> i32 {
    // SAFETY: `bpf_redirect` takes only numbers; an unknown interface drops the frame.
    unsafe { bpf_redirect(interface, 0) as i32 }
}

/// Writes the kernel's clock (jiffies) into the first eight bytes of the frame, for the daemon.
#[unsafe(no_mangle)]
#[unsafe(link_section = "xdp")]
pub extern "C" fn director_clock(context: *mut xdp_md) -> u32 {
    let mut frame = XdpFrame(context);
    let Some(mut start) = frame.edit::<8>(0) else {
        return xdp_action::XDP_ABORTED;
    };
    start.set_u64::<0>(jiffies());
    xdp_action::XDP_PASS
}

/// Passes every frame to the kernel. The daemon runs it to give a held frame to the network stack.
#[unsafe(no_mangle)]
#[unsafe(link_section = "xdp")]
pub extern "C" fn director_pass(_: *mut xdp_md) -> u32 {
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
