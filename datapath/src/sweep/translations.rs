//! What a sweep does to each translation: it ends when its flow does.
//!
//! The packet path enters translations and removes none but its own of a moment ago. A sweep
//! removes both entries of a flow that is gone.

use crate::connection;
use crate::flows::{Key, Narrow, Wide};
use crate::translation::{Translation, Tuple, flag};

use super::{Entries, Tables, View};

/// Ticks for which an entry without its flow, or without its other half, is left alone: it may be
/// on the way.
const IDLE: u32 = 2;
/// Ticks that the translation of a single datagram waits for its answer.
const ONE_PACKET: u32 = 10;
/// The other half of an answer's entry is a look-up of its own. Each sweep makes it for one in so
/// many of these entries.
const SHARE: usize = 8;

impl<T: Tables> View<'_, T> {
    /// Looks after entry number `index` in sweep `turn`; true if it was removed.
    pub fn translation(
        self,
        map: &impl Entries<Tuple, Translation>,
        (tuple, translation): (&Tuple, &Translation),
        index: usize,
        turn: usize,
    ) -> bool {
        if translation.has(flag::FORWARD) {
            self.end(map, tuple, translation)
        } else {
            index % SHARE == turn % SHARE && self.end_answer(map, tuple, translation)
        }
    }

    /// Removes a client's entry and its answers' if the flow is gone.
    fn end(
        self,
        map: &impl Entries<Tuple, Translation>,
        tuple: &Tuple,
        translation: &Translation,
    ) -> bool {
        let lives = if translation.has(flag::ONE_PACKET) {
            ONE_PACKET
        } else {
            IDLE
        };
        let is_young = connection::age(translation.tick(), self.now) <= lives;
        if is_young || self.has_flow(tuple, translation) {
            return false;
        }
        if !map.delete(tuple) {
            return true;
        }
        let answer = translation.to.turned();
        let other = map.find(&answer);
        let other = other.filter(|other| other.to == tuple.turned());
        if other.is_some() {
            map.delete(&answer);
        }
        // A client that came back in this moment found one or both, and goes on with them: its flow
        // was there before it looked. What it entered itself meanwhile stays.
        if !self.has_flow(tuple, translation) {
            return true;
        }
        map.enter(tuple, translation);
        if let Some(other) = other {
            map.enter(&answer, &other);
        }
        false
    }

    /// Removes an answer's entry to which no client's belongs.
    fn end_answer(
        self,
        map: &impl Entries<Tuple, Translation>,
        tuple: &Tuple,
        translation: &Translation,
    ) -> bool {
        if connection::age(translation.tick(), self.now) <= IDLE {
            return false;
        }
        let other = map.find(&translation.to.turned());
        let belongs = other.is_some_and(|other| other.to.turned() == *tuple);
        if belongs || !map.delete(tuple) {
            return false;
        }
        // As above: a client that took this for its own has its flow already.
        if !self.has_flow(&translation.to.turned(), translation) {
            return true;
        }
        map.enter(tuple, translation);
        false
    }

    /// Whether the flow of a client's translation is in the table of flows.
    fn has_flow(self, tuple: &Tuple, translation: &Translation) -> bool {
        let (port, service) = (tuple.source_port(), translation.service());
        if tuple.is_v6() {
            let key = Key::v6(tuple.source, port, service);
            self.find::<Wide>(&key, |_| true).is_some()
        } else {
            let key = Key::v4(tuple.source[0] as u32, port, service);
            self.find::<Narrow>(&key, |_| true).is_some()
        }
    }
}
