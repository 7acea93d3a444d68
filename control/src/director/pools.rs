//! Where the pools lie. A pool that is left keeps its place until every packet that might still
//! look at it is through.

use std::collections::BTreeMap;

use shunt_datapath::entry::{POOL_HEAD, PoolWord, scheduler};
use shunt_model::{Family, Scheduler};

use super::Running;
use crate::pool::{self, Compiled, Member, Turn};

/// A pool that is in force.
#[derive(Clone, Debug)]
struct Present {
    base: u32,
    compiled: Compiled,
    scheduler: Scheduler,
    members: Vec<Member>,
}

/// What has to be written to bring a pool into force.
#[derive(Clone, Debug)]
pub struct Switched {
    pub base: u32,
    pub words: Vec<u64>,
    pub word: PoolWord,
}

/// The places of all pools.
#[derive(Clone, Debug)]
pub struct Pools {
    present: BTreeMap<u32, Present>,
    /// Free stretches by where they begin.
    free: BTreeMap<u32, u32>,
    /// Left since the last settling, and before it.
    left: Vec<(u32, u32)>,
    leaving: Vec<(u32, u32)>,
}

const EMPTY: PoolWord = PoolWord(0);

impl Pools {
    pub fn new(size: u32) -> Self {
        Self {
            present: BTreeMap::new(),
            free: BTreeMap::from([(0, size)]),
            left: Vec::new(),
            leaving: Vec::new(),
        }
    }

    /// Whether a service with so many servers of these weights finds a place.
    pub fn has_room_for(&self, scheduler: Scheduler, weights: impl Iterator<Item = u32>) -> bool {
        let length = u64::from(POOL_HEAD) + longest(scheduler, weights);
        self.free.values().any(|room| u64::from(*room) >= length)
    }

    /// The word of a service's pool.
    pub fn word(&self, service: u32) -> PoolWord {
        self.present
            .get(&service)
            .map_or(EMPTY, |present| word(present.base, &present.compiled))
    }

    /// Whether the pool in force is that of these servers.
    pub fn is_of(&self, service: u32, scheduler: Scheduler, members: &[Member]) -> bool {
        let present = self.present.get(&service);
        present.is_some_and(|present| present.scheduler == scheduler && present.members == members)
    }

    /// Compiles a pool and finds a place for it. `None` if the one in force says the same.
    pub fn renew(
        &mut self,
        service: u32,
        scheduler: Scheduler,
        family: Family,
        members: Vec<Member>,
        running: &dyn Running,
    ) -> Option<Switched> {
        let before = self.present.get(&service);
        let turn = match before {
            Some(before) if before.scheduler == scheduler => {
                let cursor = running.pool_word(before.base);
                pool::turn(scheduler, &before.members, &before.compiled, cursor)
            }
            _ => Turn::default(),
        };
        let compiled = pool::compile(scheduler, family, &members, &turn);
        if let Some(before) = before {
            let same = before.compiled.slots == compiled.slots
                && before.compiled.scheduler == compiled.scheduler;
            if same && before.members == members {
                return None;
            }
        }
        let length = POOL_HEAD + u32::try_from(compiled.slots.len()).unwrap_or(u32::MAX);
        let base = self.take(length)?;
        if let Some(before) = self.present.remove(&service) {
            self.leave(&before);
        }
        let words = compiled
            .head
            .iter()
            .chain(&compiled.slots)
            .copied()
            .collect();
        let word = word(base, &compiled);
        self.present.insert(
            service,
            Present {
                base,
                compiled,
                scheduler,
                members,
            },
        );
        Some(Switched { base, words, word })
    }

    /// Takes up a pool that is in force from an earlier life.
    pub fn adopt(
        &mut self,
        service: u32,
        at: PoolWord,
        scheduler: Scheduler,
        family: Family,
        members: Vec<Member>,
        running: &dyn Running,
    ) -> bool {
        let compiled = pool::compile(scheduler, family, &members, &Turn::default());
        let length = u32::try_from(compiled.slots.len()).unwrap_or(u32::MAX);
        let same = at.length() == length
            && at.scheduler() == compiled.scheduler
            && self.take_at(at.base(), POOL_HEAD + length)
            && compiled
                .slots
                .iter()
                .zip(at.base() + POOL_HEAD..)
                .all(|(slot, place)| running.pool_word(place) == *slot);
        if same {
            // Where the turn began is known by the words in force alone.
            let mut compiled = compiled;
            compiled.head[1] = running.pool_word(at.base() + 1);
            self.present.insert(
                service,
                Present {
                    base: at.base(),
                    compiled,
                    scheduler,
                    members,
                },
            );
        }
        same
    }

    /// The service has no pool any more; says the word to switch to.
    pub fn drop_service(&mut self, service: u32) -> Option<u64> {
        let before = self.present.remove(&service)?;
        self.leave(&before);
        Some(PoolWord::new(0, 0, scheduler::EMPTY).0)
    }

    /// What was left before the last call is free from here on.
    pub fn settle(&mut self) {
        for (base, length) in std::mem::take(&mut self.leaving) {
            self.give(base, length);
        }
        self.leaving = std::mem::take(&mut self.left);
    }

    fn leave(&mut self, present: &Present) {
        let length = POOL_HEAD + u32::try_from(present.compiled.slots.len()).unwrap_or(u32::MAX);
        self.left.push((present.base, length));
    }

    fn take(&mut self, length: u32) -> Option<u32> {
        let (base, room) = self
            .free
            .iter()
            .find(|(_, room)| **room >= length)
            .map(|(b, r)| (*b, *r))?;
        self.free.remove(&base);
        if room > length {
            self.free.insert(base + length, room - length);
        }
        Some(base)
    }

    fn take_at(&mut self, base: u32, length: u32) -> bool {
        let Some((start, room)) = self.free.range(..=base).next_back().map(|(b, r)| (*b, *r))
        else {
            return false;
        };
        let (Some(end), Some(stop)) = (base.checked_add(length), start.checked_add(room)) else {
            return false;
        };
        if end > stop {
            return false;
        }
        self.free.remove(&start);
        if base > start {
            self.free.insert(start, base - start);
        }
        if stop > end {
            self.free.insert(end, stop - end);
        }
        true
    }

    fn give(&mut self, base: u32, length: u32) {
        let (mut base, mut length) = (base, length);
        if let Some((before, room)) = self.free.range(..base).next_back().map(|(b, r)| (*b, *r))
            && before + room == base
        {
            self.free.remove(&before);
            (base, length) = (before, room + length);
        }
        if let Some(room) = self.free.remove(&(base + length)) {
            length += room;
        }
        self.free.insert(base, length);
    }
}

/// The most slots that a pool of these servers can have.
fn longest(scheduler: Scheduler, weights: impl Iterator<Item = u32>) -> u64 {
    let (mut count, mut total) = (0u64, 0u64);
    for weight in weights {
        count += 1;
        total += u64::from(weight);
    }
    match scheduler {
        Scheduler::Sh => 256,
        Scheduler::Mh => 4093,
        // A turn that is too long for a ring is a list.
        Scheduler::Wrr => count.max(total.min(65_536)),
        _ => count,
    }
}

fn word(base: u32, compiled: &Compiled) -> PoolWord {
    let length = u32::try_from(compiled.slots.len()).unwrap_or(u32::MAX);
    PoolWord::new(base, length, compiled.scheduler)
}
