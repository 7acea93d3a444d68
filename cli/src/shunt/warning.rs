//! Warnings and next hops as sentences for people.

use shunt_model::Family;
use shunt_model::api::{ActiveDefence, ServerStatus};
use shunt_model::next_hop::{NextHop, OutOfReach};
use shunt_model::warning::{Table, Warning};

/// One sentence: the problem, and what to do about it.
pub(super) fn text(warning: &Warning) -> String {
    match warning {
        Warning::JournalNotWritten { file, why } => {
            format!("changes are refused: {file} cannot be written: {why}; make room there")
        }
        Warning::StateDamaged { file, what } => format!("{file}: {what}"),
        Warning::ServicesForgotten { services, more } => {
            let services: Vec<String> = services.iter().map(ToString::to_string).collect();
            let services = services.join(", ");
            let more = match more {
                0 => String::new(),
                more => format!(" and {more} more"),
            };
            format!(
                "records of the table were lost: packets to {services}{more} are forwarded as \
                 before; add these services again, or delete all services to end that"
            )
        }
        Warning::LogLost { lines } => format!(
            "{lines} lines of the log were lost: stderr could not be written, or was not read"
        ),
        Warning::DeviceTroubled { device } => {
            format!("device {}: {}", device.name, device.hook_text())
        }
        Warning::ServerOutOfReach {
            service,
            server,
            next_hop,
            fate,
        } => {
            let way = next_hop.as_ref().map(way).unwrap_or_default();
            format!(
                "server {server} of {service}: {way}; {}",
                out_of_reach(*fate)
            )
        }
        Warning::MoreServersOutOfReach { count } => {
            format!("{count} more servers without a next hop: shunt server list")
        }
        Warning::CallersNotServed { why } => {
            format!("processes on this machine are given no servers: {why}")
        }
        Warning::NoLocalAddress { .. }
        | Warning::LocalPortsNearlyUsed { .. }
        | Warning::LocalAddressAbsent { .. }
        | Warning::LocalAddressServed { .. }
        | Warning::LocalPortsShared { .. } => local(warning),
        Warning::ProgramRefused { program, why } => {
            format!("the kernel refused the program for {program}: {why}")
        }
        Warning::TableNearlyFull { table } => match table {
            Table::Connections => {
                "the connection table is nearly full: start shuntd with more --flows"
            }
            Table::Translations => {
                "the table of translations is nearly full: start shuntd with more --translations"
            }
            Table::Calls => "the table of calls is nearly full: start shuntd with more --calls",
        }
        .to_owned(),
    }
}

/// What is wrong with local addresses.
fn local(warning: &Warning) -> String {
    match warning {
        Warning::NoLocalAddress {
            service,
            server,
            family,
        } => {
            let family = match family {
                Family::Ipv4 => "IPv4",
                Family::Ipv6 => "IPv6",
            };
            format!(
                "server {server} of {service}: there is no local address for {family}, so its \
                 connections are dropped; shunt local add ADDRESS"
            )
        }
        Warning::LocalPortsNearlyUsed {
            server,
            used,
            ports,
        } => format!(
            "the local addresses are nearly used up: {used} of {ports} ports at server {server}; \
             shunt local add ADDRESS"
        ),
        Warning::LocalAddressAbsent { address } => format!(
            "local address {address} is on no device of this machine, so answers of servers are \
             lost; ip address add {address} dev DEVICE"
        ),
        Warning::LocalAddressServed { local, service } => format!(
            "local address {local}: service {service} has one of its ports, so answers to that \
             port are taken for requests; give one of them other ports"
        ),
        Warning::LocalPortsShared {
            local,
            port,
            range: (first, last),
            shared: (from, to),
        } => format!(
            "local address {local}: the kernel gives port {port} to this machine's own \
             connections ({first}-{last}); use other ports, or reserve them: \
             sysctl net.ipv4.ip_local_reserved_ports={from}-{to}"
        ),
        Warning::JournalNotWritten { .. }
        | Warning::StateDamaged { .. }
        | Warning::ServicesForgotten { .. }
        | Warning::LogLost { .. }
        | Warning::DeviceTroubled { .. }
        | Warning::ServerOutOfReach { .. }
        | Warning::MoreServersOutOfReach { .. }
        | Warning::CallersNotServed { .. }
        | Warning::ProgramRefused { .. }
        | Warning::TableNearlyFull { .. } => text(warning),
    }
}

/// A defence as `shunt status` prints it.
pub(super) fn defence(defence: &ActiveDefence) -> String {
    match defence {
        ActiveDefence::DropEntry => "drop_entry".to_owned(),
        ActiveDefence::DropPacket { one_of } => format!("drop_packet, one of {one_of}"),
        ActiveDefence::SecureTcp => "secure_tcp".to_owned(),
    }
}

/// How packets get to a server, and what becomes of them if they do not.
pub(super) fn next_hop(status: &ServerStatus) -> String {
    let way = status.next_hop.as_ref().map(way).unwrap_or_default();
    match status.out_of_reach {
        Some(fate) => format!("{way}; {}", out_of_reach(fate)),
        None => way,
    }
}

fn way(hop: &NextHop) -> String {
    match hop {
        NextHop::Local => "this machine".to_owned(),
        NextHop::Neighbour {
            device,
            mac,
            neighbour,
            mtu,
        } => format!("{device} {mac} by {neighbour} mtu {mtu}"),
        NextHop::Unresolved { neighbour } => format!("no MAC address known for {neighbour}"),
        NextHop::Unreachable { why } => why.clone(),
    }
}

fn out_of_reach(fate: OutOfReach) -> &'static str {
    match fate {
        OutOfReach::NotPicked => "not picked",
        OutOfReach::Dropped => "packets are dropped",
    }
}
