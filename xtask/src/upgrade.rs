//! An upgrade played from end to end: a director of an earlier revision, with services and live
//! connections, ends, and today's daemon takes its packet path over.
//!
//! No service may be lost, and requests must be answered before, between and after both daemons.
//! Connections are kept if the version of their tables is the same
//! (`shunt_datapath::entry::CONNECTIONS`). Otherwise TCP connections end, and those that fail are
//! counted.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::Args;
use serde_json::Value;
use shunt_datapath::entry;
use shunt_lab::{Family, HttpLoad, HttpServer, LoadReport, RunningLoad, Topology, until};

use crate::bench::shuntd::Shuntd;
use crate::{place, process};

/// How long a load may take to go on, on a machine with other work.
const LIMIT: Duration = Duration::from_secs(60);
/// Requests after the upgrade that must be answered.
const MORE: u64 = 200;

#[derive(Args)]
pub(crate) struct Options {
    /// The revision to upgrade from, as git names it.
    #[arg(long, default_value = "2ad0fbd")]
    from: String,
}

/// Builds both revisions and plays the upgrade.
pub(crate) fn run(options: &Options) -> Result<()> {
    let old = earlier(&options.from)?;
    println!("building this revision");
    let target = place::target();
    let mut cargo = process::cargo();
    cargo.args([
        "build",
        "--locked",
        "--package",
        "shunt-cli",
        "--target-dir",
    ]);
    process::run(cargo.arg(&target))?;
    play(&old, &target.join("debug/shunt"))
}

/// The program of an earlier revision, built once.
fn earlier(revision: &str) -> Result<PathBuf> {
    let mut git = process::command("git");
    let name = process::output(git.args(["rev-parse", "--short", revision]))?;
    let name = name.trim();
    let folder = place::target().join("upgrade");
    let (sources, program) = (folder.join(name), folder.join(format!("shunt-{name}")));
    if program.exists() {
        return Ok(program);
    }
    println!("building {name}, which takes some minutes the first time");
    let _ = fs::remove_dir_all(&sources);
    fs::create_dir_all(&sources)?;
    let mut git = process::command("git");
    let mut git = git
        .current_dir(place::root())
        .args(["archive", name])
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot run git")?;
    let archive = git.stdout.take().context("no archive")?;
    let mut tar = process::command("tar");
    process::run(tar.args(["-x", "-C"]).arg(&sources).stdin(archive))?;
    ensure!(git.wait()?.success(), "git archive failed");
    let target = folder.join("build");
    let mut cargo = process::cargo();
    cargo.current_dir(&sources);
    cargo.args([
        "build",
        "--locked",
        "--package",
        "shunt-cli",
        "--target-dir",
    ]);
    process::run(cargo.arg(&target))?;
    fs::copy(target.join("debug/shunt"), &program)?;
    Ok(program)
}

/// The services of the play, in both families: a plain one, and one with all that a table has.
fn tables(bed: &Topology, shuntd: &Shuntd) -> Result<()> {
    shuntd.ipvsadm("--set 600 60 200")?;
    for family in Family::BOTH {
        let [web, other] = [80, 81].map(|port| bed.service(family, 1, port));
        shuntd.ipvsadm(&format!("-A -t {web} -s rr"))?;
        shuntd.ipvsadm(&format!("-A -t {other} -s wlc -p 300"))?;
        for index in 0..bed.servers.len() {
            let server = bed.server_address(family, index);
            let at = std::net::SocketAddr::new(server, 80);
            shuntd.ipvsadm(&format!("-a -t {web} -r {at} -m"))?;
            shuntd.ipvsadm(&format!("-a -t {other} -r {at} -m -w 3 -x 1000 -y 10"))?;
        }
    }
    shuntd.ipvsadm("-A -f 7 -s sh")?;
    shuntd.ipvsadm("-a -f 7 -r 10.1.0.77 -g")
}

fn play(old: &Path, new: &Path) -> Result<()> {
    let bed = Topology::builder().clients(2).servers(2).build()?;
    bed.director_holds(0, "lo", 1)?;
    let servers = bed.servers.iter();
    let _servers: Vec<HttpServer> = servers
        .map(|server| HttpServer::start(server, 80))
        .collect::<Result<_>>()?;
    println!("the earlier daemon starts");
    let mut shuntd = Shuntd::start(bed.director(), old)?;
    tables(&bed, &shuntd)?;
    let rules = told(&shuntd, "ipvsadm", "-Sn")?;
    let kept = HttpLoad::to(bed.service(Family::V4, 1, 80)).workers(4);
    let kept = kept.start(&bed.clients[0])?;
    let fresh = HttpLoad::to(bed.service(Family::V6, 1, 81)).workers(2);
    let fresh = fresh.connection_per_request().start(&bed.clients[1])?;
    goes_on("the earlier daemon", &kept, &fresh)?;
    let shares = connections(&shuntd)? == entry::CONNECTIONS;
    let before = counted(&shuntd)?;

    shuntd.kill()?;
    goes_on("no daemon", &kept, &fresh)?;
    println!("today's daemon starts");
    shuntd.upgrade(new)?;
    goes_on("today's daemon", &kept, &fresh)?;
    let now = told(&shuntd, "ipvsadm", "-Sn")?;
    ensure!(now == rules, "the table was\n{rules}and is\n{now}");
    let after = counted(&shuntd)?;
    println!("connections in the totals of services: {before} before, {after} after");
    let status: Value = serde_json::from_str(&told(&shuntd, "shunt", "status --json")?)?;
    for warning in status["warnings"].as_array().into_iter().flatten() {
        println!("warning: {warning}");
    }
    let (kept, fresh) = (kept.stop()?, fresh.stop()?);
    print("kept connections", &kept);
    print("a connection a request", &fresh);
    if shares {
        ensure!(kept.failed() + fresh.failed() == 0, "connections were lost");
        ensure!(before <= after, "the totals of services went back");
        println!("the tables of connections are shared: nothing was lost");
    } else {
        println!("connections have another layout: those of TCP ended");
    }
    println!("a further restart");
    shuntd.kill()?;
    shuntd.restart()?;
    let again = told(&shuntd, "ipvsadm", "-Sn")?;
    ensure!(again == rules, "the table was\n{rules}and is\n{again}");
    shuntd.end()
}

/// The version of the tables of connections that a daemon made.
fn connections(shuntd: &Shuntd) -> Result<u32> {
    let notes = fs::read(shuntd.place()?.runtime.join("path.json"))?;
    let notes: Value = serde_json::from_slice(&notes)?;
    // Notes without it are of the first version.
    Ok(notes["connections"].as_u64().unwrap_or(1) as u32)
}

/// The connections in the totals of all services.
fn counted(shuntd: &Shuntd) -> Result<u64> {
    let text = told(shuntd, "ipvsadm", "-Ln --stats --exact")?;
    let services = text.lines().filter(|line| line.starts_with("TCP "));
    let counts = services.map(|line| {
        let count = line.split_whitespace().nth(2);
        count
            .context("no count")
            .and_then(|count| Ok(count.parse::<u64>()?))
    });
    counts.sum()
}

/// Both loads get answers with this daemon, or without any.
fn goes_on(who: &str, kept: &RunningLoad, fresh: &RunningLoad) -> Result<()> {
    for (what, load) in [("kept connections", kept), ("new connections", fresh)] {
        let before = load.so_far().ok;
        until(&format!("{what} with {who}"), LIMIT, || {
            Ok(load.so_far().ok > before + MORE)
        })?;
    }
    Ok(())
}

fn told(shuntd: &Shuntd, name: &str, line: &str) -> Result<String> {
    let output = shuntd.command(name, line).stdout(Stdio::piped()).output()?;
    ensure!(output.status.success(), "{name} {line} failed");
    let text = String::from_utf8(output.stdout)?;
    ensure!(!text.trim().is_empty(), "{name} {line} prints nothing");
    Ok(text)
}

fn print(what: &str, report: &LoadReport) {
    let (ok, gap) = (report.ok, report.worst_gap);
    println!(
        "{what}: {ok} answered, {} failed {:?}, longest gap {gap:?}",
        report.failed(),
        report.failures
    );
}
