//! Later fragments that came before the first fragment of their datagram: how long each waits, and
//! what becomes of it.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// How long a fragment waits for the first fragment.
const PATIENCE: Duration = Duration::from_millis(500);
/// The most fragments that wait here. Others stay in the packet path's ring.
const MOST: usize = 1024;

/// What to do with a fragment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate<Fragment> {
    /// The first fragment came: the packet path knows the way.
    Send(Fragment),
    /// It did not come. The kernel gets the fragments of the datagram.
    GiveUp(Fragment),
}

/// The fragments that wait, in the order in which they came.
#[derive(Debug)]
pub struct Fragments<Fragment> {
    waiting: VecDeque<(Instant, Fragment)>,
}

impl<Fragment> Default for Fragments<Fragment> {
    fn default() -> Self {
        Self {
            waiting: VecDeque::new(),
        }
    }
}

impl<Fragment> Fragments<Fragment> {
    /// Whether no fragment waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Whether another fragment may wait.
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.waiting.len() < MOST
    }

    /// Holds a fragment. If there is no room, the fragment is lost.
    pub fn hold(&mut self, fragment: Fragment, now: Instant) {
        if self.has_room() {
            self.waiting.push_back((now + PATIENCE, fragment));
        }
    }

    /// The fragments that wait no longer. `is_known` tells whether the packet path has the entry of
    /// a fragment's datagram.
    pub fn due(
        &mut self,
        is_known: impl Fn(&Fragment) -> bool,
        now: Instant,
    ) -> Vec<Fate<Fragment>> {
        let mut due = Vec::new();
        for (until, fragment) in std::mem::take(&mut self.waiting) {
            if is_known(&fragment) {
                due.push(Fate::Send(fragment));
            } else if now < until {
                self.waiting.push_back((until, fragment));
            } else {
                due.push(Fate::GiveUp(fragment));
            }
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fragment_waits_for_its_first_one_and_not_for_ever() {
        let begun = Instant::now();
        let mut fragments = Fragments::default();
        for fragment in [1, 2, 3] {
            fragments.hold(fragment, begun);
        }
        assert_eq!(fragments.due(|_| false, begun), []);
        let early = begun + PATIENCE / 2;
        assert_eq!(fragments.due(|known| *known == 2, early), [Fate::Send(2)]);
        fragments.hold(4, early);
        let late = begun + PATIENCE;
        let due = fragments.due(|known| *known == 3, late);
        assert_eq!(due, [Fate::GiveUp(1), Fate::Send(3)]);
        assert!(!fragments.is_empty());
        let due = fragments.due(|_| false, early + PATIENCE);
        assert_eq!(due, [Fate::GiveUp(4)]);
        assert!(fragments.is_empty());
    }

    #[test]
    fn no_more_than_a_limit_wait() {
        let now = Instant::now();
        let mut fragments = Fragments::default();
        for fragment in 0..=MOST {
            fragments.hold(fragment, now);
        }
        assert!(!fragments.has_room());
        assert_eq!(fragments.due(|_| true, now).len(), MOST);
        assert!(fragments.has_room());
    }
}
