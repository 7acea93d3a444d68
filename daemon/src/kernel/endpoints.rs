//! The tables of endpoints. `datapath` chooses the place of each endpoint. This module writes the
//! maps while packets are looked up in them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::atomic::Ordering;

use shunt_datapath::endpoint::{self, Endpoint, Slots};
use shunt_datapath::family::{endpoint_hash4, endpoint_hash6};

use super::mapping::Mapping;

/// The table of endpoints has no place for another one.
#[derive(Debug, thiserror::Error)]
#[error(
    "no room for the endpoint of {address}: the table of endpoints is full; start shuntd with \
     larger tables (--services, --servers)"
)]
pub struct Full {
    address: IpAddr,
}

/// Both tables.
pub(super) struct Endpoints {
    narrow: Side<4>,
    wide: Side<2>,
    /// Every endpoint with its id.
    known: BTreeMap<(IpAddr, u32), u32>,
}

impl Endpoints {
    /// Takes over the tables of an earlier daemon.
    pub(super) fn of(narrow: Mapping, wide: Mapping, seed: u64) -> Self {
        let (narrow, wide) = (Side::of(narrow, seed), Side::of(wide, seed));
        let mut known = BTreeMap::new();
        for there in narrow.all() {
            let address = (there.address[0] as u32).to_ne_bytes();
            known.insert((IpAddr::from(address), there.word), there.id);
        }
        for there in wide.all() {
            let [a, b] = there.address.map(u128::from);
            let address = (a | b << 64).to_ne_bytes();
            known.insert((IpAddr::from(address), there.word), there.id);
        }
        Self {
            narrow,
            wide,
            known,
        }
    }

    /// The address and word of each endpoint.
    #[must_use]
    pub(super) fn all(&self) -> Vec<(IpAddr, u32)> {
        self.known.keys().copied().collect()
    }

    /// The ids of all endpoints.
    #[must_use]
    pub(super) fn ids(&self) -> Vec<u32> {
        self.known.values().copied().collect()
    }

    /// Adds an endpoint with this id.
    pub(super) fn add(&mut self, address: IpAddr, word: u32, id: u32) -> Result<(), Full> {
        if self.known.get(&(address, word)) == Some(&id) {
            return Ok(());
        }
        let endpoint = Endpoint {
            address: words(address),
            word,
            id,
        };
        let seed = self.narrow.seed;
        let placed = match address {
            IpAddr::V4(_) => endpoint::place(&mut self.narrow, seed, endpoint),
            IpAddr::V6(_) => endpoint::place(&mut self.wide, seed, endpoint),
        };
        if placed.is_err() {
            return Err(Full { address });
        }
        self.known.insert((address, word), id);
        Ok(())
    }

    /// Removes an endpoint.
    pub(super) fn remove(&mut self, address: IpAddr, word: u32) {
        if self.known.remove(&(address, word)).is_none() {
            return;
        }
        let endpoint = Endpoint {
            address: words(address),
            word,
            id: 0,
        };
        let seed = self.narrow.seed;
        match address {
            IpAddr::V4(_) => endpoint::remove(&mut self.narrow, seed, endpoint),
            IpAddr::V6(_) => endpoint::remove(&mut self.wide, seed, endpoint),
        };
    }
}

/// The table of one family, with `SLOTS` endpoints a bucket.
struct Side<const SLOTS: usize> {
    mapping: Mapping,
    seed: u64,
    /// The endpoints in their second bucket, each with its first bucket.
    away: BTreeSet<(usize, usize, usize)>,
}

impl<const SLOTS: usize> Side<SLOTS> {
    fn of(mapping: Mapping, seed: u64) -> Self {
        let away = BTreeSet::new();
        let mut side = Self {
            mapping,
            seed,
            away,
        };
        for bucket in 0..side.mapping.len() {
            for slot in 0..SLOTS {
                let there = side.get(bucket, slot);
                side.away.extend(side.stray(bucket, slot, &there));
            }
        }
        side
    }

    fn all(&self) -> impl Iterator<Item = Endpoint> {
        let buckets = 0..self.mapping.len();
        let slots = buckets.flat_map(|bucket| (0..SLOTS).map(move |slot| (bucket, slot)));
        let there = slots.map(|(bucket, slot)| self.get(bucket, slot));
        there.filter(Endpoint::is_some)
    }

    /// The entry for `away` of an endpoint that does not lie in its first bucket.
    fn stray(&self, bucket: usize, slot: usize, there: &Endpoint) -> Option<(usize, usize, usize)> {
        let [home, _] = endpoint::homes(self, self.seed, there);
        (there.is_some() && home != bucket).then_some((home, bucket, slot))
    }
}

impl<const SLOTS: usize> Slots for Side<SLOTS> {
    const SLOTS: usize = SLOTS;

    fn buckets(&self) -> usize {
        self.mapping.len()
    }

    fn hash(address: [u64; 2], word: u32, seed: u64) -> u64 {
        match SLOTS {
            4 => endpoint_hash4(address[0] as u32, word, seed),
            _ => endpoint_hash6(address, word, seed),
        }
    }

    fn get(&self, bucket: usize, slot: usize) -> Endpoint {
        let words = self.mapping.value(bucket).unwrap_or_default();
        let load = |at: usize| words.get(at).map_or(0, |word| word.load(Ordering::Acquire));
        if SLOTS == 4 {
            let (key, id) = (load(slot * 2), load(slot * 2 + 1));
            return Endpoint {
                address: [key & 0xffff_ffff, 0],
                word: (key >> 32) as u32,
                id: id as u32,
            };
        }
        let [a, b, name] = [0, 1, 2].map(|at| load(slot * 4 + at));
        Endpoint {
            address: [a, b],
            word: name as u32,
            id: (name >> 32) as u32,
        }
    }

    /// Writes a slot. The word by which packets find the endpoint is cleared first and written
    /// last. A slot that held another endpoint stays marked as taken meanwhile, so that its bucket
    /// does not look as if it had room.
    fn put(&mut self, bucket: usize, slot: usize, endpoint: Endpoint) {
        let before = self.get(bucket, slot);
        if let Some(stray) = self.stray(bucket, slot, &before) {
            self.away.remove(&stray);
        }
        self.away.extend(self.stray(bucket, slot, &endpoint));
        let words = self.mapping.value(bucket).unwrap_or_default();
        let store = |at: usize, value: u64| {
            if let Some(word) = words.get(at) {
                word.store(value, Ordering::SeqCst);
            }
        };
        let [a, b] = endpoint.address;
        let (word, id) = (u64::from(endpoint.word), u64::from(endpoint.id));
        let is_free = endpoint.word == 0;
        let held = u64::from(endpoint::HELD);
        if SLOTS == 4 {
            let key = a & 0xffff_ffff | word << 32;
            let other = (before.word, before.address) != (endpoint.word, endpoint.address);
            if before.word != 0 && other {
                store(slot * 2, if is_free { 0 } else { held << 32 });
            }
            store(slot * 2 + 1, id);
            store(slot * 2, key);
            return;
        }
        if before.word != 0 && before.address != endpoint.address {
            store(slot * 4 + 2, if is_free { 0 } else { held });
        }
        store(slot * 4, a);
        store(slot * 4 + 1, b);
        store(slot * 4 + 2, word | id << 32);
    }

    fn has_displaced(&self, _: u64, home: usize) -> bool {
        let of_home = (home, 0, 0)..=(home, usize::MAX, usize::MAX);
        self.away.range(of_home).next().is_some()
    }
}

/// An address in the form of the tables.
#[must_use]
pub(super) fn words(address: IpAddr) -> [u64; 2] {
    match address {
        IpAddr::V4(address) => [u64::from(u32::from_ne_bytes(address.octets())), 0],
        IpAddr::V6(address) => {
            let value = u128::from_ne_bytes(address.octets());
            [value as u64, (value >> 64) as u64]
        }
    }
}
