//! The packet driver. `BPF_PROG_TEST_RUN` gives the same buffer to every run, so a frame stays
//! wrapped or rewritten. The driver undoes this, makes the next packet of the wanted traffic, and
//! tail-calls the program under test. The bench measures the driver's own cost with a target that
//! returns at once, and subtracts it.

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
    // SAFETY: `context` is the program's own, with `data` at offset 0 and `data_end` at offset 4.
    let length = unsafe { pointer::<4>(context.cast()) - pointer::<0>(context.cast()) };
    let grown = length as i32 - traffic.length as i32;
    // The helper is always called, so that the driver costs the same whether or not the target
    // moves the head.
    // SAFETY: `context` is the program's own; the helper checks the room.
    if unsafe { bpf_xdp_adjust_head(context, grown) } != 0 || make(context, traffic).is_none() {
        return xdp_action::XDP_ABORTED;
    }
    settle(traffic);
    // SAFETY: `context` is the program's own, and no value here has a drop that the jump would
    // skip.
    unsafe { TARGET.tail_call(&XdpContext::new(context), 0) };
    xdp_action::XDP_ABORTED
}

/// Waits until the driver's writes are in the cache. The target may read a frame in other pieces
/// than the driver wrote. While the pieces are still in the processor's store buffer, this costs
/// several nanoseconds. A frame that a network card wrote has no such cost.
#[inline(always)]
fn settle(traffic: &mut Traffic) {
    // SAFETY: the pointer comes from a reference, and the word is aligned to eight bytes.
    let before =
        unsafe { atomic_xadd::<u64, u64, { AtomicOrdering::SeqCst }>(&raw mut traffic.settled, 1) };
    // If the result were unused, the compiler would choose an instruction that does not wait.
    traffic.settled_before = before;
}

/// The target that does nothing, so that a run costs what the driver costs.
#[unsafe(no_mangle)]
#[unsafe(link_section = "xdp")]
pub extern "C" fn nothing(_: *mut xdp_md) -> u32 {
    xdp_action::XDP_TX
}

/// The traffic that the bench wants.
#[inline(always)]
pub fn traffic() -> Option<&'static mut Traffic> {
    TRAFFIC
        .get_ptr_mut(0)
        // SAFETY: the map's value lives as long as the map. One driver runs at a time, each run
        // calls this once, and the bench does not write meanwhile.
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
            // SAFETY: `frame` has checked that the frame has 80 bytes; ten words are 80 bytes.
            unsafe { set(frame, at * 8, *word) };
        }
        let (address_at, port_at) = if traffic.back != 0 {
            (50, 56)
        } else {
            (34, 54)
        };
        // SAFETY: `frame` has checked that the frame has 80 bytes; every field ends before that.
        unsafe {
            set(frame, address_at, address.to_be());
            set(frame, port_at, port.to_be());
            finish(frame, 54, traffic.tcp != 0, flags, sum);
        }
        return Some(());
    }
    let frame = frame(context, 64)?;
    for (at, word) in traffic.template.iter().take(8).enumerate() {
        // SAFETY: `frame` has checked that the frame has 64 bytes; eight words are 64 bytes.
        unsafe { set(frame, at * 8, *word) };
    }
    let (address_at, port_at) = if traffic.back != 0 {
        (30, 36)
    } else {
        (26, 34)
    };
    // SAFETY: `frame` has checked that the frame has 64 bytes; every field ends before that.
    unsafe {
        set(frame, address_at, address.to_be());
        set(frame, 24, fold(traffic.network_sum + client).to_be());
        set(frame, port_at, port.to_be());
        finish(frame, 34, traffic.tcp != 0, flags, sum);
    }
    Some(())
}

/// Writes flags and checksum of the transport header at `l4`.
///
/// # Safety
/// The frame must have 18 bytes at `l4`.
#[inline(always)]
unsafe fn finish(frame: *mut u8, l4: usize, tcp: bool, flags: u32, sum: u16) {
    // SAFETY: the caller promises 18 bytes at `l4`; every field ends before that.
    unsafe {
        if tcp {
            set(frame, l4 + 13, flags as u8);
            set(frame, l4 + 16, sum.to_be());
        } else {
            set(frame, l4 + 6, sum.to_be());
        }
    }
}

/// The next flow and its TCP flags.
#[inline(always)]
fn next(traffic: &mut Traffic) -> (u32, u32) {
    let at = traffic.sequence;
    traffic.sequence = at + 1;
    match traffic.order {
        order::MIXED => {
            // By the theorem of Hull and Dobell, each number below the power of two comes once a
            // round.
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

/// The checksum of a sum.
#[inline(always)]
fn fold(sum: u32) -> u16 {
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    !(sum as u16)
}
