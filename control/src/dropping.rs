//! Which half-open connections `drop_entry` takes out before their time, and when.

use std::time::{Duration, Instant};

use shunt_datapath::sweep::Stretch;

/// Seconds that one sweep makes up for at most.
const MOST: u32 = 32;

/// When half-open connections were last taken out.
#[derive(Clone, Debug)]
pub struct Dropping {
    last: Instant,
}

impl Dropping {
    /// A defence that may take out connections a second from `now` at the earliest.
    #[must_use]
    pub fn new(now: Instant) -> Self {
        Self { last: now }
    }

    /// The stretch of the table for the next sweep, if the defence is active and a whole second has
    /// gone by. It begins at a random place.
    pub fn stretch(&mut self, is_active: bool, random: u32, now: Instant) -> Option<Stretch> {
        let gone_by = now.saturating_duration_since(self.last);
        if !is_active || gone_by < Duration::from_secs(1) {
            return None;
        }
        self.last = now;
        let seconds = u32::try_from(gone_by.as_secs()).unwrap_or(MOST);
        Some(Stretch::new(random, seconds.min(MOST)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stretch_is_due_once_a_second_while_the_defence_is_active() {
        let begun = Instant::now();
        let after = |ms| begun + Duration::from_millis(ms);
        let mut dropping = Dropping::new(begun);
        for (ms, is_active, seconds) in [
            (999, true, None),
            (1000, true, Some(1)),
            (1900, true, None),
            (3000, false, None),
            (4500, true, Some(3)),
            (400_000, true, Some(MOST)),
        ] {
            let stretch = dropping.stretch(is_active, 7, after(ms));
            assert_eq!(
                stretch,
                seconds.map(|seconds| Stretch::new(7, seconds)),
                "{ms}"
            );
        }
    }
}
