//! `ipvsadm -L -c`: the connection table, one entry a line as it comes.

use std::io::{self, Write};

use shunt_model::Connection;

use super::addresses;
use super::names::Names;

pub(super) fn write_title(out: &mut dyn Write, with_engines: bool) -> io::Result<()> {
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

/// One entry; with engines also what its engine knows it by, if it has one.
pub(super) fn write(
    out: &mut dyn Write,
    connection: &Connection,
    names: Option<&dyn Names>,
    with_engines: bool,
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
    write!(
        out,
        "{:<3} {expires:<6} {:<11} {:<18} {:<18} ",
        match connection.mark {
            Some(_) => "IP".to_owned(),
            None => protocol.to_string(),
        },
        connection.state,
        at(connection.client),
        at(connection.virtual_address),
    )?;
    let server = at(connection.server);
    match connection.engine.as_ref().filter(|_| with_engines) {
        None => write!(out, "{server}")?,
        Some(engine) => {
            write!(out, "{server:<16} {:<18} ", engine.name)?;
            out.write_all(&engine.bytes())?;
        }
    }
    writeln!(out)
}
