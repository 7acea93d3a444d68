//! A change of the table, sorted by the noun that it changes.
//!
//! As JSON, each change is one object whose field `change` has a stable name, such as
//! `add_service`. Journals and the API use this form.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{ServerAddress, ServiceKey};

mod flat;
pub mod local;
pub mod mark;
pub mod server;
pub mod service;
pub mod setting;

/// One change of the table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged, from = "flat::Change")]
pub enum Change {
    /// A change of a service, or of all of them.
    Service(service::Change),
    /// A change of a server of one service.
    Server(server::Change),
    /// A change of the rules that mark packets.
    Mark(mark::Change),
    /// A change of the local addresses of full NAT.
    Local(local::Change),
    /// A change of the director's settings and timeouts.
    Setting(setting::Change),
}

impl Change {
    /// The server that is added or edited, with its service.
    #[must_use]
    pub fn put_server(&self) -> Option<(ServiceKey, ServerAddress)> {
        match self {
            Change::Server(change) => change.put(),
            Change::Service(_) | Change::Mark(_) | Change::Local(_) | Change::Setting(_) => None,
        }
    }
}

impl fmt::Display for Change {
    /// Writes the change as an entry of the log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Change::Service(change) => change.fmt(f),
            Change::Server(change) => change.fmt(f),
            Change::Mark(change) => change.fmt(f),
            Change::Local(change) => change.fmt(f),
            Change::Setting(change) => change.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests;
