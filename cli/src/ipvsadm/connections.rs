//! `ipvsadm -L -c`: the connection table, one entry a line as it comes.

use std::io::{self, Write};

use shunt_model::Connection;

use super::addresses;
use super::names::Names;

pub fn write_title(out: &mut dyn Write, with_engines: bool) -> io::Result<()> {
    writeln!(out, "IPVS connection entries")?;
    write!(
        out,
        "pro expire {:<11} {:<18} {:<18} ",
        "state", "source", "virtual"
    )?;
    if with_engines {
        return writeln!(out, "{:<18} {:<16} pe_data", "destination", "pe name");
    }
    writeln!(out, "destination")
}

/// One entry. A persistence engine's columns would follow; no entry has an engine yet.
pub fn write(
    out: &mut dyn Write,
    connection: &Connection,
    names: Option<&dyn Names>,
) -> io::Result<()> {
    let protocol = connection.protocol;
    let at = |address: std::net::SocketAddr| {
        addresses::write(address.ip(), address.port(), Some(protocol), names)
    };
    let expires = format!(
        "{:02}:{:02}",
        connection.expires_s / 60,
        connection.expires_s % 60
    );
    writeln!(
        out,
        "{:<3} {expires:<6} {:<11} {:<18} {:<18} {}",
        match connection.mark {
            Some(_) => "IP".to_owned(),
            None => protocol.to_string(),
        },
        connection.state,
        at(connection.client),
        at(connection.virtual_address),
        at(connection.server),
    )
}
