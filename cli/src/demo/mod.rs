//! `shunt demo`: the main task, end to end, in a lab of network namespaces on this machine.
//!
//! The lab has a client, a router, a director and real servers, with real TCP, real HTTP, and one
//! constant load from the first step to the last. Each step prints one line about what it showed,
//! and succeeds only if the figures prove it. Nothing remains: the namespaces have no names, and
//! the daemon removes its packet path when it ends.

mod scene;
mod steps;

use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::Parser;
use serde::Serialize;

use scene::Scene;

/// Shows a director at work: a lab of namespaces, real HTTP, one constant load
#[derive(Clone, Debug, Parser)]
#[command(name = "shunt demo")]
pub struct Arguments {
    /// Print each step as one line of JSON
    #[arg(long)]
    json: bool,
    /// Keep the lab at the end, print how to enter each host, and wait for Ctrl-C
    #[arg(long)]
    stay: bool,
    /// Seconds for which each step observes the load
    #[arg(long, default_value_t = 2.0)]
    pace: f64,
}

/// The result of a step.
#[derive(Clone, Debug, Serialize)]
pub struct Proof {
    /// The step's name, as the command prints it.
    pub step: &'static str,
    /// Whether the figures prove the step's claim.
    pub ok: bool,
    /// What the step showed, as a sentence for people.
    pub said: String,
    /// Requests that were answered in this step.
    pub requests: u64,
    /// Requests of this step without a good answer.
    pub failed: u64,
    /// Answered requests a second.
    pub requests_per_second: u64,
    /// The longest time without a good answer, in milliseconds.
    pub longest_gap_ms: u64,
    /// The share of each server in this step's requests, in percent.
    pub shares: Vec<(String, f64)>,
}

/// Prints the steps and draws live figures.
pub struct Stage {
    json: bool,
    live: bool,
    pace: Duration,
    proofs: Vec<Proof>,
}

impl Stage {
    fn new(arguments: &Arguments) -> Result<Self> {
        if !(0.5..=60.0).contains(&arguments.pace) {
            bail!("--pace {} is not from 0.5 to 60 seconds", arguments.pace);
        }
        Ok(Self {
            json: arguments.json,
            live: !arguments.json && io::stdout().is_terminal(),
            pace: Duration::from_secs_f64(arguments.pace),
            proofs: Vec::new(),
        })
    }

    /// Prints what the demo is about to do.
    pub fn tell(&self, text: &str) {
        if !self.json {
            self.print(text);
        }
    }

    fn print(&self, text: &str) {
        let mut out = io::stdout().lock();
        let clear = if self.live { "\r\x1b[K" } else { "" };
        let _ = writeln!(out, "{clear}{text}");
        let _ = out.flush();
    }

    /// Draws a line that the next one replaces.
    pub fn draw(&self, text: &str) {
        if self.live {
            let mut out = io::stdout().lock();
            let _ = write!(out, "\r\x1b[K{text}");
            let _ = out.flush();
        }
    }

    /// Prints the result of a step.
    pub fn show(&mut self, proof: Proof) {
        if self.json {
            if let Ok(text) = serde_json::to_string(&proof) {
                self.print(&text);
            }
        } else {
            let mark = if proof.ok { "ok  " } else { "FAIL" };
            self.print(&format!("{mark} {:<10} {}", proof.step, proof.said));
        }
        self.proofs.push(proof);
    }

    fn failed(&self) -> usize {
        self.proofs.iter().filter(|proof| !proof.ok).count()
    }
}

/// Runs the demo. It succeeds only if every step's claim was true.
pub fn main(line: &[String]) -> ExitCode {
    let arguments = match Arguments::try_parse_from(line) {
        Ok(arguments) => arguments,
        Err(error) => {
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { 2 } else { 0 });
        }
    };
    match run(&arguments) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("shunt demo: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<bool> {
    let mut stage = Stage::new(arguments)?;
    if let Some(missing) = shunt_lab::missing_capability() {
        bail!(
            "the demo makes network namespaces and loads eBPF: it needs {missing}; run it as root"
        );
    }
    let begun = Instant::now();
    stage.tell("building a lab: client -- router -- director -- 4 real servers, IPv4 and IPv6");
    let mut scene = Scene::build().context("cannot build the lab")?;
    steps::play(&mut scene, &mut stage)?;
    let (proofs, failed) = (stage.proofs.len(), stage.failed());
    let requests: u64 = stage.proofs.iter().map(|proof| proof.requests).sum();
    let lost: u64 = stage.proofs.iter().map(|proof| proof.failed).sum();
    stage.tell(&format!(
        "{} of {proofs} steps shown; {requests} requests, failed requests: {lost}; {:.0} s",
        proofs - failed,
        begun.elapsed().as_secs_f64()
    ));
    if arguments.stay {
        stay(&mut scene, &stage)?;
    }
    scene.end()?;
    Ok(failed == 0)
}

/// Prints how to enter each host, and waits.
fn stay(scene: &mut Scene, stage: &Stage) -> Result<()> {
    for line in scene.doors() {
        stage.print(&line);
    }
    stage.print("the lab stays until Ctrl-C");
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot wait for Ctrl-C")?
        .block_on(tokio::signal::ctrl_c())
        .context("cannot wait for Ctrl-C")
}
