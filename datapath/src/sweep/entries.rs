//! Sweeps flows: expiry, `drop_entry`, and way-back entries without a connection.

use std::vec;
use std::vec::Vec;

use crate::connection::sctp;
use crate::connection::{self, Meta};
use crate::table::entry::{self, counts};
use crate::table::flows::{self, Entry, Key, Layout, Record, Words};

use super::{Memory, Tables, Tally, Templates, View, is_wide};

/// Ticks after which an unused way-back entry without a connection is removed.
const IDLE: u32 = 2;

/// The slots of a bucket.
enum Slots {
    /// All are free.
    Free,
    Taken,
    /// At least one is [`flows::GONE`].
    Gone,
}

impl<T: Tables> View<'_, T> {
    /// Sweeps one family. `to_free` are the buckets in which the previous sweep found a slot that
    /// is [`flows::GONE`]. Returns the buckets in which this sweep found one.
    pub(super) fn table<L: Layout>(
        self,
        to_free: Vec<u32>,
        memory: &mut Memory,
        tally: &mut Tally,
    ) -> Vec<u32> {
        let mut gone = Vec::new();
        // A bit for each bucket that is the first choice of a flow that lies in its second one.
        // Empty if no bucket is to be freed.
        let mask = self.mask::<L>();
        let asked = if to_free.is_empty() {
            0
        } else {
            mask as usize + 1
        };
        let mut away = vec![0u64; asked.div_ceil(64)];
        for (region, word) in self.occupied::<L>() {
            let mut is_free = true;
            for bucket in self.buckets::<L>(region) {
                let Some(words) = self.bucket::<L>(bucket) else {
                    break;
                };
                match self.look::<L>(bucket, words, &mut away, &mut memory.templates, tally) {
                    Slots::Free => {}
                    Slots::Taken => is_free = false,
                    Slots::Gone => {
                        is_free = false;
                        gone.push(bucket);
                    }
                }
            }
            if is_free {
                memory.nothing_there(word);
            }
        }
        // Frees only slots that were gone a whole sweep ago: this sweep has seen every flow that
        // went to its second bucket because of them.
        for bucket in to_free {
            let needed = away
                .get(bucket as usize / 64)
                .is_none_or(|word| word >> (bucket % 64) & 1 != 0);
            if needed {
                continue;
            }
            if let Some(words) = self.bucket::<L>(bucket) {
                for at in 0..L::SLOTS {
                    flows::sweep::<L, _>(words, at);
                }
            }
        }
        gone
    }

    /// Sweeps a bucket.
    fn look<L: Layout>(
        self,
        bucket: u32,
        words: T::Words,
        away: &mut [u64],
        templates: &mut Templates,
        tally: &mut Tally,
    ) -> Slots {
        let mask = self.mask::<L>();
        let (mut is_free, mut has_gone) = (true, false);
        for at in 0..L::SLOTS {
            let first = words.skip(at * L::STRIDE).load(0);
            if first == flows::FREE {
                continue;
            }
            is_free = false;
            has_gone |= first == flows::GONE;
            let Some((record, entry)) = flows::read::<L, _>(words, at) else {
                continue;
            };
            if !away.is_empty() {
                let home = flows::first(self.hash::<L>(&record.key), mask);
                if home != bucket
                    && let Some(word) = away.get_mut(home as usize / 64)
                {
                    *word |= 1 << (home % 64);
                }
            }
            let dropped = self.stretch.is_some_and(|of| of.has(bucket, mask));
            has_gone |= self.entry::<L>((&record, &entry), dropped, templates, tally);
        }
        match (is_free, has_gone) {
            (true, _) => Slots::Free,
            (false, false) => Slots::Taken,
            (false, true) => Slots::Gone,
        }
    }

    fn hash<L: Layout>(self, key: &Key) -> u64 {
        flows::hash::<L>(key, self.tables.shape().seed)
    }

    /// Counts a live entry or removes one that is over; true if removed.
    fn entry<L: Layout>(
        self,
        (record, entry): (&Record, &Entry<T::Words>),
        dropped: bool,
        templates: &mut Templates,
        tally: &mut Tally,
    ) -> bool {
        if record.key.is_back::<L>() {
            if self.way_back::<L>(record, entry) {
                return true;
            }
            count::<L>(record, tally);
            let hop = record.meta.low();
            if let Some(word) = tally.found.hops.get_mut(hop as usize / 64) {
                *word |= 1 << (hop % 64);
            }
            return false;
        }
        let age = record.meta.age(self.now);
        let expired = age > self.limit(record.meta.state()) || self.has_ended(record.target);
        let dropped = !expired && dropped && is_dropped(record.meta.state(), age, self.minute());
        if (expired || dropped) && entry.remove::<L>(&record.key) {
            self.release(record.target, record.meta);
            tally.found.expired += u64::from(expired);
            tally.found.dropped += u64::from(dropped);
            return true;
        }
        count::<L>(record, tally);
        let endpoint = record.key.endpoint::<L>();
        tally.services.insert(entry::with_port(endpoint, 0));
        if record.meta.is_template() {
            templates.meet::<L>(record, self.now);
        } else {
            templates.hold::<L, T>(self, record);
        }
        false
    }

    fn release(self, server: u32, meta: Meta) {
        if let Some(words) = self.tables.counts(server) {
            let what = if meta.is_template() {
                0
            } else if meta.has(Meta::INACTIVE) {
                counts::INACTIVE
            } else {
                counts::ACTIVE
            };
            words.add(0, 0u64.wrapping_sub(what));
        }
    }

    /// Sweeps a way-back entry; true if removed.
    ///
    /// A way-back entry is entered just before its connection, and both are replaced when the
    /// client reuses its port. So only a way-back entry that was unused for a while can have lost
    /// its connection. The way-back entry of a closed connection is made so old that it may be
    /// displaced, as the connection's own entry may; an answer makes it young again.
    fn way_back<L: Layout>(self, record: &Record, entry: &Entry<T::Words>) -> bool {
        let lives = self.limit(connection::WAY_BACK);
        let age = record.meta.age(self.now);
        // A way-back entry that may be displaced begins with an age of `lives + 1`.
        if age <= IDLE || age.checked_sub(lives + 1).is_some_and(|age| age <= IDLE) {
            return false;
        }
        match self.connection_of::<L>(record) {
            None => entry.remove::<L>(&record.key),
            Some(state) if is_over(state) && age <= lives => {
                let mut entry = *entry;
                entry.update::<L>(record.meta.yielding(self.now, lives));
                false
            }
            Some(_) => false,
        }
    }

    /// The state of the connection that a way-back entry belongs to, if there is one.
    fn connection_of<L: Layout>(self, record: &Record) -> Option<connection::State> {
        let server = self.tables.server(record.target)?;
        let port = record.key.port::<L>();
        // A server of every port answers from the port that the client asked for.
        let asked = record.key.endpoint::<L>() as u16;
        let service = entry::with_port(server.service, asked.to_be());
        let key = if is_wide::<L>() {
            Key::v6(record.key.address, port, service)
        } else {
            Key::v4((record.key.first >> 32) as u32, port, service)
        };
        let found = self.find::<L>(&key, |entry| entry.target() == record.target)?;
        Some(found.meta().state())
    }

    /// The entry of a flow, in either of its buckets, for which `wanted` holds.
    pub(super) fn find<L: Layout>(
        self,
        key: &Key,
        wanted: impl Fn(&Entry<T::Words>) -> bool,
    ) -> Option<Entry<T::Words>> {
        let (hash, mask) = (self.hash::<L>(key), self.mask::<L>());
        let places = [flows::first(hash, mask), flows::second(hash, mask)];
        places.into_iter().find_map(|bucket| {
            let (entry, _) = flows::find::<L, _>(self.bucket::<L>(bucket)?, key);
            entry.filter(&wanted)
        })
    }
}

fn count<L: Layout>(record: &Record, tally: &mut Tally) {
    tally.found.used += 1;
    tally.found.used6 += u64::from(is_wide::<L>());
    tally.servers.insert(record.target);
}

/// Whether `drop_entry` removes an entry of this state and age (`ip_vs_random_dropentry`):
/// half-open connections, single datagrams after a minute, and templates that are not assured.
/// Established connections stay, of which IPVS drops some with few packets.
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
