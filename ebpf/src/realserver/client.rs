//! The client's address for servers behind full NAT. A program remembers the address that a
//! director puts into a SYN, and `getpeername` returns it.
//!
//! All three programs are attached to a control group. They need no device, and they serve sockets
//! that listened before.

use aya_ebpf::bindings::{__sk_buff, BPF_ANY, bpf_sock_addr};
use aya_ebpf::btf_maps::lpm_trie::Key;
use aya_ebpf::btf_maps::{LpmTrie, LruHashMap, PerCpuArray};
use aya_ebpf::macros::btf_map;
use shunt_datapath::toa::{Client, Ends, Heard, hear, mapped, ports, unmapped};

use crate::frame::SkbFrame;

/// The local addresses of the directors that are believed, IPv4 mapped into IPv6.
#[btf_map]
static DIRECTORS: LpmTrie<[u8; 16], u32, 1024> = LpmTrie::new();
#[btf_map]
static CLIENTS: LruHashMap<Ends, Client, 65536> = LruHashMap::new();
/// The number of SYNs that named a client.
#[btf_map]
static TOLD: PerCpuArray<u64, 1> = PerCpuArray::new();

/// The packet goes on.
const ON: i32 = 1;

/// The key of a director, aligned so that the compiler may write the address in two words.
#[repr(C, align(8))]
struct Question {
    before: u32,
    prefix: u32,
    address: [u64; 2],
}

#[inline(always)]
fn is_believed(peer: [u64; 2]) -> bool {
    let question = Question {
        before: 0,
        prefix: 128,
        address: peer,
    };
    // SAFETY: `prefix` and `address` are twenty contiguous bytes, as `Key` is; `Key` is packed, and
    // `question` lives until the look-up is done.
    let key = unsafe { &*(&raw const question.prefix).cast::<Key<[u8; 16]>>() };
    DIRECTORS.get(key).is_some()
}

/// Packets for sockets, from the network header on.
#[unsafe(no_mangle)]
#[unsafe(link_section = "cgroup_skb/ingress")]
pub extern "C" fn realserver_hear(context: *mut __sk_buff) -> i32 {
    match hear(&SkbFrame(context)) {
        Heard::Told(ends, client) => {
            if is_believed(ends.peer) {
                let _ = CLIENTS.insert(&ends, &client, BPF_ANY.into());
                if let Some(told) = TOLD.get_ptr_mut(0) {
                    // SAFETY: `told` points to this CPU's value of the map, which lives as long as
                    // the map.
                    unsafe { *told = (*told).wrapping_add(1) };
                }
            }
        }
        // An earlier connection may have had the same ends.
        Heard::Silent(ends) => {
            if is_believed(ends.peer) {
                let _ = CLIENTS.remove(&ends);
            }
        }
        Heard::Nothing => {}
    }
    ON
}

/// A process asks for the peer of an IPv4 socket.
#[unsafe(no_mangle)]
#[unsafe(link_section = "cgroup/getpeername4")]
pub extern "C" fn realserver_peer4(context: *mut bpf_sock_addr) -> i32 {
    // SAFETY: `context` is the program's own, valid while the program runs, and nothing else refers
    // to it.
    let asked = unsafe { &mut *context };
    // SAFETY: the kernel puts the socket's pointer or null into this field of the union.
    let socket = unsafe { asked.__bindgen_anon_1.sk };
    if socket.is_null() {
        return ON;
    }
    // SAFETY: `socket` is not null, and the kernel keeps it valid while the program runs.
    let (own, port) = unsafe { ((*socket).src_ip4, (*socket).src_port) };
    let ends = Ends {
        peer: mapped(asked.user_ip4),
        own: mapped(own),
        ports: ports(asked.user_port as u16, (port as u16).to_be()),
    };
    // SAFETY: an entry that is replaced meanwhile may be reused, but stays readable memory while
    // the program runs.
    if let Some(client) = unsafe { CLIENTS.get(&ends) }
        && let Some(address) = unmapped(client.address)
    {
        asked.user_ip4 = address;
        asked.user_port = client.port as u32;
    }
    ON
}

/// A process asks for the peer of an IPv6 socket, which may carry IPv4.
#[unsafe(no_mangle)]
#[unsafe(link_section = "cgroup/getpeername6")]
pub extern "C" fn realserver_peer6(context: *mut bpf_sock_addr) -> i32 {
    // SAFETY: `context` is the program's own; the kernel puts the socket's pointer or null into
    // this field of the union.
    let socket = unsafe { (*context).__bindgen_anon_1.sk };
    if socket.is_null() {
        return ON;
    }
    // SAFETY: `context` is the program's own, and `socket` is not null; the kernel keeps both valid
    // while the program runs.
    let (asked, own) = unsafe { (&raw mut (*context).user_ip6, &raw const (*socket).src_ip6) };
    // SAFETY: `context` is the program's own, and `socket` is not null; the kernel keeps both valid
    // while the program runs.
    let (own4, port, asked_port) = unsafe {
        let port = (*socket).src_port as u16;
        ((*socket).src_ip4, port.to_be(), (*context).user_port)
    };
    let peer = words(asked.cast());
    let own = match unmapped(peer) {
        Some(_) => mapped(own4),
        None => words(own.cast()),
    };
    let ends = Ends {
        peer,
        own,
        ports: ports(asked_port as u16, port),
    };
    // SAFETY: an entry that is replaced meanwhile may be reused, but stays readable memory while
    // the program runs.
    if let Some(client) = unsafe { CLIENTS.get(&ends) } {
        let [a, b] = client.address;
        let port = client.port as u32;
        let parts = [a as u32, (a >> 32) as u32, b as u32, (b >> 32) as u32];
        let asked = asked.cast::<u32>();
        // SAFETY: `asked` points to the four words of `user_ip6` in the program's own context. The
        // writes are volatile because the verifier refuses a store of two words at once.
        unsafe {
            asked.write_volatile(parts[0]);
            asked.add(1).write_volatile(parts[1]);
            asked.add(2).write_volatile(parts[2]);
            asked.add(3).write_volatile(parts[3]);
            (&raw mut (*context).user_port).write_volatile(port);
        }
    }
    ON
}

/// An address of four words. `from` must be such a field of the context or of its socket.
#[inline(always)]
fn words(from: *const u32) -> [u64; 2] {
    // SAFETY: both callers pass a field of four words that the kernel keeps valid while the program
    // runs. The reads are volatile because the verifier refuses a load of two words at once.
    let [a, b, c, d] = unsafe {
        [
            from.read_volatile() as u64,
            from.add(1).read_volatile() as u64,
            from.add(2).read_volatile() as u64,
            from.add(3).read_volatile() as u64,
        ]
    };
    [a | b << 32, c | d << 32]
}
