//! How long it takes until a daemon answers and forwards: the first one, and one that takes over.
//!
//! Both sides of a figure run on the same processors, so on a busy machine it is the processor time
//! that counts.

use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use shunt_lab::{Family, Topology, UdpEcho, udp_ask, until};

use super::consumed::ran;
use super::goal::Row;
use super::http::shuntd::Shuntd;

/// How long the first answer may take.
const LIMIT: Duration = Duration::from_secs(60);
/// How often a daemon takes over; the fastest one counts, which the least disturbed.
const RESTARTS: usize = 5;

/// Measures and prints them.
pub(super) fn measure(program: &Path, rows: &mut Vec<Row>) -> Result<()> {
    eprintln!("a first start, and {RESTARTS} restarts");
    let bed = Topology::builder().servers(1).build()?;
    bed.director_holds(0, "lo", 1)?;
    let _echo = UdpEcho::start(&bed.servers[0], 53)?;
    let service = bed.service(Family::V4, 1, 53);
    let server = SocketAddr::new(bed.server_address(Family::V4, 0), 53);

    let begun = Instant::now();
    let mut shuntd = Shuntd::start(bed.director(), program)?;
    shuntd.ipvsadm("-Ln")?;
    let answered = begun.elapsed();
    let spent = ran(shuntd.id()?)?;
    shuntd.ipvsadm(&format!("-A -u {service} -s rr"))?;
    shuntd.ipvsadm(&format!("-a -u {service} -r {server} -m"))?;
    udp_ask(bed.client(), service, 100, LIMIT).context("the first packet")?;
    let forwarded = begun.elapsed();
    row(rows, "first start: ipvsadm answers", answered, 1.0);
    row(
        rows,
        "first start: ipvsadm answers, processor time",
        spent,
        1.5,
    );
    row(
        rows,
        "first start: the first packet is forwarded",
        forwarded,
        1.0,
    );
    until("all programs to be loaded", LIMIT, || {
        let status = shuntd.command("shunt", "status --json").output()?;
        Ok(!String::from_utf8_lossy(&status.stdout).contains("\"loading\""))
    })?;
    row(
        rows,
        "first start: all programs are loaded",
        begun.elapsed(),
        3.0,
    );

    let mut best: Option<(Duration, Duration)> = None;
    for _ in 0..RESTARTS {
        shuntd.kill()?;
        let begun = Instant::now();
        shuntd.restart()?;
        let took = begun.elapsed();
        let spent = ran(shuntd.id()?)?;
        best = Some(best.map_or((took, spent), |best| best.min((took, spent))));
    }
    let (took, spent) = best.context("no restart")?;
    row(rows, "restart: the API answers", took, 0.05);
    row(
        rows,
        "restart: the API answers, processor time",
        spent,
        0.05,
    );
    shuntd.end()
}

fn row(rows: &mut Vec<Row>, what: &str, figure: Duration, goal_s: f64) {
    rows.push(Row::new(what, figure.as_secs_f64(), "s", goal_s));
}
