//! One service in plain memory: just enough of the tables to run the packet path's own `pick`.

use std::cell::{Cell, RefCell};

use shunt_datapath::entry::{
    Bucket4, Bucket6, Hop, LocalityKey, NONE, OriginKey, POOL_HEAD, PeerKey, PoolWord, Server,
    Service, Settings, Traffic, Ways, counts, locality, server_flag, service_flag, standing,
};
use shunt_datapath::flows::Words;
use shunt_datapath::schedule::{Client, overload, pick};
use shunt_datapath::table::device::Device;
use shunt_datapath::table::fragment::{FragmentKey, FragmentValue};
use shunt_datapath::table::{Shape, Tables, entered};
use shunt_datapath::translation::{Local, Translation, Tuple};
use shunt_model::SchedulerFlags;

use super::super::Compiled;
use super::Dice;

/// The pool does not start at word 0, so that a forgotten base is noticed.
const BASE: u32 = 5;
const SERVICE: u32 = 1;

pub(super) struct Memory {
    pool: Vec<Cell<u64>>,
    counts: Vec<Cell<u64>>,
    standings: Vec<Cell<u64>>,
    servers: Vec<Server>,
    localities: Vec<Cell<u64>>,
    targets: RefCell<Vec<LocalityKey>>,
    service: Service,
    pub(super) now: Cell<u32>,
    dice: RefCell<Dice>,
}

/// The number of targets that lblc and lblcr can cache.
const TARGETS: usize = 32;

fn zeros(count: usize) -> Vec<Cell<u64>> {
    vec![Cell::new(0); count]
}

impl Memory {
    /// Server ids are below `servers`.
    pub(super) fn new(servers: usize, flags: SchedulerFlags) -> Self {
        let port = if flags.port { service_flag::PORT } else { 0 };
        let fallback = if flags.fallback {
            service_flag::FALLBACK
        } else {
            0
        };
        let service = Service {
            flags: service_flag::PRESENT | port | fallback,
            ..Service::default()
        };
        Self {
            pool: Vec::new(),
            counts: zeros(servers),
            standings: zeros(servers * standing::WORDS),
            servers: vec![Server::default(); servers],
            localities: zeros(TARGETS * locality::WORDS),
            targets: RefCell::default(),
            service,
            now: Cell::new(0),
            dice: RefCell::new(Dice(7)),
        }
    }

    pub(super) fn switch(&mut self, compiled: &Compiled) {
        let gap = std::iter::repeat_n(u64::MAX, BASE as usize);
        self.pool = gap.chain(compiled.words()).map(Cell::new).collect();
        let length = u32::try_from(compiled.slots.len()).unwrap();
        self.service.pool = PoolWord::new(BASE, length, compiled.scheduler).0;
    }

    pub(super) fn cursor(&self) -> u64 {
        self.pool[BASE as usize].get()
    }

    /// The pool as a starting daemon would read it back.
    pub(super) fn read_back(&self) -> Compiled {
        let words = &self.pool[BASE as usize..];
        let (head, rest) = words.split_at(POOL_HEAD as usize);
        let word = PoolWord(self.service.pool);
        let listed = (word.first_listed() - BASE - POOL_HEAD) as usize;
        let (short, rest) = rest.split_at(listed);
        let (slots, lots) = rest.split_at(word.length() as usize);
        Compiled {
            scheduler: (word.0 >> 56) as u8,
            head: [head[0].get(), head[1].get()],
            short: short.iter().map(Cell::get).collect(),
            slots: slots.iter().map(Cell::get).collect(),
            lots: lots.iter().map(Cell::get).collect(),
        }
    }

    pub(super) fn pick(&self, address: u32, port: u16) -> u32 {
        self.pick_to(address, port, 0x0a00_0164)
    }

    pub(super) fn pick_to(&self, address: u32, port: u16, target: u32) -> u32 {
        let target = [u64::from(target.to_be()), 0];
        let client = Client {
            address,
            port,
            target,
        };
        pick(&View(self), SERVICE, client)
    }

    /// Writes words of the pool as the director does.
    pub(super) fn write(&self, from: u32, words: &[u64]) {
        for (place, word) in self.pool[(BASE + from) as usize..].iter().zip(words) {
            place.set(*word);
        }
    }

    /// Writes a server as the director does.
    pub(super) fn stand(&mut self, id: u32, weight: u32, (upper, lower): (u32, u32), anew: bool) {
        let words = &self.standings[id as usize * standing::WORDS..];
        words[standing::BOUNDS].set(standing::bounds(upper, lower));
        words[standing::WEIGHT].set(weight.into());
        if anew {
            words[standing::OVERLOADED].set(0);
        }
        let limited = if upper != 0 { server_flag::LIMITED } else { 0 };
        self.servers[id as usize] = Server {
            flags: server_flag::PRESENT | limited,
            service: SERVICE,
            ..Server::default()
        };
    }

    pub(super) fn absent(&mut self, id: u32) {
        self.servers[id as usize].flags &= !server_flag::PRESENT;
    }

    /// A connection begins, held or closed, and is counted as `open` does.
    pub(super) fn open(&self, id: u32, held: bool) {
        self.add(id, held.into(), (!held).into());
        if self.servers[id as usize].flags & server_flag::LIMITED != 0 {
            overload::opened(&View(self), id);
        }
    }

    pub(super) fn add(&self, server: u32, active: i64, inactive: i64) {
        let word = &self.counts[server as usize];
        let change = (active * counts::ACTIVE as i64).wrapping_add(inactive << 32);
        word.set(word.get().wrapping_add_signed(change));
    }

    /// ActiveConn and InActConn.
    pub(super) fn counts(&self, server: u32) -> (u32, u32) {
        let word = self.counts[server as usize].get();
        (counts::active(word), counts::inactive(word))
    }
}

#[derive(Clone, Copy)]
struct View<'a>(&'a Memory);

#[derive(Clone, Copy)]
struct Stretch<'a>(&'a [Cell<u64>]);

impl Words for Stretch<'_> {
    fn skip(self, count: usize) -> Self {
        Self(&self.0[count..])
    }

    fn pick<L: shunt_datapath::flows::Layout>(self, index: usize) -> Self {
        self.skip(index * L::STRIDE)
    }

    fn load(self, at: usize) -> u64 {
        self.0[at].get()
    }

    fn store(self, at: usize, value: u64) {
        self.0[at].set(value);
    }

    fn swap(self, at: usize, from: u64, to: u64) -> bool {
        let same = self.load(at) == from;
        if same {
            self.store(at, to);
        }
        same
    }

    fn add(self, at: usize, value: u64) -> u64 {
        let before = self.load(at);
        self.store(at, before.wrapping_add(value));
        before
    }
}

/// Only one word at a time can be reached, as in the kernel.
fn word(words: &[Cell<u64>], at: u32) -> Option<Stretch<'_>> {
    entry(words, at as usize, 1)
}

fn entry(words: &[Cell<u64>], index: usize, length: usize) -> Option<Stretch<'_>> {
    words.get(index * length..(index + 1) * length).map(Stretch)
}

impl<'a> Tables for View<'a> {
    type Words = Stretch<'a>;

    fn service(&self, id: u32) -> Option<&Service> {
        (id == SERVICE).then_some(&self.0.service)
    }

    fn pool(&self, at: u32) -> Option<Stretch<'a>> {
        word(&self.0.pool, at)
    }

    fn counts(&self, server: u32) -> Option<Stretch<'a>> {
        word(&self.0.counts, server)
    }

    fn desk(&self) -> Option<Stretch<'a>> {
        unreachable!()
    }

    fn call(&self) -> Option<Stretch<'a>> {
        unreachable!()
    }

    fn enter_call(&self, _value: u64) {
        unreachable!()
    }

    fn answerer(&self, _endpoint: u32) -> u32 {
        unreachable!()
    }

    fn wide_service(&self, _number: u32) -> u32 {
        unreachable!("no endpoint is looked up here")
    }

    fn origin(&self, _key: &OriginKey) -> u32 {
        NONE
    }

    fn standing(&self, server: u32) -> Option<Stretch<'a>> {
        entry(&self.0.standings, server as usize, standing::WORDS)
    }

    fn server(&self, id: u32) -> Option<&Server> {
        self.0.servers.get(id as usize)
    }

    fn locality(&self, key: &LocalityKey) -> Option<Stretch<'a>> {
        let targets = self.0.targets.borrow();
        let at = targets.iter().position(|other| other == key)?;
        entry(&self.0.localities, at, locality::WORDS)
    }

    fn add_locality(&self, key: &LocalityKey) {
        self.0.targets.borrow_mut().push(*key);
        assert!(self.0.targets.borrow().len() <= TARGETS);
    }

    fn random(&self) -> u32 {
        (self.0.dice.borrow_mut().next() >> 32) as u32
    }

    fn now(&self) -> u32 {
        self.0.now.get()
    }

    fn blur(&self, value: usize) -> usize {
        value
    }

    fn repeat<B: FnMut(u32) -> bool>(&self, count: u32, mut body: B) {
        let _stopped = (0..count).all(&mut body);
    }

    // Schedulers use nothing below.

    fn shape(&self) -> Shape {
        Shape {
            endpoint4_mask: 0,
            endpoint6_mask: 0,
            flow4_mask: 0,
            flow6_mask: 0,
            seed: 0,
        }
    }

    fn settings(&self) -> Option<&Settings> {
        None
    }

    fn endpoint4(&self, _bucket: u32) -> Option<&Bucket4> {
        None
    }

    fn endpoint6(&self, _bucket: u32) -> Option<&Bucket6> {
        None
    }

    fn flows4(&self, _bucket: u32) -> Option<Stretch<'a>> {
        None
    }

    fn flows6(&self, _bucket: u32) -> Option<Stretch<'a>> {
        None
    }

    fn occupied4(&self, _region: u32) -> Option<Stretch<'a>> {
        None
    }

    fn occupied6(&self, _region: u32) -> Option<Stretch<'a>> {
        None
    }

    fn peer(&self, _key: &PeerKey) -> Option<[u64; 2]> {
        None
    }

    fn device(&self, _place: u32) -> Option<&Device> {
        None
    }

    fn hop(&self, _id: u32) -> Option<&Hop> {
        None
    }

    fn route4(&self, _address: u32) -> u32 {
        NONE
    }

    fn route6(&self, _address: [u64; 2]) -> u32 {
        NONE
    }

    fn learn(&self, _client: [u64; 2], _ways: Ways) {}

    fn learned(&self, _client: [u64; 2]) -> Option<Ways> {
        None
    }

    fn fragment(&self, _key: &FragmentKey) -> Option<FragmentValue> {
        None
    }

    fn remember_fragment(&self, _key: &FragmentKey, _value: FragmentValue) {}

    fn translation(&self, _tuple: &Tuple) -> Option<Stretch<'a>> {
        None
    }

    fn translate(&self, _tuple: &Tuple, _translation: &Translation, _anew: bool) -> u32 {
        entered::FULL
    }

    fn forget_translation(&self, _tuple: &Tuple) {}

    fn local(&self, _v6: bool, _number: u32) -> Option<&Local> {
        None
    }

    fn traffic(&self, _server: u32, _count: impl FnOnce(&mut Traffic)) {}

    fn count(&self, _counter: u32) {}

    fn allowance(&self) -> Option<Stretch<'a>> {
        None
    }
}
