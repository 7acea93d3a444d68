//! The words about the synchronisation daemon, which this version does not carry.
//!
//! They are read and checked all the same, so that a mistake is named as ever.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::addresses::number;
use super::halt::{Halt, usage};
use super::words::{Command, Kind};

/// Checks the role that `--start-daemon` and `--stop-daemon` name; other commands have none.
pub(super) fn check_role(command: Command, role: Option<&str>) -> Result<(), Halt> {
    match (command, role) {
        (Command::StartDaemon | Command::StopDaemon, Some("master" | "backup")) => Ok(()),
        (Command::StartDaemon, _) => usage("illegal start-daemon parameter specified".into()),
        (Command::StopDaemon, _) => usage("illegal start_daemon specified".into()),
        _ => Ok(()),
    }
}

/// Checks the value of an option; options about other things pass.
pub(super) fn check(kind: Kind, text: &str) -> Result<(), Halt> {
    let (range, name) = match kind {
        Kind::Syncid => (0..=255, "syncid"),
        Kind::McastPort => (1..=65_535, "mcast-port"),
        Kind::McastTtl => (1..=255, "mcast-ttl"),
        // What IPv4 and UDP leave of a datagram.
        Kind::SyncMaxlen => (1..=65_535 - 20 - 8, "sync-maxlen"),
        Kind::McastGroup => return check_group(text),
        _ => return Ok(()),
    };
    match number(text, range) {
        Some(_) => Ok(()),
        None => usage(format!("illegal {name} specified")),
    }
}

fn check_group(text: &str) -> Result<(), Halt> {
    let (version, fits) = if text.contains(':') {
        let fits = text
            .parse()
            .is_ok_and(|group: Ipv6Addr| group.is_multicast());
        (6, fits)
    } else {
        let fits = text
            .parse()
            .is_ok_and(|group: Ipv4Addr| group.is_multicast());
        (4, fits)
    };
    if fits {
        return Ok(());
    }
    usage(format!("invalid IPv{version} mcast-group `{text}'"))
}
