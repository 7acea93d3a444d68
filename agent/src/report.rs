//! The result of a command, for people and for programs.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;

use serde::Serialize;

/// The state of a real server, or what a command did to it.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Report {
    /// The virtual addresses that the server serves.
    pub vips: Vec<IpAddr>,
    /// In the order in which they are set up.
    pub items: Vec<Item>,
    /// The counters of the programs, if they are loaded.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub counters: BTreeMap<&'static str, u64>,
}

/// One thing that a real server needs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Item {
    /// The thing as its command line names it, such as a sysctl or an address with its device.
    pub what: String,
    /// Whether it is as wanted, and whether this command made it so.
    pub state: State,
    /// The present state, if it differs from what is wanted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub found: Option<String>,
    /// The command that fixes it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fix: Option<String>,
}

/// The state of a thing after the command.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// It was already as wanted.
    Ok,
    /// This command set it.
    Done,
    /// It is not as wanted.
    Missing,
    /// It is as it was before the server joined.
    Restored,
    /// Somebody else changed it since the join. It stays as it is.
    Kept,
}

impl Report {
    /// Whether nothing is missing.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.items.iter().all(|item| item.state != State::Missing)
    }

    /// Whether the command changed anything.
    #[must_use]
    pub fn has_changes(&self) -> bool {
        self.items
            .iter()
            .any(|item| matches!(item.state, State::Done | State::Restored))
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            State::Ok => "ok",
            State::Done => "done",
            State::Missing => "MISSING",
            State::Restored => "restored",
            State::Kept => "kept",
        })
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for item in &self.items {
            write!(f, "{:<9} {}", item.state, item.what)?;
            if let Some(found) = &item.found {
                write!(f, "  (is {found})")?;
            }
            writeln!(f)?;
            if let Some(fix) = &item.fix {
                writeln!(f, "          {fix}")?;
            }
        }
        let counted = self.counters.iter().filter(|(_, count)| **count != 0);
        for (name, count) in counted {
            writeln!(f, "{count:>9} {name}")?;
        }
        Ok(())
    }
}
