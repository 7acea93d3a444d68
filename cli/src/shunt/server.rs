//! `shunt server`: the real servers of a service.

use std::io::Write;

use clap::{Args, Subcommand};
use serde::Serialize;
use shunt_model::api::{Reason, ServerStatus};
use shunt_model::change::{Change, server};
use shunt_model::{Method, Server, ServerAddress, ServiceKey};

use super::change::{Differences, Wanted, make};
use super::table::{Side, Table};
use super::watch::{self, Watch};
use super::{Form, Halt, Outside, find_service, refused, services, warning, write_json};
use crate::client::Client;

#[derive(Debug, Subcommand)]
pub(super) enum Verb {
    /// List the servers of a service, or of all services
    List {
        /// Protocol, address and port, such as tcp/192.0.2.1:80
        service: Option<ServiceKey>,
        #[command(flatten)]
        watch: Watch,
    },
    /// Add a server to a service
    Add {
        #[command(flatten)]
        place: Place,
        /// The forwarding method: masquerade, fullnat, route, tunnel, gre, gue:PORT or local
        #[arg(long, default_value = "route")]
        method: Method,
        /// The server's share of new connections; 0 quiesces the server
        #[arg(long, default_value_t = 1)]
        weight: u32,
        #[command(flatten)]
        thresholds: Thresholds,
    },
    /// Change the given properties of a server; all others stay
    Edit {
        #[command(flatten)]
        place: Place,
        /// The forwarding method: masquerade, fullnat, route, tunnel, gre, gue:PORT or local
        #[arg(long)]
        #[arg(required_unless_present_any = ["weight", "upper_threshold", "lower_threshold"])]
        method: Option<Method>,
        /// The server's share of new connections; 0 quiesces the server
        #[arg(long)]
        weight: Option<u32>,
        #[command(flatten)]
        thresholds: Thresholds,
    },
    /// Change the weight of a server
    Weight {
        #[command(flatten)]
        place: Place,
        /// The server's share of new connections; 0 quiesces the server
        weight: u32,
    },
    /// Set the weight to 0: the server gets no new connection and keeps its existing ones
    Drain {
        #[command(flatten)]
        place: Place,
    },
    /// Delete a server from a service; packets of its TCP connections are dropped
    Delete {
        #[command(flatten)]
        place: Place,
    },
}

#[derive(Clone, Copy, Debug, Default, Args)]
pub(super) struct Thresholds {
    /// The number of connections, active and inactive, at which the server gets no new ones; 0
    /// disables the threshold
    #[arg(long)]
    upper_threshold: Option<u32>,
    /// The number of connections below which the server gets new ones again; 0 means three quarters
    /// of the upper threshold
    #[arg(long)]
    lower_threshold: Option<u32>,
}

/// The properties that an edit changes. All others stay.
#[derive(Clone, Copy, Debug, Default)]
struct Wishes {
    method: Option<Method>,
    weight: Option<u32>,
    thresholds: Thresholds,
}

#[derive(Clone, Copy, Debug, Args)]
pub(super) struct Place {
    /// Protocol, address and port, such as tcp/192.0.2.1:80
    service: ServiceKey,
    /// Address and port, such as 10.1.0.11:8080
    server: ServerAddress,
}

/// A server with the key of its service: a row of `server list`, also with `--json`.
#[derive(Debug, Serialize)]
struct Row {
    key: ServiceKey,
    #[serde(flatten)]
    status: ServerStatus,
}

impl Verb {
    pub(super) fn run(&self, outside: &mut Outside<'_>) -> Result<(), Halt> {
        match self {
            Verb::List { service, watch } => watch::show(outside, *watch, &|client, out, form| {
                let rows = rows(client, service.as_ref())?;
                draw_list(&rows, out, form)
            }),
            Verb::Add {
                place,
                method,
                weight,
                thresholds,
            } => {
                let server = Server {
                    at: place.server,
                    method: *method,
                    weight: *weight,
                    upper_threshold: thresholds.upper_threshold.unwrap_or(0),
                    lower_threshold: thresholds.lower_threshold.unwrap_or(0),
                };
                make(outside, |client| add(client, place.service, server))
            }
            Verb::Edit {
                place,
                method,
                weight,
                thresholds,
            } => {
                let wishes = Wishes {
                    method: *method,
                    weight: *weight,
                    thresholds: *thresholds,
                };
                make(outside, |client| edit(client, *place, wishes))
            }
            Verb::Weight { place, weight } => {
                make(outside, |client| edit(client, *place, weighing(*weight)))
            }
            Verb::Drain { place } => make(outside, |client| edit(client, *place, weighing(0))),
            Verb::Delete { place } => make(outside, |client| delete(client, *place)),
        }
    }
}

fn add(client: &mut dyn Client, key: ServiceKey, server: Server) -> Result<Wanted, Halt> {
    let at = server.at;
    let status = find_service(client, &key)?;
    if status.servers.iter().any(|known| known.server == server) {
        let text = format!("server {at} of service {key} is already as requested");
        return Ok(Wanted::nothing(&text));
    }
    let (method, weight) = (server.method, server.weight);
    let text = format!("added server {at} to service {key}: {method}, weight {weight}");
    Ok(Wanted::change(
        Change::Server(server::Change::Add { key, server }),
        text,
    ))
}

fn weighing(weight: u32) -> Wishes {
    Wishes {
        weight: Some(weight),
        ..Wishes::default()
    }
}

fn edit(client: &mut dyn Client, place: Place, wishes: Wishes) -> Result<Wanted, Halt> {
    let Place {
        service: key,
        server: at,
    } = place;
    let Some(status) = find_server(client, place)? else {
        let text = format!("service {key} has no server {at}");
        return Err(refused(Reason::NoSuchServer, text));
    };
    let before = status.server.clone();
    let server = Server {
        at,
        method: wishes.method.unwrap_or(before.method),
        weight: wishes.weight.unwrap_or(before.weight),
        upper_threshold: (wishes.thresholds.upper_threshold).unwrap_or(before.upper_threshold),
        lower_threshold: (wishes.thresholds.lower_threshold).unwrap_or(before.lower_threshold),
    };
    let mut differences = Differences::default();
    differences.add("method", &before.method, &server.method);
    differences.add("weight", &before.weight, &server.weight);
    let [upper, lower] = [before.upper_threshold, before.lower_threshold];
    differences.add("upper threshold", &upper, &server.upper_threshold);
    differences.add("lower threshold", &lower, &server.lower_threshold);
    if differences.is_empty() {
        let text = format!("server {at} of service {key} is already as requested");
        return Ok(Wanted::nothing(&text));
    }
    let quiesces = server.weight == 0 && before.weight != 0;
    let left = if quiesces {
        what_stays(&status)
    } else {
        String::new()
    };
    let differences = differences.text();
    let text = format!("changed server {at} of service {key}: {differences}{left}");
    Ok(Wanted::change(
        Change::Server(server::Change::Edit { key, server }),
        text,
    ))
}

/// The connections that a quiesced server still has.
fn what_stays(status: &ServerStatus) -> String {
    let (active, inactive) = (status.active_connections, status.inactive_connections);
    format!("; its {active} active and {inactive} inactive connections stay")
}

fn delete(client: &mut dyn Client, place: Place) -> Result<Wanted, Halt> {
    let Place {
        service: key,
        server: at,
    } = place;
    let Some(status) = find_server(client, place)? else {
        return Ok(Wanted::nothing(&format!(
            "service {key} has no server {at}"
        )));
    };
    let active = status.active_connections;
    let text = format!("deleted server {at} of service {key}; it had {active} active connections");
    Ok(Wanted::change(
        Change::Server(server::Change::Delete { key, at }),
        text,
    ))
}

fn find_server(client: &mut dyn Client, place: Place) -> Result<Option<ServerStatus>, Halt> {
    let mut servers = find_service(client, &place.service)?.servers.into_iter();
    Ok(servers.find(|status| status.server.at == place.server))
}

fn rows(client: &mut dyn Client, key: Option<&ServiceKey>) -> Result<Vec<Row>, Halt> {
    let services = match key {
        Some(key) => vec![find_service(client, key)?],
        None => services(client)?,
    };
    let rows = services.into_iter().flat_map(|service| {
        let key = service.service.key;
        let servers = service.servers.into_iter();
        servers.map(move |status| Row { key, status })
    });
    Ok(rows.collect())
}

fn draw_list(rows: &[Row], out: &mut dyn Write, form: Form) -> Result<(), Halt> {
    if form != Form::Text {
        return write_json(out, &rows, form);
    }
    let mut table = table(true);
    for Row { key, status } in rows {
        row(&mut table, Some(key), status);
    }
    Ok(table.write(out)?)
}

/// The head of a table of servers.
pub(super) fn table(with_service: bool) -> Table {
    let columns = [
        ("SERVICE", Side::Left),
        ("SERVER", Side::Left),
        ("METHOD", Side::Left),
        ("WEIGHT", Side::Right),
        ("ACTIVE", Side::Right),
        ("INACTIVE", Side::Right),
        ("CONNECTIONS/S", Side::Right),
        ("NEXT HOP", Side::Left),
    ];
    Table::new(if with_service {
        &columns
    } else {
        &columns[1..]
    })
}

pub(super) fn row(table: &mut Table, key: Option<&ServiceKey>, status: &ServerStatus) {
    let server = &status.server;
    let cells = [
        server.at.to_string(),
        server.method.to_string(),
        server.weight.to_string(),
        status.active_connections.to_string(),
        status.inactive_connections.to_string(),
        status.rates.connections.to_string(),
        warning::next_hop(status),
    ];
    table.row(key.map(ToString::to_string).into_iter().chain(cells));
}
