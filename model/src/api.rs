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
    /// The same for every refusal of this kind, so that a program can act on it.
    pub reason: Reason,
    /// The whole sentence, in the operator's words.
    pub text: String,
}

/// The reasons for which a program may want to act differently.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// A service has this key already (EEXIST in IPVS).
    ServiceExists,
    /// No service has this key (ESRCH in IPVS).
    NoSuchService,
    /// The service has a server with this address and port already (EEXIST in IPVS).
    ServerExists,
    /// The service has no server with this address and port (ENOENT in IPVS).
    NoSuchServer,
    /// A rule of marks for some of these packets exists.
    MarkExists,
    /// No such rule of marks exists.
    NoSuchMark,
    /// The address is not one of the local addresses.
    NoSuchLocal,
    /// A service and a rule of marks cannot have the same packets.
    MarkedPackets,
    /// The lower threshold is above the upper one, or a number is out of its range.
    OutOfRange,
    /// The address cannot be a server's: it is not unicast, or it is of the other family and the
    /// method is neither tunnel nor full NAT.
    BadAddress,
    /// No scheduler has this name.
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
    /// The service as it is configured.
    pub service: Service,
    /// The totals of all its servers, the deleted ones included.
    pub counters: Counters,
    /// The rates of all its servers.
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
    /// The server as it is configured.
    pub server: Server,
    /// Established and opening connections, as IPVS counts them (ActiveConn).
    pub active_connections: u32,
    /// All other connections (InActConn).
    pub inactive_connections: u32,
    /// Templates that name the server (PersistConn).
    #[serde(default)]
    pub persistent_connections: u32,
    /// The totals since the server was added or zeroed.
    pub counters: Counters,
    /// The rates of the last samples.
    pub rates: Rates,
    /// `None` if nobody asked for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_hop: Option<NextHop>,
    /// What becomes of new connections, if the server cannot be reached.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub out_of_reach: Option<OutOfReach>,
    /// The weight with which a scheduler may pick the server at present, and why.
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
    /// The factor's stable name.
    pub name: String,
    /// The weight that this factor and those before it leave.
    pub weight: u32,
}

/// The number of entries in the connection table.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConnectionCount {
    /// Entries that have not expired, templates and calls included, way-back entries excluded.
    pub total: u64,
    /// The same by the state's name ([`State::name`](crate::State::name)). States without entries
    /// are absent.
    pub by_state: BTreeMap<String, u64>,
}

/// What the packet path did since it was loaded, by verdict and by drop reason.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Statistics {
    /// Frames by the name of the verdict (`docs/reference/counters.md`).
    pub verdicts: BTreeMap<String, u64>,
    /// Dropped frames by the name of the drop reason.
    pub drops: BTreeMap<String, u64>,
    /// Events that are not verdicts, such as the opening of a connection.
    #[serde(default)]
    pub notes: BTreeMap<String, u64>,
    /// The totals of all services.
    pub counters: Counters,
    /// The rates of all services.
    pub rates: Rates,
}

/// The daemon and its packet path.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// The version of the daemon's package.
    pub version: String,
    /// The daemon's process id.
    pub pid: u32,
    /// Seconds since this daemon started.
    pub uptime_s: u64,
    /// Whether this daemon adopted the packet path of an earlier daemon.
    pub adopted: bool,
    /// The devices of the network namespace, with the hook of each.
    pub devices: Vec<Device>,
    /// The director's settings, with which services without their own work.
    #[serde(default)]
    pub settings: Settings,
    /// The defences against floods that are active.
    #[serde(default)]
    pub defences: Vec<ActiveDefence>,
    /// Half-open connections that `drop_entry` removed since this daemon started.
    #[serde(default)]
    pub dropped_entries: u64,
    /// Places for entries in the connection tables of both families.
    pub flows_capacity: u64,
    /// Entries at the last sweep, way-back entries included.
    pub flows_used: u64,
    /// The number of services.
    pub services: u32,
    /// The number of servers, counted once for each service.
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
    /// Entries at the last sweep.
    #[serde(default)]
    pub translations_used: u64,
    /// Calls: templates of services with a persistence engine.
    #[serde(default)]
    pub calls_capacity: u64,
    /// Calls at the last sweep.
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
    /// Each second a part of the half-open connections is removed early.
    DropEntry,
    /// One new connection of this many is dropped.
    DropPacket {
        /// At least 2: half of the new connections.
        one_of: u32,
    },
    /// TCP connections follow the stricter states of `secure_tcp`.
    SecureTcp,
}

/// The local addresses of one family, and how much of them is used.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LocalPool {
    /// The family of the addresses.
    pub family: Family,
    /// The number of addresses.
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
