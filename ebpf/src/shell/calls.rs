//! The maps of SIP calls.

use aya_ebpf::bindings::BPF_ANY;
use aya_ebpf::btf_maps::{Array, HashMap, PerCpuArray};
use aya_ebpf::macros::btf_map;
use shunt_datapath::entry::NONE;
use shunt_datapath::table::call::{Call, CallKey, Desk};

use super::flows::MAPPED;
use super::flows::UNPREPARED;

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
