//! The kernel's routes and neighbours, asked by a packet.

use core::ffi::c_void;

use aya_ebpf::bindings::bpf_fib_lookup as Question;
use aya_ebpf::helpers::generated::bpf_fib_lookup;
use shunt_datapath::entry::Ways;

const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;

/// The way to an address for a packet that came by `interface`. `None` where the kernel has no
/// route, does not forward, or knows no neighbour.
#[inline(always)]
pub fn lookup(context: *mut c_void, interface: u32, v6: bool, address: [u64; 2]) -> Option<Ways> {
    // SAFETY: plain data, for which zeros are a value.
    let mut question: Question = unsafe { core::mem::zeroed() };
    question.family = if v6 { AF_INET6 } else { AF_INET };
    question.ifindex = interface;
    // A length that always fits makes the helper say the MTU.
    question.__bindgen_anon_1.tot_len = 1;
    if v6 {
        let [a, b] = address;
        question.__bindgen_anon_4.ipv6_dst = [a as u32, (a >> 32) as u32, b as u32, (b >> 32) as u32];
    } else {
        question.__bindgen_anon_4.ipv4_dst = address[0] as u32;
    }
    // SAFETY: the context is the hook's own, the question is ours and as long as we say.
    let answer = unsafe {
        bpf_fib_lookup(context, &raw mut question, size_of::<Question>() as i32, 0)
    };
    if answer != 0 {
        return None;
    }
    // SAFETY: after success the helper has written the MTU here.
    let mtu = unsafe { question.__bindgen_anon_1.mtu_result };
    Some(Ways {
        target: word(question.dmac) | (mtu as u64) << 48,
        source: word(question.smac) | 1 << 48,
        interface: question.ifindex,
    })
}

#[inline(always)]
fn word(mac: [u8; 6]) -> u64 {
    let [a, b, c, d, e, f] = mac;
    u64::from_le_bytes([a, b, c, d, e, f, 0, 0])
}
