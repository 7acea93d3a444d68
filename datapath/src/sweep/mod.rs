//! The sweep over the tables of connections: removes what expired, counts what is there.
//!
//! Expiry happens here: the packet path only ever replaces. An entry that is removed gives back
//! what it counted for, exactly once, since only one can swap its key away. Time, tables and
//! settings are arguments, so that the daemon sweeps the kernel's maps and a simulation or a test
//! those in plain memory ([`crate::host`]) by the same code. Nothing here runs for a packet.

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
use crate::entry::{self, HOPS, Server, Service, Settings};
use crate::flows::{Layout, Narrow, Wide, Words};
use crate::region;
use crate::tables::Shape;

use ids::Ids;
use templates::{SOON, Templates};

pub use calls::server as server_of_call;
pub use census::client;

/// The tables of connections, and what they name.
pub trait Tables: Copy {
    type Words: Words;

    fn shape(self) -> Shape;
    fn flows4(self, bucket: u32) -> Option<Self::Words>;
    fn flows6(self, bucket: u32) -> Option<Self::Words>;
    /// The words of [`crate::region`] from this region on.
    fn occupied4(self, region: u32) -> Option<Self::Words>;
    fn occupied6(self, region: u32) -> Option<Self::Words>;
    /// The live counts of a server: [`entry::counts`].
    fn counts(self, server: u32) -> Option<Self::Words>;
    fn server(self, id: u32) -> Option<Server>;
    /// The service of an endpoint.
    fn service_of(self, endpoint: u32) -> Option<Service>;
}

/// A hash table of the packet path, entry by entry.
pub trait Entries<K, V> {
    fn find(&self, key: &K) -> Option<V>;
    /// Enters a value whose key is absent. False if it is present, or if there is no room.
    fn enter(&self, key: &K, value: &V) -> bool;
    /// Puts another value in place of a present one. False if there is none.
    fn replace(&self, key: &K, value: &V) -> bool;
    /// Removes a key. False if it was absent.
    fn delete(&self, key: &K) -> bool;
}

/// The tables at one moment, and the rules that hold for them.
#[derive(Clone, Copy, Debug)]
pub struct View<'a, T> {
    pub tables: T,
    pub settings: &'a Settings,
    pub now: u32,
    /// Nanoseconds of a tick.
    pub tick_ns: u64,
    /// Servers that are gone, whose connections are no more.
    pub ended: &'a BTreeSet<u32>,
    /// Where half-open connections are removed before their time.
    pub stretch: Option<Stretch>,
}

/// What a sweep found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// Entries of both families, ways back included.
    pub used: u64,
    /// Entries of IPv6.
    pub used6: u64,
    pub expired: u64,
    /// Half-open connections that were removed before their time.
    pub dropped: u64,
    pub services: BTreeSet<u32>,
    pub servers: BTreeSet<u32>,
    /// Hops to clients that ways back remember, a bit each.
    pub hops: [u64; HOPS as usize / 64],
    /// Entries of the table of translations.
    pub translations: u64,
    pub calls: u64,
}

/// What one sweep leaves for the next.
#[derive(Clone, Debug, Default)]
pub struct Memory {
    narrow: Vec<u32>,
    wide: Vec<u32>,
    templates: Templates,
    /// How many sweeps there were.
    turn: usize,
    doubts: bool,
}

impl Memory {
    #[must_use]
    pub fn turn(&self) -> usize {
        self.turn
    }

    /// Takes in that a table had no entry, by its word of [`crate::region`].
    pub fn nothing_there<W: Words>(&mut self, word: W) {
        self.doubts |= region::settle(word);
    }

    /// Whether something was doubted: before the next sweep every walk that is under way must end.
    #[must_use]
    pub fn has_doubts(&self) -> bool {
        self.doubts
    }
}

/// What a sweep gathers as it goes.
#[derive(Debug, Default)]
struct Tally {
    found: Found,
    services: Ids,
    servers: Ids,
}

impl<T: Tables> View<'_, T> {
    /// Goes once over all flows.
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

    /// Whether connections of this server are no more: it may have come back since the sweep began.
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

    /// Ticks that an entry of this state lives.
    #[must_use]
    pub fn limit(self, state: connection::State) -> u32 {
        let timeouts = self.settings.timeouts;
        timeouts.get(state as usize).copied().unwrap_or(0)
    }
}

fn is_wide<L: Layout>() -> bool {
    L::STRIDE == Wide::STRIDE
}

/// How long to wait after a sweep that took so long: sweeps are at most 3 % of a CPU's work, unless
/// connections would stay four seconds longer than they live, and never more than a fifth.
#[must_use]
pub fn pause(took: Duration) -> Duration {
    let seldom = took * 32;
    seldom.clamp(SWEEP, LATEST.max(took * 4))
}

/// How often expired flows are removed where that costs nothing. IPVS's own timers are as coarse as
/// their wheel.
const SWEEP: Duration = Duration::from_millis(500);
/// How late expiry may be for the sake of cost.
const LATEST: Duration = Duration::from_secs(4);

/// A stretch of the connection table, as parts of 2^32.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stretch {
    pub from: u32,
    pub length: u32,
}

impl Stretch {
    /// A 32nd for each second, as `ip_vs_random_dropentry` has it, from any place on.
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
