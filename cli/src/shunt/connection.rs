//! `shunt connection`: the flows that have an entry.

use std::collections::BTreeMap;
use std::io::Write;
use std::net::IpAddr;
use std::str::FromStr;

use clap::{Args, Subcommand};
use shunt_model::api::ConnectionCount;
use shunt_model::{Connection, ServerAddress, ServiceKey, State};

use super::table::{Side, Table};
use super::watch::{self, Watch};
use super::{Form, Halt, Outside, write_json};
use crate::client::Client;

#[derive(Debug, Subcommand)]
pub(super) enum Verb {
    /// List connections; with --json, one object a line
    List {
        #[command(flatten)]
        filter: Filter,
        /// Stop after this many connections
        #[arg(long, value_name = "NUMBER")]
        limit: Option<usize>,
        #[command(flatten)]
        watch: Watch,
    },
    /// Count connections, in total and by state
    Count {
        #[command(flatten)]
        filter: Filter,
        #[command(flatten)]
        watch: Watch,
    },
}

/// The conditions that a connection must meet to be shown.
#[derive(Debug, Args)]
pub(super) struct Filter {
    /// Only connections to this service
    #[arg(long)]
    service: Option<ServiceKey>,
    /// Only connections of this server
    #[arg(long)]
    server: Option<ServerAddress>,
    /// Only connections of this client or network, such as 198.51.100.7 or 198.51.100.0/24
    #[arg(long, value_name = "ADDRESS or PREFIX")]
    client: Option<Prefix>,
    /// Only connections in this state, such as established
    #[arg(long)]
    state: Option<State>,
}

impl Filter {
    fn is_empty(&self) -> bool {
        self.service.is_none()
            && self.server.is_none()
            && self.client.is_none()
            && self.state.is_none()
    }

    fn takes(&self, connection: &Connection) -> bool {
        let service = ServiceKey::Address {
            protocol: connection.protocol,
            address: connection.virtual_address.ip(),
            port: connection.virtual_address.port(),
        };
        let server = ServerAddress {
            address: connection.server.ip(),
            port: connection.server.port(),
        };
        self.service.is_none_or(|wanted| wanted == service)
            && self.server.is_none_or(|wanted| wanted == server)
            && self
                .client
                .is_none_or(|wanted| wanted.has(connection.client.ip()))
            && self.state.is_none_or(|wanted| wanted == connection.state)
    }
}

impl Verb {
    pub(super) fn run(&self, outside: &mut Outside<'_>) -> Result<(), Halt> {
        match self {
            Verb::List {
                filter,
                limit,
                watch,
            } => watch::show(outside, *watch, &|client, out, form| {
                let limit = limit.unwrap_or(usize::MAX);
                draw_list(client, filter, limit, out, form)
            }),
            Verb::Count { filter, watch } => watch::show(outside, *watch, &|client, out, form| {
                let count = count(client, filter)?;
                draw_count(&count, out, form)
            }),
        }
    }
}

fn draw_list(
    client: &mut dyn Client,
    filter: &Filter,
    limit: usize,
    out: &mut dyn Write,
    form: Form,
) -> Result<(), Halt> {
    let mut lines = Lines::default();
    if form == Form::Text {
        lines.write(
            out,
            [
                "PROTOCOL", "CLIENT", "SERVICE", "SERVER", "STATE", "EXPIRES",
            ],
            None,
        )?;
    }
    let mut left = limit;
    for connection in client.connections()? {
        let connection = connection?;
        if left == 0 {
            break;
        }
        if !filter.takes(&connection) {
            continue;
        }
        left -= 1;
        if form != Form::Text {
            // The list may not fit into memory, so each entry is written by itself.
            write_json(out, &connection, Form::JsonLine)?;
            continue;
        }
        let cells = [
            &connection.protocol.to_string().to_lowercase(),
            &connection.client.to_string(),
            &connection.virtual_address.to_string(),
            &connection.server.to_string(),
            connection.state.name(),
            &format!("{} s", connection.expires_s),
        ];
        let call = connection
            .engine
            .as_ref()
            .map(|engine| engine.data.as_str());
        lines.write(out, cells, call)?;
    }
    Ok(())
}

/// Columns of lines that are written before later lines are known. A column widens when a cell
/// needs it, and keeps that width.
#[derive(Debug)]
struct Lines {
    widths: [usize; 6],
}

impl Default for Lines {
    fn default() -> Self {
        // An IPv4 address with a port has at most 21 characters.
        Self {
            widths: [8, 21, 21, 21, 11, 7],
        }
    }
}

impl Lines {
    /// A Call-ID may follow the last column. Only templates of calls have one.
    fn write(
        &mut self,
        out: &mut dyn Write,
        cells: [&str; 6],
        call: Option<&str>,
    ) -> Result<(), Halt> {
        for (width, cell) in self.widths.iter_mut().zip(cells) {
            *width = cell.len().max(*width);
        }
        let [a, b, c, d, e, f] = self.widths;
        let [protocol, client, service, server, state, expires] = cells;
        write!(
            out,
            "{protocol:<a$}  {client:<b$}  {service:<c$}  {server:<d$}  {state:<e$}  {expires:>f$}"
        )?;
        match call {
            // A Call-ID has only printable characters, except for bytes beyond ASCII.
            Some(call) => writeln!(out, "  Call-ID {call}")?,
            None => writeln!(out)?,
        }
        Ok(())
    }
}

/// Asks the daemon for its count, which needs no listing, unless there is a filter.
fn count(client: &mut dyn Client, filter: &Filter) -> Result<ConnectionCount, Halt> {
    if filter.is_empty() {
        return Ok(client.connection_count()?);
    }
    let mut by_state: BTreeMap<String, u64> = BTreeMap::new();
    for connection in client.connections()? {
        let connection = connection?;
        if filter.takes(&connection) {
            *by_state.entry(connection.state.to_string()).or_default() += 1;
        }
    }
    Ok(ConnectionCount {
        total: by_state.values().sum(),
        by_state,
    })
}

fn draw_count(count: &ConnectionCount, out: &mut dyn Write, form: Form) -> Result<(), Halt> {
    if form != Form::Text {
        return write_json(out, count, form);
    }
    let mut table = Table::new(&[("STATE", Side::Left), ("CONNECTIONS", Side::Right)]);
    for (state, number) in &count.by_state {
        table.row([state.clone(), number.to_string()]);
    }
    table.row(["total".to_owned(), count.total.to_string()]);
    Ok(table.write(out)?)
}

/// An address or a prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Prefix {
    address: IpAddr,
    length: u32,
}

impl Prefix {
    fn has(self, address: IpAddr) -> bool {
        match (self.address, address) {
            (IpAddr::V4(ours), IpAddr::V4(other)) => {
                let differs = u32::from(ours) ^ u32::from(other);
                differs.leading_zeros() >= self.length
            }
            (IpAddr::V6(ours), IpAddr::V6(other)) => {
                let differs = u128::from(ours) ^ u128::from(other);
                differs.leading_zeros() >= self.length
            }
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => false,
        }
    }
}

impl FromStr for Prefix {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let told = || {
            format!(
                "\"{text}\" is not a client; \
                 write 198.51.100.7, 198.51.100.0/24 or 2001:db8::/32"
            )
        };
        let (address, length) = match text.split_once('/') {
            Some((address, length)) => (address, Some(length)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| told())?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        let length = match length {
            Some(length) => length.parse().map_err(|_| told())?,
            None => most,
        };
        if length > most {
            return Err(told());
        }
        Ok(Self { address, length })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_has_the_addresses_that_begin_like_it() {
        let has = |prefix: &str, address: &str| {
            prefix
                .parse::<Prefix>()
                .unwrap()
                .has(address.parse().unwrap())
        };
        assert!(has("198.51.100.0/24", "198.51.100.255"));
        assert!(!has("198.51.100.0/24", "198.51.101.0"));
        assert!(has("198.51.100.7", "198.51.100.7"));
        assert!(!has("198.51.100.7", "198.51.100.6"));
        assert!(has("0.0.0.0/0", "203.0.113.1"));
        assert!(has("2001:db8::/32", "2001:db8:ffff::1"));
        assert!(!has("0.0.0.0/0", "2001:db8::1"));
    }

    #[test]
    fn a_prefix_longer_than_an_address_is_none() {
        assert!("198.51.100.0/33".parse::<Prefix>().is_err());
        assert!("198.51.100.0/".parse::<Prefix>().is_err());
    }
}
