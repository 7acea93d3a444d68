//! The `shunt` command: a noun, then a verb.
//!
//! Each noun has a file. `watch` asks a question and draws the answer, once or repeatedly. `change`
//! makes a change and prints what changed. Results go to standard output, everything else to
//! standard error.

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
mod events;
mod fwmark;
mod import;
mod inputs;
mod iptables;
mod local;
mod mark;
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
mod warning;
pub mod watch;

/// A layer 4 load balancer: shows and changes what its daemon does
#[derive(Debug, Parser)]
#[command(
    name = "shunt",
    version,
    subcommand_required = true,
    arg_required_else_help = true
)]
#[command(after_help = "\
A service is written protocol/address:port, such as tcp/192.0.2.1:80 or udp/[2001:db8::1]:53;
two words (tcp 192.0.2.1:80) are accepted too. A server is written address:port.

Exit codes: 0 done, 1 refused, 2 wrong usage, 3 the daemon is not reachable.")]
pub struct Shunt {
    /// Print JSON, for programs
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    noun: Noun,
}

#[derive(Debug, Subcommand)]
enum Noun {
    /// Show the daemon, its devices and the use of its tables
    Status(watch::Watch),
    /// Show and change virtual services
    #[command(subcommand)]
    Service(service::Verb),
    /// Show and change the real servers of a service
    #[command(subcommand)]
    Server(server::Verb),
    /// Show the connections that the director tracks
    #[command(subcommand)]
    Connection(connection::Verb),
    /// Show and change the rules that mark packets
    #[command(subcommand)]
    Mark(mark::Verb),
    /// Show and change the addresses that servers of full NAT see as their clients
    #[command(subcommand)]
    Local(local::Verb),
    /// Show and change the settings of the director
    #[command(subcommand, visible_alias = "settings")]
    Setting(setting::Verb),
    /// Show what happened to packets, by verdict, drop reason, service and server
    Stats(stats::Options),
    /// Show what happened to the director: changes, servers reached or not, devices, defences
    Events(events::Options),
    /// Print the last inputs of the daemon's control as lines of JSON, for a report of a fault
    Inputs,
    /// Print the text of the kernel's /proc/net/ip_vs* files, for programs that read them
    Proc { file: proc::File },
    /// Import the configuration of another load balancer
    #[command(subcommand)]
    Import(import::Verb),
    /// Show a director at work in a lab of network namespaces on this machine
    #[command(disable_help_flag = true)]
    Demo {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, hide = true)]
        arguments: Vec<String>,
    },
    /// Set up this machine as a real server: virtual addresses, ARP, tunnels
    #[command(disable_help_flag = true)]
    Agent {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, hide = true)]
        arguments: Vec<String>,
    },
    /// Print the completions of a shell
    Completions { shell: clap_complete::Shell },
    /// Print a man page; use as "shunt man service-add | man -l -"
    Man {
        /// "shunt", a noun ("service"), noun and verb ("service-add"), "shuntd" or "ipvsadm"
        #[arg(default_value = "shunt")]
        page: String,
    },
    /// Write all man pages and completions into a directory, for packagers
    #[command(hide = true)]
    Pages { folder: std::path::PathBuf },
}

/// The world outside of a command: the daemon to ask, the streams to write to, and the clock.
pub struct Outside<'a> {
    /// Connects to the daemon.
    pub open: &'a dyn Fn() -> Result<Box<dyn Client>, Failure>,
    /// Reads the table of the kernel's own IPVS.
    pub kernel: &'a dyn Fn() -> Result<Ipvs, ipvs::Failure>,
    /// Answers.
    pub out: &'a mut dyn Write,
    /// Refusals and hints.
    pub error: &'a mut dyn Write,
    /// Whether `out` is a terminal.
    pub is_terminal: bool,
    /// Waits for this time. Returns false if the command must end.
    pub wait: &'a mut dyn FnMut(Duration) -> bool,
    /// Whether to print JSON, as the command line requests.
    pub json: bool,
}

/// Why a command ends early.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the text of each variant describes it")]
pub enum Halt {
    #[error(transparent)]
    Failed(#[from] Failure),
    #[error(transparent)]
    Kernel(#[from] ipvs::Failure),
    #[error("cannot write: {0}")]
    Output(#[from] io::Error),
    /// Each word of the request is valid, but not their combination.
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

/// The form of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// Columns and sentences for people.
    Text,
    /// One document, over several lines.
    Json,
    /// One line an answer, for a program that reads one answer after another.
    JsonLine,
}

/// Runs a command line, which includes the program's name. Returns the exit status.
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
        // The reader closed the pipe, as "head" does.
        Err(Halt::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => 0,
        Err(halt) => {
            // If standard error cannot be written to either, the exit status alone shows the
            // failure.
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
    /// Returns the exit status of a command that ended normally.
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
            Noun::Events(options) => options.run(outside),
            Noun::Inputs => inputs::run(outside),
            Noun::Proc { file } => file.write(outside),
            Noun::Import(verb) => return verb.run(outside),
            // The program handles these commands earlier: they need no client.
            Noun::Demo { .. } | Noun::Agent { .. } => {
                return Err(Halt::Usage(
                    "this must be the first word of the command line".to_owned(),
                ));
            }
            Noun::Completions { shell } => pages::completions(*shell, outside.out),
            Noun::Man { page } => pages::man(page, outside.out),
            Noun::Pages { folder } => pages::write_all(folder, outside.out),
        }?;
        Ok(0)
    }
}

/// Prints clap's message in the project's form: without "error:", and for a wrong value its reason
/// only.
fn say_usage(error: &clap::Error, outside: &mut Outside<'_>) -> u8 {
    use std::error::Error;
    let text = error.render().to_string();
    // A failure to print cannot be reported anywhere.
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

/// Joins `tcp 192.0.2.1:80`, which a shell splits into two words, into one service.
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

/// Writes a value as JSON.
fn write_json(out: &mut dyn Write, value: &impl Serialize, form: Form) -> Result<(), Halt> {
    let text = match form {
        Form::JsonLine => serde_json::to_string(value),
        Form::Json | Form::Text => serde_json::to_string_pretty(value),
    };
    writeln!(out, "{}", text.map_err(io::Error::from)?)?;
    Ok(())
}

/// All services in the order of their keys, each with its servers in the order of their addresses.
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
