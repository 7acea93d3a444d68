//! The messages of the local API. Each is JSON over HTTP/1.1 on the daemon's Unix socket.
//!
//! | request | body | answer |
//! | --- | --- | --- |
//! | `GET /v1/status` | | [`Status`] |
//! | `GET /v1/services` | | `[`[`ServiceStatus`]`]`, in the kernel's own order |
//! | `GET /v1/services?key=tcp/192.0.2.1:80` | | the same of one service, or none |
//! | `POST /v1/change` | [`Change`] | [`Done`] |
//! | `GET /v1/connections` | | one [`Connection`](crate::Connection) a line |
//! | `GET /v1/connections/count` | | [`ConnectionCount`] |
//! | `GET /v1/marks` | | `[`[`MarkRule`]`]` |
//! | `GET /v1/locals` | | `[`[`LocalAddress`]`]` |
//! | `GET /v1/timeouts` | | [`Timeouts`] |
//! | `GET /v1/settings` | | [`Settings`] |
//! | `GET /v1/statistics` | | [`Statistics`] |
//!
//! What is refused answers with status 409 (422 where the request itself makes no sense, 403 where
//! the asker may not, 503 where too many ask at once) and a [`Refusal`].

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::{
    Counters, Family, LocalAddress, MarkRule, Rates, Server, ServerAddress, Service, ServiceKey,
    Setting, Settings, Timeouts,
};

/// One change of the table. The forms are those of IPVS's own commands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "change", rename_all = "snake_case")]
pub enum Change {
    AddService {
        service: Service,
    },
    EditService {
        service: Service,
    },
    DeleteService {
        key: ServiceKey,
    },
    /// Deletes every service.
    Flush,
    AddServer {
        key: ServiceKey,
        server: Server,
    },
    EditServer {
        key: ServiceKey,
        server: Server,
    },
    DeleteServer {
        key: ServiceKey,
        at: ServerAddress,
    },
    /// Zeroes the counters of one service, or of all.
    Zero {
        key: Option<ServiceKey>,
    },
    /// A zero leaves that timeout as it is.
    SetTimeouts {
        timeouts: Timeouts,
    },
    /// From here on this holds for the whole director, and for each service that has no other.
    Set {
        setting: Setting,
    },
    /// Packets to a target have this mark from here on.
    AddMark {
        rule: MarkRule,
    },
    DeleteMark {
        rule: MarkRule,
    },
    /// Full NAT may use these ports of this address from here on, and no others of it.
    SetLocal {
        local: LocalAddress,
    },
    /// No new connection gets this local address.
    DeleteLocal {
        address: IpAddr,
    },
}

impl fmt::Display for Change {
    /// As a line of a diary.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Change::AddService { service } => {
                write!(f, "service {} added, {}", service.key, service.scheduler)
            }
            Change::EditService { service } => {
                write!(f, "service {} edited, {}", service.key, service.scheduler)
            }
            Change::DeleteService { key } => write!(f, "service {key} deleted"),
            Change::Flush => f.write_str("all services deleted"),
            Change::AddServer { key, server } => {
                let Server {
                    at, method, weight, ..
                } = server;
                write!(f, "server {at} added to {key}, {method}, weight {weight}")
            }
            Change::EditServer { key, server } => {
                let Server {
                    at, method, weight, ..
                } = server;
                write!(f, "server {at} of {key} edited, {method}, weight {weight}")
            }
            Change::DeleteServer { key, at } => write!(f, "server {at} of {key} deleted"),
            Change::Zero { key: Some(key) } => write!(f, "counters of {key} zeroed"),
            Change::Zero { key: None } => f.write_str("all counters zeroed"),
            Change::Set { setting } => write!(f, "setting {setting}"),
            Change::AddMark { rule } => write!(f, "{rule} added"),
            Change::DeleteMark { rule } => write!(f, "{rule} deleted"),
            Change::SetLocal { local } => write!(f, "local address {local} set"),
            Change::DeleteLocal { address } => write!(f, "local address {address} deleted"),
            Change::SetTimeouts { timeouts } => {
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

/// The change is in force.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Done {
    /// A sentence for each thing that was done differently from what was asked.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

/// Why a change was refused. Everything is as it was.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{text}")]
pub struct Refusal {
    pub reason: Reason,
    /// The whole sentence, in the operator's words.
    pub text: String,
}

/// The reasons that a program may want to tell apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    ServiceExists,
    NoSuchService,
    ServerExists,
    NoSuchServer,
    /// The lower threshold is above the upper one.
    OutOfRange,
    /// The address cannot be a server's: not unicast, or of another family without a tunnel or
    /// full NAT.
    BadAddress,
    /// No such scheduler or persistence engine.
    UnknownScheduler,
    /// Shunt does not carry this yet.
    NotSupported,
    /// A table is full.
    NoRoom,
    /// It cannot be written down, so a restart would lose it.
    NotKept,
    /// Whoever asks may not.
    NotPermitted,
    /// The request itself makes no sense.
    BadRequest,
}

/// A service with all that is known of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceStatus {
    pub service: Service,
    pub counters: Counters,
    pub rates: Rates,
    /// Of a large pool: how many servers are compared for a new connection.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub short_list: Option<u32>,
    /// In the kernel's own order: newest first.
    pub servers: Vec<ServerStatus>,
}

/// A server with all that is known of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerStatus {
    pub server: Server,
    pub active_connections: u32,
    pub inactive_connections: u32,
    #[serde(default)]
    pub persistent_connections: u32,
    pub counters: Counters,
    pub rates: Rates,
    /// How a packet gets there: interface and MAC address, or what is missing.
    #[serde(default)]
    pub next_hop: String,
}

/// How many entries the connection table has.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConnectionCount {
    pub total: u64,
    pub by_state: BTreeMap<String, u64>,
}

/// What the packet path did, by verdict and by drop reason, since it was loaded.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Statistics {
    pub verdicts: BTreeMap<String, u64>,
    pub drops: BTreeMap<String, u64>,
    /// What happened on the way that is no verdict, such as a connection being opened.
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
    /// Whether this daemon found a packet path of an earlier one and went on with it.
    pub adopted: bool,
    pub devices: Vec<Device>,
    #[serde(default)]
    pub settings: Settings,
    /// The defences against floods that are up at the moment.
    #[serde(default)]
    pub defences: Vec<String>,
    /// Half-open connections that `drop_entry` took out before their time, since this daemon
    /// started.
    #[serde(default)]
    pub dropped_entries: u64,
    pub flows_capacity: u64,
    pub flows_used: u64,
    pub services: u32,
    pub servers: u32,
    /// Gateways and clients on links to whom the way of masqueraded answers is prepared.
    #[serde(default)]
    pub client_hops: u32,
    /// Answers for other clients, for whom the kernel's routes were asked.
    #[serde(default)]
    pub client_routes_asked: u64,
    /// Local addresses of full NAT, if there are any.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub local_pools: Vec<LocalPool>,
    /// Entries of the table of translations; a translated connection has two.
    #[serde(default)]
    pub translations_capacity: u64,
    #[serde(default)]
    pub translations_used: u64,
    /// Calls of services with a persistence engine.
    #[serde(default)]
    pub calls_capacity: u64,
    #[serde(default)]
    pub calls_used: u64,
    /// A sentence for each thing that an operator should look at today.
    #[serde(default)]
    pub warnings: Vec<String>,
}

/// The local addresses of a family, and how far they are used.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LocalPool {
    pub family: Family,
    pub addresses: u32,
    /// Ports of all addresses: so many connections can each server have at once.
    pub ports: u64,
    /// Connections of the server that has the most.
    pub used: u64,
    /// That server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fullest: Option<ServerAddress>,
}

/// A device that the packet path listens on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Device {
    pub name: String,
    pub index: u32,
    /// `xdp-native`, `xdp-generic`, `tc`, or why it is not attached.
    pub hook: String,
}
