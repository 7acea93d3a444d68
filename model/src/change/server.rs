//! Changes of the real servers of a service.

use std::fmt;

use serde::Serialize;

use crate::{Server, ServerAddress, ServiceKey};

/// A change of one server of one service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "change")]
pub enum Change {
    #[serde(rename = "add_server")]
    Add { key: ServiceKey, server: Server },
    #[serde(rename = "edit_server")]
    Edit { key: ServiceKey, server: Server },
    #[serde(rename = "delete_server")]
    Delete { key: ServiceKey, at: ServerAddress },
}

impl Change {
    pub(super) fn put(&self) -> Option<(ServiceKey, ServerAddress)> {
        match self {
            Change::Add { key, server } | Change::Edit { key, server } => Some((*key, server.at)),
            Change::Delete { .. } => None,
        }
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Change::Add { key, server } => {
                let Server {
                    at, method, weight, ..
                } = server;
                write!(f, "server {at} added to {key}, {method}, weight {weight}")
            }
            Change::Edit { key, server } => {
                let Server {
                    at, method, weight, ..
                } = server;
                write!(f, "server {at} of {key} edited, {method}, weight {weight}")
            }
            Change::Delete { key, at } => write!(f, "server {at} of {key} deleted"),
        }
    }
}
