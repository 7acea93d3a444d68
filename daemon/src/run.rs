//! Runs the daemon: it checks its rights, opens the packet path, runs the loop, and ends.

use std::ffi::OsString;
use std::io::Write;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::Parser;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::unistd::Gid;
use sd_notify::NotifyState;
use shunt_datapath::sweep::pause;
use shunt_model::program::Program;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TryRecvError;
use tokio::time::{Interval, MissedTickBehavior};
use tracing::{info, warn};
use tracing_subscriber::fmt::MakeWriter;

use crate::api;
use crate::kernel::fragments::Fragments;
use crate::kernel::heap;
use crate::kernel::object;
use crate::kernel::place::Place;
use crate::kernel::presence;
use crate::log::Log;
use crate::memory::{self, Recalled};
use crate::netlink::{self, Netlink};
use crate::options::{Options, Stop};
use crate::shell::Shell;
use crate::socket;

/// How often the servers with the least load are moved to the front of large pools.
const COMPILE: Duration = Duration::from_millis(5);

/// How often all devices are checked for changes of which the kernel sends no event.
const LOOK: Duration = Duration::from_secs(2);
/// How often packet paths of namespaces that are gone are searched for.
const FAREWELL: Duration = Duration::from_secs(60);
/// How often the loop notifies the watchdog.
const WORD: Duration = Duration::from_secs(2);
/// How long the daemon waits at its end for the log to be written.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// The most network events that one turn of the loop processes. In a storm of events, a request
/// waits for one such batch.
const BATCH: usize = 256;

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
    let log = Log::to_stderr();
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(log.clone());
    let _ = lines.with_target(false).with_ansi(false).try_init();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build();
    let ended = match runtime {
        Ok(runtime) => runtime.block_on(run(options)),
        Err(error) => Err(error).context("cannot start the runtime"),
    };
    let code = match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(log.make_writer(), "shuntd: {error:#}");
            ExitCode::FAILURE
        }
    };
    log.settle(LAST_WORDS);
    code
}

async fn run(options: Options) -> Result<()> {
    if !nix::unistd::geteuid().is_root() && !may() {
        bail!(
            "the rights are missing; run as root, or with CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON"
        );
    }
    have_descriptors();
    let place = Place::make()?;
    let _only = socket::only_one(&place)?;
    let mut recalled = memory::recall(&place);
    let known = recalled.saved.as_ref().and_then(|saved| saved.path.clone());
    let needed = recalled.needed();
    let (capacity, is_lossy) = (options.capacity(), recalled.is_lossy);
    let (object, behind) = object::open(&place, capacity, known, is_lossy, &needed)?;
    if object.is_foreign {
        recalled = Recalled::default();
    }
    presence::sweep(&place);
    let adopted = object.adopted;
    if adopted && object.made.capacity != options.capacity() {
        warn!(
            "the tables keep the sizes they were made with; stop with --stop remove to change them"
        );
    }
    let Netlink { inputs, prober } = netlink::open().context("cannot listen to the network")?;
    let stop = options.stop;
    heap::give_back();
    let group = socket::group(&options.group);
    let missing = behind.missing();
    let shell = Shell::new(options, place.clone(), object, missing, recalled, prober)?;
    // As many messages as there are programs, so that nobody waits for the other.
    let (tell, loaded) = mpsc::channel(Program::ALL.len());
    let loader = behind.start(move |program, result| {
        let _ = tell.blocking_send((program, result));
    })?;
    let listener = socket::listen(&place, group)?;
    let listener = tokio::net::UnixListener::from_std(listener).context("cannot listen")?;
    bring_fragments(&place);
    let (asks, heard) = mpsc::channel(64);
    tokio::spawn(api::serve(listener, asks, group.map(Gid::as_raw)));
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
        loaded,
    }
    .turn()
    .await;
    let _ = sd_notify::notify(&[NotifyState::Stopping]);
    let _ = std::fs::remove_file(place.socket());
    match stop {
        Stop::Keep => info!("stopped; the packet path goes on forwarding"),
        Stop::Remove => {
            loader.stop();
            place.clear().context("cannot take the packet path away")?;
            info!("stopped; the packet path is taken away");
        }
    }
    result
}

/// Starts the thread for fragments that come before their first one. Without it only these are
/// lost.
fn bring_fragments(place: &Place) {
    let opened = Fragments::open(place).map_err(anyhow::Error::from);
    let started = opened.and_then(|fragments| {
        let thread = std::thread::Builder::new().name("fragments".to_owned());
        thread
            .spawn(move || fragments.run())
            .context("cannot start a thread")
    });
    if let Err(error) = started {
        warn!(
            error = format!("{error:#}"),
            "fragments that come before their first one are lost"
        );
    }
}

/// Raises the limit of descriptors as far as the system allows: each device and each client needs
/// some.
fn have_descriptors() {
    if let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE)
        && soft < hard
    {
        let _ = setrlimit(Resource::RLIMIT_NOFILE, hard, hard);
    }
}

/// Whether the process has the capabilities that it needs, as root or not.
fn may() -> bool {
    const NEEDED: u64 = 1 << 12 | 1 << 38 | 1 << 39;
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let mask = line.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    mask.is_some_and(|mask| mask & NEEDED == NEEDED)
}

/// Why the daemon ends when its netlink socket does.
const DEAF: &str = "the netlink socket closed";

/// The daemon's task.
struct Loop {
    shell: Shell,
    inputs: mpsc::Receiver<shunt_control::network::Input>,
    asks: mpsc::Receiver<api::Ask>,
    loaded: mpsc::Receiver<(Program, Result<(), String>)>,
}

/// Notifies the service manager's watchdog that the loop is alive, even when it is busy.
fn feed_watchdog(last: &mut Option<Instant>) {
    if last.is_none_or(|last| last.elapsed() >= WORD) {
        *last = Some(Instant::now());
        let _ = sd_notify::notify(&[NotifyState::Watchdog]);
    }
}

impl Loop {
    async fn turn(mut self) -> Result<()> {
        let mut terminate = signal(SignalKind::terminate()).context("cannot hear signals")?;
        let mut interrupt = signal(SignalKind::interrupt()).context("cannot hear signals")?;
        let mut sweeps = beat(pause(Duration::ZERO));
        let mut compiles = beat(COMPILE);
        let mut looks = beat(LOOK);
        let mut farewells = beat(FAREWELL);
        let every = Duration::from_secs(shunt_control::rates::INTERVAL_S);
        let mut samples = tokio::time::interval(every);
        let (mut told, mut sweep, mut sample) = (false, None, None);
        let mut begun = Instant::now();
        let mut word: Option<Instant> = None;
        loop {
            feed_watchdog(&mut word);
            self.hear_network()?;
            self.shell.carry_out();
            if self.shell.is_ready() && !told {
                told = true;
                let _ = sd_notify::notify(&[NotifyState::Ready]);
                self.shell.announce_ready();
            }
            let wait = self
                .shell
                .deadline()
                .unwrap_or_else(|| Instant::now() + every);
            tokio::select! {
                biased;
                _ = terminate.recv() => return Ok(()),
                _ = interrupt.recv() => return Ok(()),
                Some(ask) = self.asks.recv(), if told => self.shell.answer(ask),
                Some(loaded) = self.loaded.recv() => self.shell.loaded(loaded),
                done = finished(&mut sweep) => {
                    sweep = None;
                    let (found, swept) = done?;
                    self.shell.swept(found, swept);
                    sweeps.reset_after(pause(begun.elapsed()));
                }
                _ = sweeps.tick(), if sweep.is_none() => {
                    begun = Instant::now();
                    sweep = self.shell.sweep();
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
                }
                () = tokio::time::sleep_until(wait.into()) => {
                    self.shell.network(shunt_control::network::Input::Tick);
                }
                // This branch comes late, because each turn processes waiting events anyway.
                input = self.inputs.recv() => match input {
                    Some(input) => self.shell.network(input),
                    None => bail!(DEAF),
                },
                // This branch runs only when no other is ready.
                () = std::future::ready(()), if self.shell.is_taking_samples() => {
                    self.shell.take_samples();
                }
            }
        }
    }
}

impl Loop {
    /// Processes the waiting events of the network, so that an answer takes them into account.
    fn hear_network(&mut self) -> Result<()> {
        for _ in 0..BATCH {
            match self.inputs.try_recv() {
                Ok(input) => self.shell.network(input),
                Err(TryRecvError::Empty) => break,
                Err(TryRecvError::Disconnected) => bail!(DEAF),
            }
        }
        Ok(())
    }
}

/// An interval that starts again from a late tick.
fn beat(every: Duration) -> Interval {
    let mut interval = tokio::time::interval(every);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    interval
}

/// Waits for the result of a task that runs beside the loop; for ever if there is none.
async fn finished<T>(beside: &mut Option<tokio::task::JoinHandle<T>>) -> Result<T> {
    match beside {
        Some(beside) => beside
            .await
            .context("a thread beside the daemon's task died"),
        None => std::future::pending().await,
    }
}
