//! The tables in plain memory, safe to use from many threads like the kernel's.

use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::vec;
use std::vec::Vec;

use crate::connection::{TICK_MASK, TIMEOUTS_S};
use crate::table::device::{DEVICES, Device};
use crate::table::entry::{
    Bucket4, Bucket6, HOPS, Hop, LocalityKey, OriginKey, PeerKey, Server, Service, Settings,
    Traffic, WIDES, Ways, locality, standing,
};
use crate::table::fragment::{FragmentKey, FragmentValue};
use crate::table::region;
use crate::table::translation::{LOCALS, Local, Translation, Tuple, place, word};
use crate::table::{Shape, Tables, entered};
use crate::verdict::COUNTERS;

use super::words::word_at;
use super::{Calls, HostWords, Tally, origins};

/// The sizes of the tables.
#[derive(Clone, Copy, Debug)]
pub struct Sizes {
    /// The number of buckets of each table of endpoints, and of flows: powers of two.
    pub endpoints: usize,
    /// Buckets of each table of flows.
    pub flows: usize,
    /// Services.
    pub services: usize,
    /// Servers.
    pub servers: usize,
    /// Words of all pools.
    pub pool_words: usize,
    /// Translations.
    pub translations: usize,
}

impl Default for Sizes {
    fn default() -> Self {
        Self {
            endpoints: 64,
            flows: 64,
            services: 64,
            servers: 64,
            pool_words: 4096,
            translations: 32,
        }
    }
}

/// All tables. The fields are public, so that a test can read and write anything.
#[derive(Debug)]
pub struct HostTables {
    /// Sizes and seed.
    pub shape: Shape,
    /// The director's settings.
    pub settings: Settings,
    /// The present tick.
    pub clock: AtomicU32,
    /// Endpoints of IPv4.
    pub endpoints4: Vec<Bucket4>,
    /// Endpoints of IPv6.
    pub endpoints6: Vec<Bucket6>,
    /// Services by their ids.
    pub services: Vec<Service>,
    /// The service of each endpoint of every port.
    pub wide_services: Vec<u32>,
    /// Endpoints that also match the source: key, prefix length of the source, id.
    pub origins: Vec<(OriginKey, u32, u32)>,
    /// Servers by their ids.
    pub servers: Vec<Server>,
    /// The words of all pools.
    pub pools: Vec<AtomicU64>,
    /// The live counts of each server.
    pub counts: Vec<AtomicU64>,
    /// [`standing::WORDS`] words per server.
    pub standings: Vec<AtomicU64>,
    /// [`locality::WORDS`] words per target, in the order of `targets`.
    pub localities: Vec<AtomicU64>,
    /// The targets that lblc and lblcr remember.
    pub targets: Mutex<Vec<LocalityKey>>,
    /// The address of each peer.
    pub peers: HashMap<PeerKey, [u64; 2]>,
    /// The state of [`Tables::random`].
    pub dice: AtomicU64,
    /// Eight words per bucket.
    pub flows4: Vec<AtomicU64>,
    /// Eight words per bucket.
    pub flows6: Vec<AtomicU64>,
    /// [`crate::table::region`].
    pub occupied4: Vec<AtomicU64>,
    /// [`crate::table::region`].
    pub occupied6: Vec<AtomicU64>,
    /// The words of [`crate::table::region::table`].
    pub occupied: Vec<AtomicU64>,
    /// Hops by their ids.
    pub hops: Vec<Hop>,
    /// Address, prefix length, hop.
    pub routes4: Vec<(u32, u8, u32)>,
    /// Address, prefix length, hop.
    pub routes6: Vec<([u64; 2], u8, u32)>,
    /// Next hops that were learned, by the client's address.
    pub learned: Mutex<HashMap<[u64; 2], Ways>>,
    /// Datagrams whose first fragment is known.
    pub fragments: Mutex<HashMap<FragmentKey, FragmentValue>>,
    /// The traffic of each server.
    pub traffic: Tally,
    /// Counters of outcomes and notes.
    pub counters: Vec<AtomicU64>,
    /// The word for the limit of ICMP errors.
    pub allowance: [AtomicU64; 1],
    /// The index of each tuple's translation, of [`word::WORDS`] words each.
    pub translated: Mutex<HashMap<Tuple, usize>>,
    /// The words of all translations.
    pub translations: Vec<AtomicU64>,
    /// Local addresses by their places.
    pub locals: Vec<Local>,
    /// The table of calls.
    pub calls: Calls,
    /// Devices by their places.
    pub devices: Vec<Device>,
    /// The next free id or word of each: services, servers, endpoints of NAT, pools.
    pub(super) next: [u32; 4],
}

/// The limit of targets (lblc, lblcr); one more replaces the first.
const TARGETS: usize = 32;

fn zeros(count: usize) -> Vec<AtomicU64> {
    (0..count).map(|_| AtomicU64::new(0)).collect()
}

impl HostTables {
    /// Empty tables of these sizes.
    #[must_use]
    pub fn new(sizes: Sizes) -> Self {
        let mask = |count: usize| count as u32 - 1;
        Self {
            shape: Shape {
                endpoint4_mask: mask(sizes.endpoints),
                endpoint6_mask: mask(sizes.endpoints),
                flow4_mask: mask(sizes.flows),
                flow6_mask: mask(sizes.flows),
                seed: 0x5eed,
            },
            settings: Settings {
                timeouts: TIMEOUTS_S,
                switches: 0,
                masquerades: 0,
                icmp_limit: 1000,
                wide: 0,
                drop_rate: 0,
                reserved: 0,
            },
            clock: AtomicU32::new(0),
            endpoints4: vec![Bucket4::default(); sizes.endpoints],
            endpoints6: vec![Bucket6::default(); sizes.endpoints],
            services: vec![Service::default(); sizes.services],
            wide_services: vec![0; WIDES as usize],
            origins: Vec::new(),
            servers: vec![Server::default(); sizes.servers],
            pools: zeros(sizes.pool_words),
            counts: zeros(sizes.servers),
            standings: zeros(sizes.servers * standing::WORDS),
            localities: zeros(TARGETS * locality::WORDS),
            targets: Mutex::default(),
            peers: HashMap::new(),
            dice: AtomicU64::new(0x5eed),
            flows4: zeros(sizes.flows * 8),
            flows6: zeros(sizes.flows * 8),
            occupied4: zeros(region::count(mask(sizes.flows)) as usize),
            occupied6: zeros(region::count(mask(sizes.flows)) as usize),
            occupied: zeros(region::table::COUNT),
            hops: vec![Hop::default(); HOPS as usize],
            routes4: Vec::new(),
            routes6: Vec::new(),
            learned: Mutex::default(),
            fragments: Mutex::default(),
            traffic: Tally::new(sizes.servers),
            counters: zeros(COUNTERS as usize),
            allowance: [AtomicU64::new(0)],
            translated: Mutex::default(),
            translations: zeros(sizes.translations * word::WORDS),
            locals: vec![Local::default(); 2 * LOCALS as usize],
            calls: Calls::new(sizes.servers),
            devices: vec![Device::default(); DEVICES as usize],
            next: [1, 1, 1, 0],
        }
    }
}

impl<'a> Tables for &'a HostTables {
    type Words = HostWords<'a>;

    fn shape(&self) -> Shape {
        self.shape
    }

    fn settings(&self) -> Option<&Settings> {
        Some(&self.settings)
    }

    fn now(&self) -> u32 {
        self.clock.load(Ordering::SeqCst) & TICK_MASK
    }

    fn endpoint4(&self, bucket: u32) -> Option<&Bucket4> {
        self.endpoints4.get(bucket as usize)
    }

    fn endpoint6(&self, bucket: u32) -> Option<&Bucket6> {
        self.endpoints6.get(bucket as usize)
    }

    fn device(&self, place: u32) -> Option<&Device> {
        self.devices.get(place as usize)
    }

    fn service(&self, id: u32) -> Option<&Service> {
        self.services.get(id as usize)
    }

    fn server(&self, id: u32) -> Option<&Server> {
        self.servers.get(id as usize)
    }

    fn pool(&self, at: u32) -> Option<HostWords<'a>> {
        word_at(&self.pools, at)
    }

    fn counts(&self, server: u32) -> Option<HostWords<'a>> {
        word_at(&self.counts, server)
    }

    fn standing(&self, server: u32) -> Option<HostWords<'a>> {
        word_at(&self.standings, server * standing::WORDS as u32)
    }

    fn peer(&self, key: &PeerKey) -> Option<[u64; 2]> {
        self.peers.get(key).copied()
    }

    fn locality(&self, key: &LocalityKey) -> Option<HostWords<'a>> {
        let targets = self.targets.lock().expect("no panic in here");
        let at = targets.iter().position(|other| other == key)?;
        word_at(&self.localities, (at * locality::WORDS) as u32)
    }

    fn add_locality(&self, key: &LocalityKey) {
        let mut targets = self.targets.lock().expect("no panic in here");
        if targets.len() < TARGETS {
            targets.push(*key);
        } else {
            targets[0] = *key;
            self.localities[locality::COUNT].store(0, Ordering::SeqCst);
        }
    }

    /// SplitMix64 (Steele, Lea, Flood, 2014): the same numbers in each run.
    fn random(&self) -> u32 {
        const STEP: u64 = 0x9e37_79b9_7f4a_7c15;
        let z = self
            .dice
            .fetch_add(STEP, Ordering::SeqCst)
            .wrapping_add(STEP);
        let z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ z >> 31) >> 32) as u32
    }

    fn flows4(&self, bucket: u32) -> Option<HostWords<'a>> {
        word_at(&self.flows4, bucket * 8)
    }

    fn flows6(&self, bucket: u32) -> Option<HostWords<'a>> {
        word_at(&self.flows6, bucket * 8)
    }

    fn occupied4(&self, region: u32) -> Option<HostWords<'a>> {
        word_at(&self.occupied4, region)
    }

    fn occupied6(&self, region: u32) -> Option<HostWords<'a>> {
        word_at(&self.occupied6, region)
    }

    fn desk(&self) -> Option<HostWords<'a>> {
        Some(HostWords(&self.calls.desk))
    }

    fn call(&self) -> Option<HostWords<'a>> {
        self.calls.find()
    }

    fn enter_call(&self, value: u64) {
        region::mark(word_at(&self.occupied, region::table::CALLS));
        self.calls.enter(value);
    }

    fn answerer(&self, endpoint: u32) -> u32 {
        let answerers = &self.calls.answerers;
        answerers.get(endpoint as usize).copied().unwrap_or(0)
    }

    fn wide_service(&self, number: u32) -> u32 {
        self.wide_services
            .get(number as usize)
            .copied()
            .unwrap_or(0)
    }

    fn origin(&self, key: &OriginKey) -> u32 {
        origins::longest(&self.origins, key)
    }

    fn hop(&self, id: u32) -> Option<&Hop> {
        self.hops.get(id as usize)
    }

    fn route4(&self, address: u32) -> u32 {
        let address = u32::from_be(address);
        let fits = |route: &&(u32, u8, u32)| {
            let other = u32::from_be(route.0);
            route.1 == 0 || (address ^ other) >> (32 - u32::from(route.1)) == 0
        };
        let best = self.routes4.iter().filter(fits).max_by_key(|route| route.1);
        best.map_or(0, |route| route.2)
    }

    fn route6(&self, address: [u64; 2]) -> u32 {
        let number =
            |[a, b]: [u64; 2]| u128::from(u64::from_be(a)) << 64 | u128::from(u64::from_be(b));
        let fits = |route: &&([u64; 2], u8, u32)| {
            let differ = number(address) ^ number(route.0);
            route.1 == 0 || differ >> (128 - u32::from(route.1)) == 0
        };
        let best = self.routes6.iter().filter(fits).max_by_key(|route| route.1);
        best.map_or(0, |route| route.2)
    }

    fn learn(&self, client: [u64; 2], ways: Ways) {
        let mut learned = self.learned.lock().expect("no panic in here");
        learned.insert(client, ways);
    }

    fn learned(&self, client: [u64; 2]) -> Option<Ways> {
        let learned = self.learned.lock().expect("no panic in here");
        learned.get(&client).copied()
    }

    fn fragment(&self, key: &FragmentKey) -> Option<FragmentValue> {
        let fragments = self.fragments.lock().expect("no panic in here");
        fragments.get(key).copied()
    }

    fn remember_fragment(&self, key: &FragmentKey, value: FragmentValue) {
        let mut fragments = self.fragments.lock().expect("no panic in here");
        fragments.insert(*key, value);
    }

    fn translation(&self, tuple: &Tuple) -> Option<HostWords<'a>> {
        let translated = self.translated.lock().expect("no panic in here");
        let at = *translated.get(tuple)?;
        word_at(&self.translations, (at * word::WORDS) as u32)
    }

    fn translate(&self, tuple: &Tuple, translation: &Translation, anew: bool) -> u32 {
        region::mark(word_at(&self.occupied, region::table::TRANSLATIONS));
        let mut translated = self.translated.lock().expect("no panic in here");
        let before = translated.get(tuple).copied();
        if anew && before.is_some() {
            return entered::THERE;
        }
        let room = self.translations.len() / word::WORDS;
        let free = (0..room).find(|at| !translated.values().any(|used| used == at));
        let Some(at) = before.or(free) else {
            return entered::FULL;
        };
        translated.insert(*tuple, at);
        let to = &translation.to;
        let words = [
            to.source[0],
            to.source[1],
            to.target[0],
            to.target[1],
            to.ends,
            translation.names,
            translation.time,
        ];
        let all = words.into_iter().chain(translation.reserved);
        for (index, value) in all.enumerate() {
            self.translations[at * word::WORDS + index].store(value, Ordering::SeqCst);
        }
        entered::DONE
    }

    fn forget_translation(&self, tuple: &Tuple) {
        let mut translated = self.translated.lock().expect("no panic in here");
        translated.remove(tuple);
    }

    fn local(&self, v6: bool, number: u32) -> Option<&Local> {
        self.locals.get(place(v6, number) as usize)
    }

    #[inline(always)]
    fn traffic(&self, server: u32, count: impl FnOnce(&mut Traffic)) {
        self.traffic.add(server, count);
    }

    fn count(&self, counter: u32) {
        if let Some(value) = self.counters.get(counter as usize) {
            value.fetch_add(1, Ordering::SeqCst);
        }
    }

    fn blur(&self, value: usize) -> usize {
        value
    }

    fn allowance(&self) -> Option<HostWords<'a>> {
        Some(HostWords(&self.allowance))
    }

    fn repeat<B: FnMut(u32) -> bool>(&self, count: u32, mut body: B) {
        for index in 0..count {
            if !body(index) {
                break;
            }
        }
    }
}
