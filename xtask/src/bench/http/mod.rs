//! HTTP requests and TCP connections per second through a lab: a client, the director's host,
//! three real servers, and on the director's host each balancer in its turn.
//!
//! Everything runs on the processors of one machine, client and servers too, so that a rate says
//! what is left for the balancer. Compare ratios to the direct path of the same round, never
//! rates of two runs. What is started here ends with its turn, on failure and on Ctrl-C too.

mod bed;
mod peer;
mod processors;
mod rates;
pub(crate) mod shuntd;
mod target;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::{SigHandler, Signal, signal};
use serde::Serialize;

use crate::{place, process, tools};
use bed::{Bed, SERVERS, WORKERS};
use peer::Peer;
use rates::{Kind, Row, Turn, rows, table};
use target::Target;

/// How long a balancer may take until every server has answered through it.
const READY_LIMIT: Duration = Duration::from_secs(60);

/// Set by SIGINT and SIGTERM; looked at before every turn.
static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// All that was measured, and with what.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    rounds: usize,
    seconds_a_turn: f64,
    connections: usize,
    /// What each peer says its version is.
    versions: BTreeMap<&'static str, String>,
    /// Peers that had no turn, and why.
    skipped: BTreeMap<&'static str, String>,
    rows: Vec<Row>,
}

/// What is to be measured.
struct Plan {
    /// The binary that is `shuntd`, `shunt` and `ipvsadm`.
    program: PathBuf,
    targets: Vec<Target>,
    rounds: usize,
    time: Duration,
}

/// Builds and installs what is needed, measures and prints it all.
pub(super) fn run(rounds: usize, quick: bool) -> Result<Report> {
    // SAFETY: the handler stores to an atomic and does nothing else.
    unsafe {
        for stop in [Signal::SIGINT, Signal::SIGTERM] {
            signal(stop, SigHandler::Handler(interrupt)).context("cannot handle signals")?;
        }
    }
    let mut skipped = BTreeMap::new();
    for peer in Peer::ALL {
        if !peer.package().is_installed()
            && let Err(error) = tools::install(&[peer.package()])
        {
            skipped.insert(peer.name(), format!("{error:#}"));
        }
    }
    let plan = Plan {
        program: build()?,
        targets: Target::ALL.to_vec(),
        rounds: if quick { rounds.min(2) } else { rounds },
        time: Duration::from_millis(if quick { 500 } else { 2000 }),
    };
    let report = measure(plan, skipped)?;
    print(&report);
    Ok(report)
}

extern "C" fn interrupt(_: libc::c_int) {
    INTERRUPTED.store(true, Ordering::Relaxed);
}

/// The product as users run it.
pub(super) fn build() -> Result<PathBuf> {
    let target = place::target();
    let mut cargo = process::cargo();
    cargo.args(["build", "--release", "--locked", "--package", "shunt-cli"]);
    process::run(cargo.arg("--target-dir").arg(&target))?;
    Ok(target.join("release/shunt"))
}

/// Every target in turn, round by round. A peer that does not come up is left out and named.
fn measure(plan: Plan, mut skipped: BTreeMap<&'static str, String>) -> Result<Report> {
    ensure!(plan.rounds > 0, "--rounds must be at least 1");
    let bed = Bed::build(plan.program).context("cannot build the lab")?;
    let mut targets = plan.targets;
    targets.retain(|target| {
        let peer = target.peer().map(Peer::name);
        peer.is_none_or(|peer| !skipped.contains_key(peer))
    });
    let mut turns: BTreeMap<(Target, Kind), Vec<Turn>> = BTreeMap::new();
    for round in 0..plan.rounds {
        let mut failed = Vec::new();
        // Each begins a round once, so that none always follows the same one.
        let (first, others) = targets.split_at(round % targets.len().max(1));
        for target in others.iter().chain(first) {
            let measured = one(&bed, *target, plan.time);
            match (measured, target.peer()) {
                (Ok(measured), _) => {
                    for (kind, turn) in measured {
                        turns.entry((*target, kind)).or_default().push(turn);
                    }
                }
                (Err(_), _) if is_interrupted() => bail!("interrupted"),
                (Err(error), Some(peer)) if round == 0 => {
                    skipped.insert(peer.name(), format!("{}: {error:#}", target.name()));
                    failed.push(*target);
                }
                (Err(error), _) => return Err(error.context(target.name())),
            }
        }
        targets.retain(|target| !failed.contains(target));
    }
    let peers: Vec<Peer> = targets.iter().filter_map(|target| target.peer()).collect();
    let versions = peers.iter().map(|peer| (peer.name(), peer.version()));
    Ok(Report {
        rounds: plan.rounds,
        seconds_a_turn: plan.time.as_secs_f64(),
        connections: WORKERS,
        versions: versions.collect(),
        skipped,
        rows: rows(&targets, &turns),
    })
}

fn is_interrupted() -> bool {
    INTERRUPTED.load(Ordering::Relaxed)
}

/// A turn of each kind with one target, which is up only meanwhile.
fn one(bed: &Bed, target: Target, time: Duration) -> Result<Vec<(Kind, Turn)>> {
    let balancer = bed.up(target)?;
    // What is answered before the balancer is ready, or is lost, is not measured.
    let warm = bed
        .load(target)
        .connection_per_request()
        .start(bed.client())?;
    let mut hurried = false;
    let ready = warm.wait_for("every server to answer", READY_LIMIT, |report| {
        hurried = is_interrupted();
        hurried || report.servers.len() == SERVERS
    });
    let report = warm.stop()?;
    if hurried {
        bail!("interrupted");
    }
    ready.with_context(|| format!("failures: {:?}", report.failures))?;
    let mut turns = Vec::new();
    for kind in Kind::ALL {
        if is_interrupted() {
            bail!("interrupted");
        }
        let load = match kind {
            Kind::Requests => bed.load(target),
            Kind::Connections => bed.load(target).connection_per_request(),
        };
        let before = processors::spent()?;
        let report = load.time(time).run(bed.client())?;
        let spent = processors::spent()?.saturating_sub(before);
        ensure!(
            report.servers.len() == SERVERS,
            "answers came from {:?} instead of {SERVERS} servers",
            report.servers
        );
        turns.push((kind, Turn::of(&report, spent)));
    }
    balancer.end()?;
    Ok(turns)
}

fn print(report: &Report) {
    println!(
        "\n{} connections at a time, {SERVERS} servers, {} rounds of {} s a turn",
        report.connections, report.rounds, report.seconds_a_turn
    );
    for kind in Kind::ALL {
        println!("\n{}", table(kind, &report.rows));
    }
    for (peer, version) in &report.versions {
        println!("{peer}: {version}");
    }
    for (peer, reason) in &report.skipped {
        println!("SKIPPED {peer}: {reason}");
    }
}

#[cfg(test)]
mod tests {
    use super::peer::Pick;
    use super::target::Method;
    use super::*;

    /// One of each kind of balancer, and the method that sets up the servers too.
    const SOME: [Target; 5] = [
        Target::Direct,
        Target::Shunt(Method::Masquerade),
        Target::Shunt(Method::Tunnel),
        Target::HaProxy,
        Target::Nftables(Pick::Numgen),
    ];

    /// The program of the tests of `cli`, which stands beside the folder of this test's own.
    fn program() -> Option<PathBuf> {
        let own = std::env::current_exe().ok()?;
        let program = own.parent()?.parent()?.join("shunt");
        program.is_file().then_some(program)
    }

    #[test]
    fn every_target_that_is_installed_answers_from_the_servers_it_should() -> Result<()> {
        if shunt_lab::skipped() {
            return Ok(());
        }
        let Some(program) = program() else {
            eprintln!("skipped: needs the program shunt; run `cargo build`");
            return Ok(());
        };
        let missing = Peer::ALL
            .into_iter()
            .filter(|peer| !peer.package().is_installed())
            .map(|peer| (peer.name(), "not installed".to_owned()))
            .collect();
        let plan = Plan {
            program,
            targets: SOME.to_vec(),
            rounds: 1,
            time: Duration::from_millis(100),
        };

        let report = measure(plan, missing)?;

        for target in SOME {
            // What a peer lacks here is said in the report, and is no fault of ours.
            let is_left_out = |peer: Peer| report.skipped.contains_key(peer.name());
            if target.peer().is_some_and(is_left_out) {
                continue;
            }
            let found: Vec<&Row> = report
                .rows
                .iter()
                .filter(|row| row.target == target.name())
                .collect();
            ensure!(found.len() == Kind::ALL.len(), "{target:?}: {found:?}");
            for row in found {
                ensure!(row.answered > 0 && row.failed == 0, "{row:?}");
            }
        }
        Ok(())
    }

    #[test]
    fn a_peer_that_cannot_be_installed_has_no_turn_and_is_named() -> Result<()> {
        if shunt_lab::skipped() {
            return Ok(());
        }
        let peers = Target::ALL.into_iter().filter(|t| t.peer().is_some());
        let plan = Plan {
            program: PathBuf::new(),
            targets: [Target::Direct].into_iter().chain(peers).collect(),
            rounds: 1,
            time: Duration::from_millis(50),
        };
        let missing = Peer::ALL.map(|peer| (peer.name(), "no network".to_owned()));

        let report = measure(plan, missing.into())?;

        assert_eq!(report.rows.len(), Kind::ALL.len(), "{:?}", report.rows);
        assert_eq!(report.skipped.len(), Peer::ALL.len());
        Ok(())
    }
}
