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
    JournalNotWritten { file: String, why: String },
    /// A part of the state that an earlier daemon saved was lost or damaged.
    StateDamaged { file: String, what: String },
    /// Packets of services whose records were lost are forwarded as before. `services` names some
    /// of them, `more` counts the others.
    ServicesForgotten {
        services: Vec<ServiceKey>,
        more: usize,
    },
    /// Lines of the log could not be written, or were not read.
    LogLost { lines: u64 },
    /// A device has no packet path, or not the best hook.
    DeviceTroubled { device: Device },
    /// No next hop leads to a server.
    ServerOutOfReach {
        service: ServiceKey,
        server: ServerAddress,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        next_hop: Option<NextHop>,
        fate: OutOfReach,
    },
    /// So many servers without a next hop are not named.
    MoreServersOutOfReach { count: usize },
    /// Processes on the director are given no servers.
    CallersNotServed { why: String },
    /// A server of full NAT has no local address of its family.
    NoLocalAddress {
        service: ServiceKey,
        server: ServerAddress,
        family: Family,
    },
    /// A server of full NAT uses nearly all ports of the local addresses.
    LocalPortsNearlyUsed {
        server: ServerAddress,
        used: u64,
        ports: u64,
    },
    /// A local address is on no device.
    LocalAddressAbsent { address: IpAddr },
    /// A service has an address and port that full NAT may use.
    LocalAddressServed {
        local: LocalAddress,
        service: ServiceKey,
    },
    /// The kernel gives ports that full NAT may use to this machine's own connections: `port` is
    /// the first of them, `range` the kernel's range, `shared` the part of it that full NAT has.
    LocalPortsShared {
        local: LocalAddress,
        port: u16,
        range: (u16, u16),
        shared: (u16, u16),
    },
    /// The kernel refused a program that only some tables need. Changes that need it are refused.
    ProgramRefused { program: Program, why: String },
    /// A table is nearly full.
    TableNearlyFull { table: Table },
}

/// A table of the packet path whose size an option of `shuntd` sets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Table {
    Connections,
    Translations,
    Calls,
}
