//! The daemon from its first to its last moment: rights, the packet path, the loop, the end.

use std::ffi::OsString;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::Parser;
use sd_notify::NotifyState;
use shunt_datapath::sweep::pause;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tracing::{info, warn};

use crate::api;
use crate::kernel::heap;
use crate::kernel::object;
use crate::kernel::place::Place;
use crate::kernel::presence;
use crate::kernel::replay::Replay;
use crate::memory;
use crate::netlink::{self, Netlink};
use crate::options::{Options, Stop};
use crate::shell::Shell;
use crate::socket;

/// How often the servers of large pools with the least load are laid in front.
const COMPILE: Duration = Duration::from_millis(5);

/// How often devices are looked at of which nobody tells that they are different.
const LOOK: Duration = Duration::from_secs(2);
/// How often what namespaces left that are gone is looked for.
const FAREWELL: Duration = Duration::from_secs(60);

/// Runs `shuntd` with this command line.
pub fn main(line: impl IntoIterator<Item = OsString>) -> ExitCode {
    let options = match Options::try_parse_from(line) {
        Ok(options) => options,
        Err(error) => {
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { 2 } else { 0 });
        }
    };
    let filter = tracing_subscriber::EnvFilter::try_new(&options.log)
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info"));
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    let _ = log.with_target(false).with_ansi(false).try_init();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build();
    let ended = match runtime {
        Ok(runtime) => runtime.block_on(run(options)),
        Err(error) => Err(error).context("cannot start the runtime"),
    };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("shuntd: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(options: Options) -> Result<()> {
    if !nix::unistd::geteuid().is_root() && !may() {
        bail!(
            "the rights are missing; run as root, or with CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON"
        );
    }
    let place = Place::make()?;
    let _only = socket::only_one(&place)?;
    let memory = memory::recall(&place);
    let object = object::open(&place, options.capacity())?;
    presence::sweep(&place);
    if memory.is_some() && !object.adopted {
        warn!(
            action = "beginning with an empty table",
            "notes of an earlier daemon found without its packet path"
        );
    }
    let memory = memory.filter(|_| object.adopted);
    let adopted = object.adopted;
    if adopted && object.made.capacity != options.capacity() {
        warn!(
            "the tables keep the sizes they were made with; stop with --stop remove to change them"
        );
    }
    let Netlink { inputs, prober } = netlink::open().context("cannot listen to the network")?;
    let stop = options.stop;
    heap::give_back();
    let shell = Shell::new(options, place.clone(), object, memory, prober)?;
    let listener = socket::listen(&place)?;
    let listener = tokio::net::UnixListener::from_std(listener).context("cannot listen")?;
    bring_fragments(&place);
    let (asks, heard) = mpsc::channel(64);
    tokio::spawn(api::serve(listener, asks));
    info!(
        adopted,
        namespace = place.namespace,
        socket = %place.socket().display(),
        "director running"
    );
    let result = Loop {
        shell,
        inputs,
        asks: heard,
    }
    .turn()
    .await;
    let _ = sd_notify::notify(&[NotifyState::Stopping]);
    let _ = std::fs::remove_file(place.socket());
    match stop {
        Stop::Keep => info!("stopped; the packet path goes on forwarding"),
        Stop::Remove => {
            place.clear().context("cannot take the packet path away")?;
            info!("stopped; the packet path is taken away");
        }
    }
    result
}

/// Starts the thread that brings early fragments again. Without it they are lost, and that is all.
fn bring_fragments(place: &Place) {
    let started = Replay::open(place).and_then(|replay| {
        let thread = std::thread::Builder::new().name("fragments".to_owned());
        thread
            .spawn(move || replay.run())
            .context("cannot start a thread")
    });
    if let Err(error) = started {
        warn!(
            error = format!("{error:#}"),
            "fragments that come before their first one are lost"
        );
    }
}

/// Whether the capabilities are there without being root.
fn may() -> bool {
    const NEEDED: u64 = 1 << 12 | 1 << 38 | 1 << 39;
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let mask = line.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    mask.is_some_and(|mask| mask & NEEDED == NEEDED)
}

/// The daemon's task.
struct Loop {
    shell: Shell,
    inputs: mpsc::Receiver<shunt_control::network::Input>,
    asks: mpsc::Receiver<api::Ask>,
}

impl Loop {
    async fn turn(mut self) -> Result<()> {
        let mut terminate = signal(SignalKind::terminate()).context("cannot hear signals")?;
        let mut interrupt = signal(SignalKind::interrupt()).context("cannot hear signals")?;
        let mut sweeps = tokio::time::interval(pause(Duration::ZERO));
        sweeps.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut compiles = tokio::time::interval(COMPILE);
        compiles.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let every = Duration::from_secs(shunt_control::rates::INTERVAL_S);
        let mut samples = tokio::time::interval(every);
        let mut told = false;
        let mut looks = tokio::time::interval(LOOK);
        looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut farewells = tokio::time::interval(FAREWELL);
        let (mut sweep, mut sample) = (None, None);
        let mut begun = Instant::now();
        loop {
            self.shell.carry_out();
            if self.shell.is_ready() && !told {
                told = true;
                let _ = sd_notify::notify(&[NotifyState::Ready]);
                info!("ready");
            }
            let wait = self
                .shell
                .deadline()
                .unwrap_or_else(|| Instant::now() + every);
            tokio::select! {
                biased;
                _ = terminate.recv() => return Ok(()),
                _ = interrupt.recv() => return Ok(()),
                input = self.inputs.recv() => match input {
                    Some(input) => self.shell.network(input),
                    None => bail!("the kernel does not tell of the network any more"),
                },
                Some(ask) = self.asks.recv(), if told => self.shell.answer(ask),
                done = finished(&mut sweep) => {
                    sweep = None;
                    let (found, swept) = done?;
                    self.shell.swept(found, swept);
                    sweeps.reset_after(pause(begun.elapsed()));
                }
                _ = sweeps.tick(), if sweep.is_none() => {
                    begun = Instant::now();
                    sweep = Some(self.shell.sweep());
                }
                done = finished(&mut sample) => {
                    sample = None;
                    self.shell.sampled(done?);
                }
                _ = compiles.tick(), if self.shell.has_short_lists() => {
                    self.shell.compile_short_lists();
                }
                _ = looks.tick() => self.shell.look_at_devices(),
                _ = farewells.tick() => presence::sweep(&self.shell.place),
                _ = samples.tick() => {
                    if sample.is_none() && !self.shell.is_taking_samples() {
                        sample = Some(self.shell.sample());
                    }
                    let _ = sd_notify::notify(&[NotifyState::Watchdog]);
                }
                () = tokio::time::sleep_until(wait.into()) => {
                    self.shell.network(shunt_control::network::Input::Tick);
                }
                // When there is nothing else to do at the moment.
                () = std::future::ready(()), if self.shell.is_taking_samples() => {
                    self.shell.take_samples();
                }
            }
        }
    }
}

/// The result of what is done beside the task; never if there is nothing.
async fn finished<T>(beside: &mut Option<tokio::task::JoinHandle<T>>) -> Result<T> {
    match beside {
        Some(beside) => beside
            .await
            .context("a thread beside the daemon's task died"),
        None => std::future::pending().await,
    }
}
