//! The maps, and the tables that the walk sees in them.
//!
//! The sizes here are minima. The daemon sets the sizes of a running director before it loads the
//! programs. An array map that the daemon maps into its memory has the flag `MAPPED`.

use core::ffi::c_void;
use core::ptr;

use aya_ebpf::Global;
use aya_ebpf::bindings::{BPF_ANY, BPF_NOEXIST};
use aya_ebpf::btf_maps::lpm_trie::Key;
use aya_ebpf::btf_maps::{Array, HashMap, LpmTrie, LruHashMap, PerCpuArray, ProgramArray, RingBuf};
use aya_ebpf::helpers::generated::{bpf_get_prandom_u32, bpf_loop};
use aya_ebpf::macros::btf_map;
use shunt_datapath::entry::{
    self, Bucket4, Bucket6, HOPS, Hop, Locality, LocalityKey, NONE, OriginKey, PeerKey, Server,
    Service, Settings, Traffic, WIDES, Ways, locality, standing,
};
use shunt_datapath::region;
use shunt_datapath::table::device::Device;
use shunt_datapath::table::fragment::{FragmentKey, FragmentValue};
use shunt_datapath::table::{Shape, Tables, entered};
use shunt_datapath::translation::{Local, Translation, Tuple, place};
use shunt_datapath::verdict::COUNTERS;
use shunt_ebpf::PROGRAMS;

use super::calls;
use super::constants::{SEED, constant, long_constant};
use super::context::{blur, jiffies};
use super::flows::{self, MAPPED, UNPREPARED};
use super::ports;
use super::words::MapWords;

/// The state of a server ([`shunt_datapath::entry::standing`]).
#[repr(C, align(8))]
#[derive(Clone, Copy)]
pub struct Standing {
    words: [u64; standing::WORDS],
}

/// The first value of a target's entry: no server.
static NO_SERVERS: Locality = Locality {
    words: [0; locality::WORDS],
};

/// The key of a route, aligned so that the compiler may write the address in two words.
#[repr(C, align(8))]
struct Route6 {
    before: u32,
    prefix: u32,
    address: [u64; 2],
}

/// A frame that waits in `HELD` for the daemon.
#[repr(C, align(8))]
pub struct Held {
    pub interface: u32,
    pub length: u32,
    /// A VLAN tag that the kernel keeps beside the frame's bytes, or 0. The low half is the tag's
    /// type in wire order, the high half its control information.
    pub tag: u32,
    /// The tick in which the frame came.
    pub tick: u32,
    pub bytes: [u8; HELD_BYTES],
}

/// The longest frame that `HELD` takes.
pub const HELD_BYTES: usize = 2040;

#[btf_map]
static ENDPOINTS4: Array<Bucket4, 1024, MAPPED> = Array::new();
#[btf_map]
static ENDPOINTS6: Array<Bucket6, 1024, MAPPED> = Array::new();
#[btf_map]
static SERVICES: Array<Service, 1024, MAPPED> = Array::new();
#[btf_map]
static WIDE_SERVICES: Array<u64, { WIDES as usize }, MAPPED> = Array::new();
#[btf_map]
static SERVERS: Array<Server, 4096, MAPPED> = Array::new();
#[btf_map]
static POOLS: Array<u64, 65536, MAPPED> = Array::new();
#[btf_map]
static COUNTS: Array<u64, 4096, MAPPED> = Array::new();
#[btf_map]
static STANDINGS: Array<Standing, 4096, MAPPED> = Array::new();
#[btf_map]
static PEERS: HashMap<PeerKey, [u64; 2], 4096> = HashMap::new();
#[btf_map]
static LOCALITIES: LruHashMap<LocalityKey, Locality, 65536> = LruHashMap::new();
#[btf_map]
static HOPS_TO_CLIENTS: Array<Hop, { HOPS as usize }, MAPPED> = Array::new();
#[btf_map]
static ROUTES4: LpmTrie<[u8; 4], u32, 4096> = LpmTrie::new();
#[btf_map]
static ROUTES6: LpmTrie<[u8; 16], u32, 4096> = LpmTrie::new();
#[btf_map]
static ORIGINS: LpmTrie<[u8; OriginKey::BYTES], u32, { entry::ORIGINS as usize }> = LpmTrie::new();
#[btf_map]
static LEARNED: LruHashMap<[u64; 2], Ways, 4096> = LruHashMap::new();
#[btf_map]
static FRAGMENTS: LruHashMap<FragmentKey, FragmentValue, 8192> = LruHashMap::new();
#[btf_map]
static SETTINGS: Array<Settings, 1, MAPPED> = Array::new();
#[btf_map]
static TRAFFIC: PerCpuArray<Traffic, 4096> = PerCpuArray::new();
#[btf_map]
static COUNTERS_OF_OUTCOMES: PerCpuArray<u64, { COUNTERS as usize }> = PerCpuArray::new();
#[btf_map]
static ALLOWANCE: PerCpuArray<u64, 1> = PerCpuArray::new();
#[btf_map]
pub static HELD: RingBuf<Held, 262144> = RingBuf::new();
#[btf_map]
static TRANSLATIONS: HashMap<Tuple, Translation, 2048, UNPREPARED> = HashMap::new();
#[btf_map]
static LOCALS: Array<Local, { 2 * shunt_datapath::translation::LOCALS as usize }, MAPPED> =
    Array::new();
/// A number that a program leaves for the program that it jumps to, on this CPU.
#[btf_map]
static HANDED: PerCpuArray<u64, 1> = PerCpuArray::new();
/// The programs that other programs jump to, by their places ([`shunt_ebpf::REST`]). The kernel
/// binds such a map to one type of program.
#[btf_map]
pub static PROGRAMS_XDP: ProgramArray<{ PROGRAMS as usize }> = ProgramArray::new();
#[btf_map]
pub static PROGRAMS_TC: ProgramArray<{ PROGRAMS as usize }> = ProgramArray::new();

// The daemon sets these before it loads the programs. The verifier sees constants.
#[unsafe(no_mangle)]
static ENDPOINT4_MASK: Global<u32> = Global::new(1023);
#[unsafe(no_mangle)]
static ENDPOINT6_MASK: Global<u32> = Global::new(1023);
#[unsafe(no_mangle)]
static FLOW4_MASK: Global<u32> = Global::new(16383);
#[unsafe(no_mangle)]
static FLOW6_MASK: Global<u32> = Global::new(16383);
/// The logarithm (base 2) of a tick's length in jiffies.
#[unsafe(no_mangle)]
static TICK_SHIFT: Global<u32> = Global::new(8);

/// The clock of the walk, in ticks.
#[inline(always)]
pub fn now() -> u32 {
    (jiffies() >> TICK_SHIFT.load()) as u32 & shunt_datapath::connection::TICK_MASK
}

/// Counts an outcome on this CPU.
#[inline(always)]
pub fn count(counter: u32) {
    if let Some(value) = COUNTERS_OF_OUTCOMES.get_ptr_mut(counter) {
        // SAFETY: `value` points to this CPU's value of the map, which lives as long as the map.
        unsafe { *value = (*value).wrapping_add(1) };
    }
}

/// Leaves a number for the next program, which [`handed`] returns.
#[inline(always)]
pub fn hand(word: u32) {
    if let Some(value) = HANDED.get_ptr_mut(0) {
        // SAFETY: `value` points to this CPU's value of the map, which lives as long as the map.
        unsafe { *value = word.into() };
    }
}

/// The number that the program before left.
#[inline(always)]
pub fn handed() -> u32 {
    HANDED.get(0).map_or(0, |value| *value as u32)
}

/// `EEXIST` of `linux/errno.h`.
const THERE: i32 = -17;

/// The tables of the kernel's side.
#[derive(Clone, Copy)]
pub struct Maps;

#[inline(always)]
fn words<T>(pointer: Option<*mut T>) -> Option<MapWords> {
    // SAFETY: `start` points to a map value; the verifier refuses words outside of it.
    pointer.and_then(|start| unsafe { MapWords::new(start.cast()) })
}

impl Tables for Maps {
    type Words = MapWords;

    #[inline(always)]
    fn shape(&self) -> Shape {
        Shape {
            endpoint4_mask: constant(&ENDPOINT4_MASK),
            endpoint6_mask: constant(&ENDPOINT6_MASK),
            flow4_mask: constant(&FLOW4_MASK),
            flow6_mask: constant(&FLOW6_MASK),
            seed: long_constant(&SEED),
        }
    }

    #[inline(always)]
    fn settings(&self) -> Option<&Settings> {
        SETTINGS.get(0)
    }

    #[inline(always)]
    fn now(&self) -> u32 {
        now()
    }

    #[inline(always)]
    fn endpoint4(&self, bucket: u32) -> Option<&Bucket4> {
        ENDPOINTS4.get(bucket)
    }

    #[inline(always)]
    fn endpoint6(&self, bucket: u32) -> Option<&Bucket6> {
        ENDPOINTS6.get(bucket)
    }

    #[inline(always)]
    fn service(&self, id: u32) -> Option<&Service> {
        SERVICES.get(id)
    }

    #[inline(always)]
    fn server(&self, id: u32) -> Option<&Server> {
        SERVERS.get(id)
    }

    #[inline(always)]
    fn pool(&self, at: u32) -> Option<MapWords> {
        words(POOLS.get_ptr_mut(at))
    }

    #[inline(always)]
    fn counts(&self, server: u32) -> Option<MapWords> {
        words(COUNTS.get_ptr_mut(server))
    }

    #[inline(always)]
    fn standing(&self, server: u32) -> Option<MapWords> {
        words(STANDINGS.get_ptr_mut(server))
    }

    #[inline(always)]
    fn peer(&self, key: &PeerKey) -> Option<[u64; 2]> {
        // SAFETY: the value is copied at once, and the memory of a replaced entry stays readable.
        unsafe { PEERS.get(key) }.copied()
    }

    #[inline(always)]
    fn locality(&self, key: &LocalityKey) -> Option<MapWords> {
        words(LOCALITIES.get_ptr_mut(key))
    }

    #[inline(always)]
    fn add_locality(&self, key: &LocalityKey) {
        let _ = LOCALITIES.insert(key, &NO_SERVERS, BPF_ANY.into());
    }

    #[inline(always)]
    fn random(&self) -> u32 {
        // SAFETY: `bpf_get_prandom_u32` takes no argument and touches no memory of the program.
        unsafe { bpf_get_prandom_u32() as u32 }
    }

    #[inline(always)]
    fn flows4(&self, bucket: u32) -> Option<MapWords> {
        words(flows::bucket4(bucket))
    }

    #[inline(always)]
    fn flows6(&self, bucket: u32) -> Option<MapWords> {
        words(flows::bucket6(bucket))
    }

    #[inline(always)]
    fn occupied4(&self, region: u32) -> Option<MapWords> {
        words(flows::word4(region))
    }

    #[inline(always)]
    fn occupied6(&self, region: u32) -> Option<MapWords> {
        words(flows::word6(region))
    }

    #[inline(always)]
    fn desk(&self) -> Option<MapWords> {
        words(calls::desk())
    }

    #[inline(always)]
    fn call(&self) -> Option<MapWords> {
        words(calls::found())
    }

    #[inline(always)]
    fn enter_call(&self, value: u64) {
        region::mark(words(flows::of_table(region::table::CALLS)));
        calls::enter(value);
    }

    #[inline(always)]
    fn answerer(&self, endpoint: u32) -> u32 {
        calls::answerer(endpoint)
    }

    #[inline(always)]
    fn wide_service(&self, number: u32) -> u32 {
        WIDE_SERVICES
            .get(number)
            .map_or(0, |service| *service as u32)
    }

    #[inline(always)]
    fn origin(&self, key: &OriginKey) -> u32 {
        // `OriginKey` is laid out as the trie's key, but the compiler writes its fields by words.
        // SAFETY: both types have the same size (asserted beside `OriginKey`) and no padding, `Key`
        // needs no greater alignment, and the reference lives as long as `key`.
        let key = unsafe { &*ptr::from_ref(key).cast::<Key<[u8; OriginKey::BYTES]>>() };
        ORIGINS.get(key).copied().unwrap_or(NONE)
    }

    #[inline(always)]
    fn device(&self, place: u32) -> Option<&Device> {
        ports::device(place)
    }

    #[inline(always)]
    fn hop(&self, id: u32) -> Option<&Hop> {
        HOPS_TO_CLIENTS.get(id)
    }

    #[inline(always)]
    fn route4(&self, address: u32) -> u32 {
        ROUTES4
            .get(&Key::new(32, address.to_ne_bytes()))
            .copied()
            .unwrap_or(0)
    }

    #[inline(always)]
    fn route6(&self, address: [u64; 2]) -> u32 {
        let question = Route6 {
            before: 0,
            prefix: 128,
            address,
        };
        // SAFETY: `prefix` and `address` are twenty contiguous bytes, as `Key` is; `Key` is packed,
        // and `question` lives until the look-up is done.
        let key = unsafe { &*(&raw const question.prefix).cast::<Key<[u8; 16]>>() };
        ROUTES6.get(key).copied().unwrap_or(0)
    }

    #[inline(always)]
    fn learn(&self, client: [u64; 2], ways: Ways) {
        let _ = LEARNED.insert(&client, &ways, BPF_ANY.into());
    }

    #[inline(always)]
    fn learned(&self, client: [u64; 2]) -> Option<Ways> {
        // SAFETY: the value is copied at once, and the memory of a replaced entry stays readable.
        unsafe { LEARNED.get(&client) }.copied()
    }

    #[inline(always)]
    fn fragment(&self, key: &FragmentKey) -> Option<FragmentValue> {
        // SAFETY: the value is copied at once, and the memory of a replaced entry stays readable.
        unsafe { FRAGMENTS.get(key) }.copied()
    }

    #[inline(always)]
    fn remember_fragment(&self, key: &FragmentKey, value: FragmentValue) {
        let _ = FRAGMENTS.insert(key, &value, BPF_ANY.into());
    }

    #[inline(always)]
    fn translation(&self, tuple: &Tuple) -> Option<MapWords> {
        words(TRANSLATIONS.get_ptr_mut(tuple))
    }

    #[inline(always)]
    fn translate(&self, tuple: &Tuple, translation: &Translation, anew: bool) -> u32 {
        region::mark(words(flows::of_table(region::table::TRANSLATIONS)));
        let flags = if anew { BPF_NOEXIST } else { BPF_ANY };
        match TRANSLATIONS.insert(tuple, translation, flags.into()) {
            Ok(()) => entered::DONE,
            Err(THERE) => entered::THERE,
            Err(_) => entered::FULL,
        }
    }

    #[inline(always)]
    fn forget_translation(&self, tuple: &Tuple) {
        let _ = TRANSLATIONS.remove(tuple);
    }

    #[inline(always)]
    fn local(&self, v6: bool, number: u32) -> Option<&Local> {
        LOCALS.get(place(v6, number))
    }

    #[inline(always)]
    fn traffic(&self, server: u32, count: impl FnOnce(&mut Traffic)) {
        if let Some(value) = TRAFFIC.get_ptr_mut(server) {
            // SAFETY: `value` points to this CPU's value of the map, which lives as long as the
            // map; nothing else on this CPU holds a reference to it.
            count(unsafe { &mut *value });
        }
    }

    #[inline(always)]
    fn count(&self, counter: u32) {
        count(counter);
    }

    #[inline(always)]
    fn blur(&self, value: usize) -> usize {
        blur(value as u64, jiffies()) as usize
    }

    #[inline(always)]
    fn allowance(&self) -> Option<MapWords> {
        words(ALLOWANCE.get_ptr_mut(0))
    }

    #[inline(always)]
    fn repeat<B: FnMut(u32) -> bool>(&self, count: u32, mut body: B) {
        // SAFETY: `step::<B>` takes a pointer to a `B`; `body` lives until `bpf_loop` returns, and
        // nothing else touches it until then.
        unsafe {
            bpf_loop(count, step::<B> as *mut c_void, (&raw mut body).cast(), 0);
        }
    }
}

/// One turn of [`Maps::repeat`]. It returns 1 to end the loop.
unsafe extern "C" fn step<B: FnMut(u32) -> bool>(index: u32, body: *mut c_void) -> i64 {
    // SAFETY: `repeat` passes a pointer to its `B`, which nothing else touches during the loop.
    let body = unsafe { &mut *body.cast::<B>() };
    if body(index) { 0 } else { 1 }
}
