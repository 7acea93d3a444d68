//! One service in plain memory: just so much of the tables that the walk's own `pick` can run.

use std::cell::Cell;

use shunt_datapath::entry::{
    Bucket4, Bucket6, Hop, NONE, POOL_HEAD, PoolWord, Server, Service, Settings, Traffic, Ways,
    counts, service_flag,
};
use shunt_datapath::flows::Words;
use shunt_datapath::schedule::{Client, pick};
use shunt_datapath::tables::{FragmentKey, FragmentValue, Shape, Tables};
use shunt_model::SchedulerFlags;

use super::super::Compiled;

/// The pool does not lie at the beginning, so that a forgotten base is seen.
const BASE: u32 = 5;
const SERVICE: u32 = 1;

pub(super) struct Memory {
    pool: Vec<Cell<u64>>,
    counts: Vec<Cell<u64>>,
    service: Service,
}

impl Memory {
    /// Ids of servers are below `servers`.
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
            counts: vec![Cell::new(0); servers],
            service,
        }
    }

    pub(super) fn switch(&mut self, compiled: &Compiled) {
        let words = compiled.head.iter().chain(&compiled.slots);
        let gap = std::iter::repeat_n(&u64::MAX, BASE as usize);
        self.pool = gap.chain(words).copied().map(Cell::new).collect();
        let length = u32::try_from(compiled.slots.len()).unwrap();
        self.service.pool = PoolWord::new(BASE, length, compiled.scheduler).0;
    }

    pub(super) fn cursor(&self) -> u64 {
        self.pool[BASE as usize].get()
    }

    /// The pool as a daemon that starts would read it back.
    pub(super) fn read_back(&self) -> Compiled {
        let words = &self.pool[BASE as usize..];
        let (head, slots) = words.split_at(POOL_HEAD as usize);
        Compiled {
            scheduler: PoolWord(self.service.pool).scheduler(),
            head: [head[0].get(), head[1].get()],
            slots: slots.iter().map(Cell::get).collect(),
        }
    }

    pub(super) fn pick(&self, address: u32, port: u16) -> u32 {
        pick(&View(self), SERVICE, Client { address, port })
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
    let at = at as usize;
    words.get(at..at + 1).map(Stretch)
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

    fn cheapest4(&self, _hash: u64) -> u64 {
        unreachable!("no flow is entered here")
    }

    fn cheapest6(&self, _hash: u64) -> u64 {
        unreachable!("no flow is entered here")
    }

    fn recall4(&self, _service: u32, _client: u32, _port: u16) -> u32 {
        unreachable!("no template is asked here")
    }

    fn recall6(&self, _service: u32, _client: [u64; 2], _port: u16) -> u32 {
        unreachable!("no template is asked here")
    }

    fn wide_service(&self, _number: u32) -> u32 {
        unreachable!("no endpoint is looked up here")
    }

    fn wide4(&self, _address: u32, _word: u32) -> u32 {
        unreachable!("no endpoint is looked up here")
    }

    fn wide6(&self, _address: [u64; 2], _word: u32) -> u32 {
        unreachable!("no endpoint is looked up here")
    }

    fn schedule(&self, service: u32, client: Client) -> u32 {
        pick(self, service, client)
    }

    fn blur(&self, value: usize) -> usize {
        value
    }

    fn repeat<B: FnMut(u32) -> bool>(&self, count: u32, mut body: B) {
        let _stopped = (0..count).all(&mut body);
    }

    // What follows is no business of a scheduler.

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

    fn now(&self) -> u32 {
        0
    }

    fn endpoint4(&self, _bucket: u32) -> Option<&Bucket4> {
        None
    }

    fn endpoint6(&self, _bucket: u32) -> Option<&Bucket6> {
        None
    }

    fn server(&self, _id: u32) -> Option<&Server> {
        None
    }

    fn flows4(&self, _bucket: u32) -> Option<Stretch<'a>> {
        None
    }

    fn flows6(&self, _bucket: u32) -> Option<Stretch<'a>> {
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

    fn traffic(&self, _server: u32, _count: impl FnOnce(&mut Traffic)) {}

    fn count(&self, _counter: u32) {}

    fn allowance(&self) -> Option<Stretch<'a>> {
        None
    }
}
