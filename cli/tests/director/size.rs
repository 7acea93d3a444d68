//! Tables of a million flows, and of all sizes that may be asked for.

use std::fs;
use std::net::Ipv4Addr;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use shunt_daemon::kernel::mapping::BucketWords;
use shunt_daemon::kernel::tables::Tables;
use shunt_datapath::connection::{ESTABLISHED, Meta};
use shunt_datapath::flows::{self, Key, Narrow, Words};
use shunt_datapath::region;
use shunt_lab::{Family, HttpLoad, Topology, get, skipped};

use crate::bed::{Held, LIMIT, Method, add_web, flawless, web_servers};
use crate::director::{Director, called};

const MILLION: u32 = 1_000_000;

/// Enters flows of other clients beside one that is there, to the same service and server.
fn fill(director: &Director, count: u32) -> Result<()> {
    let place = director.place()?;
    let notes = fs::read(place.runtime.join("path.json"))?;
    let tables = Tables::open(&place, serde_json::from_slice(&notes)?)?;
    let shared = &tables.shared;
    let (seed, mask) = (shared.made.seed, shared.made.flow4_mask());
    let bucket = |at: u32| shared.flows4.value(at as usize).map(BucketWords);
    let mut records = (0..=mask).flat_map(|at| {
        let bucket = bucket(at).into_iter();
        bucket.flat_map(|bucket| (0..4).filter_map(move |at| flows::read::<Narrow, _>(bucket, at)))
    });
    let (record, _) = records
        .find(|(record, _)| !record.key.is_back::<Narrow>())
        .context("no flow is there")?;
    let endpoint = record.key.endpoint::<Narrow>();
    let now = record.meta.tick();
    let meta = Meta::new(now, ESTABLISHED, Meta::PROVED);
    let mut entered = 0;
    for number in 0..2 * count {
        let client = Ipv4Addr::from_bits(0x6440_0000 + number / 32_768);
        let client = u32::from_ne_bytes(client.octets());
        let port = (10_000 + (number % 32_768) as u16).to_be();
        let key = Key::v4(client, port, endpoint);
        let hash = flows::hash::<Narrow>(&key, seed);
        let seat = [flows::first(hash, mask), flows::second(hash, mask)]
            .into_iter()
            .filter_map(bucket)
            .map(|bucket| {
                let (_, slot) = flows::cheapest::<Narrow, _>(bucket, now, |_| u32::MAX);
                let slot = bucket.pick::<Narrow>(slot);
                flows::offer_of::<Narrow, _>(slot, now, |_| u32::MAX)
            })
            .filter(|offer| offer.price <= flows::Price::EXPIRED)
            .find_map(|offer| offer.take::<Narrow>());
        // A few of a million find both their buckets full, as they would on their way.
        let Some(seat) = seat else { continue };
        for bucket in [flows::first(hash, mask), flows::second(hash, mask)] {
            let word = shared.occupied4.value(region::of(bucket) as usize);
            region::mark(word.map(BucketWords));
        }
        seat.fill::<Narrow>(&key, flows::value(record.target, key.tag, meta));
        entered += 1;
        if entered == count {
            return Ok(());
        }
    }
    anyhow::bail!("no room for more than {entered} flows")
}

#[test]
fn a_million_flows_are_listed_and_counted_while_forwarding_goes_on() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let bed = Topology::builder().servers(2).offloads().build()?;
    let _members = Method::Masquerade.prepare(&bed)?;
    let _http = web_servers(&bed)?;
    // So large that no connection of the load finds both its places taken by flows of the million.
    let director = Director::start_with(bed.director(), &["--flows", "16777216"])?;
    let web = add_web(&bed, &director, Family::V4, Method::Masquerade, 2)?;
    let mut held = Held::open(bed.client(), web)?;
    held.ask()?;
    let load = HttpLoad::to(web)
        .workers(2)
        .connection_per_request()
        .patience(LIMIT)
        .start(bed.client())?;
    fill(&director, MILLION)?;
    let seen = load.so_far().ok;

    let begun = Instant::now();
    let line = "connection count --json";
    let count: serde_json::Value = serde_json::from_str(&director.shunt(line)?)?;
    let established = count["by_state"]["ESTABLISHED"]
        .as_u64()
        .unwrap_or_default();
    let counted = begun.elapsed();
    ensure!(established > u64::from(MILLION), "{count}");

    let begun = Instant::now();
    let listing = director.ipvsadm("-Lnc")?;
    let listed = begun.elapsed();
    let rows = |line: &&str| line.contains(" 100.") && line.contains(" ESTABLISHED ");
    let rows = listing.lines().filter(rows).count();
    ensure!(rows == MILLION as usize, "{rows} rows");

    load.wait_for("answers meanwhile", LIMIT, |now| now.ok > seen + 20)?;
    held.ask()?;
    let report = load.stop()?;
    println!(
        "a million flows counted in {counted:?}, listed in {listed:?}; {} requests, gap {:?}",
        report.ok, report.worst_gap
    );
    flawless(&report)
}

#[test]
fn the_smallest_and_the_largest_table_work_and_others_are_refused() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let bed = Topology::builder().servers(1).offloads().build()?;
    let _members = Method::Masquerade.prepare(&bed)?;
    let _http = web_servers(&bed)?;
    for (flows, said) in [
        ("65535", "65535 is not from 65536 to 67108864"),
        ("67108865", "67108865 is not from 65536 to 67108864"),
        ("many", "\"many\" is no number of flows"),
    ] {
        for option in ["--flows", "--flows6"] {
            let output = called(bed.director(), "shuntd", &[option, flows]).output()?;
            let error = String::from_utf8_lossy(&output.stderr).into_owned();
            ensure!(
                output.status.code() == Some(2),
                "{}: {error}",
                output.status
            );
            ensure!(error.contains(said) && error.contains(option), "{error}");
        }
    }
    for (flows, capacity) in [("65536", 131_072_u64), ("67108864", 67_108_864 + 65_536)] {
        // 16 bytes a flow, and as much again for all else.
        let needed = capacity * 16 / 1024 * 2;
        if available_kib()? < needed {
            eprintln!("skipped: needs {needed} KiB of memory for {flows} flows");
            continue;
        }
        let options = ["--flows", flows, "--flows6", "65536", "--stop", "remove"];
        let mut director = Director::start_with(bed.director(), &options)?;
        let web = add_web(&bed, &director, Family::V4, Method::Masquerade, 1)?;
        get(bed.client(), web, "/")?;
        let status: serde_json::Value = serde_json::from_str(&director.shunt("status --json")?)?;
        ensure!(status["flows_capacity"] == capacity, "{status}");
        let load = HttpLoad::to(web).connection_per_request().requests(200);
        flawless(&load.run(bed.client())?)?;
        ensure!(
            director.ipvsadm("-Lnc")?.lines().count() > 200,
            "not listed"
        );
        director.stop()?;
    }
    Ok(())
}

/// Memory that may be had.
fn available_kib() -> Result<u64> {
    let info = fs::read_to_string("/proc/meminfo")?;
    let line = info
        .lines()
        .find_map(|line| line.strip_prefix("MemAvailable:"));
    let number = line.and_then(|line| line.split_whitespace().next());
    number
        .context("no MemAvailable")?
        .parse()
        .context("MemAvailable")
}
