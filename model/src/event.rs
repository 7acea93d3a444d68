//! Events: what happened to the director, as typed facts.
//!
//! The log, `shunt events` and `GET /v1/events` are made of them. The names are stable: a program
//! may rely on them. `docs/reference/events.md` lists them.

use serde::{Deserialize, Serialize};

use crate::api::{ActiveDefence, Reason};
use crate::change::Change;
use crate::{ServerAddress, ServiceKey};

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// Consecutive since the daemon started. A gap is what a slow reader missed.
    pub number: u64,
    /// Milliseconds since the beginning of 1970 (UTC).
    pub at_ms: u64,
    /// What happened.
    #[serde(flatten)]
    pub fact: Fact,
    /// Why it happened, in the operator's words.
    pub cause: String,
    /// What holds since then.
    pub consequence: String,
}

/// What happened: a name and its fields.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Fact {
    /// The first full account of the network is in, and carried out.
    DirectorReady,
    /// A change is in force.
    TableChanged {
        /// The change as it was asked for.
        change: Change,
    },
    /// A change was refused, and nothing has changed.
    ChangeRefused {
        /// The change as it was asked for.
        change: Change,
        /// The stable name of the reason.
        reason: Reason,
        /// The sentence that the client got.
        why: String,
    },
    /// A server has a next hop.
    ServerReached {
        /// The server's service.
        service: ServiceKey,
        /// The server that can be reached.
        server: ServerAddress,
    },
    /// A server has no next hop.
    ServerUnreached {
        /// The server's service.
        service: ServiceKey,
        /// The server that cannot be reached.
        server: ServerAddress,
    },
    /// The list of the defences that are up changed.
    DefencesChanged {
        /// All defences that are up since then; none if the list is empty.
        up: Vec<ActiveDefence>,
    },
    /// The packet path was attached to a device, or to another hook of it.
    DeviceAttached {
        /// The device's name.
        device: String,
        /// The hook, and why no better one.
        hook: String,
    },
    /// No hook of a device accepted the packet path: its packets are not balanced.
    DeviceNotAttached {
        /// The device's name.
        device: String,
        /// The refusal of each hook.
        why: String,
    },
    /// Processes on the director itself are given no servers.
    CallersWithoutServers {
        /// What is missing, with the remedy.
        why: String,
    },
    /// A table of the packet path refuses a write that follows from the network.
    WritesRefused {
        /// The error of the table that refused the first write.
        why: String,
    },
    /// The packet path has all writes that it refused before.
    WritesDone,
}

impl Fact {
    /// The names of all facts.
    pub const NAMES: [&'static str; 11] = [
        "director_ready",
        "table_changed",
        "change_refused",
        "server_reached",
        "server_unreached",
        "defences_changed",
        "device_attached",
        "device_not_attached",
        "callers_without_servers",
        "writes_refused",
        "writes_done",
    ];

    /// The stable name, as JSON and the log have it.
    #[must_use]
    pub fn name(&self) -> &'static str {
        let index = match self {
            Fact::DirectorReady => 0,
            Fact::TableChanged { .. } => 1,
            Fact::ChangeRefused { .. } => 2,
            Fact::ServerReached { .. } => 3,
            Fact::ServerUnreached { .. } => 4,
            Fact::DefencesChanged { .. } => 5,
            Fact::DeviceAttached { .. } => 6,
            Fact::DeviceNotAttached { .. } => 7,
            Fact::CallersWithoutServers { .. } => 8,
            Fact::WritesRefused { .. } => 9,
            Fact::WritesDone => 10,
        };
        Self::NAMES[index]
    }

    fn cause(&self) -> String {
        match self {
            Fact::DirectorReady => "the network is known".to_owned(),
            Fact::TableChanged { .. } => "a command".to_owned(),
            Fact::ChangeRefused { why, .. }
            | Fact::DeviceNotAttached { why, .. }
            | Fact::CallersWithoutServers { why }
            | Fact::WritesRefused { why } => why.clone(),
            Fact::WritesDone => "the table has room, or needs the write no more".to_owned(),
            Fact::ServerReached { .. } => "the kernel has a next hop for it".to_owned(),
            Fact::ServerUnreached { .. } => "the kernel has no next hop for it".to_owned(),
            Fact::DefencesChanged { .. } => {
                "the settings, or the fullness of the connection table".to_owned()
            }
            Fact::DeviceAttached { .. } => "the device is up".to_owned(),
        }
    }

    fn consequence(&self) -> String {
        let text = match self {
            Fact::DirectorReady => "changes are accepted",
            Fact::TableChanged { .. } => "the packet path follows",
            Fact::ChangeRefused { .. } => "everything is as before",
            Fact::ServerReached { .. } => "it gets new connections by its weight",
            Fact::ServerUnreached { .. } => {
                "it gets no new connection while another server of the service is reached"
            }
            Fact::DefencesChanged { up } if up.is_empty() => "all new connections are accepted",
            Fact::DefencesChanged { .. } => "some new connections are given up",
            Fact::DeviceAttached { .. } => "packets of this device are forwarded",
            Fact::DeviceNotAttached { .. } => "packets of this device go to the kernel",
            Fact::CallersWithoutServers { .. } => "processes on the director do not reach services",
            Fact::WritesRefused { .. } => {
                "what was written before stays in force, and the write is tried again"
            }
            Fact::WritesDone => "the packet path is as it should be",
        };
        text.to_owned()
    }
}

impl Event {
    /// The event with the cause and the consequence that belong to the fact.
    #[must_use]
    pub fn new(number: u64, at_ms: u64, fact: Fact) -> Self {
        let (cause, consequence) = (fact.cause(), fact.consequence());
        Self {
            number,
            at_ms,
            fact,
            cause,
            consequence,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts() -> Vec<Fact> {
        let service: ServiceKey = "tcp/192.0.2.1:80".parse().unwrap();
        let server: ServerAddress = "10.1.0.7:80".parse().unwrap();
        let (device, why) = ("eth0".to_owned(), "because".to_owned());
        let zero = crate::change::service::Change::Zero { key: Some(service) };
        let change = Change::Service(zero);
        vec![
            Fact::DirectorReady,
            Fact::TableChanged {
                change: change.clone(),
            },
            Fact::ChangeRefused {
                change,
                reason: Reason::NoRoom,
                why: why.clone(),
            },
            Fact::ServerReached { service, server },
            Fact::ServerUnreached { service, server },
            Fact::DefencesChanged {
                up: vec![ActiveDefence::DropEntry],
            },
            Fact::DeviceAttached {
                device: device.clone(),
                hook: "tc".to_owned(),
            },
            Fact::DeviceNotAttached {
                device,
                why: why.clone(),
            },
            Fact::CallersWithoutServers { why: why.clone() },
            Fact::WritesRefused { why },
            Fact::WritesDone,
        ]
    }

    #[test]
    fn an_event_has_its_stable_name_and_can_be_read_back() {
        for (number, fact) in (0..).zip(facts()) {
            let event = Event::new(number, 7, fact);
            let text = serde_json::to_string(&event).unwrap();
            let name = format!("\"event\":\"{}\"", event.fact.name());
            assert!(text.contains(&name), "{text}");
            assert_eq!(serde_json::from_str::<Event>(&text).unwrap(), event);
        }
    }

    #[test]
    fn the_reference_lists_exactly_these_events() {
        let reference = include_str!("../../docs/reference/events.md");
        let rows = reference
            .lines()
            .filter_map(|line| line.strip_prefix("| `"));
        let listed: Vec<&str> = rows.filter_map(|row| row.split('`').next()).collect();
        assert_eq!(listed, Fact::NAMES);
        let told: Vec<&str> = facts().iter().map(Fact::name).collect();
        assert_eq!(told, Fact::NAMES);
    }
}
