//! The director's programs in this kernel, with the same tables as a host's, one frame at a time.
//!
//! Nothing is attached or pinned. The kernel's clock is shifted away, so that it stays at 0: time
//! passes by making everything in the tables older.

#![allow(dead_code)] // Each of the two test programs uses its part.

use std::error::Error;
use std::fs;
use std::os::fd::{AsFd, AsRawFd};
use std::ptr;
use std::slice;
use std::sync::atomic::{AtomicU64, Ordering};

use aya::maps::lpm_trie::{Key, LpmTrie};
use aya::maps::xdp::DevMapHash;
use aya::maps::{Array, HashMap, Map, MapData, PerCpuArray, PerCpuValues, ProgramArray, RingBuf};
use aya::programs::{Program, ProgramFd, SchedClassifier, TestRun, TestRunOptions, Xdp};
use aya::{Ebpf, EbpfLoader, Pod};
use nix::sched::{CloneFlags, CpuSet, sched_setaffinity, unshare};
use nix::unistd::{Pid, geteuid};
use shunt_datapath::entry::{
    Locality, LocalityKey, OriginKey, PeerKey, Service, Settings, Traffic, Ways, locality,
};
use shunt_datapath::host::{CALLS, Hook, HostTables, Sizes};
use shunt_datapath::table::call::{Call, CallKey};
use shunt_datapath::table::device::Device;
use shunt_datapath::table::fragment::{FragmentKey, FragmentValue};
use shunt_datapath::translation::{LOCALS, Local, Translation, Tuple};
use shunt_datapath::verdict::{COUNTERS, NAMES, Verdict};
use shunt_ebpf::{LATER, REST};

type Fallible<T> = Result<T, Box<dyn Error>>;

/// An entry as the kernel has it.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
struct Plain<T>(T);
// SAFETY: all of these are `repr(C)`, of integers, without padding that is not spelled out, but for
// the last four bytes of `Ways`, which nobody reads.
unsafe impl Pod for Plain<Ways> {}
unsafe impl Pod for Plain<FragmentKey> {}
unsafe impl Pod for Plain<FragmentValue> {}
unsafe impl Pod for Plain<LocalityKey> {}
unsafe impl Pod for Plain<Locality> {}
unsafe impl Pod for Plain<Traffic> {}
unsafe impl Pod for Plain<PeerKey> {}
unsafe impl Pod for Plain<Tuple> {}
unsafe impl Pod for Plain<Translation> {}
unsafe impl Pod for Plain<CallKey> {}
unsafe impl Pod for Plain<Call> {}
unsafe impl Pod for Plain<Device> {}

/// Why there can be no kernel test here, if there cannot.
pub(crate) fn missing() -> Option<&'static str> {
    (!geteuid().is_root()).then_some("loading eBPF programs needs root")
}

/// Brings this thread to one CPU and into a network of its own, without routes or neighbours.
pub(crate) fn alone() -> Fallible<()> {
    let mut cpus = CpuSet::new();
    cpus.set(0)?;
    sched_setaffinity(Pid::from_raw(0), &cpus)?;
    unshare(CloneFlags::CLONE_NEWNET)?;
    Ok(())
}

/// An array map, as memory.
struct Mapping {
    start: *mut u8,
    length: usize,
}

impl Mapping {
    fn new(ebpf: &Ebpf, name: &str, length: usize) -> Fallible<Self> {
        let Some(Map::Array(data)) = ebpf.map(name) else {
            return Err(format!("no array map {name}").into());
        };
        let fd = data.fd().as_fd().as_raw_fd();
        let access = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a new mapping of the whole map; the kernel refuses what is longer.
        let start = unsafe { libc::mmap(ptr::null_mut(), length, access, libc::MAP_SHARED, fd, 0) };
        if start == libc::MAP_FAILED {
            return Err(format!("{name}: {}", std::io::Error::last_os_error()).into());
        }
        let start = start.cast();
        Ok(Self { start, length })
    }

    fn write<T: Copy>(&mut self, entries: &[T]) {
        let bytes = size_of_val(entries);
        assert!(bytes <= self.length);
        // SAFETY: plain data into a mapping that is as long; no program runs meanwhile.
        unsafe { ptr::copy_nonoverlapping(entries.as_ptr().cast(), self.start, bytes) };
    }

    fn write_words(&mut self, words: &[AtomicU64]) {
        self.write(&plain(words));
    }

    fn words(&self) -> &[u64] {
        // SAFETY: the mapping is that long, and no program runs while it is looked at.
        unsafe { slice::from_raw_parts(self.start.cast(), self.length / 8) }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: ours, and nobody keeps a part of it.
        unsafe { libc::munmap(self.start.cast(), self.length) };
    }
}

fn plain(words: &[AtomicU64]) -> Vec<u64> {
    words
        .iter()
        .map(|word| word.load(Ordering::SeqCst))
        .collect()
}

/// The first program of each hook, and the map of those that it goes on with.
const HOOKS: [(&str, &str); 2] = [
    ("director_xdp", "PROGRAMS_XDP"),
    ("director_tc", "PROGRAMS_TC"),
];

/// Interfaces that a case may send by, and the one that there is.
const INTERFACES: u32 = 64;
const LOOPBACK: u32 = 1;

/// Array maps, with how long an entry is and how many there are.
fn arrays(sizes: &Sizes) -> [(&'static str, usize, usize); 17] {
    [
        ("ENDPOINTS4", 64, sizes.endpoints),
        ("ENDPOINTS6", 64, sizes.endpoints),
        ("SERVICES", size_of::<Service>(), sizes.services),
        ("WIDE_SERVICES", 8, 64),
        ("SERVERS", 128, sizes.servers),
        ("POOLS", 8, sizes.pool_words),
        ("COUNTS", 8, sizes.servers),
        ("STANDINGS", 32, sizes.servers),
        ("FLOWS4", 64, sizes.flows),
        ("FLOWS6", 64, sizes.flows),
        ("OCCUPIED4", 8, sizes.flows.div_ceil(64)),
        ("OCCUPIED6", 8, sizes.flows.div_ceil(64)),
        ("OCCUPIED", 8, 2),
        ("HOPS_TO_CLIENTS", 24, 1024),
        ("SETTINGS", size_of::<Settings>(), 1),
        ("LOCALS", size_of::<Local>(), 2 * LOCALS as usize),
        ("ANSWERERS", 8, sizes.servers),
    ]
}

fn load(ebpf: &mut Ebpf, name: &str) -> Fallible<ProgramFd> {
    let program = ebpf.program_mut(name).ok_or("no program")?;
    match program {
        Program::Xdp(program) => program.load()?,
        Program::SchedClassifier(program) => program.load()?,
        _ => return Err("another kind of program".into()),
    }
    Ok(program.fd()?.try_clone()?)
}

pub(crate) struct Kernel {
    ebpf: Ebpf,
    mappings: Vec<(&'static str, Mapping)>,
}

impl Kernel {
    /// Loads the director with tables of these sizes and this seed.
    pub(crate) fn load(sizes: Sizes, seed: u64) -> Fallible<Self> {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../ebpf/object/director.o");
        let object = fs::read(path)?;
        let mask = |count: usize| count as u32 - 1;
        let (endpoints, flows, shift) = (mask(sizes.endpoints), mask(sizes.flows), 63u32);
        let mut loader = EbpfLoader::new();
        loader
            .override_global("ENDPOINT4_MASK", &endpoints, true)
            .override_global("ENDPOINT6_MASK", &endpoints, true)
            .override_global("FLOW4_MASK", &flows, true)
            .override_global("FLOW6_MASK", &flows, true)
            .override_global("SEED", &seed, true)
            .override_global("TICK_SHIFT", &shift, true)
            .map_max_entries("TRAFFIC", sizes.servers as u32)
            .map_max_entries("CALLS", CALLS as u32)
            .map_max_entries("TRANSLATIONS", sizes.translations as u32);
        for (name, _, entries) in arrays(&sizes) {
            loader.map_max_entries(name, entries as u32);
        }
        let mut ebpf = loader.load(&object)?;
        for (name, programs) in HOOKS {
            load(&mut ebpf, name)?;
            for (later, place) in LATER {
                let later = load(&mut ebpf, &format!("{name}_{later}"))?;
                let map = ebpf.map_mut(programs).ok_or("no map")?;
                ProgramArray::try_from(map)?.set(place, &later, 0)?;
            }
        }
        // To the driver every interface of the cases is one: nothing is sent by a test run.
        let mut ports = DevMapHash::try_from(ebpf.map_mut("PORTS").ok_or("no map")?)?;
        for interface in 1..=INTERFACES {
            ports.insert(interface, LOOPBACK, None, 0)?;
        }
        let mut mappings = Vec::new();
        for (name, bytes, entries) in arrays(&sizes) {
            mappings.push((name, Mapping::new(&ebpf, name, bytes * entries)?));
        }
        Ok(Self { ebpf, mappings })
    }

    /// Takes away the programs for the rest of the frames.
    pub(crate) fn forget_rest(&mut self) -> Fallible<()> {
        for (_, programs) in HOOKS {
            ProgramArray::try_from(self.map(programs)?)?.clear_index(&REST)?;
        }
        Ok(())
    }

    /// How often an outcome was had.
    pub(crate) fn count(&mut self, name: &str) -> Fallible<u64> {
        let at = NAMES.iter().position(|(_, known)| *known == name);
        let at = at.ok_or_else(|| format!("no counter {name}"))? as u32;
        let counters = PerCpuArray::<_, u64>::try_from(self.map("COUNTERS_OF_OUTCOMES")?)?;
        Ok(counters.get(&at, 0)?.iter().sum())
    }

    fn mapping(&mut self, name: &str) -> &mut Mapping {
        let found = self.mappings.iter_mut().find(|(other, _)| *other == name);
        &mut found.expect("a name from the list").1
    }

    fn map(&mut self, name: &str) -> Fallible<&mut Map> {
        Ok(self
            .ebpf
            .map_mut(name)
            .ok_or_else(|| format!("no map {name}"))?)
    }

    /// Puts the same into the kernel's tables, and counts from 0.
    pub(crate) fn reset(&mut self, tables: &HostTables) -> Fallible<()> {
        self.upload(tables)?;
        let cpus = aya::util::nr_cpus().map_err(|(_, error)| error)?;
        let mut counters = PerCpuArray::<_, u64>::try_from(self.map("COUNTERS_OF_OUTCOMES")?)?;
        for at in 0..COUNTERS {
            counters.set(at, PerCpuValues::try_from(vec![0; cpus])?, 0)?;
        }
        let mut traffic = PerCpuArray::<_, Plain<Traffic>>::try_from(self.map("TRAFFIC")?)?;
        for at in 0..traffic.len() {
            traffic.set(at, PerCpuValues::try_from(vec![Plain::default(); cpus])?, 0)?;
        }
        Ok(())
    }

    /// Puts the same into the kernel's tables; what was counted stays.
    pub(crate) fn upload(&mut self, tables: &HostTables) -> Fallible<()> {
        self.mapping("ENDPOINTS4").write(&tables.endpoints4);
        self.mapping("ENDPOINTS6").write(&tables.endpoints6);
        self.mapping("SERVICES").write(&tables.services);
        let wide: Vec<u64> = tables.wide_services.iter().map(|id| (*id).into()).collect();
        self.mapping("WIDE_SERVICES").write(&wide);
        self.mapping("SERVERS").write(&tables.servers);
        self.mapping("HOPS_TO_CLIENTS").write(&tables.hops);
        self.mapping("SETTINGS").write(&[tables.settings]);
        self.mapping("LOCALS").write(&tables.locals);
        self.mapping("POOLS").write_words(&tables.pools);
        self.mapping("COUNTS").write_words(&tables.counts);
        self.mapping("STANDINGS").write_words(&tables.standings);
        self.mapping("FLOWS4").write_words(&tables.flows4);
        self.mapping("FLOWS6").write_words(&tables.flows6);
        self.mapping("OCCUPIED4").write_words(&tables.occupied4);
        self.mapping("OCCUPIED6").write_words(&tables.occupied6);
        self.mapping("OCCUPIED").write_words(&tables.occupied);
        let cpus = aya::util::nr_cpus().map_err(|(_, error)| error)?;
        let spent = tables.allowance[0].load(Ordering::SeqCst);
        let mut allowance = PerCpuArray::<_, u64>::try_from(self.map("ALLOWANCE")?)?;
        allowance.set(0, PerCpuValues::try_from(vec![spent; cpus])?, 0)?;

        let mut targets = self.targets()?;
        for key in targets.keys().collect::<Result<Vec<_>, _>>()? {
            targets.remove(&key)?;
        }
        for (place, key) in tables.targets.lock().unwrap().iter().enumerate() {
            let words = &tables.localities[place * locality::WORDS..];
            let mut known = Locality::default();
            for (word, host) in known.words.iter_mut().zip(words) {
                *word = host.load(Ordering::SeqCst);
            }
            targets.insert(Plain(*key), Plain(known), 0)?;
        }
        let peers = self.map("PEERS")?;
        let mut peers = HashMap::<_, Plain<PeerKey>, [u64; 2]>::try_from(peers)?;
        for key in peers.keys().collect::<Result<Vec<_>, _>>()? {
            peers.remove(&key)?;
        }
        for (key, address) in &tables.peers {
            peers.insert(Plain(*key), address, 0)?;
        }
        let mut learned = self.learned()?;
        for key in learned.keys().collect::<Result<Vec<_>, _>>()? {
            learned.remove(&key)?;
        }
        for (key, ways) in tables.learned.lock().unwrap().iter() {
            learned.insert(key, Plain(*ways), 0)?;
        }
        let mut fragments = self.fragments()?;
        for key in fragments.keys().collect::<Result<Vec<_>, _>>()? {
            fragments.remove(&key)?;
        }
        for (key, value) in tables.fragments.lock().unwrap().iter() {
            fragments.insert(Plain(*key), Plain(*value), 0)?;
        }
        let mut translations = self.translations()?;
        for key in translations.keys().collect::<Result<Vec<_>, _>>()? {
            translations.remove(&key)?;
        }
        for (tuple, translation) in tables.all_translations() {
            translations.insert(Plain(tuple), Plain(translation), 0)?;
        }
        let mut calls = self.calls()?;
        for key in calls.keys().collect::<Result<Vec<_>, _>>()? {
            calls.remove(&key)?;
        }
        for (key, call) in tables.calls.all() {
            calls.insert(Plain(key), Plain(call), 0)?;
        }
        let answerers = tables.calls.answerers.iter();
        let answerers: Vec<u64> = answerers.map(|id| (*id).into()).collect();
        self.mapping("ANSWERERS").write(&answerers);
        self.upload_devices(tables)?;
        self.upload_origins(tables)?;
        self.upload_routes(tables)
    }

    fn upload_devices(&mut self, tables: &HostTables) -> Fallible<()> {
        let mut devices = Array::<_, Plain<Device>>::try_from(self.map("DEVICES")?)?;
        for (at, device) in (0..).zip(&tables.devices) {
            // The cases have few interfaces, with low numbers.
            if at <= INTERFACES {
                devices.set(at, Plain(*device), 0)?;
            }
        }
        Ok(())
    }

    fn upload_origins(&mut self, tables: &HostTables) -> Fallible<()> {
        let map = self.map("ORIGINS")?;
        let mut origins = LpmTrie::<_, [u8; OriginKey::BYTES], u32>::try_from(map)?;
        for key in origins.keys().collect::<Result<Vec<_>, _>>()? {
            origins.remove(&key)?;
        }
        for (key, length, id) in &tables.origins {
            let key = Key::new(OriginKey::FIXED + length, key.bytes());
            origins.insert(&key, id, 0)?;
        }
        Ok(())
    }

    fn upload_routes(&mut self, tables: &HostTables) -> Fallible<()> {
        let mut routes = LpmTrie::<_, [u8; 4], u32>::try_from(self.map("ROUTES4")?)?;
        for key in routes.keys().collect::<Result<Vec<_>, _>>()? {
            routes.remove(&key)?;
        }
        for (address, prefix, hop) in &tables.routes4 {
            let key = Key::new(u32::from(*prefix), address.to_ne_bytes());
            routes.insert(&key, hop, 0)?;
        }
        let mut routes = LpmTrie::<_, [u8; 16], u32>::try_from(self.map("ROUTES6")?)?;
        for key in routes.keys().collect::<Result<Vec<_>, _>>()? {
            routes.remove(&key)?;
        }
        for ([a, b], prefix, hop) in &tables.routes6 {
            let mut address = [0; 16];
            address[..8].copy_from_slice(&a.to_ne_bytes());
            address[8..].copy_from_slice(&b.to_ne_bytes());
            routes.insert(&Key::new(u32::from(*prefix), address), hop, 0)?;
        }
        Ok(())
    }

    fn targets(&mut self) -> Fallible<HashMap<&mut MapData, Plain<LocalityKey>, Plain<Locality>>> {
        Ok(HashMap::try_from(self.map("LOCALITIES")?)?)
    }

    fn learned(&mut self) -> Fallible<HashMap<&mut MapData, [u64; 2], Plain<Ways>>> {
        Ok(HashMap::try_from(self.map("LEARNED")?)?)
    }

    fn fragments(
        &mut self,
    ) -> Fallible<HashMap<&mut MapData, Plain<FragmentKey>, Plain<FragmentValue>>> {
        Ok(HashMap::try_from(self.map("FRAGMENTS")?)?)
    }

    fn translations(
        &mut self,
    ) -> Fallible<HashMap<&mut MapData, Plain<Tuple>, Plain<Translation>>> {
        Ok(HashMap::try_from(self.map("TRANSLATIONS")?)?)
    }

    fn calls(&mut self) -> Fallible<HashMap<&mut MapData, Plain<CallKey>, Plain<Call>>> {
        Ok(HashMap::try_from(self.map("CALLS")?)?)
    }

    /// Runs a program over a frame: the hook's action, and the frame as it is then. `None` if the
    /// kernel has no such frame.
    pub(crate) fn run(
        &mut self,
        hook: Hook,
        frame: &[u8],
        segment: usize,
    ) -> Fallible<Option<(u32, Vec<u8>)>> {
        // A test run makes no socket buffer without a whole network header.
        let least = match (hook, frame.get(12..14)) {
            (Hook::Xdp, _) => 14,
            (Hook::Tc, Some([0x08, 0x00])) => 14 + 20,
            (Hook::Tc, Some([0x86, 0xdd])) => 14 + 40,
            (Hook::Tc, _) => 15,
        };
        if frame.len() < least || frame.len() > 3500 {
            return Ok(None);
        }
        let mut out = vec![0; 4096];
        let mut options = TestRunOptions::new();
        options.data_in = Some(frame);
        options.data_out = Some(&mut out);
        // `struct __sk_buff`: ingress_ifindex and gso_size.
        let mut context = [0u8; 192];
        context[36..40].copy_from_slice(&1u32.to_ne_bytes());
        context[176..180].copy_from_slice(&(segment as u32).to_ne_bytes());
        let result = match hook {
            Hook::Xdp => {
                let program: &Xdp = self
                    .ebpf
                    .program("director_xdp")
                    .ok_or("no program")?
                    .try_into()?;
                program.test_run(options)?
            }
            Hook::Tc => {
                options.ctx_in = Some(&context);
                let program: &SchedClassifier = self
                    .ebpf
                    .program("director_tc")
                    .ok_or("no program")?
                    .try_into()?;
                program.test_run(options)?
            }
        };
        out.truncate(result.data_size_out as usize);
        Ok(Some((result.return_value, out)))
    }

    /// The frame that was set aside last: interface, bytes.
    pub(crate) fn held(&mut self) -> Fallible<Option<(u32, Vec<u8>)>> {
        let mut ring = RingBuf::try_from(self.map("HELD")?)?;
        let Some(record) = ring.next() else {
            return Ok(None);
        };
        let word = |at: usize| u32::from_ne_bytes(record[at..at + 4].try_into().expect("four"));
        let length = word(4) as usize;
        Ok(Some((word(0), record[16..16 + length].to_vec())))
    }

    /// Where the tables that packets write differ: those that are memory.
    pub(crate) fn difference(&mut self, tables: &HostTables) -> Option<String> {
        for (name, words) in [
            ("FLOWS4", &tables.flows4),
            ("FLOWS6", &tables.flows6),
            ("OCCUPIED4", &tables.occupied4),
            ("OCCUPIED6", &tables.occupied6),
            ("OCCUPIED", &tables.occupied),
            ("COUNTS", &tables.counts),
            ("STANDINGS", &tables.standings),
            ("POOLS", &tables.pools),
        ] {
            // SAFETY: atomics lie in memory as their words do, and no other thread has them.
            let host = unsafe { slice::from_raw_parts(words.as_ptr().cast::<u64>(), words.len()) };
            let kernel = self.mapping(name).words();
            if kernel != host {
                let at = (0..host.len()).find(|at| host[*at] != kernel[*at])?;
                let (host, there) = (host[at], kernel[at]);
                return Some(format!("{name}[{at}]: host {host:#x}, kernel {there:#x}"));
            }
        }
        None
    }

    /// Where anything else differs: counters, traffic, what is learned and remembered.
    pub(crate) fn deep_difference(&mut self, tables: &HostTables) -> Fallible<Option<String>> {
        let counters = PerCpuArray::<_, u64>::try_from(self.map("COUNTERS_OF_OUTCOMES")?)?;
        for at in 0..COUNTERS {
            let kernel: u64 = counters.get(&at, 0)?.iter().sum();
            let host = tables.counters[at as usize].load(Ordering::SeqCst);
            if kernel != host {
                let name = NAMES[at as usize].1;
                return Ok(Some(format!(
                    "counter {name}: host {host}, kernel {kernel}"
                )));
            }
        }
        let traffic = PerCpuArray::<_, Plain<Traffic>>::try_from(self.map("TRAFFIC")?)?;
        for at in 0..tables.traffic.servers() {
            let host = tables.traffic.of(at);
            let mut kernel = Traffic::default();
            for Plain(part) in traffic.get(&(at as u32), 0)?.iter() {
                kernel.connections += part.connections;
                kernel.in_packets += part.in_packets;
                kernel.out_packets += part.out_packets;
                kernel.in_bytes += part.in_bytes;
                kernel.out_bytes += part.out_bytes;
            }
            if kernel != host {
                return Ok(Some(format!(
                    "traffic {at}: host {host:?}, kernel {kernel:?}"
                )));
            }
        }
        let kernel = self.learned()?.iter().collect::<Result<Vec<_>, _>>()?;
        let host = tables.learned.lock().unwrap();
        if kernel.len() != host.len()
            || kernel
                .iter()
                .any(|(key, ways)| host.get(key) != Some(&ways.0))
        {
            return Ok(Some(format!("learned: host {host:?}, kernel {kernel:?}")));
        }
        let kernel = self.fragments()?.iter().collect::<Result<Vec<_>, _>>()?;
        let host = tables.fragments.lock().unwrap();
        if kernel.len() != host.len()
            || kernel
                .iter()
                .any(|(key, value)| host.get(&key.0) != Some(&value.0))
        {
            return Ok(Some(format!("fragments: host {host:?}, kernel {kernel:?}")));
        }
        let kernel = self.translations()?.iter().collect::<Result<Vec<_>, _>>()?;
        let mut kernel: Vec<_> = kernel
            .into_iter()
            .map(|(key, value)| (key.0, value.0))
            .collect();
        let mut host = tables.all_translations();
        kernel.sort_by_key(|(tuple, _)| *tuple);
        host.sort_by_key(|(tuple, _)| *tuple);
        if kernel != host {
            return Ok(Some(format!(
                "translations: host {host:?}, kernel {kernel:?}"
            )));
        }
        let kernel = self.calls()?.iter().collect::<Result<Vec<_>, _>>()?;
        let mut kernel: Vec<_> = kernel
            .into_iter()
            .map(|(key, value)| (key.0, value.0))
            .collect();
        let mut host = tables.calls.all();
        kernel.sort_by_key(|(key, _)| *key);
        host.sort_by_key(|(key, _)| *key);
        if kernel != host {
            return Ok(Some(format!("calls: host {host:?}, kernel {kernel:?}")));
        }
        Ok(None)
    }
}

/// The hook's action for a verdict, for a frame of interface 1.
pub(crate) fn action(hook: Hook, verdict: Verdict) -> u32 {
    match (hook, verdict) {
        (Hook::Xdp, Verdict::Pass(_)) => 2,
        (Hook::Xdp, Verdict::Bounce(_) | Verdict::Send(1)) => 3,
        (Hook::Xdp, Verdict::Send(_)) => 4,
        (Hook::Xdp, _) => 1,
        (Hook::Tc, Verdict::Pass(_)) => u32::MAX,
        (Hook::Tc, Verdict::Bounce(_) | Verdict::Send(_)) => 7,
        (Hook::Tc, _) => 2,
    }
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
