//! What is wrong with a line as a whole, although each word of it could be read.
//!
//! Mistakes are looked for in ipvsadm's order, so that of several the same one is reported.

use std::fmt;

use shunt_model::{Family, Protocol};

use super::arguments::{Arguments, Forwarding};
use super::halt::{Halt, usage};
use super::words::{Command, Kind, Rule, TunnelType};

/// Looks for the first mistake. A server's port becomes the service's where it must.
pub(super) fn check(arguments: &mut Arguments) -> Result<(), Halt> {
    let command = arguments.command;
    let phrase = format!("the '{command}' command");
    check_kinds(arguments, Kind::all(), |kind| command.rule(kind), &phrase)?;
    match command {
        Command::AddService | Command::EditService => check_service(arguments),
        Command::AddServer | Command::EditServer => check_server(arguments),
        Command::List => check_listing(arguments),
        _ => Ok(()),
    }
}

/// Which kinds of option go with what the phrase names, a command or a type of tunnel.
fn check_kinds(
    arguments: &Arguments,
    kinds: impl Iterator<Item = Kind>,
    rule: impl Fn(Kind) -> Rule,
    phrase: &dyn fmt::Display,
) -> Result<(), Halt> {
    let mut exclusive = None;
    for kind in kinds {
        match (rule(kind), arguments.has(kind)) {
            (Rule::Needed, false) => {
                return usage(format!(
                    "You need to supply the '{kind}' option for {phrase}"
                ));
            }
            (Rule::Forbidden, true) => {
                return usage(format!("Illegal '{kind}' option with {phrase}"));
            }
            (Rule::Exclusive, true) => {
                if let Some(other) = exclusive.replace(kind) {
                    return usage(format!(
                        "The option '{kind}' conflicts with the '{other}' option in {phrase}"
                    ));
                }
            }
            (Rule::Needed | Rule::Free, true) => {}
            (Rule::Free | Rule::Exclusive | Rule::Forbidden, false) => {}
        }
    }
    Ok(())
}

fn check_service(arguments: &Arguments) -> Result<(), Halt> {
    let service = &arguments.service;
    if service.mark.is_some() {
        return Ok(());
    }
    if service.port == 0 && service.persistent_s.is_none() {
        return usage("Zero port specified for non-persistent service".into());
    }
    if service.one_packet && service.protocol != Some(Protocol::Udp) {
        return usage("One-Packet Scheduling is only for UDP virtual services".into());
    }
    Ok(())
}

fn check_server(arguments: &mut Arguments) -> Result<(), Halt> {
    let service = &arguments.service;
    let forwarding = arguments.server.forwarding;
    // Only NAT changes a port; for a mark, the port is whatever the packet has.
    if service.mark.is_none() && forwarding != Forwarding::Masquerade {
        arguments.server.port = service.port;
    }
    let tunnelled = forwarding == Forwarding::Tunnel;
    let family = Family::from(arguments.server.address);
    if Some(family) != service.family && !tunnelled {
        return usage("Different address family is allowed only for tunneling servers".into());
    }
    let about_tunnels = arguments.has(Kind::TunType) || arguments.has_any(&TunnelType::KINDS);
    if about_tunnels && !tunnelled {
        return usage("Tunnel options conflict with forward method".into());
    }
    let tunnel = arguments.server.tunnel;
    let phrase = format!("the '{tunnel}' tunnel type");
    let kinds = TunnelType::KINDS.into_iter();
    check_kinds(arguments, kinds, |kind| tunnel.rule(kind), &phrase)
}

fn check_listing(arguments: &Arguments) -> Result<(), Halt> {
    let of_services = arguments.has_any(&[Kind::Stats, Kind::Rate, Kind::Thresholds]);
    let of_else = arguments.has_any(&[Kind::Timeout, Kind::Daemon]);
    let of_connections = arguments.has(Kind::Connection);
    let conflict = of_services && (of_else || of_connections)
        || of_else && arguments.has(Kind::PersistentConn);
    if conflict {
        return usage("options conflicts in the list command".into());
    }
    Ok(())
}
