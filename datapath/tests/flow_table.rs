//! The flow table against a model that cannot be wrong: a map.
//!
//! The table may refuse a flow, and it may forget a flow that is half-open, closed or expired. It
//! never loses an established flow and never invents one. For each flow that it removes, it gives
//! back what the flow counted for.

// A test may panic: that is how it fails.
#![allow(clippy::arithmetic_side_effects, clippy::indexing_slicing)]
#![allow(clippy::expect_used, clippy::unwrap_used, clippy::panic)]

use std::collections::BTreeMap;
use std::marker::PhantomData;
use std::sync::atomic::Ordering;

use proptest::prelude::*;
use shunt_datapath::connection::{self, ESTABLISHED, Meta, SYN_RECV, TIME_WAIT, may_give_way};
use shunt_datapath::entry::counts;
use shunt_datapath::family::{Family, V4, V6};
use shunt_datapath::flows::{self, Key, Layout, sweep};
use shunt_datapath::host::{HostTables, Sizes};
use shunt_datapath::track::{self, Place};

const FLOWS: u16 = 40;
const SERVERS: u32 = 4;

#[derive(Clone, Copy, Debug)]
enum Step {
    Insert(u16, u32, connection::State),
    Find(u16),
    Follow(u16, connection::State),
    Remove(u16),
    /// Takes the slot and enters the same flow again, as a reused connection does.
    Renew(u16, u32),
    Wait(u32),
    /// A sweep of the daemon: removes expired entries and frees slots that are gone.
    Collect,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let state = || prop::sample::select(&[ESTABLISHED, SYN_RECV, TIME_WAIT, connection::UDP][..]);
    let step = prop_oneof![
        6 => (0..FLOWS, 1..=SERVERS, state()).prop_map(|(a, b, c)| Step::Insert(a, b, c)),
        3 => (0..FLOWS).prop_map(Step::Find),
        3 => (0..FLOWS, state()).prop_map(|(a, b)| Step::Follow(a, b)),
        2 => (0..FLOWS).prop_map(Step::Remove),
        1 => (0..FLOWS, 1..=SERVERS).prop_map(|(a, b)| Step::Renew(a, b)),
        1 => prop::sample::select(&[1u32, 59, 61, 121, 301, 901][..]).prop_map(Step::Wait),
        1 => Just(Step::Collect),
    ];
    prop::collection::vec(step, 1..300)
}

#[derive(Clone, Copy, Debug, PartialEq)]
struct Flow {
    server: u32,
    state: connection::State,
    seen: u64,
}

struct Run<F> {
    tables: HostTables,
    model: BTreeMap<u16, Flow>,
    now: u64,
    family: PhantomData<F>,
}

impl<F: Family> Run<F> {
    fn new() -> Self {
        Self {
            tables: HostTables::new(Sizes {
                flows: 4,
                ..Sizes::default()
            }),
            model: BTreeMap::new(),
            now: 0,
            family: PhantomData,
        }
    }

    fn key(flow: u16) -> Key {
        // Services beyond 16 bits, so that the bits without room in the first word count too.
        let service = 1 + u32::from(flow % 3) * 0x1_0000;
        F::key(
            F::from_words([0x0900_000a | u64::from(flow / 8) << 16, 0]),
            flow % 8,
            service,
        )
    }

    fn tick(&self) -> u32 {
        self.now as u32 & connection::TICK_MASK
    }

    fn is_expired(&self, flow: &Flow) -> bool {
        let limit = track::limit(&self.tables.settings, flow.state);
        self.now - flow.seen > u64::from(limit)
    }

    fn meta(&self, state: connection::State) -> Meta {
        let inactive = if connection::is_active(state) {
            0
        } else {
            Meta::INACTIVE
        };
        Meta::new(self.tick(), state, inactive | Meta::PROVED)
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Insert(flow, server, state) => self.insert(flow, server, state),
            Step::Find(flow) => self.is_as_the_model_says(flow),
            Step::Follow(flow, state) => self.follow(flow, state),
            Step::Remove(flow) => self.remove(flow),
            Step::Renew(flow, server) => self.renew(flow, server),
            Step::Wait(ticks) => {
                self.now += u64::from(ticks);
                self.tables.clock.store(self.tick(), Ordering::SeqCst);
            }
            Step::Collect => self.collect(),
        }
    }

    fn insert(&mut self, flow: u16, server: u32, state: connection::State) {
        let (tables, key, now) = (&self.tables, Self::key(flow), self.tick());
        let hash = track::hash::<F, _>(&tables, &key);
        if track::find::<F, _>(&tables, &key, hash).is_some() {
            return;
        }
        let Place::At(offer) = track::place::<F, _>(&tables, &tables.settings, hash, now) else {
            return self.may_be_full(hash);
        };
        let seat = track::take::<F, _>(&tables, offer).expect("nobody else is here");
        let meta = track::begin(&tables, server, now, state, Meta::PROVED);
        seat.fill::<F::Layout>(&key, flows::value(server, key.tag, meta));
        self.forget_displaced();
        self.model.insert(
            flow,
            Flow {
                server,
                state,
                seen: self.now,
            },
        );
    }

    /// Asserts that no entry in either bucket may be displaced.
    fn may_be_full(&self, hash: u64) {
        let mask = F::flow_mask(&&self.tables);
        for bucket in [flows::first(hash, mask), flows::second(hash, mask)] {
            let words = F::bucket(&&self.tables, bucket).expect("within the mask");
            for at in 0..F::Layout::SLOTS {
                let (record, _) = flows::read::<F::Layout, _>(words, at).expect("no free slot");
                let state = record.meta.state();
                let limit = track::limit(&self.tables.settings, state);
                assert!(record.meta.age(self.tick()) <= limit && !may_give_way(state));
            }
        }
    }

    /// Asserts that each entry missing from the table was one that may be displaced.
    fn forget_displaced(&mut self) {
        let missing: Vec<_> = self
            .model
            .keys()
            .copied()
            .filter(|flow| !self.is_there(*flow))
            .collect();
        assert!(
            missing.len() <= 1,
            "one insertion displaces one flow at most"
        );
        for flow in missing {
            let lost = self.model.remove(&flow).expect("from its keys");
            assert!(
                self.is_expired(&lost) || may_give_way(lost.state),
                "lost {lost:?}"
            );
        }
    }

    fn is_there(&self, flow: u16) -> bool {
        let key = Self::key(flow);
        let hash = track::hash::<F, _>(&&self.tables, &key);
        track::find::<F, _>(&&self.tables, &key, hash).is_some()
    }

    fn is_as_the_model_says(&self, flow: u16) {
        let key = Self::key(flow);
        let hash = track::hash::<F, _>(&&self.tables, &key);
        let found = track::find::<F, _>(&&self.tables, &key, hash);
        let found = found.map(|entry| (entry.target(), entry.meta().state(), entry.meta().tick()));
        let tick = |flow: &Flow| flow.seen as u32 & connection::TICK_MASK;
        let wanted = self
            .model
            .get(&flow)
            .map(|flow| (flow.server, flow.state, tick(flow)));
        assert_eq!(found, wanted);
    }

    fn follow(&mut self, flow: u16, state: connection::State) {
        let key = Self::key(flow);
        let hash = track::hash::<F, _>(&&self.tables, &key);
        if let Some(mut entry) = track::find::<F, _>(&&self.tables, &key, hash) {
            track::note::<F, _>(&&self.tables, &mut entry, state, self.tick(), true);
            let known = self
                .model
                .get_mut(&flow)
                .expect("found, so it was inserted");
            (known.state, known.seen) = (state, self.now);
        }
    }

    fn remove(&mut self, flow: u16) {
        let key = Self::key(flow);
        let hash = track::hash::<F, _>(&&self.tables, &key);
        let found = track::find::<F, _>(&&self.tables, &key, hash);
        assert_eq!(found.is_some(), self.model.remove(&flow).is_some());
        if let Some(entry) = found {
            assert!(entry.remove::<F::Layout>(&key));
            assert!(
                !entry.remove::<F::Layout>(&key),
                "only one takes an entry out"
            );
            track::release::<F, _>(&&self.tables, key.first, entry.value);
        }
    }

    fn renew(&mut self, flow: u16, server: u32) {
        let key = Self::key(flow);
        let hash = track::hash::<F, _>(&&self.tables, &key);
        let Some(entry) = track::find::<F, _>(&&self.tables, &key, hash) else {
            return;
        };
        let seat = entry.seize::<F::Layout>(&key).expect("nobody else is here");
        track::release::<F, _>(&&self.tables, key.first, entry.value);
        track::begin(&&self.tables, server, self.tick(), SYN_RECV, 0);
        seat.fill::<F::Layout>(&key, flows::value(server, key.tag, self.meta(SYN_RECV)));
        self.model.insert(
            flow,
            Flow {
                server,
                state: SYN_RECV,
                seen: self.now,
            },
        );
    }

    fn collect(&mut self) {
        let expired = |flow: &Flow| self.is_expired(flow);
        let over: Vec<_> = self
            .model
            .iter()
            .filter(|(_, flow)| expired(flow))
            .map(|(flow, _)| *flow)
            .collect();
        for flow in over {
            self.remove(flow);
        }
        // A slot may be freed only if no flow lies in its second bucket because of the slot.
        let mask = F::flow_mask(&&self.tables);
        for bucket in 0..=mask {
            let needed = self.model.keys().any(|flow| {
                let hash = track::hash::<F, _>(&&self.tables, &Self::key(*flow));
                flows::first(hash, mask) == bucket && !self.is_home(*flow, bucket)
            });
            let words = F::bucket(&&self.tables, bucket).expect("within the mask");
            for at in (0..F::Layout::SLOTS).filter(|_| !needed) {
                sweep::<F::Layout, _>(words, at);
            }
        }
    }

    fn is_home(&self, flow: u16, bucket: u32) -> bool {
        let words = F::bucket(&&self.tables, bucket).expect("within the mask");
        flows::find::<F::Layout, _>(words, &Self::key(flow))
            .0
            .is_some()
    }

    fn check(&self) {
        for flow in 0..FLOWS {
            self.is_as_the_model_says(flow);
        }
        for server in 1..=SERVERS {
            let of = self.model.values().filter(|flow| flow.server == server);
            let (active, inactive) =
                of.partition::<Vec<&Flow>, _>(|flow| connection::is_active(flow.state));
            let word = self.tables.counts[server as usize].load(Ordering::SeqCst);
            let live = (
                counts::active(word) as usize,
                counts::inactive(word) as usize,
            );
            assert_eq!(
                live,
                (active.len(), inactive.len()),
                "the counts of server {server}"
            );
        }
    }
}

fn is_as_the_model<F: Family>(steps: &[Step]) {
    let mut run = Run::<F>::new();
    for step in steps {
        run.step(*step);
        run.check();
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn the_table_of_ipv4_flows_is_a_map_that_forgets_only_what_it_may(steps in steps()) {
        is_as_the_model::<V4>(&steps);
    }

    #[test]
    fn the_table_of_ipv6_flows_is_a_map_that_forgets_only_what_it_may(steps in steps()) {
        is_as_the_model::<V6>(&steps);
    }
}
