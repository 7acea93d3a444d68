//! The maps of flows, and the maps whose words mark the regions that have entries
//! ([`shunt_datapath::region`]).

use aya_ebpf::btf_maps::Array;
use aya_ebpf::macros::btf_map;
use shunt_datapath::region;

/// `BPF_F_MMAPABLE`: the daemon reads and writes the map through a mapping.
pub const MAPPED: usize = 1 << 10;
/// `BPF_F_NO_PREALLOC`: the kernel allocates memory when an entry is inserted.
pub const UNPREPARED: usize = 1;

/// A bucket of flows: one cache line.
#[repr(C, align(8))]
#[derive(Clone, Copy)]
struct FlowBucket {
    words: [u64; 8],
}

#[btf_map]
static FLOWS4: Array<FlowBucket, 16384, MAPPED> = Array::new();
#[btf_map]
static FLOWS6: Array<FlowBucket, 16384, MAPPED> = Array::new();
#[btf_map]
static OCCUPIED4: Array<u64, 256, MAPPED> = Array::new();
#[btf_map]
static OCCUPIED6: Array<u64, 256, MAPPED> = Array::new();
#[btf_map]
static OCCUPIED: Array<u64, { region::table::COUNT }, MAPPED> = Array::new();

/// A bucket of IPv4 flows.
#[inline(always)]
pub fn bucket4(bucket: u32) -> Option<*mut u64> {
    FLOWS4.get_ptr_mut(bucket).map(<*mut FlowBucket>::cast)
}

/// A bucket of IPv6 flows.
#[inline(always)]
pub fn bucket6(bucket: u32) -> Option<*mut u64> {
    FLOWS6.get_ptr_mut(bucket).map(<*mut FlowBucket>::cast)
}

/// The word that marks a region of IPv4 flows.
#[inline(always)]
pub fn word4(region: u32) -> Option<*mut u64> {
    OCCUPIED4.get_ptr_mut(region)
}

/// The word that marks a region of IPv6 flows.
#[inline(always)]
pub fn word6(region: u32) -> Option<*mut u64> {
    OCCUPIED6.get_ptr_mut(region)
}

/// The word that marks a hash table.
#[inline(always)]
pub fn of_table(table: u32) -> Option<*mut u64> {
    OCCUPIED.get_ptr_mut(table)
}
