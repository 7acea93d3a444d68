//! The `shunt` command: nouns, then verbs.
//!
//! A noun is a file. A question is drawn by `watch`, once or again and again; a change is made by
//! `change`, which says what changed. Results go to standard output, all else to standard error.

use std::io::{self, Write};
use std::time::Duration;

use clap::error::ErrorKind;
use clap::{Parser, Subcommand};
use serde::Serialize;
use shunt_model::ServiceKey;
use shunt_model::api::{Reason, Refusal, ServiceStatus};

use crate::client::{Client, Failure};
use crate::ipvs::{self, Ipvs};

mod change;
mod connection;
mod fwmark;
mod import;
mod iptables;
mod local;
mod mark;
mod meaning;
mod pages;
mod persistence;
mod proc;
mod server;
mod service;
mod setting;
mod stats;
mod status;
mod sysctl;
pub mod table;
pub mod watch;

/// A load balancer of the fourth layer: shows and changes what its daemon does
#[derive(Debug, Parser)]
#[command(
    name = "shunt",
    version,
    subcommand_required = true,
    arg_required_else_help = true
)]
#[command(after_help = "\
A service is written protocol/address:port, such as tcp/192.0.2.1:80 or udp/[2001:db8::1]:53;
in two words (tcp 192.0.2.1:80) it is understood too. A server is written address:port.

Exit codes: 0 done, 1 refused, 2 wrong usage, 3 the daemon is not reachable.")]
pub struct Shunt {
    /// Write JSON, for programs
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    noun: Noun,
}

#[derive(Debug, Subcommand)]
enum Noun {
    /// Show the daemon, its devices and how full its tables are
    Status(watch::Watch),
    /// Show and change virtual services
    #[command(subcommand)]
    Service(service::Verb),
    /// Show and change the real servers of a service
    #[command(subcommand)]
    Server(server::Verb),
    /// Show the connections that are tracked
    #[command(subcommand)]
    Connection(connection::Verb),
    /// Show and change the rules that mark packets
    #[command(subcommand)]
    Mark(mark::Verb),
    /// Show and change the addresses that servers of full NAT see in place of clients
    #[command(subcommand)]
    Local(local::Verb),
    /// Show and change what holds for the whole director
    #[command(subcommand, visible_alias = "settings")]
    Setting(setting::Verb),
    /// Show what became of packets, by verdict, drop reason, service and server
    Stats(stats::Options),
    /// Write what a file of the kernel's IPVS in /proc/net would say, for programs that read it
    Proc { file: proc::File },
    /// Take over what another load balancer has
    #[command(subcommand)]
    Import(import::Verb),
    /// Show a director at work in a lab of namespaces on this machine
    #[command(disable_help_flag = true)]
    Demo {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, hide = true)]
        arguments: Vec<String>,
    },
    /// Prepare this machine as a real server: virtual addresses, ARP, tunnels
    #[command(disable_help_flag = true)]
    Agent {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, hide = true)]
        arguments: Vec<String>,
    },
    /// Write the completions of a shell to standard output
    Completions { shell: clap_complete::Shell },
    /// Write a man page to standard output, such as "shunt man service-add | man -l -"
    Man {
        /// "shunt", a noun ("service"), noun and verb ("service-add"), "shuntd" or "ipvsadm"
        #[arg(default_value = "shunt")]
        page: String,
    },
    /// Write all man pages and completions into a folder, for packages
    #[command(hide = true)]
    Pages { folder: std::path::PathBuf },
}

/// Whom to ask, where to write, and how to wait.
pub struct Outside<'a> {
    pub open: &'a dyn Fn() -> Result<Box<dyn Client>, Failure>,
    /// The table of the kernel's own IPVS.
    pub kernel: &'a dyn Fn() -> Result<Ipvs, ipvs::Failure>,
    pub out: &'a mut dyn Write,
    pub error: &'a mut dyn Write,
    /// Whether somebody looks at `out`.
    pub is_terminal: bool,
    /// Waits that long; false if it is to end.
    pub wait: &'a mut dyn FnMut(Duration) -> bool,
    /// Whether answers are for programs. The command line says so.
    pub json: bool,
}

/// Why it ends early.
#[derive(Debug, thiserror::Error)]
pub enum Halt {
    #[error(transparent)]
    Failed(#[from] Failure),
    #[error(transparent)]
    Kernel(#[from] ipvs::Failure),
    #[error("cannot write: {0}")]
    Output(#[from] io::Error),
    /// What was asked makes no sense, though each word of it does.
    #[error("{0}")]
    Usage(String),
}

impl Halt {
    fn status(&self) -> u8 {
        match self {
            Halt::Failed(Failure::Refused(_)) | Halt::Kernel(_) | Halt::Output(_) => 1,
            Halt::Usage(_) => 2,
            Halt::Failed(
                Failure::NotPermitted { .. } | Failure::NotReachable { .. } | Failure::Broken(_),
            ) => 3,
        }
    }
}

/// How an answer is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    Text,
    Json,
    /// One line an answer, for a program that reads answer after answer.
    JsonLine,
}

/// Does what the command line says, the program's name included, and gives the exit status.
#[must_use]
pub fn run(arguments: &[String], mut outside: Outside<'_>) -> u8 {
    let shunt = match Shunt::try_parse_from(join_services(arguments)) {
        Ok(shunt) => shunt,
        Err(error) => return say_usage(&error, &mut outside),
    };
    outside.json |= shunt.json;
    let done = shunt.noun.run(&mut outside);
    let done = done.and_then(|status| Ok(outside.out.flush().map(|()| status)?));
    match done {
        Ok(status) => status,
        // Who reads has read enough, as "head" does.
        Err(Halt::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => 0,
        Err(halt) => {
            // When standard error cannot be written to, only the status is left to say it.
            let _ = outside.out.flush();
            let _ = match &halt {
                Halt::Failed(Failure::Refused(refusal)) if outside.json => {
                    write_json(outside.error, refusal, Form::JsonLine)
                }
                halt => writeln!(outside.error, "{halt}").map_err(Halt::from),
            };
            halt.status()
        }
    }
}

impl Noun {
    /// Gives the exit status of what ended by itself.
    fn run(&self, outside: &mut Outside<'_>) -> Result<u8, Halt> {
        match self {
            Noun::Status(watch) => watch::show(outside, *watch, &status::draw),
            Noun::Service(verb) => verb.run(outside),
            Noun::Server(verb) => verb.run(outside),
            Noun::Connection(verb) => verb.run(outside),
            Noun::Mark(verb) => verb.run(outside),
            Noun::Local(verb) => verb.run(outside),
            Noun::Setting(verb) => verb.run(outside),
            Noun::Stats(options) => options.run(outside),
            Noun::Proc { file } => file.write(outside),
            Noun::Import(verb) => return verb.run(outside),
            // The program takes these before it comes here: they need no client.
            Noun::Demo { .. } | Noun::Agent { .. } => {
                return Err(Halt::Usage(
                    "this stands only first on the command line".to_owned(),
                ));
            }
            Noun::Completions { shell } => pages::completions(*shell, outside.out),
            Noun::Man { page } => pages::man(page, outside.out),
            Noun::Pages { folder } => pages::write_all(folder, outside.out),
        }?;
        Ok(0)
    }
}

/// Says what clap says, in our manner: no "error:" before it, and a wrong value by its own reason.
fn say_usage(error: &clap::Error, outside: &mut Outside<'_>) -> u8 {
    use std::error::Error;
    let text = error.render().to_string();
    // Nobody is left to tell when printing fails.
    let _ = match (error.kind(), error.source()) {
        (ErrorKind::DisplayHelp | ErrorKind::DisplayVersion, _) => {
            write!(outside.out, "{text}").and_then(|()| outside.out.flush())
        }
        (ErrorKind::ValueValidation, Some(reason)) => writeln!(outside.error, "{reason}"),
        _ => write!(
            outside.error,
            "{}",
            text.strip_prefix("error: ").unwrap_or(&text)
        ),
    };
    u8::try_from(error.exit_code()).unwrap_or(2)
}

/// `tcp 192.0.2.1:80` is one service, though a shell makes two words of it.
fn join_services(arguments: &[String]) -> Vec<String> {
    let mut joined: Vec<String> = Vec::new();
    for word in arguments {
        let is_address = word.contains(['.', ':']) && !word.contains('/');
        match joined.last_mut() {
            Some(last) if is_address && ["tcp", "udp", "sctp"].contains(&last.as_str()) => {
                *last = format!("{last}/{word}");
            }
            _ => joined.push(word.clone()),
        }
    }
    joined
}

/// Writes a value for programs.
fn write_json(out: &mut dyn Write, value: &impl Serialize, form: Form) -> Result<(), Halt> {
    let text = match form {
        Form::JsonLine => serde_json::to_string(value),
        Form::Json | Form::Text => serde_json::to_string_pretty(value),
    };
    writeln!(out, "{}", text.map_err(io::Error::from)?)?;
    Ok(())
}

/// All services in the order of their keys, and servers in that of their addresses.
fn services(client: &mut dyn Client) -> Result<Vec<ServiceStatus>, Halt> {
    let mut services = client.services()?;
    services.sort_by_key(|status| status.service.key);
    for status in &mut services {
        status.servers.sort_by_key(|server| server.server.at);
    }
    Ok(services)
}

fn find_service(client: &mut dyn Client, key: &ServiceKey) -> Result<ServiceStatus, Halt> {
    let Some(mut found) = client.service(key)? else {
        return Err(refused(
            Reason::NoSuchService,
            format!("there is no service {key}"),
        ));
    };
    found.servers.sort_by_key(|server| server.server.at);
    Ok(found)
}

fn refused(reason: Reason, text: String) -> Halt {
    Halt::Failed(Failure::Refused(Refusal { reason, text }))
}
