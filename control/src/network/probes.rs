//! Probes: when the kernel must be asked to resolve or confirm a neighbour.
//!
//! Packets that we forward do not pass the kernel's stack, so nothing there notices that a
//! neighbour is in use, or gone. Asking in time keeps the entries fresh.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::neighbours::State;

/// The first wait after a probe without an answer: RFC 4861, 10, `RETRANS_TIMER`.
pub const FIRST_WAIT: Duration = Duration::from_secs(1);
/// Waits double up to this, so that a server that comes back is found within it.
pub const LONGEST_WAIT: Duration = Duration::from_secs(8);
/// A neighbour that is sure is touched this often, so that the kernel does not forget it:
/// RFC 4861, 10, `REACHABLE_TIME`.
pub const REFRESH: Duration = Duration::from_secs(30);

/// How sure a neighbour is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trust {
    Missing,
    Doubtful,
    Sure,
    Fixed,
}

impl From<State> for Trust {
    fn from(state: State) -> Self {
        match state {
            State::None | State::Incomplete | State::Failed => Trust::Missing,
            State::Stale | State::Delay | State::Probe => Trust::Doubtful,
            State::Reachable => Trust::Sure,
            State::NoArp | State::Permanent => Trust::Fixed,
        }
    }
}

#[derive(Clone, Debug)]
struct Probing {
    trust: Trust,
    /// None for an entry that never changes by itself.
    next: Option<Instant>,
    wait: Duration,
}

impl Probing {
    fn begin(trust: Trust, now: Instant) -> Self {
        let (next, wait) = match trust {
            Trust::Missing | Trust::Doubtful => (Some(now), FIRST_WAIT),
            Trust::Sure => (Some(now + REFRESH), REFRESH),
            Trust::Fixed => (None, REFRESH),
        };
        Self { trust, next, wait }
    }
}

/// The neighbours that are kept alive; as many as the watched targets have ways.
#[derive(Debug, Default)]
pub(super) struct Probes(BTreeMap<(u32, IpAddr), Probing>);

impl Probes {
    /// Takes in what is needed and how each is. What is not needed is forgotten.
    pub fn review(&mut self, needed: BTreeMap<(u32, IpAddr), State>, now: Instant) {
        self.0.retain(|key, _| needed.contains_key(key));
        for (key, state) in needed {
            let trust = Trust::from(state);
            match self.0.get(&key) {
                Some(probing) if probing.trust == trust => {}
                _ => {
                    self.0.insert(key, Probing::begin(trust, now));
                }
            }
        }
    }

    /// The next probe that is due, if any; its next turn is set.
    pub fn poll(&mut self, now: Instant) -> Option<(u32, IpAddr)> {
        let due = |probing: &Probing| probing.next.is_some_and(|next| next <= now);
        let (&key, probing) = self.0.iter_mut().find(|(_, probing)| due(probing))?;
        probing.next = Some(now + probing.wait);
        probing.wait = match probing.trust {
            Trust::Missing | Trust::Doubtful => (probing.wait * 2).min(LONGEST_WAIT),
            Trust::Sure | Trust::Fixed => REFRESH,
        };
        Some(key)
    }

    pub fn deadline(&self) -> Option<Instant> {
        self.0.values().filter_map(|probing| probing.next).min()
    }
}
