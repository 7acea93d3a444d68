//! Changes of the real servers of a service.

use std::fmt;

use serde::Serialize;

use crate::{Server, ServerAddress, ServiceKey};

/// A change of one server of one service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "change")]
pub enum Change {
    #[serde(rename = "add_server")]
    /// Adds a server to a service.
    Add {
        /// The service.
        key: ServiceKey,
        /// The server with all its properties.
        server: Server,
    },
    #[serde(rename = "edit_server")]
    /// Gives a server of a service other properties.
    Edit {
        /// The service.
        key: ServiceKey,
        /// The server with all its properties. Its address and port say which server it is.
        server: Server,
    },
    #[serde(rename = "delete_server")]
    /// Deletes a server from a service.
    Delete {
        /// The service.
        key: ServiceKey,
        /// The server's address and port.
        at: ServerAddress,
    },
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
