//! What a packet costs: the director's program against two floors, in the same run.
//!
//! `BPF_PROG_TEST_RUN` runs a driver that makes each packet afresh and tail-calls the target
//! (`ebpf/src/bench/driver.rs`). In each round every target has its turn; the time of a target
//! that does nothing is taken off. Times are this thread's own CPU time. Compare ratios of one
//! run, never nanoseconds of two. Rates through devices are in `wire`, through servers in `http`;
//! what the daemon costs is in `daemon`.

mod consumed;
mod daemon;
mod director;
mod driver;
mod farm;
mod figures;
mod goal;
mod http;
mod instructions;
mod scenario;
mod starts;
mod traffic;
mod wire;

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::Args;
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::{Pid, geteuid};
use serde::Serialize;
use shunt_model::Scheduler;

use director::{Director, Farm, Method};
use driver::{Driver, FLOORS, NOTHING, Outcome};
use figures::{Figures, HEAD, Row, a_packet};
pub(crate) use http::shuntd;
use scenario::{Kind, Scenario};
use traffic::{ACK, Fixed, SYN, opening, traffic};

/// Frames of `BPF_PROG_TEST_RUN` come by the loopback device, which is the first of a namespace.
const LOOPBACK: u32 = 1;

#[derive(Args)]
pub(crate) struct Options {
    /// How often each target has its turn.
    #[arg(long, default_value_t = 9)]
    rounds: usize,
    /// Packets of a turn.
    #[arg(long, default_value_t = 1_000_000)]
    packets: u32,
    /// Small tables, few packets, no million flows: a few seconds, for CI.
    #[arg(long)]
    quick: bool,
    /// Only scenarios whose name has this in it, such as "IPv4, 1 flow".
    #[arg(long)]
    only: Option<String>,
    /// Packets per second through a veth pair instead, by live frames.
    #[arg(long)]
    veth: bool,
    /// Requests and connections per second through a lab instead, beside other balancers.
    #[arg(long, conflicts_with_all = ["veth", "packets", "only", "scheduler", "cpu"])]
    http: bool,
    /// What a new connection costs by each scheduler instead, in pools of 16 to 4,096 servers.
    #[arg(long, conflicts_with_all = ["veth", "http"])]
    schedulers: bool,
    /// What the daemon itself costs instead: starting, idle, with a million connections, listing
    /// them, and restoring a table.
    #[arg(long, conflicts_with_all = ["veth", "http", "schedulers"])]
    daemon: bool,
    /// Machine instructions of the walk for a known flow instead, counted on the host.
    #[arg(long, conflicts_with_all = ["veth", "http", "schedulers"])]
    instructions: bool,
    /// The scheduler of the services.
    #[arg(long, default_value = "mh")]
    scheduler: Scheduler,
    /// The processor to run on.
    #[arg(long, default_value_t = 1)]
    cpu: usize,
    /// Write the figures here too.
    #[arg(long)]
    json: Option<PathBuf>,
}

/// What has its turn.
#[derive(Clone, Copy)]
enum Target<'a> {
    Floor(&'static str),
    Director(&'a Director),
}

/// Measures and prints it all.
pub(crate) fn run(options: &Options) -> Result<()> {
    if options.instructions {
        return write(options, &instructions::count()?);
    }
    ensure!(
        geteuid().is_root(),
        "eBPF programs and network namespaces need root"
    );
    if options.http {
        let report = http::run(options.rounds, options.quick)?;
        return write(options, &report);
    }
    if options.daemon {
        return write(options, &daemon::measure(options.quick)?);
    }
    let mut cpus = CpuSet::new();
    cpus.set(options.cpu)?;
    sched_setaffinity(Pid::from_raw(0), &cpus).context("cannot stay on one processor")?;
    if options.veth {
        let turn = Duration::from_millis(if options.quick { 100 } else { 500 });
        let rows = wire::measure(options.scheduler, options.rounds, turn)?;
        return write(options, &rows);
    }
    if options.schedulers {
        let packets = options
            .packets
            .min(if options.quick { 50_000 } else { 200_000 });
        let rows = farm::measure(options.rounds.min(5), packets)?;
        return write(options, &rows);
    }
    packets(options)
}

/// What packets of each kind cost.
fn packets(options: &Options) -> Result<()> {
    // Room for more than the most flows; a masqueraded one takes two entries.
    let known = if options.quick { 1 << 16 } else { 1 << 21 };
    let mut bench = Bench {
        rounds: if options.quick {
            options.rounds.min(3)
        } else {
            options.rounds
        },
        packets: if options.quick {
            options.packets.min(50_000)
        } else {
            options.packets
        },
        // So many new flows fill every table.
        filling: 2 * known,
        driver: Driver::new(known)?,
        sequence: 0,
    };
    let directors = Method::ALL.map(|method| {
        let flows = if method.masquerades() {
            2 * known
        } else {
            known
        };
        Director::new(method, Farm::usual(options.scheduler), flows, LOOPBACK)
            .with_context(|| format!("the director for {}", method.name()))
    });
    let directors = directors.into_iter().collect::<Result<Vec<_>>>()?;
    let mut rows = Vec::new();
    for scenario in scenario::all(options.quick) {
        if options
            .only
            .as_ref()
            .is_some_and(|only| !scenario.title().contains(only))
        {
            continue;
        }
        directors
            .iter()
            .for_each(|director| director.forget(scenario.v6));
        rows.extend(bench.measure(&scenario, &directors)?);
    }
    write(options, &rows)?;
    let missed = rows.iter().filter(|row| row.met == Some(false)).count();
    println!(
        "\n{missed} goals missed, of {}",
        rows.iter().filter(|row| row.met.is_some()).count()
    );
    Ok(())
}

fn write(options: &Options, rows: &impl Serialize) -> Result<()> {
    let Some(path) = &options.json else {
        return Ok(());
    };
    fs::write(path, serde_json::to_vec_pretty(rows)?)
        .with_context(|| format!("cannot write {}", path.display()))
}

struct Bench {
    rounds: usize,
    packets: u32,
    filling: u32,
    driver: Driver,
    /// Where new flows go on, so that none comes twice.
    sequence: u64,
}

impl Bench {
    /// Every target in turn, round by round.
    fn measure(&mut self, scenario: &Scenario, directors: &[Director]) -> Result<Vec<Row>> {
        let targets = targets(scenario, directors);
        let mut times = vec![Vec::new(); targets.len()];
        let mut expected = vec![0.0; targets.len()];
        let mut own = Vec::new();
        for round in 0..self.rounds {
            self.driver.aim_at(NOTHING)?;
            own.push(self.turn(scenario, to(scenario), self.packets)?);
            for (at, target) in targets.iter().enumerate() {
                self.aim(*target)?;
                // A million flows stay known from one round to the next.
                if round == 0 || scenario.flows <= 1 << 16 {
                    self.prepare(scenario, round)?;
                }
                if let (0, Target::Director(director)) = (round, target) {
                    self.check(scenario, director.method)?;
                }
                let before = outcome(scenario, *target);
                self.turn(scenario, to(scenario), self.packets / 16 + 1)?;
                let time = self.turn(scenario, to(scenario), self.packets)?;
                let after = outcome(scenario, *target);
                times[at].push(time - own[round]);
                let all = self.packets / 16 + 1 + self.packets;
                expected[at] += match (before, after) {
                    (Some(before), Some(after)) => (after - before) as f64 / f64::from(all),
                    _ => 1.0,
                };
            }
        }
        let driver_ns = Figures::of(&own).median;
        let figures: Vec<Figures> = times.iter().map(|times| Figures::of(times)).collect();
        println!("\n{}  (driver {driver_ns:.1} ns)\n{HEAD}", scenario.title());
        let rows = targets
            .iter()
            .zip(&figures)
            .zip(expected)
            .map(|((target, ns), expected)| {
                let goal = goal(scenario, *target);
                let ratio = ns.median / figures[1].median;
                Row {
                    scenario: scenario.title(),
                    target: name(*target).to_owned(),
                    ns: *ns,
                    driver_ns,
                    to_lru_array: ratio,
                    to_macswap: (figures[0].median >= 1.0).then(|| ns.median / figures[0].median),
                    goal,
                    met: goal.map(|goal| ratio <= goal),
                    as_expected: 100.0 * expected / self.rounds as f64,
                }
            });
        let rows: Vec<Row> = rows.collect();
        rows.iter().for_each(|row| println!("{}", row.line()));
        Ok(rows)
    }

    /// One packet must come to the verdict, and to the length, that is expected of all.
    fn check(&mut self, scenario: &Scenario, method: Method) -> Result<()> {
        // Full tables and flows that come and go: the counters tell how many went through.
        if matches!(scenario.kind, Kind::New | Kind::Connections) {
            return Ok(());
        }
        let traffic = traffic(scenario, to(scenario), self.sequence);
        self.driver.set(&traffic)?;
        let (_, outcome) = self.driver.run(&traffic, 1)?;
        let (name, verdict) = scenario.expected();
        let wraps = method == Method::Tunnel && name == "sent";
        let outer = match (wraps, scenario.v6) {
            (false, _) => 0,
            (true, false) => 20,
            (true, true) => 40,
        };
        let expected = Outcome {
            verdict,
            length: traffic.length as usize + outer,
        };
        ensure!(
            outcome == expected,
            "{} by {}: {outcome:?} instead of {expected:?}",
            scenario.title(),
            method.name()
        );
        Ok(())
    }

    fn aim(&mut self, target: Target<'_>) -> Result<()> {
        match target {
            Target::Floor(name) => self.driver.aim_at(name),
            Target::Director(director) => self.driver.aim(director.program()?),
        }
    }

    /// Nanoseconds a packet, the driver's included.
    fn turn(&mut self, scenario: &Scenario, fixed: Fixed, packets: u32) -> Result<f64> {
        let traffic = traffic(scenario, fixed, self.sequence);
        self.driver.set(&traffic)?;
        let (time, _) = self.driver.run(&traffic, packets)?;
        if matches!(scenario.kind, Kind::New | Kind::Connections | Kind::Unknown) {
            self.sequence = self.driver.sequence()?;
        }
        Ok(a_packet(time, packets))
    }

    /// What has to be known before the scenario, and whether it then forwards as it should.
    fn prepare(&mut self, scenario: &Scenario, round: usize) -> Result<()> {
        match scenario.kind {
            Kind::Established | Kind::Back => {
                let mut fixed = to(scenario);
                if scenario.kind == Kind::Back {
                    fixed = Fixed {
                        address: director::lone_service(scenario.v6),
                        ..fixed
                    };
                    fixed.back = false;
                }
                for flags in [SYN, ACK] {
                    let traffic = opening(scenario, fixed, flags);
                    self.driver.set(&traffic)?;
                    self.driver.run(&traffic, scenario.flows)?;
                }
            }
            // The steady state of a flood: the tables are full.
            Kind::New if round == 0 => {
                self.turn(scenario, to(scenario), self.filling)?;
            }
            Kind::New | Kind::Connections | Kind::Unknown | Kind::Foreign => {}
        }
        Ok(())
    }
}

fn targets<'a>(scenario: &Scenario, directors: &'a [Director]) -> Vec<Target<'a>> {
    let floors = FLOORS.into_iter().map(Target::Floor);
    let wanted = directors.iter().filter(|director| match scenario.kind {
        // The hop of the way back is entered when a flow begins.
        Kind::New | Kind::Connections => true,
        Kind::Back => director.method.masquerades(),
        // What is done before a method matters.
        Kind::Unknown | Kind::Foreign => {
            matches!(director.method, Method::Route | Method::Masquerade)
        }
        Kind::Established => director.method != Method::MasqueradeByHop,
    });
    floors.chain(wanted.map(Target::Director)).collect()
}

fn name(target: Target<'_>) -> &'static str {
    match target {
        Target::Floor(name) => name,
        Target::Director(director) => director.method.name(),
    }
}

fn goal(scenario: &Scenario, target: Target<'_>) -> Option<f64> {
    match target {
        Target::Floor(_) => None,
        Target::Director(director) => scenario.goal(director.method),
    }
}

/// The end of the packets that is always the same.
fn to(scenario: &Scenario) -> Fixed {
    let (address, back) = match scenario.kind {
        Kind::Back => (director::lone_server(scenario.v6), true),
        Kind::Foreign => (director::foreign(scenario.v6), false),
        _ => (director::service(scenario.v6), false),
    };
    Fixed {
        address,
        port: director::PORT,
        back,
    }
}

/// How many packets had the outcome that is expected.
fn outcome(scenario: &Scenario, target: Target<'_>) -> Option<u64> {
    let Target::Director(director) = target else {
        return None;
    };
    let (wanted, _) = scenario.expected();
    director
        .outcomes()
        .into_iter()
        .find_map(|(name, count)| (name == wanted).then_some(count))
}
