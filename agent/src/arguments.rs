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

/// Make this machine a real server for direct routing or tunnels.
#[derive(Clone, Debug, Parser)]
#[command(name = "shunt agent", bin_name = "shunt agent")]
pub struct Arguments {
    #[command(subcommand)]
    verb: Verb,
    /// Print JSON.
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Clone, Debug, Subcommand)]
enum Verb {
    /// Take up virtual addresses, and stay so when the command ends.
    Join(Member),
    /// Say what is as it should be, what is missing, and the command that sets it right.
    Check(Member),
    /// Restore what was there before.
    Leave,
    /// Let servers of full NAT see the client where they ask for their peer, until asked to end
    /// (SIGTERM, SIGINT). Needs a director that announces clients by TOA.
    Toa {
        /// Local addresses of directors, or networks of them. Nobody else is believed.
        #[arg(value_name = "ADDRESS", required = true)]
        directors: Vec<Believed>,
        /// The cgroup (version 2) of the servers. Without it: all of this machine.
        #[arg(long, value_name = "DIRECTORY")]
        cgroup: Option<PathBuf>,
    },
    /// Join, keep it so, and leave when asked to end (SIGTERM, SIGINT).
    Run {
        #[command(flatten)]
        member: Member,
        /// Do not leave at the end.
        #[arg(long)]
        keep: bool,
    },
}

#[derive(Clone, Debug, Args)]
struct Member {
    /// Virtual addresses.
    #[arg(value_name = "VIP")]
    vips: Vec<IpAddr>,
    /// A device by which packets come; may be repeated. Without it: all that have an address.
    #[arg(long = "device", value_name = "DEVICE")]
    devices: Vec<String>,
    /// Take the directors' tunnels off: IP in IP, GUE and GRE.
    #[arg(long)]
    tunnel: bool,
    /// A director whose tunnels are taken; may be repeated.
    #[arg(long = "director", value_name = "ADDRESS")]
    directors: Vec<IpAddr>,
    /// Whose tunnels are taken if no director is named: any takes everybody's.
    #[arg(long, value_enum, value_name = "WHO", conflicts_with = "directors")]
    from: Option<Strangers>,
    /// What tunnels come in, which says how many bytes they add.
    #[arg(long = "type", value_enum, default_value_t)]
    kind: Kind,
    /// The UDP port that GUE tunnels end at; 0: none does.
    #[arg(long, value_name = "PORT", default_value_t = GUE_PORT)]
    gue_port: u16,
    /// Bytes that a tunnel adds to a packet. Without it: 20 if all directors named are IPv4,
    /// else 40; and 12 more for GUE, 8 for GRE.
    #[arg(long, value_name = "BYTES")]
    overhead: Option<u16>,
    /// Where tunnels are taken off.
    #[arg(long, value_enum, default_value_t)]
    hook: Hook,
}

/// Who is believed without a name.
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

/// Does what the arguments say. Exit code 1 if something is missing afterwards.
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
    println!("programs in {} see clients", toa.cgroup().display());
    member::until_asked_to_end()?;
    println!("{} connections said who their client is", toa.told()?);
    Ok(())
}

fn show(report: &Report, json: bool) {
    match serde_json::to_string(report) {
        Ok(text) if json => println!("{text}"),
        _ => print!("{report}"),
    }
}
