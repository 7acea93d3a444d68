//! Who the client is, for servers of full NAT: what a director says in a SYN is remembered, and
//! programs that ask for their peer hear it.
//!
//! All three hang on a cgroup: no device is touched, and sockets that listened before are heard.

use aya_ebpf::bindings::{__sk_buff, BPF_ANY, bpf_sock_addr};
use aya_ebpf::btf_maps::lpm_trie::Key;
use aya_ebpf::btf_maps::{LpmTrie, LruHashMap, PerCpuArray};
use aya_ebpf::macros::btf_map;
use shunt_datapath::toa::{Client, Ends, Heard, hear, mapped, ports, unmapped};

use crate::frame::SkbFrame;

/// Who is believed: local addresses of directors, IPv4 mapped into IPv6.
#[btf_map]
static DIRECTORS: LpmTrie<[u8; 16], u32, 1024> = LpmTrie::new();
#[btf_map]
static CLIENTS: LruHashMap<Ends, Client, 65536> = LruHashMap::new();
/// How many SYNs told a client.
#[btf_map]
static TOLD: PerCpuArray<u64, 1> = PerCpuArray::new();

/// The packet goes on.
const ON: i32 = 1;

/// The key of a director, at a place of the stack where the address may be written in two words.
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
    // SAFETY: twenty bytes, as the key has them; it is packed, so that any place will do.
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
                    // SAFETY: this CPU's own value.
                    unsafe { *told = (*told).wrapping_add(1) };
                }
            }
        }
        // A connection of before had the same ends.
        Heard::Silent(ends) => {
            if is_believed(ends.peer) {
                let _ = CLIENTS.remove(&ends);
            }
        }
        Heard::Nothing => {}
    }
    ON
}

/// The peer of an IPv4 socket.
#[unsafe(no_mangle)]
#[unsafe(link_section = "cgroup/getpeername4")]
pub extern "C" fn realserver_peer4(context: *mut bpf_sock_addr) -> i32 {
    // SAFETY: the kernel hands in a valid context.
    let asked = unsafe { &mut *context };
    // SAFETY: a pointer or null.
    let socket = unsafe { asked.__bindgen_anon_1.sk };
    if socket.is_null() {
        return ON;
    }
    // SAFETY: checked just above.
    let (own, port) = unsafe { ((*socket).src_ip4, (*socket).src_port) };
    let ends = Ends {
        peer: mapped(asked.user_ip4),
        own: mapped(own),
        ports: ports(asked.user_port as u16, (port as u16).to_be()),
    };
    // SAFETY: values are replaced, not changed in place.
    if let Some(client) = unsafe { CLIENTS.get(&ends) }
        && let Some(address) = unmapped(client.address)
    {
        asked.user_ip4 = address;
        asked.user_port = client.port as u32;
    }
    ON
}

/// The peer of an IPv6 socket, which may speak IPv4.
#[unsafe(no_mangle)]
#[unsafe(link_section = "cgroup/getpeername6")]
pub extern "C" fn realserver_peer6(context: *mut bpf_sock_addr) -> i32 {
    // SAFETY: the kernel hands in a valid context, with a pointer or null in it.
    let socket = unsafe { (*context).__bindgen_anon_1.sk };
    if socket.is_null() {
        return ON;
    }
    // SAFETY: the context is valid, and the socket's pointer was checked just above.
    let (asked, own) = unsafe { (&raw mut (*context).user_ip6, &raw const (*socket).src_ip6) };
    // SAFETY: as above.
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
    // SAFETY: values are replaced, not changed in place.
    if let Some(client) = unsafe { CLIENTS.get(&ends) } {
        let [a, b] = client.address;
        let port = client.port as u32;
        let parts = [a as u32, (a >> 32) as u32, b as u32, (b >> 32) as u32];
        let asked = asked.cast::<u32>();
        // SAFETY: the four words of the address, and the port. One by one: the kernel takes no
        // two at once.
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

/// An address of four words, read one by one.
#[inline(always)]
fn words(from: *const u32) -> [u64; 2] {
    // SAFETY: four words of a context or socket.
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
