//! What the operator is told under traffic is what the load did.

use std::time::Instant;

use anyhow::{Context, Result, ensure};
use shunt_control::director::Write;
use shunt_control::node::Output;
use shunt_control::node::recording::{Head, Recorded};
use shunt_lab::{Family, HttpLoad, Topology, UdpEcho, UdpProbe, skipped, until};

use crate::bed::{Held, LIMIT, Method, add_web, at, flawless, web_servers};
use crate::director::Director;
use crate::table::{live, numbers};

#[test]
fn held_connections_are_active_closed_ones_inactive_until_they_expire() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let bed = Topology::builder().servers(3).offloads().build()?;
    let _members = Method::Route.prepare(&bed)?;
    let _http = web_servers(&bed)?;
    let director = Director::start(bed.director())?;
    for family in Family::BOTH {
        let web = add_web(&bed, &director, family, Method::Route, 3)?;
        let all = Held::open_all(bed.client(), web, 6)?;
        let is = |active: u64, inactive: u64| -> Result<bool> {
            let listing = director.ipvsadm("-Ln")?;
            (0..3).try_fold(true, |so_far, index| {
                let server = at(bed.server_address(family, index), 80);
                Ok(so_far && live(&listing, &server)? == (active, inactive))
            })
        };
        ensure!(is(2, 0)?, "{}", director.ipvsadm("-Ln")?);
        let listed = director.ipvsadm("-Lcn")?;
        let client = bed.client_address(family, 0).to_string();
        let held = |line: &&str| {
            line.starts_with("TCP") && line.contains(" ESTABLISHED ") && line.contains(&client)
        };
        ensure!(listed.lines().filter(held).count() == 6, "{listed}");
        drop(all);
        until("closed connections to be inactive", LIMIT, || is(0, 2))?;
        director.ipvsadm("--set 0 1 0")?;
        until("closed connections to expire", LIMIT, || is(0, 0))?;
        until("the listing to be empty", LIMIT, || {
            Ok(director.ipvsadm("-Lcn")?.lines().count() == 2)
        })?;
        director.ipvsadm("--set 0 120 0")?;
    }
    Ok(())
}

#[test]
fn a_service_that_is_made_again_counts_from_zero() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let bed = Topology::builder().servers(1).offloads().build()?;
    let _members = Method::Masquerade.prepare(&bed)?;
    let _udp = UdpEcho::start(&bed.servers[0], 53)?;
    let director = Director::start(bed.director())?;
    let service = bed.service(Family::V4, 1, 53);
    let server = at(bed.server_address(Family::V4, 0), 53);
    for delete in [format!("-D -u {service}"), "-C".to_owned()] {
        director.ipvsadm(&format!("-A -u {service}"))?;
        director.ipvsadm(&format!("-a -u {service} -r {server} -m"))?;
        let before = numbers(&director.ipvsadm("-Ln --stats --exact")?, &server)?;
        ensure!(before == [0; 5], "{before:?}");
        UdpProbe::to(service).count(3).run(bed.client())?;
        let after = numbers(&director.ipvsadm("-Ln --stats --exact")?, &server)?;
        ensure!(after[1] == 3, "{after:?}");
        director.ipvsadm(&delete)?;
    }
    Ok(())
}

#[test]
fn the_recorded_inputs_of_a_fresh_daemon_replay_to_what_it_did() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let bed = Topology::builder().servers(1).build()?;
    let director = Director::start(bed.director())?;
    director.ipvsadm("-A -t 192.0.2.7:80 -s wrr")?;
    director.ipvsadm("-a -t 192.0.2.7:80 -r 10.1.0.9 -m -w 7")?;
    let refused = director.ask("ipvsadm", "-A -t 192.0.2.7:80")?;
    ensure!(!refused.status.success(), "added twice");

    let text = director.shunt("inputs")?;
    let mut lines = text.lines();
    let head: Head = serde_json::from_str(lines.next().context("no line")?)?;
    let begun = Instant::now();
    let (mut node, mut outputs) = head.node(begun)?;
    for (number, line) in lines.enumerate() {
        let recorded: Recorded = serde_json::from_str(line)?;
        outputs.extend(recorded.replay(number, &mut node, begun)?);
    }

    let is_answer = |output: &&Output| matches!(output, Output::Answer { .. });
    ensure!(outputs.iter().filter(is_answer).count() == 3, "{outputs:?}");
    let weighs =
        |output: &Output| matches!(output, Output::Write(Write::Standing { weight: 7, .. }));
    ensure!(outputs.iter().any(weighs), "{outputs:?}");
    Ok(())
}

#[test]
fn packets_and_bytes_are_counted_one_by_one() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    const HEADERS: [(Family, u64); 2] = [(Family::V4, 28), (Family::V6, 48)];
    let bed = Topology::builder().servers(1).offloads().build()?;
    let _members = Method::Masquerade.prepare(&bed)?;
    let _udp = UdpEcho::start(&bed.servers[0], 53)?;
    let director = Director::start(bed.director())?;
    for (family, headers) in HEADERS {
        let service = bed.service(family, 1, 53);
        let server = at(bed.server_address(family, 0), 53);
        director.ipvsadm(&format!("-A -u {service}"))?;
        director.ipvsadm(&format!("-a -u {service} -r {server} -m"))?;
        let report = UdpProbe::to(service)
            .flows(2)
            .bytes(100)
            .count(10)
            .run(bed.client())?;
        ensure!((report.sent, report.lost()) == (10, 0), "{report:?}");
        let stats = director.ipvsadm("-Ln --stats --exact")?;
        // The answer begins with the server's name and a space.
        let wanted = [2, 10, 10, 10 * (100 + headers), 10 * (8 + 100 + headers)];
        ensure!(
            numbers(&stats, &server)? == wanted,
            "wanted {wanted:?}:\n{stats}"
        );
        let row = stats
            .lines()
            .find(|line| line.starts_with(&format!("UDP  {service}")));
        let row: Vec<&str> = row.unwrap_or_default().split_whitespace().skip(2).collect();
        ensure!(
            row == wanted.map(|number| number.to_string()),
            "{row:?}:\n{stats}"
        );
        director.ipvsadm(&format!("-Z -u {service}"))?;
        let stats = director.ipvsadm("-Ln --stats --exact")?;
        ensure!(numbers(&stats, &server)? == [0; 5], "not zero:\n{stats}");
        director.ipvsadm("--set 0 0 1")?;
        until("flows to expire", LIMIT, || {
            Ok(director.ipvsadm("-Lcn")?.lines().count() == 2)
        })?;
        director.ipvsadm("--set 0 0 300")?;
    }
    Ok(())
}

#[test]
fn connections_and_rates_are_those_of_the_load() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let bed = Topology::builder().servers(3).offloads().build()?;
    let _members = Method::Masquerade.prepare(&bed)?;
    let _http = web_servers(&bed)?;
    let director = Director::start(bed.director())?;
    let web = add_web(&bed, &director, Family::V4, Method::Masquerade, 3)?;
    let servers = [0, 1, 2].map(|index| at(bed.server_address(Family::V4, index), 80));

    let load = HttpLoad::to(web)
        .workers(8)
        .connection_per_request()
        .requests(10_000);
    let load = load.start(bed.client())?;
    until("all rates to be above zero", LIMIT, || {
        let rates = director.ipvsadm("-Ln --rate")?;
        servers.iter().try_fold(true, |so_far, server| {
            Ok(so_far && numbers(&rates, server)?.iter().all(|&rate| rate > 0))
        })
    })?;
    let report = load.finish(3 * LIMIT)?;
    flawless(&report)?;
    println!(
        "10,000 short connections: {:.0} a second, {:?}",
        report.rate(),
        report.servers
    );
    let stats = director.ipvsadm("-Ln --stats --exact")?;
    let mut connections = 0;
    for server in &servers {
        let row = numbers(&stats, server)?;
        ensure!(row.iter().all(|&number| number > 0), "{stats}");
        connections += row[0];
    }
    ensure!(connections == 10_000, "{connections} connections:\n{stats}");
    Ok(())
}

/// Twenty thousand masqueraded connections take forty thousand entries where there is room for
/// sixty-five thousand in buckets of two.
#[test]
fn ways_back_of_closed_connections_give_way_to_new_ones() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let bed = Topology::builder().servers(3).offloads().build()?;
    let _members = Method::Masquerade.prepare(&bed)?;
    let _http = web_servers(&bed)?;
    let director = Director::start(bed.director())?;
    let web = add_web(&bed, &director, Family::V6, Method::Masquerade, 3)?;

    let load = HttpLoad::to(web).workers(16).connection_per_request();
    let load = load.requests(20_000).patience(LIMIT);
    let report = load.run(bed.client())?;

    println!(
        "a full table: {:.0} a second, gap {:?}",
        report.rate(),
        report.worst_gap
    );
    flawless(&report)
}
