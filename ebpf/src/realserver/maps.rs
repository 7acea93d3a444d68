//! What the agent tells, and what it is told.

use aya_ebpf::btf_maps::{Array, HashMap, PerCpuArray};
use aya_ebpf::helpers::generated::bpf_jiffies64;
use aya_ebpf::macros::btf_map;
use shunt_datapath::realserver::{Knowledge, Note, Settings};

use crate::context::blur;

/// Addresses that mean something to this machine, with their roles.
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
        // SAFETY: a word that the agent replaces as a whole.
        unsafe { ADDRESSES.get(address) }.copied().unwrap_or(0)
    }

    #[inline(always)]
    fn settings(&self) -> Settings {
        SETTINGS.get(0).copied().unwrap_or_default()
    }

    #[inline(always)]
    fn blur(&self, value: usize) -> usize {
        // SAFETY: the helper takes nothing.
        blur(value as u64, unsafe { bpf_jiffies64() }) as usize
    }

    #[inline(always)]
    fn count(&self, note: Note) {
        let Some(counter) = COUNTERS.get_ptr_mut(note as u32) else {
            return;
        };
        // SAFETY: nobody else writes to this CPU's counter.
        unsafe { *counter = (*counter).wrapping_add(1) };
    }
}
