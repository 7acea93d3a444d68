//! Goes over the table of flows: takes out what expired and counts what is there.
//!
//! This is where expiry happens: the packet path only ever replaces. An entry that this takes out
//! gives back what it counted for, exactly once, since only one can swap its key away.

use std::collections::BTreeSet;

use shunt_control::director::Remembered;
use shunt_datapath::connection::{self, Meta};
use shunt_datapath::entry::{self, Settings, counts};
use shunt_datapath::flows::{self, Entry, Key, Layout, Narrow, Record, Wide, Words};
use shunt_datapath::sctp;
use tracing::error;

use super::clock;
use super::mapping::{BucketWords, Mapping};
use super::tables::Shared;
use super::templates::Templates;

/// Ticks after which a way back without its connection is taken out.
const IDLE: u32 = 2;

/// What a scan found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// Entries of both kinds, the way back included.
    pub used: u64,
    /// Those of IPv6.
    pub used6: u64,
    pub connections: u64,
    pub by_state: [u64; connection::STATES],
    pub expired: u64,
    /// Half-open ones that were taken out before their time.
    pub dropped: u64,
    pub services: BTreeSet<u32>,
    pub servers: BTreeSet<u32>,
    /// Hops to clients that ways back remember.
    pub hops: Remembered,
    /// Entries of the table of translations.
    pub translations: u64,
}

/// What one scan tells the next: buckets that had a slot to sweep, and templates that end soon.
#[derive(Clone, Debug, Default)]
pub struct Sweeper {
    narrow: Vec<u32>,
    wide: Vec<u32>,
    templates: Templates,
    /// How many scans there were.
    turn: usize,
}

/// What a scan needs to know.
#[derive(Clone, Copy, Debug)]
pub struct Look<'a> {
    pub tables: &'a Shared,
    pub settings: &'a Settings,
    pub now: u32,
    /// Servers that are gone, whose connections are no more.
    pub ended: &'a BTreeSet<u32>,
    /// Where half-open connections are taken out though their time is not over.
    pub stretch: Option<Stretch>,
}

impl Look<'_> {
    /// Goes over everything once.
    pub fn scan(self, sweeper: &mut Sweeper) -> Found {
        let mut found = Found::default();
        let Sweeper {
            narrow,
            wide,
            templates,
            turn,
        } = sweeper;
        let mask = self.tables.made.flow4_mask();
        let mut meet = (&mut found, &mut *templates);
        self.table::<Narrow>(&self.tables.flows4, mask, narrow, &mut meet);
        let mask = self.tables.made.flow6_mask();
        self.table::<Wide>(&self.tables.flows6, mask, wide, &mut meet);
        templates.finish(self, clock::tick_ns(self.tables.made.jiffies_rate));
        *turn = turn.wrapping_add(1);
        match self.tables.translations.sweep(self, *turn) {
            Ok(counted) => found.translations = counted.used,
            Err(error) => error!(
                error = format!("{error:#}"),
                "translations not looked after"
            ),
        }
        found
    }

    fn table<L: Layout>(
        self,
        mapping: &Mapping,
        mask: u32,
        to_sweep: &mut Vec<u32>,
        meet: &mut (&mut Found, &mut Templates),
    ) {
        let mut away = vec![0u64; mapping.len().div_ceil(64)];
        let mut gone = Vec::new();
        for bucket in 0..=mask {
            let Some(words) = mapping.value(bucket as usize) else {
                break;
            };
            let words = BucketWords(words);
            let mut has_gone = false;
            let dropped = self.stretch.is_some_and(|of| of.has(bucket, mask));
            for at in 0..L::SLOTS {
                has_gone |= words.skip(at * L::STRIDE).load(0) == flows::GONE;
                let Some((record, entry)) = flows::read::<L, _>(words, at) else {
                    continue;
                };
                let hash = flows::hash(&record.key, self.tables.made.seed);
                let home = flows::first(hash, mask);
                if home != bucket
                    && let Some(word) = away.get_mut(home as usize / 64)
                {
                    *word |= 1 << (home % 64);
                }
                let seen = (&record, &entry);
                has_gone |= self.entry::<L>(mapping, mask, seen, dropped, meet);
            }
            if has_gone {
                gone.push(bucket);
            }
        }
        // Only buckets that had such a slot a whole scan ago: a flow that had to go elsewhere
        // because of them has been seen by now.
        for bucket in std::mem::replace(to_sweep, gone) {
            let needed = away
                .get(bucket as usize / 64)
                .is_none_or(|word| word >> (bucket % 64) & 1 != 0);
            if needed {
                continue;
            }
            if let Some(words) = mapping.value(bucket as usize) {
                for at in 0..L::SLOTS {
                    flows::sweep::<L, _>(BucketWords(words), at);
                }
            }
        }
    }

    /// Counts an entry, or takes it out if its time is over: then true.
    fn entry<L: Layout>(
        self,
        mapping: &Mapping,
        mask: u32,
        (record, entry): (&Record, &Entry<BucketWords<'_>>),
        dropped: bool,
        (found, templates): &mut (&mut Found, &mut Templates),
    ) -> bool {
        if record.key.is_back::<L>() {
            if self.way_back::<L>(mapping, mask, record, entry) {
                return true;
            }
            found.used += 1;
            found.used6 += u64::from(L::STRIDE == Wide::STRIDE);
            found.servers.insert(record.target);
            let hop = record.meta.low();
            if let Some(word) = found.hops.get_mut(hop as usize / 64) {
                *word |= 1 << (hop % 64);
            }
            return false;
        }
        let age = record.meta.age(self.now);
        let expired = age > self.limit(record.meta.state()) || self.has_ended(record.target);
        let dropped = !expired && dropped && is_dropped(record.meta.state(), age, self.minute());
        if (expired || dropped) && entry.remove::<L>(&record.key) {
            self.release(record.target, record.meta);
            found.expired += u64::from(expired);
            found.dropped += u64::from(dropped);
            return true;
        }
        found.used += 1;
        found.used6 += u64::from(L::STRIDE == Wide::STRIDE);
        let endpoint = record.key.endpoint::<L>();
        found.services.insert(entry::with_port(endpoint, 0));
        found.servers.insert(record.target);
        if record.meta.is_template() {
            templates.meet::<L>(record, self.now);
            return false;
        }
        templates.hold::<L>(self, record);
        found.connections += 1;
        if let Some(count) = found.by_state.get_mut(record.meta.state() as usize) {
            *count += 1;
        }
        false
    }

    /// Whether connections of this server are no more: it may have come back since the look began.
    pub(super) fn has_ended(self, server: u32) -> bool {
        let is_gone = |server: entry::Server| server.flags & entry::server_flag::PRESENT == 0;
        self.ended.contains(&server) && self.tables.server(server).is_none_or(is_gone)
    }

    /// A minute in ticks.
    fn minute(self) -> u32 {
        let ticks = 60_000_000_000 / clock::tick_ns(self.tables.made.jiffies_rate).max(1);
        u32::try_from(ticks).unwrap_or(u32::MAX)
    }

    pub(super) fn limit(self, state: connection::State) -> u32 {
        self.settings
            .timeouts
            .get(state as usize)
            .copied()
            .unwrap_or(0)
    }

    fn release(self, server: u32, meta: Meta) {
        if let Some(words) = self.tables.counts.value(server as usize) {
            let what = if meta.is_template() {
                0
            } else if meta.has(Meta::INACTIVE) {
                counts::INACTIVE
            } else {
                counts::ACTIVE
            };
            BucketWords(words).add(0, 0u64.wrapping_sub(what));
        }
    }

    /// Looks after a way back; true if it was taken out.
    ///
    /// It is entered just before its connection, and both are taken out and made again when a
    /// client uses its port again: only one that was not used for a while can have lost its
    /// connection. That of a connection that closed by time is made so old that it gives way to
    /// others, as the connection's own entry does; an answer makes it young again.
    fn way_back<L: Layout>(
        self,
        mapping: &Mapping,
        mask: u32,
        record: &Record,
        entry: &Entry<BucketWords<'_>>,
    ) -> bool {
        let lives = self.limit(connection::WAY_BACK);
        let age = record.meta.age(self.now);
        // One that gives way began that old.
        if age <= IDLE || age.checked_sub(lives + 1).is_some_and(|age| age <= IDLE) {
            return false;
        }
        match self.flow_of::<L>(mapping, mask, record) {
            None => entry.remove::<L>(&record.key),
            Some(state) if is_over(state) && age <= lives => {
                let mut entry = *entry;
                entry.update::<L>(record.meta.yielding(self.now, lives));
                false
            }
            Some(_) => false,
        }
    }

    /// The state of the flow of a way back, if it is there.
    fn flow_of<L: Layout>(
        self,
        mapping: &Mapping,
        mask: u32,
        record: &Record,
    ) -> Option<connection::State> {
        let server = self.tables.server(record.target)?;
        let port = record.key.port::<L>();
        // A server of every port answers from the port that it was asked on.
        let asked = record.key.endpoint::<L>() as u16;
        let service = entry::with_port(server.service, asked.to_be());
        let key = if L::STRIDE == 2 {
            Key::v4((record.key.first >> 32) as u32, port, service)
        } else {
            Key::v6(record.key.address, port, service)
        };
        let hash = flows::hash(&key, self.tables.made.seed);
        let places = [flows::first(hash, mask), flows::second(hash, mask)];
        places.into_iter().find_map(|bucket| {
            let words = mapping.value(bucket as usize).unwrap_or_default();
            let (entry, _) = flows::find::<L, _>(BucketWords(words), &key);
            let entry = entry.filter(|entry| entry.target() == record.target)?;
            Some(entry.meta().state())
        })
    }
}

/// A stretch of the connection table, as parts of 2^32.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stretch {
    pub from: u32,
    pub length: u32,
}

impl Stretch {
    /// A 32nd for each second, as `ip_vs_random_dropentry` has it, from anywhere on.
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

/// Whether `drop_entry` takes out an entry of this state and age (`ip_vs_random_dropentry`): those
/// that are half-open, datagrams that nothing followed for a minute, and templates of nobody.
/// Established connections stay, which IPVS drops too if they had few packets.
fn is_dropped(state: connection::State, age: u32, minute: u32) -> bool {
    match state {
        connection::SYN_RECV | connection::SYNACK | connection::TEMPLATE => true,
        connection::UDP_FIRST => age >= minute,
        _ => false,
    }
}

/// Whether a connection in this state is closed for good.
fn is_over(state: connection::State) -> bool {
    let closed = [connection::TIME_WAIT, connection::CLOSE];
    closed.contains(&state) || [sctp::CLOSED, sctp::REJECTED].contains(&state)
}
