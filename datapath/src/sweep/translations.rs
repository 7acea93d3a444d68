//! Sweeps translations: a translation ends with its flow.
//!
//! The packet path enters translations, and removes one only to undo its own entry. A sweep removes
//! both entries of a flow that has ended.

use crate::connection;
use crate::table::flows::{Key, Narrow, Wide};
use crate::table::translation::{Translation, Tuple, flag};

use super::{Entries, Tables, View};

/// Ticks for which an entry without its flow, or without its counterpart, is kept: either may be
/// about to be entered.
const IDLE: u32 = 2;
/// Ticks that the translation of a single datagram waits for its answer.
const ONE_PACKET: u32 = 10;
/// Each sweep checks one of so many answers' entries, since finding the client's entry takes
/// another look-up.
const SHARE: usize = 8;

impl<T: Tables> View<'_, T> {
    /// Sweeps entry number `index` in sweep number `turn`; true if removed.
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

    /// Removes a client's entry and the entry of its answers if the flow has ended.
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
        // A client that came back at this moment found one or both entries and uses them; its flow
        // was entered before it looked. Both go back, unless the client has entered its own.
        if !self.has_flow(tuple, translation) {
            return true;
        }
        map.enter(tuple, translation);
        if let Some(other) = other {
            map.enter(&answer, &other);
        }
        false
    }

    /// Removes the entry of answers if no client's entry belongs to it.
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
        // A client that took this entry for its own has entered its flow before: see [`Self::end`].
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
