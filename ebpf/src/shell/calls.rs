//! The maps of SIP calls, and the subprograms that look calls up and open their connections.

use aya_ebpf::bindings::{__sk_buff, BPF_ANY, xdp_md};
use aya_ebpf::btf_maps::{Array, HashMap, PerCpuArray};
use aya_ebpf::macros::btf_map;
use shunt_datapath::call::{self, id};
use shunt_datapath::entry::NONE;
use shunt_datapath::open;
use shunt_datapath::table::call::{Call, CallKey, Desk, TEXT};

use super::flows::MAPPED;
use super::flows::UNPREPARED;
use super::maps::Maps;
use super::skb::SkbFrame;
use super::subprograms::both;
use super::sum::{self, Bytes};
use super::xdp::XdpFrame;

#[btf_map]
static CALLS: HashMap<CallKey, Call, 1024, UNPREPARED> = HashMap::new();
/// The server that answers from a NAT endpoint, if its service has calls.
#[btf_map]
static ANSWERERS: Array<u64, 4096, MAPPED> = Array::new();
#[btf_map]
static DESKS: PerCpuArray<Desk, 1> = PerCpuArray::new();

/// The memory into which this CPU copies a datagram to read it.
#[inline(always)]
pub fn desk() -> Option<*mut Desk> {
    DESKS.get_ptr_mut(0)
}

/// The key on the desk.
#[inline(always)]
fn key_on_desk() -> Option<&'static CallKey> {
    // SAFETY: the desk is this CPU's map value, which lives as long as the map; nothing writes the
    // key while it is looked up.
    desk().map(|desk| unsafe { &(*desk).key })
}

/// Copies a datagram to the desk, as far as there is room, and finds its Call-ID. Returns the
/// length of the Call-ID, 0 without one.
#[inline(always)]
fn identify<B: Bytes>(frame: &B, from: u32, length: u32) -> u32 {
    let Some(desk) = desk() else {
        return 0;
    };
    // Less one, so that one more is at least one: the verifier wants to see that.
    let last = TEXT as u32 - 1;
    let rest = length.wrapping_sub(1);
    let rest = if rest < last { rest } else { last };
    let length = (sum::opaque(rest) & last) + 1;
    // SAFETY: the desk is this CPU's map value, so that its field has an address.
    let text = unsafe { (&raw mut (*desk).text).cast() };
    if frame.load(from, text, length) < 0 {
        return 0;
    }
    id::find(&Maps, length)
}

/// The call whose key is on the desk.
#[inline(always)]
pub fn found() -> Option<*mut Call> {
    CALLS.get_ptr_mut(key_on_desk()?)
}

/// Enters the call whose key is on the desk.
#[inline(always)]
pub fn enter(value: u64) {
    let call = Call {
        value,
        ..Call::default()
    };
    if let Some(key) = key_on_desk() {
        let _ = CALLS.insert(key, &call, BPF_ANY.into());
    }
}

/// The server that answers from this NAT endpoint, or [`NONE`].
#[inline(always)]
pub fn answerer(endpoint: u32) -> u32 {
    let server = ANSWERERS.get(endpoint);
    server.map_or(NONE, |server| *server as u32)
}

/// The server of the call on the desk.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn recall_call(service: u32, server: u32) -> u32 {
    call::recall(&Maps, service, server)
}

/// Opens a connection to a client with a packet of its server.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn start_xdp(context: *mut xdp_md, ports: u32, server: u32, service: u32) -> u64 {
    open::start(&XdpFrame(context), &Maps, both(ports, 0), server, service).0
}

/// The server of a packet's call.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn choose_xdp(context: *mut xdp_md, endpoint: u32) -> u64 {
    call::choose(&XdpFrame(context), &Maps, endpoint).0
}

/// Opens a connection to the server of a packet's call.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn call_xdp(context: *mut xdp_md, endpoint: u32, server: u32) -> u64 {
    call::carry(&mut XdpFrame(context), &Maps, endpoint, server).0
}

/// The length of a datagram's Call-ID, 0 without one.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn identify_xdp(context: *mut xdp_md, from: u32, length: u32) -> u32 {
    identify(&XdpFrame(context), from, length)
}

/// Opens a connection to a client with a packet of its server.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn start_tc(context: *mut __sk_buff, ports: u32, server: u32, service: u32) -> u64 {
    open::start(&SkbFrame(context), &Maps, both(ports, 0), server, service).0
}

/// The server of a packet's call.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn choose_tc(context: *mut __sk_buff, endpoint: u32) -> u64 {
    call::choose(&SkbFrame(context), &Maps, endpoint).0
}

/// Opens a connection to the server of a packet's call.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn call_tc(context: *mut __sk_buff, endpoint: u32, server: u32) -> u64 {
    call::carry(&mut SkbFrame(context), &Maps, endpoint, server).0
}

/// The length of a datagram's Call-ID, 0 without one.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn identify_tc(context: *mut __sk_buff, from: u32, length: u32) -> u32 {
    identify(&SkbFrame(context), from, length)
}
