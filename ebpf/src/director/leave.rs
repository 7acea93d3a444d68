//! The program for frames that leave the machine: it translates the answers of servers that run on
//! the director itself.
//!
//! It is attached only while there is such a server.

use aya_ebpf::bindings::{__sk_buff, TC_ACT_SHOT};
use shunt_datapath::here;
use shunt_datapath::verdict::{Pass, Verdict, Word};

use crate::shell::maps::{Maps, count};
use crate::shell::skb::SkbFrame;
use crate::shell::steps;

/// `TCX_NEXT` and `TC_ACT_UNSPEC`: the frame goes to the program attached after this one, then out.
const NEXT: i32 = -1;

/// Socket buffers that leave a device. A frame that is no answer of such a server is not counted:
/// it was counted when it came in, or the machine itself sent it.
#[unsafe(no_mangle)]
#[unsafe(link_section = "classifier")]
pub extern "C" fn director_leave(context: *mut __sk_buff) -> i32 {
    // This brings the headers into the linear part.
    let _ = SkbFrame::new(context);
    let mut verdict = Word(leave_tc(context));
    if verdict == Word::RELATED {
        verdict = Word(steps::tc::related(context));
    }
    // A step is for packets that arrive: the frame is no answer of such a server.
    if verdict.step().is_some() {
        return NEXT;
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
        Verdict::Pass(_) | Verdict::Send(_) | Verdict::Bounce(_) | Verdict::Hold => NEXT,
    }
}

/// Translates an answer, or decides that the frame is none. A subprogram, so that its stack and the
/// stack of an ICMP message are not needed at once.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn leave_tc(context: *mut __sk_buff) -> u64 {
    here::leave(&mut SkbFrame(context), &Maps).0
}
