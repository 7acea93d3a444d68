//! Connections spread as the scheduler says.

use std::collections::BTreeMap;

use anyhow::{Result, ensure};
use shunt_lab::{Family, Topology, skipped};

use crate::bed::{Held, Method, at, web_servers};
use crate::director::Director;

/// How twelve connections that stay open spread over servers of weights 1, 2 and 3. What sed and
/// nq do is ip_vs_sed.c and ip_vs_nq.c by hand: (active + 1) / weight, and idle servers first.
const SPREAD: [(&str, [u64; 3]); 6] = [
    ("rr", [4, 4, 4]),
    ("wrr", [2, 4, 6]),
    ("lc", [4, 4, 4]),
    ("wlc", [2, 4, 6]),
    ("sed", [2, 4, 6]),
    ("nq", [2, 4, 6]),
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
                .map(|(n, count)| (format!("server{n}"), count))
                .collect();
            ensure!(spread == wanted, "{scheduler} {family:?}: {spread:?}");
        }
        for (port, scheduler) in (9000..).zip(["sh", "mh"]) {
            let spread = spread(&bed, &director, family, scheduler, port)?;
            ensure!(
                spread.len() == 1,
                "{scheduler} {family:?}: one client at {spread:?}"
            );
        }
    }
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
