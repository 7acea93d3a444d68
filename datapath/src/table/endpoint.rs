//! The place of an endpoint in its table, for the code that writes the table: daemon and tests.
//!
//! A bucket is one cache line, and an endpoint has two buckets ([`super::family`] has the look-up).
//! An endpoint is in its second bucket only while its first one is full, so that most look-ups read
//! one cache line. Packets are looked up during a write. So an endpoint that moves is copied before
//! its slot is reused, and a slot that is rewritten never looks free. An endpoint moves only from
//! its first bucket to its second: a look-up that has read the first bucket would miss one that
//! moves the other way. A slot that becomes free while its bucket has endpoints in their second
//! bucket is therefore not filled with one of these, but marked [`HELD`].

use core::sync::atomic::{Ordering, fence};

use crate::table::entry::{Bucket4, Bucket6};
use crate::table::family::{endpoint_hash4, endpoint_hash6};
use crate::table::hash::{first, second};

/// An endpoint of either family.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Endpoint {
    /// Wire order; IPv4 in the low half of the first word.
    pub address: [u64; 2],
    /// [`super::entry::endpoint_word`]; 0 is a free slot.
    pub word: u32,
    /// The endpoint's id in the keys of flows.
    pub id: u32,
}

impl Endpoint {
    /// Whether this is an endpoint, and no free or held slot.
    #[must_use]
    pub fn is_some(&self) -> bool {
        self.word != 0 && self.word != HELD
    }
}

/// A bucket of endpoints.
pub trait Bucket {
    /// Slots per bucket.
    const SLOTS: usize;
    /// The hash that gives the two buckets of an endpoint.
    fn hash(address: [u64; 2], word: u32, seed: u64) -> u64;
    /// The endpoint in a slot.
    fn get(&self, slot: usize) -> Endpoint;
    /// Writes an endpoint into a slot.
    fn put(&mut self, slot: usize, endpoint: Endpoint);
}

/// A table of endpoints as its writer sees it.
pub trait Slots {
    /// Slots per bucket.
    const SLOTS: usize;
    /// The number of buckets, a power of two.
    fn buckets(&self) -> usize;
    /// The hash that gives the two buckets of an endpoint.
    fn hash(address: [u64; 2], word: u32, seed: u64) -> u64;
    /// The endpoint in a slot of a bucket.
    fn get(&self, bucket: usize, slot: usize) -> Endpoint;
    /// Writes an endpoint into a slot of a bucket.
    fn put(&mut self, bucket: usize, slot: usize, endpoint: Endpoint);
    /// Whether an endpoint whose first bucket is `home` is in its second one.
    fn has_displaced(&self, seed: u64, home: usize) -> bool;
}

impl<B: Bucket> Slots for [B] {
    const SLOTS: usize = B::SLOTS;

    fn buckets(&self) -> usize {
        self.len()
    }

    fn hash(address: [u64; 2], word: u32, seed: u64) -> u64 {
        B::hash(address, word, seed)
    }

    fn get(&self, bucket: usize, slot: usize) -> Endpoint {
        let bucket = <[B]>::get(self, bucket);
        bucket.map(|bucket| bucket.get(slot)).unwrap_or_default()
    }

    fn put(&mut self, bucket: usize, slot: usize, endpoint: Endpoint) {
        if let Some(bucket) = self.get_mut(bucket) {
            bucket.put(slot, endpoint);
        }
    }

    fn has_displaced(&self, seed: u64, home: usize) -> bool {
        let mut places =
            (0..self.len()).flat_map(|bucket| (0..B::SLOTS).map(move |slot| (bucket, slot)));
        places.any(|(bucket, slot)| {
            let endpoint = Slots::get(self, bucket, slot);
            bucket != home && endpoint.is_some() && homes(self, seed, &endpoint)[0] == home
        })
    }
}

/// The table has no room for an endpoint, even if others move.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full;

/// The word of a slot that is being rewritten, or that is free in a bucket which look-ups must not
/// take for the only one of its endpoints. It is not 0, and its kind is never looked up.
pub const HELD: u32 = 0xff << 24;

/// The limit of buckets that a search for room visits. While two fifths of all slots are free, a
/// search ends after about a dozen.
const SEARCHED: usize = 256;

/// Puts an endpoint into the table, or changes the id of one that is there.
pub fn place<S: Slots + ?Sized>(table: &mut S, seed: u64, endpoint: Endpoint) -> Result<(), Full> {
    let homes = homes(table, seed, &endpoint);
    for bucket in homes {
        if let Some(slot) = slot_of(table, bucket, &endpoint) {
            table.put(bucket, slot, endpoint);
            return Ok(());
        }
    }
    for bucket in homes {
        if let Some(slot) = free(table, bucket) {
            table.put(bucket, slot, endpoint);
            return Ok(());
        }
    }
    make_room(table, seed, homes, endpoint)
}

/// A bucket that the search reached: the endpoint in `slot` of an earlier step's bucket can move
/// here.
#[derive(Clone, Copy, Debug, Default)]
struct Step {
    bucket: usize,
    /// The index of the earlier step; `usize::MAX` for the endpoint's own two buckets.
    from: usize,
    slot: usize,
}

/// Moves endpoints to their second buckets until one of the endpoint's two buckets has room, and
/// puts the endpoint there. The search is breadth-first, so that the fewest endpoints move. No
/// endpoint moves from its second bucket to its first: a look-up that has read the first bucket
/// would find it in neither.
fn make_room<S: Slots + ?Sized>(
    table: &mut S,
    seed: u64,
    [home, away]: [usize; 2],
    endpoint: Endpoint,
) -> Result<(), Full> {
    let mut steps = [Step::default(); SEARCHED];
    let (mut known, mut at) = (0, 0);
    for bucket in [home, away] {
        note(
            &mut steps,
            &mut known,
            Step {
                bucket,
                from: usize::MAX,
                slot: 0,
            },
        );
    }
    while let Some(step) = steps.get(at).filter(|_| at < known).copied() {
        for slot in 0..S::SLOTS {
            let [first, second] = homes(table, seed, &table.get(step.bucket, slot));
            if first != step.bucket || second == first {
                continue;
            }
            if let Some(place) = free(table, second) {
                carry(table, &steps, (at, slot), (second, place), endpoint);
                return Ok(());
            }
            note(
                &mut steps,
                &mut known,
                Step {
                    bucket: second,
                    from: at,
                    slot,
                },
            );
        }
        at = at.saturating_add(1);
    }
    Err(Full)
}

/// Adds a bucket to the steps, unless it is among them or the steps are full.
fn note(steps: &mut [Step; SEARCHED], known: &mut usize, step: Step) {
    let is_known = steps
        .iter()
        .take(*known)
        .any(|other| other.bucket == step.bucket);
    if let Some(place) = steps.get_mut(*known).filter(|_| !is_known) {
        *place = step;
        *known = known.saturating_add(1);
    }
}

/// Moves the endpoint in a step's slot to the free place `to`, then the endpoint of the step before
/// into that slot, and so on. `endpoint` takes the last slot that becomes free.
fn carry<S: Slots + ?Sized>(
    table: &mut S,
    steps: &[Step; SEARCHED],
    (mut at, mut slot): (usize, usize),
    mut to: (usize, usize),
    endpoint: Endpoint,
) {
    // Each turn goes to an earlier step, so there are at most as many turns as steps.
    while let Some(step) = steps.get(at).copied() {
        let moved = table.get(step.bucket, slot);
        table.put(to.0, to.1, moved);
        to = (step.bucket, slot);
        (at, slot) = (step.from, step.slot);
    }
    table.put(to.0, to.1, endpoint);
}

/// Removes an endpoint; false if it is not there. Its slot becomes [`HELD`] while an endpoint whose
/// first bucket this is lies in its second one, else free. The last of these takes the held slots
/// with it.
pub fn remove<S: Slots + ?Sized>(table: &mut S, seed: u64, endpoint: Endpoint) -> bool {
    let [home, away] = homes(table, seed, &endpoint);
    let place = [home, away]
        .into_iter()
        .find_map(|bucket| Some((bucket, slot_of(table, bucket, &endpoint)?)));
    let Some((bucket, slot)) = place else {
        return false;
    };
    let word = if table.has_displaced(seed, bucket) {
        HELD
    } else {
        0
    };
    let nothing = Endpoint {
        word,
        ..Endpoint::default()
    };
    table.put(bucket, slot, nothing);
    if bucket != home && !table.has_displaced(seed, home) {
        for slot in 0..S::SLOTS {
            if table.get(home, slot).word == HELD {
                table.put(home, slot, Endpoint::default());
            }
        }
    }
    true
}

/// The two buckets of an endpoint.
pub fn homes<S: Slots + ?Sized>(table: &S, seed: u64, endpoint: &Endpoint) -> [usize; 2] {
    let mask = table.buckets().wrapping_sub(1) as u32;
    let hash = S::hash(endpoint.address, endpoint.word, seed);
    [first(hash, mask) as usize, second(hash, mask) as usize]
}

fn slot_of<S: Slots + ?Sized>(table: &S, bucket: usize, endpoint: &Endpoint) -> Option<usize> {
    (0..S::SLOTS).find(|slot| {
        let there = table.get(bucket, *slot);
        there.word == endpoint.word && there.address == endpoint.address
    })
}

fn free<S: Slots + ?Sized>(table: &S, bucket: usize) -> Option<usize> {
    (0..S::SLOTS).find(|slot| !table.get(bucket, *slot).is_some())
}

/// Writes a slot that packets read at the same time: the word is cleared first and written last.
/// When one endpoint replaces another, the word is [`HELD`] meanwhile and not 0, since the bucket
/// must not look as if it had room.
macro_rules! write {
    ($slot:expr, $address:expr, $endpoint:expr) => {{
        let slot = &raw mut *$slot;
        let endpoint: Endpoint = $endpoint;
        // SAFETY: the slot is mutably borrowed. The writes are volatile, since packets read it.
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

    fn hash([low, _]: [u64; 2], word: u32, seed: u64) -> u64 {
        endpoint_hash4(low as u32, word, seed)
    }

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

    fn hash(address: [u64; 2], word: u32, seed: u64) -> u64 {
        endpoint_hash6(address, word, seed)
    }

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
    use crate::table::entry::{Endpoint4, Endpoint6, endpoint_word, kind};

    const SEED: u64 = 0x5eed;

    fn endpoint(number: u32, id: u32) -> Endpoint {
        Endpoint {
            address: [u64::from(number).wrapping_mul(0x9e37_79b9) & 0xffff_ffff, 0],
            word: endpoint_word(number as u16, 6, kind::SERVICE),
            id,
        }
    }

    /// Whether every endpoint in its second bucket has a first bucket without a free slot, and
    /// every held slot a bucket that needs it.
    fn keeps_the_rule<B: Bucket>(buckets: &[B]) -> bool {
        let looks_full =
            |bucket: usize| (0..B::SLOTS).all(|slot| Slots::get(buckets, bucket, slot).word != 0);
        (0..buckets.len()).all(|bucket| {
            (0..B::SLOTS).all(|slot| {
                let there = Slots::get(buckets, bucket, slot);
                let [home, away] = homes(buckets, SEED, &there);
                match there.word {
                    0 => true,
                    HELD => buckets.has_displaced(SEED, bucket),
                    _ => bucket == home || (bucket == away && looks_full(home)),
                }
            })
        })
    }

    /// A look-up that reads the first bucket in one state of the table and the second in another.
    fn found<B: Bucket>(first: &[B], second: &[B], wanted: &Endpoint) -> Option<u32> {
        let [home, away] = homes(first, SEED, wanted);
        if let Some(slot) = slot_of(first, home, wanted) {
            return Some(Slots::get(first, home, slot).id);
        }
        if (0..B::SLOTS).any(|slot| Slots::get(first, home, slot).word == 0) {
            return None;
        }
        slot_of(second, away, wanted).map(|slot| Slots::get(second, away, slot).id)
    }

    fn find<B: Bucket>(buckets: &[B], wanted: &Endpoint) -> Option<u32> {
        found(buckets, buckets, wanted)
    }

    /// A table that keeps every state that packets can see.
    struct Watched<B> {
        states: Vec<Vec<B>>,
    }

    impl<B: Bucket + Clone> Watched<B> {
        fn last(&self) -> &[B] {
            &self.states[self.states.len() - 1]
        }

        /// Forgets all states but the last.
        fn begin(&mut self) {
            self.states.drain(..self.states.len() - 1);
        }

        /// Whether a look-up finds this endpoint, whichever two states it reads.
        fn always_has(&self, wanted: &Endpoint) -> bool {
            let later = |at: usize| self.states[at..].iter();
            (0..self.states.len())
                .all(|at| later(at).all(|second| found(&self.states[at], second, wanted).is_some()))
        }
    }

    impl<B: Bucket + Clone> Slots for Watched<B> {
        const SLOTS: usize = B::SLOTS;

        fn buckets(&self) -> usize {
            self.last().buckets()
        }

        fn hash(address: [u64; 2], word: u32, seed: u64) -> u64 {
            B::hash(address, word, seed)
        }

        fn get(&self, bucket: usize, slot: usize) -> Endpoint {
            Slots::get(self.last(), bucket, slot)
        }

        fn put(&mut self, bucket: usize, slot: usize, endpoint: Endpoint) {
            let mut next = self.last().to_vec();
            Slots::put(&mut next[..], bucket, slot, endpoint);
            self.states.push(next);
        }

        fn has_displaced(&self, seed: u64, home: usize) -> bool {
            self.last().has_displaced(seed, home)
        }
    }

    fn misses_nothing<B: Bucket + Clone>(buckets: Vec<B>, steps: &[(u8, bool)]) {
        let mut table = Watched {
            states: std::vec![buckets],
        };
        let mut present = std::collections::BTreeSet::new();
        for (number, placed) in steps {
            let changed = endpoint(u32::from(*number), 1);
            table.begin();
            let stays: Vec<u8> = present.iter().copied().filter(|n| n != number).collect();
            if *placed {
                if place(&mut table, SEED, changed).is_ok() {
                    present.insert(*number);
                }
            } else {
                remove(&mut table, SEED, changed);
                present.remove(number);
            }
            for number in stays {
                let wanted = endpoint(u32::from(number), 1);
                assert!(table.always_has(&wanted), "{number} was missed");
            }
        }
    }

    fn is_as_a_map<B: Bucket>(mut buckets: Vec<B>, steps: &[(u8, bool)]) {
        let mut model = BTreeMap::new();
        for (turn, (number, placed)) in steps.iter().enumerate() {
            let endpoint = endpoint(u32::from(*number), turn as u32 + 1);
            if *placed {
                if place(&mut buckets[..], SEED, endpoint).is_ok() {
                    model.insert(*number, endpoint.id);
                } else {
                    assert!(!model.contains_key(number));
                }
            } else {
                let was_there = model.remove(number).is_some();
                assert_eq!(remove(&mut buckets[..], SEED, endpoint), was_there);
            }
            assert!(keeps_the_rule(&buckets));
            for number in 0..=u8::MAX {
                let wanted = super::tests::endpoint(u32::from(number), 0);
                assert_eq!(find(&buckets, &wanted), model.get(&number).copied());
            }
        }
    }

    /// The percentage of slots that neighbouring addresses fill before the table refuses one.
    fn fills<B: Bucket>(mut buckets: Vec<B>, address: impl Fn(u64) -> [u64; 2]) -> usize {
        let room = buckets.len() * B::SLOTS;
        let word = endpoint_word(0x5000, 6, kind::SERVICE);
        let taken = (0..room as u64).position(|number| {
            let address = address(number);
            let endpoint = Endpoint {
                address,
                word,
                id: 1,
            };
            place(&mut buckets[..], SEED, endpoint).is_err()
        });
        assert!(keeps_the_rule(&buckets));
        taken.unwrap_or(room) * 100 / room
    }

    // The director admits as many endpoints as fill three fifths of the slots.
    #[test]
    fn a_table_refuses_nobody_before_it_is_nearly_full() {
        for bits in [8, 10, 12] {
            let narrow = std::vec![Bucket4 { slots: [Endpoint4::default(); 4] }; 1 << bits];
            let filled = fills(narrow, |n| [u64::from((0x0a00_0000 | n as u32).to_be()), 0]);
            assert!(filled >= 60, "IPv4, {bits} bits: {filled} %");
            for shift in [0, 16] {
                let wide = std::vec![Bucket6 { slots: [Endpoint6::default(); 2] }; 1 << bits];
                let filled = fills(wide, |n| [0xb80d_0120, (n << shift).to_be()]);
                assert!(filled >= 60, "IPv6, {bits} bits: {filled} %");
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

        #[test]
        fn a_look_up_during_a_change_misses_no_endpoint(
            steps in prop::collection::vec((any::<u8>(), prop::bool::weighted(0.6)), 1..200)
        ) {
            misses_nothing(std::vec![Bucket4 { slots: [Endpoint4::default(); 4] }; 16], &steps);
            misses_nothing(std::vec![Bucket6 { slots: [Endpoint6::default(); 2] }; 32], &steps);
        }
    }
}
