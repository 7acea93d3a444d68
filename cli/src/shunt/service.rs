//! `shunt service`: virtual services.

use std::io::Write;

use clap::{Args, Subcommand, ValueEnum};
use shunt_model::api::ServiceStatus;
use shunt_model::change::{Change, service};
use shunt_model::{Scheduler, SchedulerFlags, Service, ServiceKey};

use super::change::{Differences, Wanted, make};
use super::table::{Side, Table, number};
use super::watch::{self, Watch};
use super::{
    Form, Halt, Outside, find_service, persistence, server, services, setting, stats, write_json,
};
use crate::client::Client;

#[derive(Debug, Subcommand)]
pub(super) enum Verb {
    /// List all services, one a line
    List(Watch),
    /// Show one service and its servers
    Show {
        /// Protocol, address and port, such as tcp/192.0.2.1:80
        service: ServiceKey,
        #[command(flatten)]
        watch: Watch,
    },
    /// Add a service
    Add {
        /// Protocol, address and port, such as tcp/192.0.2.1:80
        service: ServiceKey,
        /// The scheduler: rr wrr lc wlc lblc lblcr sh dh mh sed nq fo ovf twos p2c
        #[arg(long, default_value = "wlc")]
        scheduler: Scheduler,
        #[command(flatten)]
        flags: Flags,
        #[command(flatten)]
        words: persistence::Words,
        #[command(flatten)]
        settings: setting::Own,
    },
    /// Change the given properties of a service; all others stay
    Edit {
        /// Protocol, address and port, such as tcp/192.0.2.1:80
        service: ServiceKey,
        #[arg(
            long,
            required_unless_present_any = [
                "flags", "persistence", "client_network", "one_packet", "announce", "on_down", "set"
            ]
        )]
        scheduler: Option<Scheduler>,
        #[command(flatten)]
        flags: Flags,
        #[command(flatten)]
        words: persistence::Words,
        #[command(flatten)]
        settings: setting::Own,
    },
    /// Delete a service and its servers
    Delete {
        /// Protocol, address and port, such as tcp/192.0.2.1:80
        #[arg(required_unless_present = "all")]
        service: Option<ServiceKey>,
        /// Delete all services
        #[arg(long, conflicts_with = "service")]
        all: bool,
    },
    /// Set the counters of a service and its servers to zero; without SERVICE, all counters
    Zero {
        /// Protocol, address and port, such as tcp/192.0.2.1:80
        service: Option<ServiceKey>,
    },
}

#[derive(Debug, Args)]
pub(super) struct Flags {
    /// For sh and mh: fallback uses another server if the hashed one is unavailable, port includes
    /// the client's port in the hash. For mh: large uses a table of 65,537 places instead of the
    /// 4,093 of IPVS
    #[arg(long, value_delimiter = ',')]
    flags: Option<Vec<Flag>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Flag {
    Fallback,
    Port,
    Large,
    None,
}

impl Flags {
    fn bits(&self) -> Option<SchedulerFlags> {
        let flags = self.flags.as_ref()?;
        Some(SchedulerFlags {
            fallback: flags.contains(&Flag::Fallback),
            port: flags.contains(&Flag::Port),
            third: false,
            large: flags.contains(&Flag::Large),
        })
    }
}

impl Verb {
    pub(super) fn run(&self, outside: &mut Outside<'_>) -> Result<(), Halt> {
        match self {
            Verb::List(watch) => watch::show(outside, *watch, &draw_list),
            Verb::Show { service, watch } => watch::show(outside, *watch, &|client, out, form| {
                let status = find_service(client, service)?;
                draw_one(&status, out, form)
            }),
            Verb::Add {
                service: key,
                scheduler,
                flags,
                words,
                settings,
            } => {
                let mut service = Service {
                    key: *key,
                    scheduler: *scheduler,
                    flags: flags.bits().unwrap_or_default(),
                    persistence: None,
                    one_packet: false,
                    settings: Default::default(),
                    idle_engine: None,
                    announce: None,
                };
                words.put(&mut service).map_err(Halt::Usage)?;
                settings.put(&mut service).map_err(Halt::Usage)?;
                make(outside, |client| add(client, service))
            }
            Verb::Edit {
                service,
                scheduler,
                flags,
                words,
                settings,
            } => make(outside, |client| {
                let before = find_service(client, service)?.service;
                let mut after = Service {
                    scheduler: scheduler.unwrap_or(before.scheduler),
                    flags: flags.bits().unwrap_or(before.flags),
                    ..before.clone()
                };
                words.put(&mut after).map_err(Halt::Usage)?;
                settings.put(&mut after).map_err(Halt::Usage)?;
                Ok(edit(&before, after))
            }),
            Verb::Delete { service, all: _ } => make(outside, |client| match service {
                Some(key) => delete(client, key),
                None => delete_all(client),
            }),
            Verb::Zero { service } => make(outside, |_| Ok(zero(*service))),
        }
    }
}

fn add(client: &mut dyn Client, service: Service) -> Result<Wanted, Halt> {
    let key = service.key;
    let known = client.service(&key)?;
    if known.is_some_and(|status| status.service == service) {
        return Ok(Wanted::nothing(&format!(
            "service {key} is already as requested"
        )));
    }
    let text = format!("added service {key}, scheduler {}", spread(&service));
    Ok(Wanted::change(
        Change::Service(service::Change::Add { service }),
        text,
    ))
}

fn edit(before: &Service, service: Service) -> Wanted {
    let key = service.key;
    let mut differences = Differences::default();
    differences.add("scheduler", &spread(before), &spread(&service));
    let text = persistence::text;
    differences.add("persistence", &text(before), &text(&service));
    let one_packet = |service: &Service| if service.one_packet { "yes" } else { "no" };
    differences.add("one-packet", &one_packet(before), &one_packet(&service));
    let announce = |service: &Service| match service.announce {
        Some(how) => how.to_string(),
        None => "off".to_owned(),
    };
    differences.add("announce", &announce(before), &announce(&service));
    let text = setting::text;
    differences.add("settings", &text(before), &text(&service));
    if differences.is_empty() {
        return Wanted::nothing(&format!("service {key} is already as requested"));
    }
    let text = format!("changed service {key}: {}", differences.text());
    Wanted::change(Change::Service(service::Change::Edit { service }), text)
}

fn delete(client: &mut dyn Client, key: &ServiceKey) -> Result<Wanted, Halt> {
    let Some(status) = client.service(key)? else {
        return Ok(Wanted::nothing(&format!("there is no service {key}")));
    };
    let servers = number(status.servers.len(), "server");
    let text = format!("deleted service {key} with {servers}");
    Ok(Wanted::change(
        Change::Service(service::Change::Delete { key: *key }),
        text,
    ))
}

fn delete_all(client: &mut dyn Client) -> Result<Wanted, Halt> {
    let services = client.services()?;
    if services.is_empty() {
        return Ok(Wanted::nothing("there is no service"));
    }
    let servers = services.iter().map(|status| status.servers.len()).sum();
    let (services, servers) = (number(services.len(), "service"), number(servers, "server"));
    let text = format!("deleted {services} with {servers}");
    Ok(Wanted::change(
        Change::Service(service::Change::Flush),
        text,
    ))
}

fn zero(key: Option<ServiceKey>) -> Wanted {
    let text = match key {
        Some(key) => format!("zeroed the counters of service {key}"),
        None => "zeroed the counters of every service".to_owned(),
    };
    Wanted::change(Change::Service(service::Change::Zero { key }), text)
}

/// The scheduler with its flags, such as `sh (fallback, port)`.
fn spread(service: &Service) -> String {
    let flags = [
        (service.flags.fallback, "fallback"),
        (service.flags.port, "port"),
        (service.flags.third, "flag-3"),
        (service.flags.large, "large"),
    ];
    let flags: Vec<_> = flags
        .iter()
        .filter(|(set, _)| *set)
        .map(|(_, name)| *name)
        .collect();
    match flags.as_slice() {
        [] => service.scheduler.to_string(),
        flags => format!("{} ({})", service.scheduler, flags.join(", ")),
    }
}

/// The scheduler, and the length of its short list if it has one.
fn in_force(status: &ServiceStatus) -> String {
    let scheduler = spread(&status.service);
    match status.short_list {
        Some(servers) => format!("{scheduler}, by a short list of {servers}"),
        None => scheduler,
    }
}

fn draw_list(client: &mut dyn Client, out: &mut dyn Write, form: Form) -> Result<(), Halt> {
    let services = services(client)?;
    if form != Form::Text {
        return write_json(out, &services, form);
    }
    let mut table = Table::new(&[
        ("SERVICE", Side::Left),
        ("SCHEDULER", Side::Left),
        ("SERVERS", Side::Right),
        ("ACTIVE", Side::Right),
        ("INACTIVE", Side::Right),
        ("CONNECTIONS/S", Side::Right),
    ]);
    for status in &services {
        let sum = |count: fn(&shunt_model::api::ServerStatus) -> u32| {
            let counts = status.servers.iter().map(|server| u64::from(count(server)));
            counts.sum::<u64>().to_string()
        };
        table.row([
            status.service.key.to_string(),
            in_force(status),
            status.servers.len().to_string(),
            sum(|server| server.active_connections),
            sum(|server| server.inactive_connections),
            status.rates.connections.to_string(),
        ]);
    }
    Ok(table.write(out)?)
}

fn draw_one(status: &ServiceStatus, out: &mut dyn Write, form: Form) -> Result<(), Halt> {
    if form != Form::Text {
        return write_json(out, status, form);
    }
    let service = &status.service;
    writeln!(out, "service      {}", service.key)?;
    writeln!(out, "scheduler    {}", in_force(status))?;
    if service.persistence.is_some() {
        writeln!(out, "persistence  {}", persistence::text(service))?;
    }
    if service.one_packet {
        writeln!(out, "one-packet   each datagram is scheduled by itself")?;
    }
    if let Some(how) = service.announce {
        writeln!(
            out,
            "announce     {how}: servers of full NAT learn the client's address"
        )?;
    }
    if !service.settings.is_empty() {
        writeln!(out, "settings     {}", setting::text(service))?;
    }
    writeln!(out)?;
    let mut servers = server::table(false);
    for server in &status.servers {
        server::row(&mut servers, None, server);
    }
    servers.write(out)?;
    writeln!(out)?;
    let mut traffic = stats::traffic_table();
    stats::traffic_rows(&mut traffic, status);
    Ok(traffic.write(out)?)
}
