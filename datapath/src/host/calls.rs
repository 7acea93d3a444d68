//! Calls in plain memory, and the desk where a datagram's text is searched.

use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::vec::Vec;

use crate::connection::{Meta, TICK_MASK};
use crate::table::call::{Call, CallKey, desk, word};

use super::HostWords;

/// The limit of calls.
pub const CALLS: usize = 8;

/// The table of calls, and the desk of the only CPU.
#[derive(Debug)]
pub struct Calls {
    /// The words of the desk.
    pub desk: Vec<AtomicU64>,
    places: Mutex<HashMap<CallKey, usize>>,
    words: Vec<AtomicU64>,
    /// The server that answers from each NAT endpoint, by the endpoint's id.
    pub answerers: Vec<u32>,
}

fn zeros(count: usize) -> Vec<AtomicU64> {
    (0..count).map(|_| AtomicU64::new(0)).collect()
}

impl Calls {
    pub(super) fn new(servers: usize) -> Self {
        Self {
            desk: zeros(desk::WORDS),
            places: Mutex::default(),
            words: zeros(CALLS * word::WORDS),
            answerers: std::vec![0; servers],
        }
    }

    /// The key on the desk.
    fn key(&self) -> CallKey {
        let at = |index: usize| self.desk[index].load(Ordering::SeqCst);
        let names = at(desk::NAMES);
        CallKey {
            client: [at(desk::CLIENT), at(desk::CLIENT + 1)],
            service: names as u32,
            length: (names >> 32) as u32,
            id: std::array::from_fn(|index| at(desk::ID + index)),
        }
    }

    pub(super) fn find(&self) -> Option<HostWords<'_>> {
        let places = self.places.lock().expect("no panic in here");
        let at = *places.get(&self.key())?;
        Some(HostWords(&self.words[at * word::WORDS..]))
    }

    pub(super) fn enter(&self, value: u64) {
        let connection = [0; 4];
        self.put(&self.key(), &Call { value, connection });
    }

    /// Enters a call or changes it. False if there is no room.
    pub(crate) fn put(&self, key: &CallKey, call: &Call) -> bool {
        let mut places = self.places.lock().expect("no panic in here");
        let free = (0..CALLS).find(|at| !places.values().any(|used| used == at));
        let Some(at) = places.get(key).copied().or(free) else {
            return false;
        };
        places.insert(*key, at);
        let words = &self.words[at * word::WORDS..];
        words[word::VALUE].store(call.value, Ordering::SeqCst);
        for (index, part) in call.connection.into_iter().enumerate() {
            words[word::CONNECTION + index].store(part, Ordering::SeqCst);
        }
        true
    }

    pub(super) fn remove(&self, key: &CallKey) -> bool {
        let mut places = self.places.lock().expect("no panic in here");
        places.remove(key).is_some()
    }

    pub(super) fn age(&self, ticks: u32) {
        for call in self.words.chunks(word::WORDS) {
            let value = call[word::VALUE].load(Ordering::SeqCst);
            let meta = Meta((value >> 32) as u32);
            let aged = meta.seen(meta.tick().wrapping_sub(ticks) & TICK_MASK);
            let value = value & 0xffff_ffff | u64::from(aged.0) << 32;
            call[word::VALUE].store(value, Ordering::SeqCst);
        }
    }

    /// All calls, as they are.
    #[must_use]
    pub fn all(&self) -> Vec<(CallKey, Call)> {
        let places = self.places.lock().expect("no panic in here");
        let read = |at: usize| {
            let at = |index: usize| self.words[at * word::WORDS + index].load(Ordering::SeqCst);
            Call {
                value: at(word::VALUE),
                connection: std::array::from_fn(|index| at(word::CONNECTION + index)),
            }
        };
        let all = places.iter();
        all.map(|(key, at)| (*key, read(*at))).collect()
    }
}
