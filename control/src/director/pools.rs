//! Where each pool lies among the pool words. The words of a replaced pool stay reserved until
//! every packet that may still read them is through.

use std::collections::BTreeMap;

use shunt_datapath::entry::{POOL_HEAD, PoolWord, scheduler, slot_is_limited, slot_server};

use shunt_model::Scheduler;

use super::Running;
use crate::eligibility::{self, Facts, Reach};
use crate::pool::{self, Compiled, Member, Rule, Turn};

/// A pool in force.
#[derive(Clone, Debug)]
struct Present {
    base: u32,
    compiled: Compiled,
    rule: Rule,
    members: Vec<Member>,
}

/// A compiled pool, ready to be written and switched to.
#[derive(Clone, Debug)]
pub(super) struct Switched {
    pub base: u32,
    pub words: Vec<u64>,
}

/// The places of all pools.
#[derive(Clone, Debug)]
pub(super) struct Pools {
    present: BTreeMap<u32, Present>,
    /// Lengths of free stretches, by their first word.
    free: BTreeMap<u32, u32>,
    /// Stretches of replaced pools: since the last [`Pools::settle`], and before it.
    left: Vec<(u32, u32)>,
    leaving: Vec<(u32, u32)>,
}

const EMPTY: PoolWord = PoolWord(0);

impl Pools {
    pub(super) fn new(size: u32) -> Self {
        Self {
            present: BTreeMap::new(),
            free: BTreeMap::from([(0, size)]),
            left: Vec::new(),
            leaving: Vec::new(),
        }
    }

    /// Whether there is room for a pool of servers with these weights.
    pub(super) fn has_room_for(&self, rule: Rule, weights: impl Iterator<Item = u32>) -> bool {
        let length = rule.room(weights);
        self.free.values().any(|room| u64::from(*room) >= length)
    }

    /// The pool word of a service.
    pub(super) fn word(&self, service: u32) -> PoolWord {
        self.present
            .get(&service)
            .map_or(EMPTY, |present| word(present.base, &present.compiled))
    }

    /// Whether the pool in force was compiled from these servers.
    pub(super) fn is_of(&self, service: u32, rule: Rule, members: &[Member]) -> bool {
        let present = self.present.get(&service);
        present.is_some_and(|present| present.rule == rule && present.members == members)
    }

    /// Compiles a pool and finds a place for it. `None` if there is no room, or if the pool in
    /// force is the same, unless an edit moves the scheduler's cursor.
    pub(super) fn renew(
        &mut self,
        service: u32,
        rule: Rule,
        members: Vec<Member>,
        edited: bool,
        running: &dyn Running,
    ) -> Option<Switched> {
        let before = self.present.get(&service);
        let turn = match before {
            Some(before) if before.rule.scheduler == rule.scheduler => {
                let cursor = running.pool_word(before.base);
                pool::turn(rule.scheduler, &before.members, &before.compiled, cursor)
            }
            _ => Turn::default(),
        };
        let compiled = pool::compile(rule, &members, &turn);
        if let Some(before) = before {
            // rr and wrr may have the same ring, but another scheduler begins at its head
            // (`ip_vs_bind_scheduler`).
            let same = before.rule == rule
                && before.compiled.slots == compiled.slots
                && before.compiled.scheduler == compiled.scheduler;
            // ip_vs_wrr_dest_changed: an edit that changes nothing still moves the cursor to the
            // head of the list.
            let moves = edited && rule.scheduler == Scheduler::Wrr;
            if same && before.members == members && !moves {
                return None;
            }
        }
        let base = self.take(room(&compiled))?;
        if let Some(before) = self.present.remove(&service) {
            self.leave(&before);
        }
        let words = compiled.words().collect();
        self.present.insert(
            service,
            Present {
                base,
                compiled,
                rule,
                members,
            },
        );
        Some(Switched { base, words })
    }

    /// Reserves the words of a pool in force whose owner is unknown.
    pub(super) fn reserve(&mut self, at: PoolWord) {
        if at != EMPTY {
            let head = at.first_listed().wrapping_sub(at.base());
            self.take_at(at.base(), head + at.length());
        }
    }

    /// Takes over the pool of an earlier daemon. False if the pool in force is not that of these
    /// members.
    pub(super) fn adopt(
        &mut self,
        service: u32,
        at: PoolWord,
        rule: Rule,
        members: Vec<Member>,
        running: &dyn Running,
    ) -> bool {
        let compiled = pool::compile(rule, &members, &Turn::default());
        let same = at == word(at.base(), &compiled)
            && self.take_at(at.base(), room(&compiled))
            && compiled
                .words()
                .zip(at.base()..)
                .skip(POOL_HEAD as usize + compiled.short.len())
                .all(|(word, place)| running.pool_word(place) == word);
        if same {
            // Only the words in force know where the turn began.
            let mut compiled = compiled;
            compiled.head[1] = running.pool_word(at.base() + 1);
            self.present.insert(
                service,
                Present {
                    base: at.base(),
                    compiled,
                    rule,
                    members,
                },
            );
        }
        same
    }

    /// Whether any pool has a short list.
    pub(super) fn have_short_lists(&self) -> bool {
        self.present
            .values()
            .any(|present| present.compiled.is_short())
    }

    /// The short list of every large pool, compiled from the live counts: the first word to write,
    /// and the words. The stamp `tick` stands first; the packet path trusts the list by it.
    pub(super) fn short_lists(&self, running: &dyn Running, tick: u32) -> Vec<(u32, Vec<u64>)> {
        let large = self
            .present
            .values()
            .filter(|present| present.compiled.is_short());
        large
            .map(|present| {
                let rule = present.compiled.scheduler & !scheduler::SHORT;
                let counts = |slot| {
                    let server = slot_server(slot);
                    let eligibility = eligibility::of(Facts {
                        weight: (slot >> 32) as u32,
                        reach: Reach::Reached,
                        is_overloaded: slot_is_limited(slot) && running.is_overloaded(server),
                    });
                    (eligibility.weight() > 0).then(|| running.counts(server))
                };
                let list = pool::short::compile(rule, &present.compiled.slots, counts);
                let words = std::iter::once(u64::from(tick)).chain(list).collect();
                (present.base + 1, words)
            })
            .collect()
    }

    /// Drops the pool of a service. Returns the empty pool's word to switch to.
    pub(super) fn drop_service(&mut self, service: u32) -> Option<u64> {
        let before = self.present.remove(&service)?;
        self.leave(&before);
        Some(PoolWord::new(0, 0, scheduler::EMPTY).0)
    }

    /// Frees the stretches that were replaced before the last call.
    pub(super) fn settle(&mut self) {
        for (base, length) in std::mem::take(&mut self.leaving) {
            self.give(base, length);
        }
        self.leaving = std::mem::take(&mut self.left);
    }

    fn leave(&mut self, present: &Present) {
        self.left.push((present.base, room(&present.compiled)));
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

/// The number of words that a pool takes.
fn room(compiled: &Compiled) -> u32 {
    u32::try_from(compiled.words().count()).unwrap_or(u32::MAX)
}

fn word(base: u32, compiled: &Compiled) -> PoolWord {
    let length = u32::try_from(compiled.slots.len()).unwrap_or(u32::MAX);
    PoolWord::new(base, length, compiled.scheduler)
}
