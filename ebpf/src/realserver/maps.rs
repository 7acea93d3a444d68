//! The maps between the agent and its programs.

use aya_ebpf::btf_maps::{Array, HashMap, PerCpuArray};
use aya_ebpf::macros::btf_map;
use shunt_datapath::realserver::{Knowledge, Note, Settings};

use crate::context::{blur, jiffies};

/// The most addresses with a role for this machine.
const ADDRESSES_MOST: usize = 4096;

#[btf_map]
static ADDRESSES: HashMap<[u64; 2], u32, ADDRESSES_MOST> = HashMap::new();

#[btf_map]
static SETTINGS: Array<Settings, 1> = Array::new();

#[btf_map]
static COUNTERS: PerCpuArray<u64, { Note::ALL.len() }> = PerCpuArray::new();

/// The maps of this object.
pub struct Maps;

impl Knowledge for Maps {
    #[inline(always)]
    fn role(&self, address: [u64; 2]) -> u32 {
        // SAFETY: the value is copied at once. An entry that is replaced meanwhile may be reused,
        // but stays readable memory.
        unsafe { ADDRESSES.get(address) }.copied().unwrap_or(0)
    }

    #[inline(always)]
    fn settings(&self) -> Settings {
        SETTINGS.get(0).copied().unwrap_or_default()
    }

    #[inline(always)]
    fn blur(&self, value: usize) -> usize {
        blur(value as u64, jiffies()) as usize
    }

    #[inline(always)]
    fn count(&self, note: Note) {
        let Some(counter) = COUNTERS.get_ptr_mut(note as u32) else {
            return;
        };
        // SAFETY: `counter` points to this CPU's value of the map, which lives as long as the map.
        unsafe { *counter = (*counter).wrapping_add(1) };
    }
}
