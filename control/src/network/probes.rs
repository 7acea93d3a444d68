//! Probes: when the kernel must be asked to resolve or confirm a neighbour.
//!
//! Packets that we forward do not pass the kernel's stack, so nothing there notices that a
//! neighbour is in use, or gone. Asking in time keeps the entries fresh.

use std::collections::{BTreeMap, BTreeSet};
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
pub(super) struct Probes {
    probing: BTreeMap<(u32, IpAddr), Probing>,
    /// Who is next, so that a neighbour costs as much among thousands as alone.
    turns: BTreeSet<(Instant, (u32, IpAddr))>,
}

impl Probes {
    /// A neighbour is needed, and this is how it is.
    pub fn see(&mut self, neighbour: (u32, IpAddr), state: State, now: Instant) {
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

    /// A neighbour is not needed any more.
    pub fn forget(&mut self, neighbour: (u32, IpAddr)) {
        if let Some(probing) = self.probing.remove(&neighbour)
            && let Some(next) = probing.next
        {
            self.turns.remove(&(next, neighbour));
        }
    }

    /// The next probe that is due, if any; its next turn is set.
    pub fn poll(&mut self, now: Instant) -> Option<(u32, IpAddr)> {
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

    pub fn deadline(&self) -> Option<Instant> {
        self.turns.first().map(|(turn, _)| *turn)
    }
}
