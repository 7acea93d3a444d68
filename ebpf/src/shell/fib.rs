//! The kernel's routes and neighbours, asked by a packet.

use core::ffi::c_void;

use aya_ebpf::bindings::bpf_fib_lookup as Question;
use aya_ebpf::btf_maps::PerCpuArray;
use aya_ebpf::helpers::generated::bpf_fib_lookup;
use aya_ebpf::macros::btf_map;
use shunt_datapath::entry::Ways;

const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;

// `BPF_FIB_LKUP_RET_` in `linux/bpf.h`; between them is "unreachable".
const BLACKHOLE: i64 = 1;
const PROHIBIT: i64 = 3;

/// What was answered last, on this CPU: more than a function can return.
#[btf_map]
static ANSWER: PerCpuArray<Ways, 1> = PerCpuArray::new();

/// The answer of a question that was answered ([`ask`] returned 1).
#[inline(always)]
pub fn answer(answered: u32) -> Option<Ways> {
    if answered == 0 {
        return None;
    }
    ANSWER.get(0).copied()
}

/// A question at a place of the stack where it may be written by words.
#[repr(C, align(8))]
union Room {
    words: [u64; 8],
    question: Question,
}

/// Asks for the way of a packet from `source` to `target` that came by `interface`, without a mark.
/// 0 where the kernel has no route, does not forward, or knows no neighbour. Where a route or rule
/// refuses the packet the answer is a way that may not be used.
#[inline(always)]
pub fn ask(
    context: *mut c_void,
    interface: u32,
    v6: bool,
    source: [u64; 2],
    target: [u64; 2],
) -> u32 {
    let mut room = Room { words: [0; 8] };
    // SAFETY: plain data, for which zeros are a value.
    let question = unsafe { &mut room.question };
    question.family = if v6 { AF_INET6 } else { AF_INET };
    question.ifindex = interface;
    // A length that always fits makes the helper say the MTU.
    question.__bindgen_anon_1.tot_len = 1;
    if v6 {
        question.__bindgen_anon_3.ipv6_src = halves(source);
        question.__bindgen_anon_4.ipv6_dst = halves(target);
    } else {
        question.__bindgen_anon_3.ipv4_src = source[0] as u32;
        question.__bindgen_anon_4.ipv4_dst = target[0] as u32;
    }
    // SAFETY: the context is the hook's own, the question is ours and as long as we say.
    let answer =
        unsafe { bpf_fib_lookup(context, &raw mut *question, size_of::<Question>() as i32, 0) };
    let ways = if answer == 0 {
        // SAFETY: after success the helper has written the MTU here.
        let mtu = unsafe { question.__bindgen_anon_1.mtu_result };
        Ways {
            target: word(&raw const question.dmac) | (mtu as u64) << 48,
            source: word(&raw const question.smac) | 1 << 48,
            interface: question.ifindex,
        }
    } else if (BLACKHOLE..=PROHIBIT).contains(&answer) {
        Ways {
            target: 0,
            source: 0,
            interface: 0,
        }
    } else {
        return 0;
    };
    match ANSWER.get_ptr_mut(0) {
        Some(place) => {
            // SAFETY: this CPU's own value.
            unsafe { *place = ways };
            1
        }
        None => 0,
    }
}

fn halves([a, b]: [u64; 2]) -> [u32; 4] {
    [a as u32, (a >> 32) as u32, b as u32, (b >> 32) as u32]
}

/// A MAC address as a word. By halves of a word: the compiler would read four bytes at an odd
/// place of the stack, which the verifier never allows.
#[inline(always)]
fn word(mac: *const [u8; 6]) -> u64 {
    let halves = mac.cast::<u16>();
    // SAFETY: six bytes of the question, at an even place.
    unsafe {
        halves.read_volatile() as u64
            | (halves.add(1).read_volatile() as u64) << 16
            | (halves.add(2).read_volatile() as u64) << 32
    }
}
