//! The schedulers by name, and their flags.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::nearest::proposal;

/// How a service picks the real server of a new connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scheduler {
    /// Round robin.
    Rr,
    /// Weighted round robin.
    Wrr,
    /// Least connections.
    Lc,
    /// Weighted least connections.
    Wlc,
    /// Locality-based least connections.
    Lblc,
    /// Locality-based least connections with replication.
    Lblcr,
    /// Destination hashing.
    Dh,
    /// Source hashing.
    Sh,
    /// Shortest expected delay.
    Sed,
    /// Never queue.
    Nq,
    /// Weighted fail-over.
    Fo,
    /// Weighted overflow.
    Ovf,
    /// Maglev hashing.
    Mh,
    /// The better of two random choices.
    Twos,
    /// The better of two different random choices. IPVS does not have this scheduler.
    P2c,
}

impl Scheduler {
    /// Every scheduler: those of IPVS, then the ones that IPVS does not have.
    pub const ALL: [Scheduler; 15] = [
        Scheduler::Rr,
        Scheduler::Wrr,
        Scheduler::Lc,
        Scheduler::Wlc,
        Scheduler::Lblc,
        Scheduler::Lblcr,
        Scheduler::Dh,
        Scheduler::Sh,
        Scheduler::Sed,
        Scheduler::Nq,
        Scheduler::Fo,
        Scheduler::Ovf,
        Scheduler::Mh,
        Scheduler::Twos,
        Scheduler::P2c,
    ];

    /// The name, as `ipvsadm -s` takes it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Scheduler::Rr => "rr",
            Scheduler::Wrr => "wrr",
            Scheduler::Lc => "lc",
            Scheduler::Wlc => "wlc",
            Scheduler::Lblc => "lblc",
            Scheduler::Lblcr => "lblcr",
            Scheduler::Dh => "dh",
            Scheduler::Sh => "sh",
            Scheduler::Sed => "sed",
            Scheduler::Nq => "nq",
            Scheduler::Fo => "fo",
            Scheduler::Ovf => "ovf",
            Scheduler::Mh => "mh",
            Scheduler::Twos => "twos",
            Scheduler::P2c => "p2c",
        }
    }
}

impl fmt::Display for Scheduler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Scheduler {
    type Err = UnknownScheduler;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        Scheduler::ALL
            .into_iter()
            .find(|scheduler| scheduler.name() == name)
            .ok_or_else(|| UnknownScheduler {
                name: name.to_owned(),
            })
    }
}

/// The name is not that of a scheduler.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown scheduler \"{name}\"{}", proposal(name, &Scheduler::ALL.map(Scheduler::name)))]
pub struct UnknownScheduler {
    /// The name as it was given.
    pub name: String,
}

/// The three flag bits of a service. Each scheduler gives a bit its own meaning: `flag-1` is
/// `sh-fallback` for sh and `mh-fallback` for mh, `flag-2` is `sh-port` and `mh-port`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct SchedulerFlags {
    /// `flag-1`: another server is taken if the hash leads to one that is quiesced or overloaded.
    #[serde(default)]
    pub fallback: bool,
    /// `flag-2`: the client's port is part of the hash.
    #[serde(default)]
    pub port: bool,
    /// `flag-3`, which no scheduler of IPVS gives a meaning.
    #[serde(default)]
    pub third: bool,
    /// For mh: a table of 65,537 places. IPVS does not have this flag.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub large: bool,
}

impl SchedulerFlags {
    /// Whether any of the three flag bits of IPVS is set.
    #[must_use]
    pub fn has_bits(self) -> bool {
        self.fallback || self.port || self.third
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_scheduler_is_answered_with_the_nearest_one() {
        let error = "wcl".parse::<Scheduler>().unwrap_err();
        assert_eq!(
            error.to_string(),
            "unknown scheduler \"wcl\", did you mean \"wlc\"?"
        );
    }
}
