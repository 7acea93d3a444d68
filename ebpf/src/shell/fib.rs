//! Look-ups of the kernel's routes and neighbours for one packet.

use core::ffi::c_void;

use aya_ebpf::bindings::bpf_fib_lookup as Question;
use aya_ebpf::btf_maps::PerCpuArray;
use aya_ebpf::helpers::generated::bpf_fib_lookup;
use aya_ebpf::macros::btf_map;
use shunt_datapath::entry::Ways;

const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;

// `BPF_FIB_LKUP_RET_*` of `linux/bpf.h`. `UNREACHABLE` (2) lies between these two.
const BLACKHOLE: i64 = 1;
const PROHIBIT: i64 = 3;

/// The last answer on this CPU. It is longer than a subprogram can return.
#[btf_map]
static ANSWER: PerCpuArray<Ways, 1> = PerCpuArray::new();

/// The answer that [`ask`] left; `answered` is what `ask` returned.
#[inline(always)]
pub fn answer(answered: u32) -> Option<Ways> {
    if answered == 0 {
        return None;
    }
    ANSWER.get(0).copied()
}

/// A question, aligned so that the compiler may write it by words of eight bytes.
#[repr(C, align(8))]
union Room {
    words: [u64; 8],
    question: Question,
}

/// Asks the kernel for the way of a packet from `source` to `target` that came by `interface` and
/// has no mark. Returns 1 if [`answer`] has the way. Returns 0 if the kernel has no route, does not
/// forward, or knows no neighbour. If a route or rule refuses the packet, the answer is a way that
/// must not be used: its fields are 0.
#[inline(always)]
pub fn ask(
    context: *mut c_void,
    interface: u32,
    v6: bool,
    source: [u64; 2],
    target: [u64; 2],
) -> u32 {
    let mut room = Room { words: [0; 8] };
    // SAFETY: `words` filled all 64 bytes with zeros, and zeros are a valid `bpf_fib_lookup`.
    let question = unsafe { &mut room.question };
    question.family = if v6 { AF_INET6 } else { AF_INET };
    question.ifindex = interface;
    // The helper returns the MTU only for a packet with a length. One byte fits every route.
    question.__bindgen_anon_1.tot_len = 1;
    if v6 {
        question.__bindgen_anon_3.ipv6_src = halves(source);
        question.__bindgen_anon_4.ipv6_dst = halves(target);
    } else {
        question.__bindgen_anon_3.ipv4_src = source[0] as u32;
        question.__bindgen_anon_4.ipv4_dst = target[0] as u32;
    }
    // SAFETY: `context` is the program's own; `question` is valid for writes of the length passed
    // and lives on this stack until the helper returns.
    let answer =
        unsafe { bpf_fib_lookup(context, &raw mut *question, size_of::<Question>() as i32, 0) };
    let ways = if answer == 0 {
        // SAFETY: the helper writes `mtu_result` when it returns 0; any bits are a valid `u16`.
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
            // SAFETY: `place` points to this CPU's value of the map, which lives as long as the
            // map; nothing else on this CPU holds a reference to it.
            unsafe { *place = ways };
            1
        }
        None => 0,
    }
}

fn halves([a, b]: [u64; 2]) -> [u32; 4] {
    [a as u32, (a >> 32) as u32, b as u32, (b >> 32) as u32]
}

/// A MAC address as a word. It is read by two bytes: the compiler would otherwise read four bytes
/// at an address of the stack that is not a multiple of four, which the verifier refuses.
#[inline(always)]
fn word(mac: *const [u8; 6]) -> u64 {
    let halves = mac.cast::<u16>();
    // SAFETY: `mac` points to six initialised bytes of the question, at an even address.
    unsafe {
        halves.read_volatile() as u64
            | (halves.add(1).read_volatile() as u64) << 16
            | (halves.add(2).read_volatile() as u64) << 32
    }
}
