//! The command line: `shunt agent join|check|leave|run|toa`.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Result;
use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::member;
use crate::options::{GUE_PORT, Hook, Kind, Options};
use crate::report::Report;
use crate::toa::{Believed, Toa};

/// Make this machine a real server for direct routing or tunnels
#[derive(Clone, Debug, Parser)]
#[command(name = "shunt agent", bin_name = "shunt agent")]
pub struct Arguments {
    #[command(subcommand)]
    verb: Verb,
    /// Print JSON
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Clone, Debug, Subcommand)]
enum Verb {
    /// Set up virtual addresses, and leave them set up when the command ends
    Join(Member),
    /// Print what is correct, what is missing, and the commands that fix it
    Check(Member),
    /// Restore the state before the first join
    Leave,
    /// Show servers of full NAT the client's address when they ask for their peer, until SIGTERM or
    /// SIGINT. The director must announce clients by TOA
    Toa {
        /// Local addresses of directors, or networks of them. TOA options from any other source are
        /// ignored
        #[arg(value_name = "ADDRESS", required = true)]
        directors: Vec<Believed>,
        /// The cgroup (version 2) of the servers; by default all programs of this machine
        #[arg(long, value_name = "DIRECTORY")]
        cgroup: Option<PathBuf>,
    },
    /// Join, repair what changes, and leave on SIGTERM or SIGINT
    Run {
        #[command(flatten)]
        member: Member,
        /// Do not leave at the end
        #[arg(long)]
        keep: bool,
    },
}

#[derive(Clone, Debug, Args)]
struct Member {
    /// Virtual addresses
    #[arg(value_name = "VIP")]
    vips: Vec<IpAddr>,
    /// A device on which packets arrive; may be repeated. By default all devices that have an
    /// address
    #[arg(long = "device", value_name = "DEVICE")]
    devices: Vec<String>,
    /// Decapsulate the directors' tunnels: IP in IP, GUE and GRE
    #[arg(long)]
    tunnel: bool,
    /// A director whose tunnels are accepted; may be repeated
    #[arg(long = "director", value_name = "ADDRESS")]
    directors: Vec<IpAddr>,
    /// The sources whose tunnels are accepted if no director is named: any accepts every source
    #[arg(long, value_enum, value_name = "WHO", conflicts_with = "directors")]
    from: Option<Strangers>,
    /// The encapsulation of the tunnels, from which their overhead follows
    #[arg(long = "type", value_enum, default_value_t)]
    kind: Kind,
    /// The UDP port at which GUE tunnels end; 0 disables GUE
    #[arg(long, value_name = "PORT", default_value_t = GUE_PORT)]
    gue_port: u16,
    /// Bytes that a tunnel adds to a packet. By default 20 if all named directors are IPv4, else
    /// 40, plus 12 for GUE or 8 for GRE
    #[arg(long, value_name = "BYTES")]
    overhead: Option<u16>,
    /// Where tunnels are decapsulated
    #[arg(long, value_enum, default_value_t)]
    hook: Hook,
}

/// The sources whose tunnels are accepted without a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Strangers {
    Any,
}

impl From<Member> for Options {
    fn from(member: Member) -> Options {
        Options {
            vips: member.vips,
            devices: member.devices,
            tunnel: member.tunnel,
            kind: member.kind,
            gue_port: member.gue_port,
            directors: member.directors,
            anyone: member.from == Some(Strangers::Any),
            overhead: member.overhead,
            hook: member.hook,
        }
    }
}

/// Runs a command line. The exit code is 1 if something is still missing afterwards.
pub fn main(arguments: Arguments) -> Result<ExitCode> {
    let json = arguments.json;
    let report = match arguments.verb {
        Verb::Join(member) => member::join(&member.into())?,
        Verb::Check(member) => member::check(&member.into())?,
        Verb::Leave => member::leave()?,
        Verb::Toa { directors, cgroup } => {
            toa(&directors, cgroup.as_deref())?;
            return Ok(ExitCode::SUCCESS);
        }
        Verb::Run { member, keep } => {
            member::run(&member.into(), keep, |report| show(report, json))?;
            return Ok(ExitCode::SUCCESS);
        }
    };
    show(&report, json);
    Ok(if report.is_ready() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn toa(directors: &[Believed], cgroup: Option<&Path>) -> Result<()> {
    let toa = Toa::start(directors, cgroup)?;
    println!(
        "programs in {} see the addresses of clients",
        toa.cgroup().display()
    );
    member::until_asked_to_end()?;
    println!(
        "{} connections carried the address of their client",
        toa.told()?
    );
    Ok(())
}

fn show(report: &Report, json: bool) {
    match serde_json::to_string(report) {
        Ok(text) if json => println!("{text}"),
        _ => print!("{report}"),
    }
}
