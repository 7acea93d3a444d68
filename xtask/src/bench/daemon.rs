//! What the daemon itself costs: idle, with a million connections, and while it lists them.
//!
//! It runs as users run it, in a network namespace without devices. Processor time is what the
//! kernel says that its threads ran; memory is what is its own, so not the tables. The connections
//! are entered into the tables from outside.

use std::fs;
use std::net::Ipv4Addr;
use std::path::Path;
use std::process::Stdio;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde::Serialize;
use shunt_daemon::kernel::clock;
use shunt_daemon::kernel::mapping::BucketWords;
use shunt_daemon::kernel::pinned;
use shunt_daemon::kernel::tables::Tables;
use shunt_datapath::connection::{ESTABLISHED, Meta};
use shunt_datapath::flows::{self, Key, Narrow, Words};
use shunt_datapath::region;
use shunt_lab::Host;

use super::http::{build, shuntd::Shuntd};

/// Flows of the tables: as they are by default, and as many as there may be.
const TABLES: [&str; 2] = ["1048576", "67108864"];
/// Flows of the table that a million connections are in.
const ROOM: &str = "4194304";
const MILLION: u32 = 1_000_000;
/// From the start, or from the last connection on, until the daemon is measured.
const SETTLED: Duration = Duration::from_secs(3);

/// A figure with its goal, which is the most that it may be.
#[derive(Debug, Serialize)]
pub struct Row {
    what: String,
    figure: f64,
    unit: &'static str,
    goal: f64,
    met: bool,
}

impl Row {
    fn new(what: &str, figure: f64, unit: &'static str, goal: f64) -> Self {
        let met = figure <= goal;
        let verdict = if met { "met" } else { "MISSED" };
        println!("{what:<76} {figure:>8.2} {unit:<8} goal {goal:>5.1} {verdict}");
        Self {
            what: what.to_owned(),
            figure,
            unit,
            goal,
            met,
        }
    }
}

/// Measures and prints it all.
pub fn measure(quick: bool) -> Result<Vec<Row>> {
    let program = build()?;
    let time = Duration::from_secs(if quick { 3 } else { 20 });
    let mut rows = Vec::new();
    for flows in TABLES {
        idle(&program, flows, time, &mut rows)?;
    }
    busy(&program, time, &mut rows)?;
    Ok(rows)
}

fn idle(program: &Path, flows: &str, time: Duration, rows: &mut Vec<Row>) -> Result<()> {
    let host = Host::new("idle")?;
    let shuntd = Shuntd::start_with(&host, program, &["--flows", flows])?;
    thread::sleep(SETTLED);
    let name = format!("idle, {flows} flows");
    let part = share(shuntd.id()?, time)?;
    rows.push(Row::new(&format!("{name}: of a CPU"), part, "%", 0.3));
    let own = own_mb(shuntd.id()?)?;
    rows.push(Row::new(&format!("{name}: memory"), own, "MB", 40.0));
    shuntd.end()
}

fn busy(program: &Path, time: Duration, rows: &mut Vec<Row>) -> Result<()> {
    let host = Host::new("busy")?;
    let shuntd = Shuntd::start_with(&host, program, &["--flows", ROOM])?;
    shuntd.ipvsadm("-A -t 192.0.2.1:80 -s rr")?;
    shuntd.ipvsadm("-a -t 192.0.2.1:80 -r 10.1.0.1:80 -g")?;
    fill(&shuntd)?;
    thread::sleep(SETTLED);
    let part = share(shuntd.id()?, time)?;
    rows.push(Row::new("a million connections: of a CPU", part, "%", 3.0));
    let own = own_mb(shuntd.id()?)?;
    for (name, line) in [("ipvsadm", "-Lnc"), ("shunt", "connection list --json")] {
        let file = std::env::temp_dir().join(format!("shunt-listing-{}", std::process::id()));
        let out = fs::File::create(&file).context("cannot make a file for a listing")?;
        let (begun, before, asked) = (Instant::now(), ran(shuntd.id()?)?, children()?);
        let mut command = shuntd.command(name, line);
        let status = command.stdout(Stdio::from(out)).status();
        let took = begun.elapsed();
        let told = ran(shuntd.id()?)?.saturating_sub(before);
        let heard = children()?.saturating_sub(asked);
        let listed = fs::read(&file).context("cannot read a listing")?;
        let _ = fs::remove_file(&file);
        ensure!(status?.success(), "{name} {line} failed");
        let lines = listed.split(|byte| *byte == b'\n').count();
        ensure!(lines > MILLION as usize, "{lines} lines by {name} {line}");
        let what = format!("a million connections: {name} {line}");
        rows.push(Row::new(&what, took.as_secs_f64(), "s", 3.0));
        // Both sides, which run side by side: on a busy machine this is what counts.
        let what = format!("{what}, processor time");
        let both = (told + heard).as_secs_f64();
        rows.push(Row::new(&what, both, "s", 3.0));
    }
    let more = own_mb(shuntd.id()?)? - own;
    rows.push(Row::new(
        "a million connections: memory by listings",
        more,
        "MB",
        8.0,
    ));
    shuntd.end()
}

/// The share of a processor that a process takes in this time, in percent.
fn share(process: u32, time: Duration) -> Result<f64> {
    let (begun, before) = (Instant::now(), ran(process)?);
    thread::sleep(time);
    let spent = ran(process)?.saturating_sub(before);
    Ok(100.0 * spent.as_secs_f64() / begun.elapsed().as_secs_f64())
}

/// How long all threads of a process ran.
fn ran(process: u32) -> Result<Duration> {
    let mut sum = 0;
    for thread in fs::read_dir(format!("/proc/{process}/task")).context("no such process")? {
        // One that ended meanwhile is not counted, and the daemon's wait for ten seconds.
        let Ok(text) = fs::read_to_string(thread?.path().join("schedstat")) else {
            continue;
        };
        let first = text
            .split_whitespace()
            .next()
            .context("an empty schedstat")?;
        sum += first
            .parse::<u64>()
            .context("a schedstat without a number")?;
    }
    Ok(Duration::from_nanos(sum))
}

/// Processor time of the processes that were waited for.
fn children() -> Result<Duration> {
    let stat = fs::read_to_string("/proc/self/stat")?;
    // Fields 16 and 17 of proc(5), in hundredths of a second; the second is a name in brackets.
    let (_, behind) = stat.rsplit_once(')').context("a stat without a name")?;
    let times = behind.split_whitespace().skip(13).take(2);
    let sum: u64 = times.filter_map(|time| time.parse::<u64>().ok()).sum();
    Ok(Duration::from_millis(10 * sum))
}

/// Memory of a process's own.
fn own_mb(process: u32) -> Result<f64> {
    let status = fs::read_to_string(format!("/proc/{process}/status"))?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("RssAnon:"));
    let number = line.and_then(|line| line.split_whitespace().next());
    let kib: f64 = number.context("no RssAnon")?.parse()?;
    Ok(kib / 1024.0)
}

/// Enters a million established connections of the only service to its only server.
fn fill(shuntd: &Shuntd) -> Result<()> {
    let place = shuntd.place()?;
    let made = fs::read(place.runtime.join("path.json")).context("no notes of the packet path")?;
    let tables = Tables::open(&place, serde_json::from_slice(&made)?)?;
    let shared = &tables.shared;
    let service = (1..64).find(|id| shared.service(*id).is_some_and(|entry| entry.port != 0));
    let service = service.context("no service is there")?;
    let server = (1..64).find(|id| shared.server(*id).is_some_and(|entry| entry.port != 0));
    let server = server.context("no server is there")?;
    let (seed, mask) = (shared.made.seed, shared.made.flow4_mask());
    let jiffies = clock::jiffies(&pinned::clock(&place)?)?;
    let now = clock::tick(jiffies, shared.made.tick_shift);
    let meta = Meta::new(now, ESTABLISHED, Meta::PROVED);
    let mut entered = 0;
    for number in 0..2 * MILLION {
        let client = Ipv4Addr::from_bits(0x6440_0000 + number / 32_768);
        let port = (10_000 + (number % 32_768) as u16).to_be();
        let key = Key::v4(u32::from_ne_bytes(client.octets()), port, service);
        let bucket = flows::first(flows::hash::<flows::Narrow>(&key, seed), mask);
        let words = BucketWords(shared.flows4.value(bucket as usize).context("no bucket")?);
        let (_, slot) = flows::cheapest::<Narrow, _>(words, now, |_| u32::MAX);
        let slot = words.pick::<Narrow>(slot);
        let offer = flows::offer_of::<Narrow, _>(slot, now, |_| u32::MAX);
        if offer.price > flows::Price::EXPIRED {
            continue;
        }
        let word = shared.occupied4.value(region::of(bucket) as usize);
        region::mark(word.map(BucketWords));
        let seat = offer
            .take::<Narrow>()
            .context("a slot was taken meanwhile")?;
        seat.fill::<Narrow>(&key, flows::value(server, key.tag, meta));
        entered += 1;
        if entered == MILLION {
            return Ok(());
        }
    }
    anyhow::bail!("no room for more than {entered} connections")
}
