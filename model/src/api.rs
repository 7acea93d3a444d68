//! The messages of the local API, as JSON over HTTP/1.1 on the daemon's Unix socket.
//!
//! | request | body | answer |
//! | --- | --- | --- |
//! | `GET /v1/status` | | [`Status`] |
//! | `GET /v1/services` | | `[`[`ServiceStatus`]`]`, in the kernel's own order |
//! | `GET /v1/services?key=tcp/192.0.2.1:80` | | a list of that service, or an empty list |
//! | `POST /v1/change` | [`Change`](crate::change::Change) | [`Done`] |
//! | `POST /v1/batch` | [`Batch`](crate::batch::Batch) | [`Answer`](crate::batch::Answer) |
//! | `GET /v1/inputs` | | the last inputs, one a line, in a form that may change |
//! | `GET /v1/connections` | | one [`Connection`](crate::Connection) a line |
//! | `GET /v1/connections/count` | | [`ConnectionCount`] |
//! | `GET /v1/marks` | | `[`[`MarkRule`](crate::MarkRule)`]` |
//! | `GET /v1/locals` | | `[`[`LocalAddress`](crate::LocalAddress)`]` |
//! | `GET /v1/timeouts` | | [`Timeouts`](crate::Timeouts) |
//! | `GET /v1/settings` | | [`Settings`] |
//! | `GET /v1/statistics` | | [`Statistics`] |
//! | `GET /v1/events` | | one [`Event`](crate::event::Event) a line; `?follow=true` goes on |
//!
//! A refused request gets a [`Refusal`] as its body and status 409, or 422 if the request itself
//! makes no sense, 403 if the caller lacks the right, 503 if there are too many requests at once.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::device::Device;
use crate::next_hop::{NextHop, OutOfReach};
use crate::program::Program;
use crate::warning::Warning;
use crate::{Counters, Family, Rates, Server, ServerAddress, Service, Settings};

/// The answer to a change that is in force.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Done {}

/// Why a change was refused. Nothing has changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{text}")]
pub struct Refusal {
    pub reason: Reason,
    /// The whole sentence, in the operator's words.
    pub text: String,
}

/// The reasons for which a program may want to act differently.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    ServiceExists,
    NoSuchService,
    ServerExists,
    NoSuchServer,
    /// A rule of marks for some of these packets exists.
    MarkExists,
    NoSuchMark,
    NoSuchLocal,
    /// A service and a rule of marks cannot have the same packets.
    MarkedPackets,
    /// The lower threshold is above the upper one, or a number is out of its range.
    OutOfRange,
    /// The address cannot be a server's: it is not unicast, or it is of the other family and the
    /// method is neither tunnel nor full NAT.
    BadAddress,
    UnknownScheduler,
    /// No such persistence engine.
    UnknownEngine,
    /// Shunt does not support this.
    NotSupported,
    /// A table has no room.
    NoRoom,
    /// The change cannot be saved, so a restart would lose it.
    NotKept,
    /// The caller lacks the right.
    NotPermitted,
    /// There are too many long answers at once. The same request may succeed in a moment.
    TooManyRequests,
    /// The daemon is about to end.
    Stopping,
    /// The request itself makes no sense.
    BadRequest,
}

/// A service with its counters, rates and servers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceStatus {
    pub service: Service,
    pub counters: Counters,
    pub rates: Rates,
    /// For a large pool: the number of servers that a scheduler compares for a new connection.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub short_list: Option<u32>,
    /// The servers in the kernel's order: newest first.
    pub servers: Vec<ServerStatus>,
}

/// A server with its connections, counters and rates.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerStatus {
    pub server: Server,
    pub active_connections: u32,
    pub inactive_connections: u32,
    #[serde(default)]
    pub persistent_connections: u32,
    pub counters: Counters,
    pub rates: Rates,
    /// `None` if nobody asked for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_hop: Option<NextHop>,
    /// What becomes of new connections, if the server cannot be reached.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub out_of_reach: Option<OutOfReach>,
    #[serde(default)]
    pub eligibility: Eligibility,
}

/// The weight with which a server may be picked, and the factors from which it follows.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Eligibility {
    /// The effective weight; 0 for a server that must not be picked.
    pub weight: u32,
    /// In the order in which they apply.
    pub factors: Vec<Factor>,
}

/// A factor of the effective weight: `configured`, `reach` or `overload`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Factor {
    pub name: String,
    /// The weight that this factor and those before it leave.
    pub weight: u32,
}

/// The number of entries in the connection table.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConnectionCount {
    pub total: u64,
    pub by_state: BTreeMap<String, u64>,
}

/// What the packet path did since it was loaded, by verdict and by drop reason.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Statistics {
    pub verdicts: BTreeMap<String, u64>,
    pub drops: BTreeMap<String, u64>,
    /// Events that are not verdicts, such as the opening of a connection.
    #[serde(default)]
    pub notes: BTreeMap<String, u64>,
    pub counters: Counters,
    pub rates: Rates,
}

/// The daemon and its packet path.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    pub version: String,
    pub pid: u32,
    /// Seconds since this daemon started.
    pub uptime_s: u64,
    /// Whether this daemon adopted the packet path of an earlier daemon.
    pub adopted: bool,
    pub devices: Vec<Device>,
    #[serde(default)]
    pub settings: Settings,
    /// The defences against floods that are active.
    #[serde(default)]
    pub defences: Vec<ActiveDefence>,
    /// Half-open connections that `drop_entry` removed since this daemon started.
    #[serde(default)]
    pub dropped_entries: u64,
    pub flows_capacity: u64,
    pub flows_used: u64,
    pub services: u32,
    pub servers: u32,
    /// Gateways and on-link clients for which a hop of the way back is prepared.
    #[serde(default)]
    pub client_hops: u32,
    /// Answers to other clients, for which the packet path asked the kernel's routes.
    #[serde(default)]
    pub client_routes_asked: u64,
    /// The use of the local addresses of full NAT, if there are any.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub local_pools: Vec<LocalPool>,
    /// Entries in the table of translations. A translated connection has two.
    #[serde(default)]
    pub translations_capacity: u64,
    #[serde(default)]
    pub translations_used: u64,
    /// Calls: templates of services with a persistence engine.
    #[serde(default)]
    pub calls_capacity: u64,
    #[serde(default)]
    pub calls_used: u64,
    /// What the programs are for that are still being loaded. Changes that need one wait.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub loading: Vec<Program>,
    /// The problems that an operator should look at, the most urgent first.
    #[serde(default)]
    pub warnings: Vec<Warning>,
}

/// A defence that is active.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ActiveDefence {
    DropEntry,
    /// One new connection of this many is dropped.
    DropPacket {
        one_of: u32,
    },
    SecureTcp,
}

/// The local addresses of one family, and how much of them is used.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LocalPool {
    pub family: Family,
    pub addresses: u32,
    /// The ports of all the addresses together, which is the most connections that one server can
    /// have.
    pub ports: u64,
    /// The connections of the server that has the most.
    pub used: u64,
    /// The server that has the most connections.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fullest: Option<ServerAddress>,
}
