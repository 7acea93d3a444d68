//! Changes of the director's settings and timeouts.

use std::fmt;

use serde::Serialize;

use crate::{Setting, Timeouts};

/// A change of a value that holds for the whole director.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "change")]
pub enum Change {
    /// Sets a value for the director and for each service without a value of its own.
    #[serde(rename = "set")]
    /// Gives a setting of the director another value.
    Set {
        /// The setting with its value.
        setting: Setting,
    },
    /// Sets the timeouts. A zero leaves that timeout as it is.
    #[serde(rename = "set_timeouts")]
    Timeouts {
        /// All three timeouts.
        timeouts: Timeouts,
    },
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Change::Set { setting } => write!(f, "setting {setting}"),
            Change::Timeouts { timeouts } => {
                let Timeouts {
                    tcp_s,
                    tcp_fin_s,
                    udp_s,
                } = timeouts;
                write!(
                    f,
                    "timeouts set (0 stays): tcp {tcp_s} tcpfin {tcp_fin_s} udp {udp_s}"
                )
            }
        }
    }
}
