//! The floors: the least work that any balancer does.

use aya_ebpf::bindings::{xdp_action, xdp_md};
use aya_ebpf::btf_maps::{Array, LruHashMap};
use aya_ebpf::macros::btf_map;

use crate::headers::{frame, get, set, turn};

const IPV4: u16 = 0x0800u16.to_be();
const IPV6: u16 = 0x86ddu16.to_be();
const FLOWS: usize = 1 << 21;

/// The 5-tuple, wire order.
#[repr(C, align(8))]
#[derive(Clone, Copy)]
struct Flow4 {
    source: u32,
    target: u32,
    ports: u32,
    protocol: u32,
}

#[repr(C, align(8))]
#[derive(Clone, Copy)]
struct Flow6 {
    source: [u64; 2],
    target: [u64; 2],
    ports: u32,
    protocol: u32,
}

#[repr(C, align(8))]
#[derive(Clone, Copy)]
struct Seen {
    server: u32,
    state: u32,
    at: u64,
}

#[btf_map]
static SEEN4: LruHashMap<Flow4, Seen, FLOWS> = LruHashMap::new();
#[btf_map]
static SEEN6: LruHashMap<Flow6, Seen, FLOWS> = LruHashMap::new();
#[btf_map]
static SERVERS: Array<[u8; 16], 4096> = Array::new();

/// Swaps the MAC addresses.
#[unsafe(no_mangle)]
#[unsafe(link_section = "xdp")]
pub extern "C" fn macswap(context: *mut xdp_md) -> u32 {
    let Some(frame) = frame(context, 14) else {
        return xdp_action::XDP_DROP;
    };
    // SAFETY: `frame` has checked that the frame has fourteen bytes.
    unsafe { turn(frame) };
    xdp_action::XDP_TX
}

/// The reference: it reads the 5-tuple, looks it up in the kernel's LRU hash, looks the server up
/// in an array, and writes the MAC addresses.
#[unsafe(no_mangle)]
#[unsafe(link_section = "xdp")]
pub extern "C" fn lru_array(context: *mut xdp_md) -> u32 {
    forward(context).unwrap_or(xdp_action::XDP_DROP)
}

#[inline(always)]
fn forward(context: *mut xdp_md) -> Option<u32> {
    let start = frame(context, 34)?;
    // SAFETY: `frame` has checked that the frame has 34 bytes, and the field ends before that.
    let ethertype = unsafe { get::<u16>(start, 12) };
    let server = if ethertype == IPV4 {
        // SAFETY: `frame` has checked that the frame has 34 bytes, and the fields end before that.
        let (first, fragment) = unsafe { (get::<u8>(start, 14), get::<u16>(start, 20)) };
        if first != 0x45 || fragment & 0x3fffu16.to_be() != 0 {
            return None;
        }
        // SAFETY: `frame` has checked that the frame has 34 bytes, and the fields end before that.
        let (source, target) = unsafe { (get(start, 26), get(start, 30)) };
        // SAFETY: `frame` has checked that the frame has 34 bytes, and the fields end before that.
        let protocol = unsafe { get::<u8>(start, 23) };
        let ports = ports(context, 34, protocol)?;
        in_lru4(&Flow4 {
            source,
            target,
            ports,
            protocol: protocol as u32,
        })
    } else if ethertype == IPV6 {
        let start = frame(context, 54)?;
        // SAFETY: `frame` has checked that the frame has 54 bytes, and the fields end before that.
        let (source, target, protocol) = unsafe {
            (
                [get(start, 22), get(start, 30)],
                [get(start, 38), get(start, 46)],
                get::<u8>(start, 20),
            )
        };
        let ports = ports(context, 54, protocol)?;
        in_lru6(&Flow6 {
            source,
            target,
            ports,
            protocol: protocol as u32,
        })
    } else {
        return Some(xdp_action::XDP_PASS);
    };
    let server = SERVERS.get(server)?;
    // SAFETY: `frame` has checked that the frame has 34 bytes, and no helper has moved it since.
    unsafe {
        turn(start);
        set(start, 0, server[8]);
    }
    Some(xdp_action::XDP_TX)
}

/// Both ports. `None` if the frame ends within the transport header.
#[inline(always)]
fn ports(context: *mut xdp_md, l4: usize, protocol: u8) -> Option<u32> {
    let start = match protocol {
        6 => frame(context, l4 + 20)?,
        17 => frame(context, l4 + 8)?,
        _ => return None,
    };
    // SAFETY: `frame` has checked that the frame has eight bytes at `l4`, and the ports are four.
    Some(unsafe { get(start, l4) })
}

#[inline(always)]
fn fresh(ports: u32) -> Seen {
    Seen {
        server: ports & 1023,
        state: 0,
        at: 0,
    }
}

#[inline(always)]
fn in_lru4(flow: &Flow4) -> u32 {
    // SAFETY: an entry that is replaced meanwhile may be reused, but stays readable memory while
    // the program runs.
    if let Some(seen) = unsafe { SEEN4.get(flow) } {
        return seen.server;
    }
    let seen = fresh(flow.ports);
    let _ = SEEN4.insert(flow, &seen, 0);
    seen.server
}

#[inline(always)]
fn in_lru6(flow: &Flow6) -> u32 {
    // SAFETY: an entry that is replaced meanwhile may be reused, but stays readable memory while
    // the program runs.
    if let Some(seen) = unsafe { SEEN6.get(flow) } {
        return seen.server;
    }
    let seen = fresh(flow.ports);
    let _ = SEEN6.insert(flow, &seen, 0);
    seen.server
}
