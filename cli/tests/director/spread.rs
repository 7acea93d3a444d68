//! Connections spread as the scheduler says.

use std::collections::BTreeMap;

use anyhow::{Result, ensure};
use shunt_lab::{Family, Topology, skipped, until};

use crate::bed::{Held, LIMIT, Method, at, web_servers};
use crate::director::Director;
use crate::table::live;

/// How twelve connections that stay open spread over servers of weights 1, 2 and 3. What sed and
/// nq do is ip_vs_sed.c and ip_vs_nq.c by hand: (active + 1) / weight, and idle servers first.
const SPREAD: [(&str, [u64; 3]); 9] = [
    ("rr", [4, 4, 4]),
    ("wrr", [2, 4, 6]),
    ("lc", [4, 4, 4]),
    ("wlc", [2, 4, 6]),
    ("sed", [2, 4, 6]),
    ("nq", [2, 4, 6]),
    ("fo", [0, 0, 12]),
    // As recorded, with the heaviest server the newest.
    ("lblc", [5, 3, 4]),
    ("lblcr", [2, 4, 6]),
];

#[test]
fn held_connections_spread_by_scheduler_and_weight() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let bed = Topology::builder().servers(3).offloads().build()?;
    let _members = Method::Masquerade.prepare(&bed)?;
    let _http = web_servers(&bed)?;
    let director = Director::start(bed.director())?;
    for family in Family::BOTH {
        for (port, (scheduler, wanted)) in (8000..).zip(SPREAD) {
            let spread = spread(&bed, &director, family, scheduler, port)?;
            let wanted: BTreeMap<String, u64> = (1..)
                .zip(wanted)
                .filter(|(_, count)| *count > 0)
                .map(|(n, count)| (format!("server{n}"), count))
                .collect();
            ensure!(spread == wanted, "{scheduler} {family:?}: {spread:?}");
        }
        for (port, scheduler) in (9000..).zip(["sh", "mh", "dh"]) {
            let spread = spread(&bed, &director, family, scheduler, port)?;
            ensure!(
                spread.len() == 1,
                "{scheduler} {family:?}: one client at {spread:?}"
            );
        }
    }
    Ok(())
}

#[test]
fn overloaded_servers_are_passed_over_until_they_have_fewer() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let bed = Topology::builder().servers(3).offloads().build()?;
    let _members = Method::Route.prepare(&bed)?;
    let _http = web_servers(&bed)?;
    let director = Director::start(bed.director())?;
    director.ipvsadm("--set 0 1 0")?;
    let web = bed.service(Family::V4, 1, 80);
    director.ipvsadm(&format!("-A -t {web} -s fo"))?;
    let servers: Vec<_> = (0..3)
        .map(|index| at(bed.server_address(Family::V4, index), 80))
        .collect();
    for (server, (weight, upper)) in servers.iter().zip([(1, 0), (2, 4), (3, 5)]) {
        let thresholds = format!("-x {upper} -y {}", upper / 2);
        director.ipvsadm(&format!(
            "-a -t {web} -r {server} -g -w {weight} {thresholds}"
        ))?;
    }

    let all = Held::open_all(bed.client(), web, 12)?;

    let listing = director.ipvsadm("-Ln")?;
    for (server, wanted) in servers.iter().zip([3, 4, 5]) {
        ensure!(live(&listing, server)? == (wanted, 0), "{listing}");
    }
    let thresholds = director.ipvsadm("-Ln --thresholds")?;
    let row = thresholds
        .lines()
        .find(|row| row.contains(&servers[2].to_string()));
    let row: Vec<&str> = row.unwrap_or_default().split_whitespace().skip(2).collect();
    ensure!(row == ["5", "2", "5", "0"], "{thresholds}");
    drop(all);
    until("closed connections to expire", LIMIT, || {
        Ok(live(&director.ipvsadm("-Ln")?, &servers[2])? == (0, 0))
    })?;
    let _again = Held::open_all(bed.client(), web, 1)?;
    let listing = director.ipvsadm("-Ln")?;
    ensure!(live(&listing, &servers[2])? == (1, 0), "{listing}");
    Ok(())
}

#[test]
fn a_large_pool_says_that_it_decides_by_a_short_list() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let bed = Topology::builder().servers(1).offloads().build()?;
    let _members = Method::Masquerade.prepare(&bed)?;
    let _http = web_servers(&bed)?;
    // So few words that left pools must be used again at once.
    let director = Director::start_with(bed.director(), &["--pool-words", "16384"])?;
    let web = bed.service(Family::V4, 1, 80);
    let server = at(bed.server_address(Family::V4, 0), 80);
    director.ipvsadm(&format!("-A -t {web} -s sed"))?;
    for number in 0..260 {
        director.ipvsadm(&format!(
            "-a -t {web} -r 10.99.1.{}:{} -m",
            number % 250,
            80 + number
        ))?;
    }
    // Twelve connections to it are still a shorter delay than the first one to any other.
    director.ipvsadm(&format!("-a -t {web} -r {server} -m -w 1000"))?;
    // The answer does not wait for its MAC address after so many others that have none.
    let way = format!("by {} mtu", bed.server_address(Family::V4, 0));
    until("the server to be reached", LIMIT, || {
        Ok(director.shunt("server list")?.contains(&way))
    })?;

    let all = Held::open_all(bed.client(), web, 12)?;

    let listing = director.ipvsadm("-Ln")?;
    ensure!(live(&listing, &server)? == (12, 0), "{listing}");
    let services = director.shunt("service list")?;
    ensure!(
        services.contains("sed, by a short list of 128"),
        "{services}"
    );
    drop(all);
    Ok(())
}

/// Each has a port of its own: a server that is deleted and added again finds its connections.
fn spread(
    bed: &Topology,
    director: &Director,
    family: Family,
    scheduler: &str,
    port: u16,
) -> Result<BTreeMap<String, u64>> {
    let web = bed.service(family, 1, port);
    director.ipvsadm(&format!("-A -t {web} -s {scheduler}"))?;
    for (index, weight) in (0..bed.servers.len()).zip(1..) {
        let server = at(bed.server_address(family, index), 80);
        director.ipvsadm(&format!("-a -t {web} -r {server} -m -w {weight}"))?;
    }
    let mut spread = BTreeMap::new();
    let all = Held::open_all(bed.client(), web, 12)?;
    for (_, server) in &all {
        *spread.entry(server.clone()).or_default() += 1;
    }
    director.ipvsadm(&format!("-D -t {web}"))?;
    Ok(spread)
}
