//! Frames that leave the machine: answers of servers that are the director itself.
//!
//! It hangs on the devices only while there is such a server.

use aya_ebpf::bindings::{__sk_buff, TC_ACT_SHOT};
use shunt_datapath::here;
use shunt_datapath::verdict::{Pass, Verdict, Word};

use crate::shell::maps::{Maps, count};
use crate::shell::skb::SkbFrame;
use crate::shell::subprograms;

/// `TCX_NEXT` and `TC_ACT_UNSPEC`: to whatever is attached behind us, then out.
const NEXT: i32 = -1;

/// Socket buffers on their way out of a device. What is none of ours is not counted: it was counted
/// where it came in, or is the machine's own.
#[unsafe(no_mangle)]
#[unsafe(link_section = "classifier")]
pub extern "C" fn director_leave(context: *mut __sk_buff) -> i32 {
    // Brings the headers into reach.
    let _ = SkbFrame::new(context);
    let mut verdict = Word(leave_tc(context));
    if verdict == Word::RELATED {
        verdict = Word(subprograms::related_tc(context));
    }
    match verdict.verdict() {
        Verdict::Pass(Pass::Local) => {
            count(verdict.counter());
            NEXT
        }
        Verdict::Drop(_) => {
            count(verdict.counter());
            TC_ACT_SHOT
        }
        _ => NEXT,
    }
}

/// A function of its own, so that what an ICMP message needs of the stack is not on top of this.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn leave_tc(context: *mut __sk_buff) -> u64 {
    here::leave(&mut SkbFrame(context), &Maps).0
}
