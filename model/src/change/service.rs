//! Changes of services.

use std::fmt;

use serde::Serialize;

use crate::{Service, ServiceKey};

/// A change of one service, or of all.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "change")]
pub enum Change {
    #[serde(rename = "add_service")]
    /// Adds a service without servers.
    Add {
        /// The service with all its properties.
        service: Service,
    },
    #[serde(rename = "edit_service")]
    /// Gives a service other properties. Its servers stay.
    Edit {
        /// The service with all its properties. Its key says which service it is.
        service: Service,
    },
    #[serde(rename = "delete_service")]
    /// Deletes a service with its servers.
    Delete {
        /// The service.
        key: ServiceKey,
    },
    /// Deletes every service.
    #[serde(rename = "flush")]
    Flush,
    /// Zeroes the counters of one service, or of all services.
    #[serde(rename = "zero")]
    Zero {
        /// The service; `None` for all services.
        key: Option<ServiceKey>,
    },
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Change::Add { service } => {
                write!(f, "service {} added, {}", service.key, service.scheduler)
            }
            Change::Edit { service } => {
                write!(f, "service {} edited, {}", service.key, service.scheduler)
            }
            Change::Delete { key } => write!(f, "service {key} deleted"),
            Change::Flush => f.write_str("all services deleted"),
            Change::Zero { key: Some(key) } => write!(f, "counters of {key} zeroed"),
            Change::Zero { key: None } => f.write_str("all counters zeroed"),
        }
    }
}
