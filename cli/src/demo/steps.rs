//! The steps of the demo. Each makes one change under the constant load and observes what the
//! client sees meanwhile.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use shunt_lab::LoadReport;

use super::scene::{METHODS, SERVERS, Scene};
use super::{Proof, Stage};

/// The largest difference, in percentage points, at which a share still counts as even.
const EVEN: f64 = 3.0;
/// Connections that may be under way when a change takes effect.
const LATE: u64 = 64;
const LIMIT: Duration = Duration::from_secs(10);

/// What the client saw between two moments.
struct Seen {
    ok: u64,
    failed: u64,
    elapsed: Duration,
    gap: Duration,
    shares: Vec<(String, f64)>,
    counts: Vec<u64>,
    /// The failures by kind.
    kinds: Vec<String>,
}

impl Seen {
    fn between(before: &LoadReport, after: &LoadReport, names: &[String]) -> Self {
        let count =
            |report: &LoadReport, name: &String| report.servers.get(name).copied().unwrap_or(0);
        let counts: Vec<u64> = names
            .iter()
            .map(|name| count(after, name) - count(before, name))
            .collect();
        let ok = after.ok - before.ok;
        let kinds = after
            .failures
            .iter()
            .filter(|(kind, count)| before.failures.get(*kind).copied().unwrap_or(0) < **count);
        let share = |count: &u64| *count as f64 * 100.0 / (ok.max(1)) as f64;
        Self {
            ok,
            failed: after.failed() - before.failed(),
            elapsed: after.elapsed.saturating_sub(before.elapsed),
            gap: after.worst_gap,
            shares: names
                .iter()
                .cloned()
                .zip(counts.iter().map(share))
                .collect(),
            counts,
            kinds: kinds.map(|(kind, _)| kind.clone()).collect(),
        }
    }

    fn is_even_over(&self, servers: &[usize]) -> bool {
        let even = 100.0 / servers.len() as f64;
        self.shares.iter().enumerate().all(|(index, (_, share))| {
            let wanted = if servers.contains(&index) { even } else { 0.0 };
            (share - wanted).abs() <= EVEN
        })
    }

    fn text(&self) -> String {
        let shares: Vec<String> = self
            .shares
            .iter()
            .map(|(name, share)| format!("{name} {share:.1} %"))
            .collect();
        let why = if self.kinds.is_empty() {
            String::new()
        } else {
            format!(" ({})", self.kinds.join("; "))
        };
        let shares = shares.join(", ");
        format!(
            "{} requests: {shares}; failed requests: {}{why}",
            self.ok, self.failed
        )
    }

    fn proof(self, step: &'static str, ok: bool, what: &str) -> Proof {
        Proof {
            step,
            ok: ok && self.failed == 0 && self.ok > 0,
            said: format!("{what}; {}", self.text()),
            requests: self.ok,
            failed: self.failed,
            requests_per_second: (self.ok as f64 / self.elapsed.as_secs_f64().max(1e-9)) as u64,
            longest_gap_ms: self.gap.as_millis() as u64,
            shares: self.shares,
        }
    }
}

struct Play<'a> {
    scene: &'a mut Scene,
    stage: &'a mut Stage,
    names: Vec<String>,
}

/// All steps, in order.
pub(super) fn play(scene: &mut Scene, stage: &mut Stage) -> Result<()> {
    let names = (0..SERVERS).map(|index| scene.name(index)).collect();
    let mut play = Play {
        scene,
        stage,
        names,
    };
    play.begin()?;
    play.spread()?;
    play.quiesce()?;
    play.add()?;
    play.methods()?;
    play.kill()?;
    let (drops, others) = play.scene.counted()?;
    play.stage.tell(&format!(
        "packets dropped by the director: {drops}; other counters: {others}"
    ));
    Ok(())
}

impl Play<'_> {
    fn so_far(&self) -> Result<LoadReport> {
        let load = self.scene.load.as_ref().context("there is no load")?;
        Ok(load.so_far())
    }

    /// Observes the load for a while and draws the figures.
    fn look(&self, what: &str) -> Result<Seen> {
        let before = self.so_far()?;
        self.look_from(before, what)
    }

    fn look_from(&self, before: LoadReport, what: &str) -> Result<Seen> {
        let begun = Instant::now();
        let mut last = before.clone();
        while begun.elapsed() < self.stage.pace {
            std::thread::sleep(Duration::from_millis(100));
            let now = self.so_far()?;
            let seen = Seen::between(&last, &now, &self.names);
            let rates: Vec<String> = self
                .names
                .iter()
                .zip(&seen.counts)
                .map(|(name, count)| {
                    format!(
                        "{name} {:>5.0}/s",
                        *count as f64 / seen.elapsed.as_secs_f64().max(1e-9)
                    )
                })
                .collect();
            self.stage.draw(&format!(
                "  {what:<28} {}  failed {}",
                rates.join("  "),
                now.failed()
            ));
            last = now;
        }
        Ok(Seen::between(&before, &self.so_far()?, &self.names))
    }

    /// Waits until the connections that were under way at a change are finished.
    fn drain(&self) -> Result<LoadReport> {
        let begun = self.so_far()?;
        shunt_lab::until("requests to go on", LIMIT, || {
            Ok(self.so_far()?.ok >= begun.ok + LATE)
        })?;
        self.so_far()
    }

    fn begin(&mut self) -> Result<()> {
        self.stage
            .tell("starting shuntd, adding a service (wrr) and three real servers by NAT");
        self.scene.add_service()?;
        for index in 0..SERVERS - 1 {
            self.scene.add_server(index)?;
        }
        self.scene.start_load()?;
        shunt_lab::until("the first answers of every server", LIMIT, || {
            Ok(self.so_far()?.servers.len() == SERVERS - 1)
        })
    }

    fn spread(&mut self) -> Result<()> {
        let seen = self.look("NAT, three servers")?;
        let ok = seen.is_even_over(&[0, 1, 2]);
        self.stage
            .show(seen.proof("spread", ok, "three servers take turns"));
        Ok(())
    }

    fn quiesce(&mut self) -> Result<()> {
        let (_, method) = METHODS[0];
        self.scene.edit_server(1, method, 0)?;
        let before = self.drain()?;
        let seen = self.look_from(before, "second server at weight 0")?;
        let ok = seen.is_even_over(&[0, 2]);
        self.stage
            .show(seen.proof("quiesce", ok, "the second server gets no new connection"));
        self.scene.edit_server(1, method, 1)
    }

    fn add(&mut self) -> Result<()> {
        self.scene.add_server(SERVERS - 1)?;
        let before = self.drain()?;
        let seen = self.look_from(before, "a fourth server")?;
        let ok = seen.is_even_over(&[0, 1, 2, 3]);
        self.stage
            .show(seen.proof("add", ok, "a fourth server gets its share"));
        Ok(())
    }

    /// Switches from NAT to direct routing, to a tunnel and back, under the same load.
    fn methods(&mut self) -> Result<()> {
        let steps = ["dr", "tun", "nat"];
        for (step, (name, method)) in steps.into_iter().zip(METHODS.into_iter().cycle().skip(1)) {
            let during = self.so_far()?;
            for index in 0..SERVERS {
                self.scene.edit_server(index, method, 1)?;
            }
            let before = self.drain()?;
            let seen = self.look_from(before, &format!("by {name}"))?;
            let switched = self.so_far()?.failed() == during.failed();
            let ok = switched && seen.is_even_over(&[0, 1, 2, 3]);
            self.stage
                .show(seen.proof(step, ok, &format!("switched to {name} under load")));
        }
        Ok(())
    }

    fn kill(&mut self) -> Result<()> {
        let connections = self.scene.status()?.counters.connections;
        let before = self.so_far()?;
        self.scene.kill_daemon()?;
        let seen = self.look_from(before, "daemon killed (kill -9)")?;
        let ok = seen.is_even_over(&[0, 1, 2, 3]);
        self.stage
            .show(seen.proof("kill", ok, "the daemon is dead, the director forwards"));
        let before = self.so_far()?;
        let begun = Instant::now();
        self.scene.start_daemon()?;
        let back = begun.elapsed();
        let seen = self.look_from(before, "daemon back")?;
        let status = self.scene.status()?;
        let ok = self.scene.adopted()?
            && status.servers.len() == SERVERS
            && status.counters.connections > connections
            && seen.is_even_over(&[0, 1, 2, 3]);
        let what = format!(
            "the daemon is back after {} ms with its table, connections and counters ({} so far)",
            back.as_millis(),
            status.counters.connections
        );
        self.stage.show(seen.proof("restart", ok, &what));
        Ok(())
    }
}
