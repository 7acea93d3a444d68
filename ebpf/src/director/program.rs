//! The entry points.
//!
//! Each hook has seven programs, so that the kernel's verifier sees less at once and each has a
//! stack of its own: one for plain frames of TCP and UDP, and behind tail calls one for the rest,
//! one for ICMP, one for ICMP that opens something, one for translated flows, calls, IPsec.

use aya_ebpf::bindings::{__sk_buff, TC_ACT_SHOT, xdp_action, xdp_md};
use aya_ebpf::helpers::generated::{bpf_jiffies64, bpf_redirect};
use aya_ebpf::programs::{TcContext, XdpContext};
use shunt_datapath::entry::NONE;
use shunt_datapath::frame::Frame;
use shunt_datapath::link;
use shunt_datapath::translate::ANNOUNCED;
use shunt_datapath::verdict::{Drop, Pass, Verdict, Word};
use shunt_datapath::walk::{rest, walk};
use shunt_ebpf::{CALL, FIRST, QUOTED, RELATED, REST, SECURED, TRANSLATE};

use crate::shell::calls;
use crate::shell::maps::{Maps, PROGRAMS_TC, PROGRAMS_XDP, count, hand, handed};
use crate::shell::ports;
use crate::shell::quoted;
use crate::shell::secured;
use crate::shell::skb::SkbFrame;
use crate::shell::subprograms;
use crate::shell::translated;
use crate::shell::xdp::XdpFrame;

/// `TCX_NEXT` and `TC_ACT_UNSPEC`: to whatever is attached behind us, then up.
const NEXT: i32 = -1;

/// Frames of a network card, before the kernel makes anything of them.
// Written out, not by `#[xdp]`: the macro's inner function is not inlined, and a call costs 9 ns.
#[unsafe(no_mangle)]
#[unsafe(link_section = "xdp")]
pub extern "C" fn director_xdp(context: *mut xdp_md) -> u32 {
    let mut verdict = walk(&mut XdpFrame(context), &Maps);
    if verdict == Word::REST {
        // Comes back only if there is no such program.
        // SAFETY: nothing here has anything to drop.
        unsafe { PROGRAMS_XDP.tail_call(&XdpContext::new(context), REST) };
        verdict = Word::pass(Pass::NoRest);
    }
    end_xdp(context, verdict)
}

/// Those that [`director_xdp`] leaves.
#[unsafe(no_mangle)]
#[unsafe(link_section = "xdp")]
pub extern "C" fn director_xdp_rest(context: *mut xdp_md) -> u32 {
    let mut frame = XdpFrame(context);
    let mut verdict = rest(&mut frame, &Maps);
    if verdict == Word::RELATED {
        // SAFETY: as above.
        unsafe { PROGRAMS_XDP.tail_call(&XdpContext::new(context), RELATED) };
        verdict = Word::pass(Pass::NoRest);
    }
    if verdict == Word::SECURED {
        // SAFETY: as above.
        unsafe { PROGRAMS_XDP.tail_call(&XdpContext::new(context), SECURED) };
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
    end_xdp(context, Word(subprograms::related_xdp(context)))
}

/// Packets of translated flows, which the programs before leave.
#[unsafe(no_mangle)]
#[unsafe(link_section = "xdp")]
pub extern "C" fn director_xdp_translate(context: *mut xdp_md) -> u32 {
    let server = handed();
    let mut verdict = Word(translated::translate_xdp(context, server));
    if let Some(ports) = verdict.entering() {
        let service = translated::asked_xdp(context, ports.both());
        verdict = Word(translated::enter_xdp(
            context,
            ports.both(),
            server,
            service,
        ));
        if verdict.open().is_ok() {
            verdict = Word(translated::translate_xdp(context, server));
        }
    }
    if verdict == Word::ANNOUNCE {
        verdict = Word(subprograms::announce_xdp(context));
        if verdict.open().is_ok() {
            verdict = Word(translated::translate_xdp(context, server | ANNOUNCED));
        }
    }
    if verdict == Word::INTRODUCE {
        verdict = Word(match server {
            NONE => subprograms::acknowledge_xdp(context),
            _ => subprograms::introduce_xdp(context),
        });
        if let Some(keeps) = verdict.putting() {
            verdict = Word(subprograms::put_xdp(context, keeps));
        }
        if verdict.open().is_ok() {
            verdict = Word(translated::translate_xdp(context, server | ANNOUNCED));
        }
    }
    verdict = match verdict.crossing() {
        Some(false) => Word(subprograms::cross4_xdp(context)),
        Some(true) => Word(subprograms::cross6_xdp(context)),
        None => verdict,
    };
    if verdict == Word::RELATED {
        verdict = Word(translated::translate_error_xdp(context));
        verdict = match verdict.crossing() {
            Some(false) => Word(subprograms::cross_error4_xdp(context)),
            Some(true) => Word(subprograms::cross_error6_xdp(context)),
            None => verdict,
        };
    }
    act_xdp(context, verdict)
}

/// What may be a call, which the programs before leave.
#[unsafe(no_mangle)]
#[unsafe(link_section = "xdp")]
pub extern "C" fn director_xdp_call(context: *mut xdp_md) -> u32 {
    let endpoint = handed();
    let mut verdict = Word(calls::choose_xdp(context, endpoint));
    if let Ok(server) = verdict.open() {
        verdict = Word(calls::call_xdp(context, endpoint, server));
    }
    end_xdp(context, verdict)
}

/// ESP and AH, which [`director_xdp_rest`] leaves.
#[unsafe(no_mangle)]
#[unsafe(link_section = "xdp")]
pub extern "C" fn director_xdp_secured(context: *mut xdp_md) -> u32 {
    act_xdp(context, Word(secured::secured_xdp(context)))
}

/// ICMP errors that open something, which [`director_xdp_icmp`] leaves.
#[unsafe(no_mangle)]
#[unsafe(link_section = "xdp")]
pub extern "C" fn director_xdp_quoted(context: *mut xdp_md) -> u32 {
    let mut verdict = Word(quoted::quoted_xdp(context, handed()));
    if let Ok(server) = verdict.open() {
        verdict = Word(quoted::bring_xdp(context, server));
    }
    end_xdp(context, verdict)
}

/// The last steps, or the program for them.
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
        // SAFETY: as above.
        unsafe { PROGRAMS_XDP.tail_call(&XdpContext::new(context), place) };
        // Not to the kernel: it would tell the client that nobody is there.
        verdict = Word::drop(Drop::Internal);
    }
    act_xdp(context, verdict)
}

/// The hook's own action.
#[inline(always)]
fn act_xdp(context: *mut xdp_md, verdict: Word) -> u32 {
    let mut verdict = verdict;
    if let Some(server) = verdict.tunnelled() {
        verdict = Word(subprograms::tunnel_xdp(context, server));
    }
    if let Some((bounce, mtu)) = verdict.due() {
        verdict = Word(subprograms::answer_xdp(context, bounce, mtu));
    }
    let action = match verdict.verdict() {
        Verdict::Pass(_) => xdp_action::XDP_PASS,
        Verdict::Bounce(_) => ports::send(context, XdpFrame(context).interface()),
        Verdict::Send(to) => ports::send(context, to),
        _ => xdp_action::XDP_DROP,
    };
    if action == xdp_action::XDP_ABORTED {
        verdict = Word::drop(Drop::NotCarried);
    }
    count(verdict.counter());
    action
}

/// Socket buffers of a device that has XDP: those that XDP could not send itself.
#[unsafe(no_mangle)]
#[unsafe(link_section = "classifier")]
pub extern "C" fn director_handed(context: *mut __sk_buff) -> i32 {
    ports::take(context).unwrap_or(NEXT)
}

/// Socket buffers of a device whose frames have no Ethernet header: they get one, without
/// addresses, which the kernel takes off again where such a device sends.
#[unsafe(no_mangle)]
#[unsafe(link_section = "classifier")]
pub extern "C" fn director_bare(context: *mut __sk_buff) -> i32 {
    // SAFETY: the kernel hands in a valid context.
    let ethertype = unsafe { (*context).protocol } as u16;
    let mut verdict = Word::pass(Pass::NotIp);
    if ethertype == link::IPV4 || ethertype == link::IPV6 {
        if SkbFrame(context).head(ethertype) {
            // Comes back only if there is no such program.
            // SAFETY: nothing here has anything to drop.
            unsafe { PROGRAMS_TC.tail_call(&TcContext::new(context), FIRST) };
        }
        verdict = Word::pass(Pass::NoRest);
    }
    count(verdict.counter());
    NEXT
}

/// Socket buffers, with offloads and all.
#[unsafe(no_mangle)]
#[unsafe(link_section = "classifier")]
pub extern "C" fn director_tc(context: *mut __sk_buff) -> i32 {
    let mut verdict = walk(&mut SkbFrame::new(context), &Maps);
    if verdict == Word::REST {
        // Comes back only if there is no such program.
        // SAFETY: nothing here has anything to drop.
        unsafe { PROGRAMS_TC.tail_call(&TcContext::new(context), REST) };
        verdict = Word::pass(Pass::NoRest);
    }
    end_tc(context, verdict)
}

/// Those that [`director_tc`] leaves. It has brought their headers into reach.
#[unsafe(no_mangle)]
#[unsafe(link_section = "classifier")]
pub extern "C" fn director_tc_rest(context: *mut __sk_buff) -> i32 {
    let mut frame = SkbFrame(context);
    let mut verdict = rest(&mut frame, &Maps);
    if verdict == Word::RELATED {
        // SAFETY: as above.
        unsafe { PROGRAMS_TC.tail_call(&TcContext::new(context), RELATED) };
        verdict = Word::pass(Pass::NoRest);
    }
    if verdict == Word::SECURED {
        // SAFETY: as above.
        unsafe { PROGRAMS_TC.tail_call(&TcContext::new(context), SECURED) };
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
    end_tc(context, Word(subprograms::related_tc(context)))
}

/// Packets of translated flows, which the programs before leave.
#[unsafe(no_mangle)]
#[unsafe(link_section = "classifier")]
pub extern "C" fn director_tc_translate(context: *mut __sk_buff) -> i32 {
    let server = handed();
    let mut verdict = Word(translated::translate_tc(context, server));
    if let Some(ports) = verdict.entering() {
        let service = translated::asked_tc(context, ports.both());
        verdict = Word(translated::enter_tc(context, ports.both(), server, service));
        if verdict.open().is_ok() {
            verdict = Word(translated::translate_tc(context, server));
        }
    }
    if verdict == Word::ANNOUNCE {
        verdict = Word(subprograms::announce_tc(context));
        if verdict.open().is_ok() {
            verdict = Word(translated::translate_tc(context, server | ANNOUNCED));
        }
    }
    if verdict == Word::INTRODUCE {
        verdict = Word(match server {
            NONE => subprograms::acknowledge_tc(context),
            _ => subprograms::introduce_tc(context),
        });
        if let Some(keeps) = verdict.putting() {
            verdict = Word(subprograms::put_tc(context, keeps));
        }
        if verdict.open().is_ok() {
            verdict = Word(translated::translate_tc(context, server | ANNOUNCED));
        }
    }
    verdict = match verdict.crossing() {
        Some(false) => Word(subprograms::cross4_tc(context)),
        Some(true) => Word(subprograms::cross6_tc(context)),
        None => verdict,
    };
    if verdict == Word::RELATED {
        verdict = Word(translated::translate_error_tc(context));
        verdict = match verdict.crossing() {
            Some(false) => Word(subprograms::cross_error4_tc(context)),
            Some(true) => Word(subprograms::cross_error6_tc(context)),
            None => verdict,
        };
    }
    act_tc(context, verdict)
}

/// What may be a call, which the programs before leave.
#[unsafe(no_mangle)]
#[unsafe(link_section = "classifier")]
pub extern "C" fn director_tc_call(context: *mut __sk_buff) -> i32 {
    let endpoint = handed();
    let mut verdict = Word(calls::choose_tc(context, endpoint));
    if let Ok(server) = verdict.open() {
        verdict = Word(calls::call_tc(context, endpoint, server));
    }
    end_tc(context, verdict)
}

/// ESP and AH, which [`director_tc_rest`] leaves.
#[unsafe(no_mangle)]
#[unsafe(link_section = "classifier")]
pub extern "C" fn director_tc_secured(context: *mut __sk_buff) -> i32 {
    act_tc(context, Word(secured::secured_tc(context)))
}

/// ICMP errors that open something, which [`director_tc_icmp`] leaves.
#[unsafe(no_mangle)]
#[unsafe(link_section = "classifier")]
pub extern "C" fn director_tc_quoted(context: *mut __sk_buff) -> i32 {
    let mut verdict = Word(quoted::quoted_tc(context, handed()));
    if let Ok(server) = verdict.open() {
        verdict = Word(quoted::bring_tc(context, server));
    }
    end_tc(context, verdict)
}

/// The last steps, or the program for them.
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
        // SAFETY: as above.
        unsafe { PROGRAMS_TC.tail_call(&TcContext::new(context), place) };
        // Not to the kernel: it would tell the client that nobody is there.
        verdict = Word::drop(Drop::Internal);
    }
    act_tc(context, verdict)
}

/// The hook's own action.
#[inline(always)]
fn act_tc(context: *mut __sk_buff, verdict: Word) -> i32 {
    let mut verdict = verdict;
    if let Some(server) = verdict.tunnelled() {
        verdict = Word(subprograms::tunnel_tc(context, server));
    }
    if let Some((bounce, mtu)) = verdict.due() {
        verdict = Word(subprograms::answer_tc(context, bounce, mtu));
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

/// Leaves a frame to the kernel: what the daemon had set aside goes on to the network stack by it.
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
