//! What the daemon itself costs: to start, idle, with a million connections, while it lists them,
//! and while a large table is restored.
//!
//! It runs as users run it, in a network namespace without devices. Processor time is what the
//! kernel says that its threads ran; memory is what is its own, so not the tables. The connections
//! are entered into the tables from outside.

use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::net::Ipv4Addr;
use std::path::Path;
use std::process::Stdio;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use shunt_daemon::kernel::clock;
use shunt_daemon::kernel::mapping::BucketWords;
use shunt_daemon::kernel::pinned;
use shunt_daemon::kernel::tables::Tables;
use shunt_datapath::connection::{ESTABLISHED, Meta};
use shunt_datapath::flows::{self, Key, Narrow, Words};
use shunt_datapath::region;
use shunt_lab::Host;

use super::consumed::{children, own_mb, ran, share};
use super::goal::Row;
use super::http::{build, shuntd::Shuntd};
use super::starts;

/// Flows of the tables: as they are by default, and as many as there may be.
const TABLES: [&str; 2] = ["1048576", "67108864"];
/// Flows of the table that a million connections are in.
const ROOM: &str = "4194304";
const MILLION: u32 = 1_000_000;
/// Lines of a table that is restored, and services in it; each has as many servers.
const LINES: u32 = 131_072;
const SERVICES: u32 = 1024;
/// From the start, or from the last connection on, until the daemon is measured.
const SETTLED: Duration = Duration::from_secs(3);

/// Measures and prints it all.
pub(super) fn measure(quick: bool) -> Result<Vec<Row>> {
    let program = build()?;
    let time = Duration::from_secs(if quick { 3 } else { 20 });
    let mut rows = Vec::new();
    starts::measure(&program, &mut rows)?;
    for flows in TABLES {
        idle(&program, flows, time, &mut rows)?;
    }
    busy(&program, time, &mut rows)?;
    restore(&program, &mut rows)?;
    Ok(rows)
}

fn idle(program: &Path, flows: &str, time: Duration, rows: &mut Vec<Row>) -> Result<()> {
    eprintln!(
        "an idle daemon with {flows} flows: {} s",
        (SETTLED + time).as_secs()
    );
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
    eprintln!("a daemon with a million connections, and two listings of them");
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

/// Restores a table of many services and servers by one command.
fn restore(program: &Path, rows: &mut Vec<Row>) -> Result<()> {
    eprintln!("ipvsadm -R of {LINES} lines");
    let mut text = String::new();
    for service in 0..SERVICES {
        let web = format!("192.0.{}.{}:80", 2 + service / 256, service % 256);
        writeln!(text, "-A -t {web} -s rr")?;
        for server in 1..LINES / SERVICES {
            writeln!(
                text,
                "-a -t {web} -r 10.1.{}.{server}:80 -g -w 1",
                service % 256
            )?;
        }
    }
    let host = Host::new("restore")?;
    let shuntd = Shuntd::start_with(&host, program, &["--servers", "262144"])?;
    let begun = Instant::now();
    let mut command = shuntd.command("ipvsadm", "-R");
    let mut child = command.stdin(Stdio::piped()).spawn()?;
    let mut lines = child.stdin.take().context("no way to its stdin")?;
    // All of it is read before the first change is asked for, or line by line.
    lines.write_all(text.as_bytes())?;
    drop(lines);
    ensure!(child.wait()?.success(), "ipvsadm -R failed");
    let took = begun.elapsed();
    let what = format!("ipvsadm -R of {LINES} lines");
    rows.push(Row::new(&what, took.as_secs_f64(), "s", 5.0));
    shuntd.end()
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
    let jiffies = clock::jiffies(&pinned::xdp(&place, pinned::CLOCK)?)?;
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
