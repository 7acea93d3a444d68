//! When the kernel must be asked to resolve or confirm a neighbour.
//!
//! Forwarded packets do not pass the kernel's stack, so the kernel does not notice that a neighbour
//! is in use or gone. Probes in time keep its entries fresh.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::neighbours::State;

/// The wait after the first unanswered probe: RFC 4861, 10, `RETRANS_TIMER`.
pub(super) const FIRST_WAIT: Duration = Duration::from_secs(1);
/// Waits double up to this limit, so a server that comes back is found within it.
pub(super) const LONGEST_WAIT: Duration = Duration::from_secs(8);
/// A reachable neighbour is probed this often, so that the kernel does not forget it: RFC 4861, 10,
/// `REACHABLE_TIME`.
pub(super) const REFRESH: Duration = Duration::from_secs(30);

/// How certain the kernel's entry of a neighbour is.
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
    /// `None` for an entry that never changes by itself.
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

/// The neighbours that are kept alive. The watched targets and the kept neighbours limit their
/// number.
#[derive(Clone, Debug, Default)]
pub(super) struct Probes {
    probing: BTreeMap<(u32, IpAddr), Probing>,
    /// The neighbours by the time of their next probe, so that each costs as much among thousands
    /// as alone.
    turns: BTreeSet<(Instant, (u32, IpAddr))>,
}

impl Probes {
    /// Keeps a neighbour alive, which is in this state.
    pub(super) fn see(&mut self, neighbour: (u32, IpAddr), state: State, now: Instant) {
        let trust = Trust::from(state);
        let before = self.probing.get(&neighbour);
        if before.is_some_and(|probing| probing.trust == trust) {
            return;
        }
        self.forget(neighbour);
        let probing = Probing::begin(trust, now);
        self.turns
            .extend(probing.next.map(|next| (next, neighbour)));
        self.probing.insert(neighbour, probing);
    }

    /// Stops probing a neighbour.
    pub(super) fn forget(&mut self, neighbour: (u32, IpAddr)) {
        if let Some(probing) = self.probing.remove(&neighbour)
            && let Some(next) = probing.next
        {
            self.turns.remove(&(next, neighbour));
        }
    }

    /// The next due probe, if any. Schedules the one after it.
    pub(super) fn poll(&mut self, now: Instant) -> Option<(u32, IpAddr)> {
        let &(turn, neighbour) = self.turns.first().filter(|(turn, _)| *turn <= now)?;
        self.turns.remove(&(turn, neighbour));
        let probing = self.probing.get_mut(&neighbour)?;
        let next = now + probing.wait;
        probing.next = Some(next);
        probing.wait = match probing.trust {
            Trust::Missing | Trust::Doubtful => (probing.wait * 2).min(LONGEST_WAIT),
            Trust::Sure | Trust::Fixed => REFRESH,
        };
        self.turns.insert((next, neighbour));
        Some(neighbour)
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        self.turns.first().map(|(turn, _)| *turn)
    }
}
