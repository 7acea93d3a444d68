//! Where an endpoint lies in its table, for whoever writes it: the daemon, and tests.
//!
//! A bucket is one cache line, an endpoint has two to choose from ([`crate::family`] looks it up).
//! It lies in its second bucket only while its first one is full, so that most lookups read one
//! line. Packets are looked up all the while: an entry that moves is found at every moment in its
//! old place or its new one, and a slot that is rewritten never looks free in between.

use core::sync::atomic::{Ordering, fence};

use crate::entry::{Bucket4, Bucket6};
use crate::family::endpoint_hash;
use crate::flows::{first, second};

/// An endpoint of either family.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Endpoint {
    /// Wire order; IPv4 in the low half of the first word.
    pub address: [u64; 2],
    /// [`crate::entry::endpoint_word`]; 0 is a free slot.
    pub word: u32,
    pub id: u32,
}

/// A bucket of endpoints.
pub trait Bucket {
    const SLOTS: usize;
    fn get(&self, slot: usize) -> Endpoint;
    fn put(&mut self, slot: usize, endpoint: Endpoint);
}

/// Both buckets of an endpoint are full, and nothing in the first one can move.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full;

/// The word of a slot that is being rewritten: not free, and of no kind that is looked up.
const HELD: u32 = 0xff << 24;

/// Puts an endpoint into the table, or gives one that is there another id. `buckets` must be as
/// many as a power of two.
pub fn place<B: Bucket>(buckets: &mut [B], seed: u64, endpoint: Endpoint) -> Result<(), Full> {
    let [home, away] = homes(buckets, seed, &endpoint);
    for bucket in [home, away] {
        if let Some(slot) = slot_of(buckets, bucket, &endpoint) {
            put(buckets, bucket, slot, endpoint);
            return Ok(());
        }
    }
    for bucket in [home, away] {
        if let Some(slot) = free(buckets, bucket) {
            put(buckets, bucket, slot, endpoint);
            return Ok(());
        }
    }
    make_room(buckets, seed, home, endpoint)
}

/// Moves one endpoint of a full bucket to its second one, and takes its slot.
fn make_room<B: Bucket>(
    buckets: &mut [B],
    seed: u64,
    home: usize,
    endpoint: Endpoint,
) -> Result<(), Full> {
    for slot in 0..B::SLOTS {
        let other = get(buckets, home, slot);
        let [first, away] = homes(buckets, seed, &other);
        // One that is here because its first bucket was full cannot go back there.
        if first != home || away == home {
            continue;
        }
        if let Some(place) = free(buckets, away) {
            put(buckets, away, place, other);
            put(buckets, home, slot, endpoint);
            return Ok(());
        }
    }
    Err(Full)
}

/// Takes an endpoint out. False if it is not there.
pub fn remove<B: Bucket>(buckets: &mut [B], seed: u64, endpoint: Endpoint) -> bool {
    let place = homes(buckets, seed, &endpoint)
        .into_iter()
        .find_map(|bucket| Some((bucket, slot_of(buckets, bucket, &endpoint)?)));
    let Some((mut bucket, mut slot)) = place else {
        return false;
    };
    // Each turn brings one endpoint to its first bucket, so there are no more turns than endpoints.
    while let Some((from, at)) = displaced(buckets, seed, bucket) {
        let endpoint = get(buckets, from, at);
        put(buckets, bucket, slot, endpoint);
        (bucket, slot) = (from, at);
    }
    put(buckets, bucket, slot, Endpoint::default());
    true
}

/// An endpoint that belongs into this bucket and lies in its second one.
fn displaced<B: Bucket>(buckets: &[B], seed: u64, home: usize) -> Option<(usize, usize)> {
    for bucket in 0..buckets.len() {
        if bucket == home {
            continue;
        }
        for slot in 0..B::SLOTS {
            let endpoint = get(buckets, bucket, slot);
            let [first, _] = homes(buckets, seed, &endpoint);
            if endpoint.word != 0 && first == home {
                return Some((bucket, slot));
            }
        }
    }
    None
}

/// The two buckets of an endpoint.
fn homes<B>(buckets: &[B], seed: u64, endpoint: &Endpoint) -> [usize; 2] {
    let mask = buckets.len().wrapping_sub(1) as u32;
    let hash = endpoint_hash(endpoint.address, endpoint.word, seed);
    [first(hash, mask) as usize, second(hash, mask) as usize]
}

fn slot_of<B: Bucket>(buckets: &[B], bucket: usize, endpoint: &Endpoint) -> Option<usize> {
    (0..B::SLOTS).find(|slot| {
        let there = get(buckets, bucket, *slot);
        there.word == endpoint.word && there.address == endpoint.address
    })
}

fn free<B: Bucket>(buckets: &[B], bucket: usize) -> Option<usize> {
    (0..B::SLOTS).find(|slot| get(buckets, bucket, *slot).word == 0)
}

fn get<B: Bucket>(buckets: &[B], bucket: usize, slot: usize) -> Endpoint {
    buckets
        .get(bucket)
        .map(|bucket| bucket.get(slot))
        .unwrap_or_default()
}

fn put<B: Bucket>(buckets: &mut [B], bucket: usize, slot: usize, endpoint: Endpoint) {
    if let Some(bucket) = buckets.get_mut(bucket) {
        bucket.put(slot, endpoint);
    }
}

/// Writes a slot that packets read at the same time: the word last, and cleared first. A slot that
/// holds another endpoint stays taken meanwhile, since its bucket must not look as if it had room.
macro_rules! write {
    ($slot:expr, $address:expr, $endpoint:expr) => {{
        let slot = &raw mut *$slot;
        let endpoint: Endpoint = $endpoint;
        // SAFETY: the slot is borrowed as ours; volatile, since packets read it.
        unsafe {
            if (*slot).word != 0 || endpoint.word == 0 {
                let word = if endpoint.word == 0 { 0 } else { HELD };
                (&raw mut (*slot).word).write_volatile(word);
                fence(Ordering::SeqCst);
            }
            (&raw mut (*slot).address).write_volatile($address);
            (&raw mut (*slot).id).write_volatile(endpoint.id);
            fence(Ordering::SeqCst);
            (&raw mut (*slot).word).write_volatile(endpoint.word);
        }
    }};
}

impl Bucket for Bucket4 {
    const SLOTS: usize = 4;

    fn get(&self, slot: usize) -> Endpoint {
        let slot = self.slots.get(slot).copied().unwrap_or_default();
        Endpoint {
            address: [slot.address as u64, 0],
            word: slot.word,
            id: slot.id,
        }
    }

    fn put(&mut self, slot: usize, endpoint: Endpoint) {
        if let Some(slot) = self.slots.get_mut(slot) {
            write!(slot, endpoint.address[0] as u32, endpoint);
        }
    }
}

impl Bucket for Bucket6 {
    const SLOTS: usize = 2;

    fn get(&self, slot: usize) -> Endpoint {
        let slot = self.slots.get(slot).copied().unwrap_or_default();
        Endpoint {
            address: slot.address,
            word: slot.word,
            id: slot.id,
        }
    }

    fn put(&mut self, slot: usize, endpoint: Endpoint) {
        if let Some(slot) = self.slots.get_mut(slot) {
            write!(slot, endpoint.address, endpoint);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::vec::Vec;

    use proptest::prelude::*;

    use super::*;
    use crate::entry::{Endpoint4, Endpoint6, endpoint_word, kind};

    const SEED: u64 = 0x5eed;

    fn endpoint(number: u32, id: u32) -> Endpoint {
        Endpoint {
            address: [u64::from(number).wrapping_mul(0x9e37_79b9) & 0xffff_ffff, 0],
            word: endpoint_word(number as u16, 6, kind::SERVICE),
            id,
        }
    }

    /// What the rule says: in the second bucket only while the first has no free slot.
    fn keeps_the_rule<B: Bucket>(buckets: &[B]) -> bool {
        (0..buckets.len()).all(|bucket| {
            (0..B::SLOTS).all(|slot| {
                let there = get(buckets, bucket, slot);
                let [home, away] = homes(buckets, SEED, &there);
                let is_away = bucket != home;
                there.word == 0 || !is_away || (bucket == away && free(buckets, home).is_none())
            })
        })
    }

    fn find<B: Bucket>(buckets: &[B], wanted: &Endpoint) -> Option<u32> {
        let [home, away] = homes(buckets, SEED, wanted);
        let bucket = match slot_of(buckets, home, wanted) {
            Some(_) => home,
            None if free(buckets, home).is_some() => return None,
            None => away,
        };
        slot_of(buckets, bucket, wanted).map(|slot| get(buckets, bucket, slot).id)
    }

    fn is_as_a_map<B: Bucket>(mut buckets: Vec<B>, steps: &[(u8, bool)]) {
        let mut model = BTreeMap::new();
        for (turn, (number, placed)) in steps.iter().enumerate() {
            let endpoint = endpoint(u32::from(*number), turn as u32 + 1);
            if *placed {
                if place(&mut buckets, SEED, endpoint).is_ok() {
                    model.insert(*number, endpoint.id);
                } else {
                    assert!(!model.contains_key(number));
                }
            } else {
                let was_there = model.remove(number).is_some();
                assert_eq!(remove(&mut buckets, SEED, endpoint), was_there);
            }
            assert!(keeps_the_rule(&buckets));
            for number in 0..=u8::MAX {
                let wanted = super::tests::endpoint(u32::from(number), 0);
                assert_eq!(find(&buckets, &wanted), model.get(&number).copied());
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]

        #[test]
        fn a_table_of_endpoints_is_a_map_and_keeps_first_buckets_full(
            steps in prop::collection::vec((any::<u8>(), prop::bool::weighted(0.6)), 1..200)
        ) {
            is_as_a_map(std::vec![Bucket4 { slots: [Endpoint4::default(); 4] }; 16], &steps);
            is_as_a_map(std::vec![Bucket6 { slots: [Endpoint6::default(); 2] }; 32], &steps);
        }
    }
}
