//! Changes of the local addresses of full NAT.

use std::fmt;
use std::net::IpAddr;

use serde::Serialize;

use crate::LocalAddress;

/// A change of one local address.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "change")]
pub enum Change {
    /// Sets the ports of a local address that full NAT may use. They replace the earlier ones.
    #[serde(rename = "set_local")]
    Set {
        /// The address with its ports.
        local: LocalAddress,
    },
    /// Removes a local address. No new connection gets it.
    #[serde(rename = "delete_local")]
    Delete {
        /// The address, with whatever ports it has.
        address: IpAddr,
    },
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Change::Set { local } => write!(f, "local address {local} set"),
            Change::Delete { address } => write!(f, "local address {address} deleted"),
        }
    }
}
