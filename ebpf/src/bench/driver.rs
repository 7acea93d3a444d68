//! The packet driver. `BPF_PROG_TEST_RUN` hands the same buffer to every run, so what a program
//! wraps or rewrites stays so. The driver undoes that, makes the next packet of the wanted
//! traffic, and tail-calls the program under test. Its own cost is measured with a target that
//! returns at once, and taken off.

use core::intrinsics::{AtomicOrdering, atomic_xadd};

use aya_ebpf::bindings::{xdp_action, xdp_md};
use aya_ebpf::btf_maps::{Array, ProgramArray};
use aya_ebpf::helpers::generated::bpf_xdp_adjust_head;
use aya_ebpf::macros::btf_map;
use aya_ebpf::programs::XdpContext;
use shunt_ebpf::traffic::{Traffic, order};

use crate::context::pointer;
use crate::headers::{frame, set};

/// `BPF_F_MMAPABLE`.
const MAPPED: usize = 1 << 10;
const SYN: u32 = 0x02;
const ACK: u32 = 0x10;
const FIN: u32 = 0x01;

#[btf_map]
static TRAFFIC: Array<Traffic, 1, MAPPED> = Array::new();
#[btf_map]
static TARGET: ProgramArray<1> = ProgramArray::new();

/// Makes the next packet and hands it to the target.
#[unsafe(no_mangle)]
#[unsafe(link_section = "xdp")]
pub extern "C" fn drive(context: *mut xdp_md) -> u32 {
    let Some(traffic) = traffic() else {
        return xdp_action::XDP_ABORTED;
    };
    // SAFETY: the kernel hands in a valid context; these are `data` and `data_end`.
    let length = unsafe { pointer::<4>(context.cast()) - pointer::<0>(context.cast()) };
    let grown = length as i32 - traffic.length as i32;
    // Always called, so that the driver costs the same whether or not the target moves the head.
    // SAFETY: the helper checks the room.
    if unsafe { bpf_xdp_adjust_head(context, grown) } != 0 || make(context, traffic).is_none() {
        return xdp_action::XDP_ABORTED;
    }
    settle(traffic);
    // SAFETY: returns only if there is no target.
    unsafe { TARGET.tail_call(&XdpContext::new(context), 0) };
    xdp_action::XDP_ABORTED
}

/// Waits until what was written is in the cache. The target may read a frame in other pieces than
/// those it was written in; where the pieces are still in the processor's store buffer that costs
/// several nanoseconds, which a frame that a network card wrote does not.
#[inline(always)]
fn settle(traffic: &mut Traffic) {
    // SAFETY: a word of our own.
    let before =
        unsafe { atomic_xadd::<u64, u64, { AtomicOrdering::SeqCst }>(&raw mut traffic.settled, 1) };
    // With no use of the result the instruction would not be one that waits.
    traffic.settled_before = before;
}

/// The target whose time is the driver's own.
#[unsafe(no_mangle)]
#[unsafe(link_section = "xdp")]
pub extern "C" fn nothing(_: *mut xdp_md) -> u32 {
    xdp_action::XDP_TX
}

/// The traffic that is wanted.
#[inline(always)]
pub fn traffic() -> Option<&'static mut Traffic> {
    // SAFETY: one driver runs at a time, and nobody writes meanwhile.
    TRAFFIC
        .get_ptr_mut(0)
        .map(|traffic| unsafe { &mut *traffic })
}

/// Writes the next packet over the frame.
#[inline(always)]
pub fn make(context: *mut xdp_md, traffic: &mut Traffic) -> Option<()> {
    let (flow, flags) = next(traffic);
    let address = traffic.client.wrapping_add(flow >> 14);
    let port = 1024 + (flow & 0x3fff) as u16;
    let client = (address & 0xffff) + (address >> 16);
    let flags = if traffic.tcp != 0 { flags } else { 0 };
    let sum = fold(traffic.transport_sum + client + port as u32 + flags);
    if traffic.v6 != 0 {
        let frame = frame(context, 80)?;
        for (at, word) in traffic.template.iter().take(10).enumerate() {
            // SAFETY: ten words of the eighty bytes.
            unsafe { set(frame, at * 8, *word) };
        }
        let (address_at, port_at) = if traffic.back != 0 {
            (50, 56)
        } else {
            (34, 54)
        };
        // SAFETY: within the eighty bytes.
        unsafe {
            set(frame, address_at, address.to_be());
            set(frame, port_at, port.to_be());
            finish(frame, 54, traffic.tcp != 0, flags, sum);
        }
        return Some(());
    }
    let frame = frame(context, 64)?;
    for (at, word) in traffic.template.iter().take(8).enumerate() {
        // SAFETY: eight words of the 64 bytes.
        unsafe { set(frame, at * 8, *word) };
    }
    let (address_at, port_at) = if traffic.back != 0 {
        (30, 36)
    } else {
        (26, 34)
    };
    // SAFETY: within the 64 bytes.
    unsafe {
        set(frame, address_at, address.to_be());
        set(frame, 24, fold(traffic.network_sum + client).to_be());
        set(frame, port_at, port.to_be());
        finish(frame, 34, traffic.tcp != 0, flags, sum);
    }
    Some(())
}

/// Flags and checksum of the transport header at `l4`.
#[inline(always)]
unsafe fn finish(frame: *mut u8, l4: usize, tcp: bool, flags: u32, sum: u16) {
    // SAFETY: the caller has looked at the length.
    unsafe {
        if tcp {
            set(frame, l4 + 13, flags as u8);
            set(frame, l4 + 16, sum.to_be());
        } else {
            set(frame, l4 + 6, sum.to_be());
        }
    }
}

#[inline(always)]
fn next(traffic: &mut Traffic) -> (u32, u32) {
    let at = traffic.sequence;
    traffic.sequence = at + 1;
    match traffic.order {
        order::MIXED => {
            // Hull and Dobell: every number below a power of two comes once in a round.
            let flow = traffic
                .last
                .wrapping_mul(1_664_525)
                .wrapping_add(1_013_904_223);
            traffic.last = flow & traffic.mask;
            (flow & traffic.mask, traffic.flags)
        }
        order::CONNECTIONS => {
            let flags = match (at >> 8) & 7 {
                0 => SYN,
                7 => FIN | ACK,
                _ => ACK,
            };
            (
                (((at >> 11) << 8) as u32 | (at & 0xff) as u32) & traffic.mask,
                flags,
            )
        }
        _ => (at as u32 & traffic.mask, traffic.flags),
    }
}

#[inline(always)]
fn fold(sum: u32) -> u16 {
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    !(sum as u16)
}
