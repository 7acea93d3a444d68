//! What an operator should look at, as data. `shunt status` makes the sentences.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::device::Device;
use crate::next_hop::{NextHop, OutOfReach};
use crate::program::Program;
use crate::{Family, LocalAddress, ServerAddress, ServiceKey};

/// A problem that an operator should look at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "warning", rename_all = "snake_case")]
pub enum Warning {
    /// Changes are refused, because the journal cannot be written.
    JournalNotWritten {
        /// The path of the journal.
        file: String,
        /// The error of the system.
        why: String,
    },
    /// A part of the state that an earlier daemon saved was lost or damaged.
    StateDamaged {
        /// The path of the journal.
        file: String,
        /// What was lost or damaged, as a sentence.
        what: String,
    },
    /// Packets of services whose records were lost are forwarded as before. `services` names some
    /// of them, `more` counts the others.
    ServicesForgotten {
        /// Some of the services, as their endpoints show them.
        services: Vec<ServiceKey>,
        /// The number of the others.
        more: usize,
    },
    /// Lines of the log could not be written, or were not read.
    LogLost {
        /// The number of lines since the daemon started.
        lines: u64,
    },
    /// A device has no packet path, or not the best hook.
    DeviceTroubled {
        /// The device with the hooks that were refused.
        device: Device,
    },
    /// No next hop leads to a server.
    ServerOutOfReach {
        /// The service of the server.
        service: ServiceKey,
        /// The server.
        server: ServerAddress,
        /// What the kernel knows of the way to it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        next_hop: Option<NextHop>,
        /// What becomes of new connections.
        fate: OutOfReach,
    },
    /// So many servers without a next hop are not named.
    MoreServersOutOfReach {
        /// The number of servers beside those that have a warning of their own.
        count: usize,
    },
    /// Processes on the director are given no servers.
    CallersNotServed {
        /// The error, with the remedy if one is known.
        why: String,
    },
    /// A server of full NAT has no local address of its family.
    NoLocalAddress {
        /// The service of the server.
        service: ServiceKey,
        /// The server.
        server: ServerAddress,
        /// The family of the server's address.
        family: Family,
    },
    /// A server of full NAT uses nearly all ports of the local addresses.
    LocalPortsNearlyUsed {
        /// The server that has the most connections of all.
        server: ServerAddress,
        /// Its connections, each of which holds a port.
        used: u64,
        /// The ports of all local addresses of its family.
        ports: u64,
    },
    /// A local address is on no device.
    LocalAddressAbsent {
        /// The local address.
        address: IpAddr,
    },
    /// A service has an address and port that full NAT may use.
    LocalAddressServed {
        /// The local address with its ports.
        local: LocalAddress,
        /// The service whose port is among them.
        service: ServiceKey,
    },
    /// The kernel gives ports that full NAT may use to this machine's own connections: `port` is
    /// the first of them, `range` the kernel's range, `shared` the part of it that full NAT has.
    LocalPortsShared {
        /// The local address with its ports.
        local: LocalAddress,
        /// The first port that both have.
        port: u16,
        /// The kernel's range (`ip_local_port_range`), both ends included.
        range: (u16, u16),
        /// The part of the range that full NAT has, both ends included.
        shared: (u16, u16),
    },
    /// The kernel refused a program that only some tables need. Changes that need it are refused.
    ProgramRefused {
        /// What the program is for.
        program: Program,
        /// The end of the verifier's log, or the error of the system.
        why: String,
    },
    /// A table is nearly full.
    TableNearlyFull {
        /// The table.
        table: Table,
    },
}

/// A table of the packet path whose size an option of `shuntd` sets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Table {
    /// Connections: `--flows` and `--flows6`.
    Connections,
    /// Translated connections: `--translations`.
    Translations,
    /// Calls of services with a persistence engine: `--calls`.
    Calls,
}
