//! The sweep over the connection tables: removes what has expired, counts the rest.
//!
//! Entries expire here. The packet path replaces entries, and removes only those of a server that
//! is gone. A removed entry is subtracted from its server's live counts exactly once, since only
//! one CPU can swap its key away. Time, tables and settings are arguments: the daemon sweeps the
//! kernel's maps, and a simulation or a test sweeps plain memory ([`crate::host`]) by the same
//! code. No packet runs this code.

#![allow(clippy::arithmetic_side_effects)]

mod calls;
mod census;
mod entries;
mod ids;
mod templates;
#[cfg(test)]
mod tests;
mod translations;

use std::collections::BTreeSet;
use std::time::Duration;
use std::vec::Vec;

use crate::connection;
use crate::table::Shape;
use crate::table::entry::{self, HOPS, Server, Service, Settings};
use crate::table::flows::{Layout, Narrow, Wide, Words};
use crate::table::region;

use ids::Ids;
use templates::{SOON, Templates};

pub use calls::server as server_of_call;
pub use census::client;

/// The connection tables, and the servers and services that they name.
pub trait Tables: Copy {
    /// Words that several CPUs share.
    type Words: Words;

    /// The sizes of the tables.
    fn shape(self) -> Shape;
    /// The words of a bucket of IPv4 flows.
    fn flows4(self, bucket: u32) -> Option<Self::Words>;
    /// The words of a bucket of IPv6 flows.
    fn flows6(self, bucket: u32) -> Option<Self::Words>;
    /// The words of [`crate::table::region`] for IPv4 flows, from this region on.
    fn occupied4(self, region: u32) -> Option<Self::Words>;
    /// The words of [`crate::table::region`] for IPv6 flows, from this region on.
    fn occupied6(self, region: u32) -> Option<Self::Words>;
    /// The live counts of a server: [`entry::counts`].
    fn counts(self, server: u32) -> Option<Self::Words>;
    /// A server by its id.
    fn server(self, id: u32) -> Option<Server>;
    /// The service of an endpoint.
    fn service_of(self, endpoint: u32) -> Option<Service>;
}

/// A hash table of the packet path, one entry at a time.
pub trait Entries<K, V> {
    /// The value of a key.
    fn find(&self, key: &K) -> Option<V>;
    /// Enters a value whose key is absent. False if the key is present or the table is full.
    fn enter(&self, key: &K, value: &V) -> bool;
    /// Replaces the value of a present key. False if the key is absent.
    fn replace(&self, key: &K, value: &V) -> bool;
    /// Removes a key. False if it was absent.
    fn delete(&self, key: &K) -> bool;
}

/// The tables at one moment, and the settings that hold for them.
#[derive(Clone, Copy, Debug)]
pub struct View<'a, T> {
    /// The tables.
    pub tables: T,
    /// The settings, with all timeouts in ticks.
    pub settings: &'a Settings,
    /// The present tick.
    pub now: u32,
    /// Length of a tick in nanoseconds.
    pub tick_ns: u64,
    /// Deleted servers whose connections have ended.
    pub ended: &'a BTreeSet<u32>,
    /// The part of the table in which `drop_entry` removes entries before their time.
    pub stretch: Option<Stretch>,
}

/// What a sweep found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// Entries of both families, way-back entries included.
    pub used: u64,
    /// Entries of IPv6.
    pub used6: u64,
    /// Entries that were removed since they had expired or their server had ended.
    pub expired: u64,
    /// Entries that `drop_entry` removed before their time.
    pub dropped: u64,
    /// Services that entries name, by their ids or endpoints.
    pub services: BTreeSet<u32>,
    /// Servers that entries name.
    pub servers: BTreeSet<u32>,
    /// Hops to clients that way-back entries name, a bit each.
    pub hops: [u64; HOPS as usize / 64],
    /// Entries of the table of translations.
    pub translations: u64,
    /// Entries of the table of calls.
    pub calls: u64,
}

/// What one sweep remembers for the next.
#[derive(Clone, Debug, Default)]
pub struct Memory {
    narrow: Vec<u32>,
    wide: Vec<u32>,
    templates: Templates,
    /// Number of sweeps so far.
    turn: usize,
    doubts: bool,
}

impl Memory {
    /// Number of sweeps so far.
    #[must_use]
    pub fn turn(&self) -> usize {
        self.turn
    }

    /// Notes that a sweep found no entry where this word of [`crate::table::region`] stands.
    pub fn nothing_there<W: Words>(&mut self, word: W) {
        self.doubts |= region::settle(word);
    }

    /// Whether a region was marked as doubted. Then every running walk must end before the next
    /// sweep.
    #[must_use]
    pub fn has_doubts(&self) -> bool {
        self.doubts
    }
}

/// What a sweep has found so far.
#[derive(Debug, Default)]
struct Tally {
    found: Found,
    services: Ids,
    servers: Ids,
}

impl<T: Tables> View<'_, T> {
    /// Sweeps all flows once.
    pub fn sweep(self, memory: &mut Memory) -> Found {
        let mut tally = Tally::default();
        memory.doubts = false;
        let narrow = std::mem::take(&mut memory.narrow);
        memory.narrow = self.table::<Narrow>(narrow, memory, &mut tally);
        let wide = std::mem::take(&mut memory.wide);
        memory.wide = self.table::<Wide>(wide, memory, &mut tally);
        memory.templates.finish(self);
        memory.turn = memory.turn.wrapping_add(1);
        Found {
            services: tally.services.iter().collect(),
            servers: tally.servers.iter().collect(),
            ..tally.found
        }
    }

    fn bucket<L: Layout>(self, bucket: u32) -> Option<T::Words> {
        if is_wide::<L>() {
            self.tables.flows6(bucket)
        } else {
            self.tables.flows4(bucket)
        }
    }

    fn mask<L: Layout>(self) -> u32 {
        let shape = self.tables.shape();
        if is_wide::<L>() {
            shape.flow6_mask
        } else {
            shape.flow4_mask
        }
    }

    /// The regions of a family that may have entries, with their words.
    fn occupied<L: Layout>(self) -> impl Iterator<Item = (u32, T::Words)> {
        let words = if is_wide::<L>() {
            self.tables.occupied6(0)
        } else {
            self.tables.occupied4(0)
        };
        let regions = 0..region::count(self.mask::<L>());
        let all = words.into_iter().flat_map(move |words| {
            let places = regions.clone();
            places.filter_map(move |at| {
                let is_empty = words.load(at as usize) == region::EMPTY;
                (!is_empty).then(|| (at, words.skip(at as usize)))
            })
        });
        all.into_iter()
    }

    /// The buckets of a region.
    fn buckets<L: Layout>(self, region: u32) -> std::ops::RangeInclusive<u32> {
        let first = region * region::BUCKETS;
        first..=(first + region::BUCKETS - 1).min(self.mask::<L>())
    }

    /// Whether the connections of this server have ended. A server that came back since the sweep
    /// began keeps them.
    #[must_use]
    pub fn has_ended(self, server: u32) -> bool {
        let is_gone = |server: Server| server.flags & entry::server_flag::PRESENT == 0;
        self.ended.contains(&server) && self.tables.server(server).is_none_or(is_gone)
    }

    /// A minute in ticks.
    fn minute(self) -> u32 {
        let ticks = 60_000_000_000 / self.tick_ns.max(1);
        u32::try_from(ticks).unwrap_or(u32::MAX)
    }

    /// The timeout of a state, in ticks.
    #[must_use]
    pub fn limit(self, state: connection::State) -> u32 {
        let timeouts = self.settings.timeouts;
        timeouts.get(state as usize).copied().unwrap_or(0)
    }
}

fn is_wide<L: Layout>() -> bool {
    L::STRIDE == Wide::STRIDE
}

/// The pause after a sweep that took this long. Sweeps take at most 3 % of a CPU; more if
/// connections would otherwise expire more than four seconds late; never more than a fifth.
#[must_use]
pub fn pause(took: Duration) -> Duration {
    let seldom = took * 32;
    seldom.clamp(SWEEP, LATEST.max(took * 4))
}

/// The shortest pause between sweeps. IPVS's own timers are as coarse as the timer wheel.
const SWEEP: Duration = Duration::from_millis(500);
/// The longest pause that is made to save time, unless a sweep takes long.
const LATEST: Duration = Duration::from_secs(4);

/// A part of the connection table, in units of 2^-32 of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stretch {
    /// Where it begins.
    pub from: u32,
    /// How long it is.
    pub length: u32,
}

impl Stretch {
    /// A 32nd of the table for each second, as in `ip_vs_random_dropentry`, beginning at `from`.
    #[must_use]
    pub fn new(from: u32, seconds: u32) -> Self {
        let length = u64::from(seconds) << 27;
        Self {
            from,
            length: u32::try_from(length).unwrap_or(u32::MAX),
        }
    }

    fn has(self, bucket: u32, mask: u32) -> bool {
        let place = (u64::from(bucket) << 32) / (u64::from(mask) + 1);
        (place as u32).wrapping_sub(self.from) < self.length
    }
}
