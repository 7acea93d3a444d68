//! A start: packets are forwarded before every program is loaded, and none meets a missing one.

use std::fs;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use shunt_lab::{Family, ReplyVia, Topology, UdpEcho, skipped, udp_ask, until};

use crate::bed::{LIMIT, at};
use crate::director::Director;

/// How long one datagram may take to be answered while the machine loads programs.
const ANSWER: Duration = Duration::from_secs(5);
/// How long one may take that is lost where the packet path is not attached yet.
const TRY: Duration = Duration::from_millis(100);

fn asked(bed: &Topology, service: SocketAddr) -> Result<()> {
    udp_ask(bed.client(), service, 100, ANSWER).map(drop)
}

/// No packet was dropped for a program that was not there.
fn nothing_was_missing(director: &Director) -> Result<()> {
    let stats: Value = serde_json::from_str(&director.shunt("stats --json")?)?;
    let missed = [
        &stats["drops"]["internal"],
        &stats["verdicts"]["pass-no-rest"],
    ];
    ensure!(missed.iter().all(|count| **count == 0), "{stats:#}");
    Ok(())
}

fn all_is_loaded(director: &Director) -> Result<()> {
    until("all programs to be loaded", LIMIT, || {
        let status: Value = serde_json::from_str(&director.shunt("status --json")?)?;
        Ok(status["loading"].is_null())
    })
}

#[test]
fn no_packet_of_full_nat_meets_a_program_that_is_not_loaded() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let bed = Topology::builder().servers(1).build()?;
    bed.servers_reply_via(ReplyVia::Router)?;
    bed.director().address("back", "10.1.0.99/24")?;
    let _udp = UdpEcho::start(&bed.servers[0], 5353)?;
    let service = bed.service(Family::V4, 1, 53);
    let server = at(bed.server_address(Family::V4, 0), 5353);
    let mut director = Director::start(bed.director())?;
    director.shunt("local add 10.1.0.99 --ports 20000-30000")?;
    director.shunt(&format!("service add udp/{service} --scheduler rr"))?;
    director.shunt(&format!(
        "server add udp/{service} {server} --method fullnat"
    ))?;
    asked(&bed, service).context("right after the change")?;
    nothing_was_missing(&director)?;
    all_is_loaded(&director)?;

    director.kill()?;
    let pins = director.place()?.pins;
    fs::remove_dir_all(pins.parent().context("no folder")?)?;
    director.launch()?;
    until("the table of the journal to be in force", LIMIT, || {
        ensure!(director.is_running()?, "{}", director.log()?);
        Ok(udp_ask(bed.client(), service, 100, TRY).is_ok())
    })?;
    until("the director to answer", LIMIT, || {
        Ok(director.shunt("status").is_ok())
    })?;
    nothing_was_missing(&director).context("after the packet path was gone")?;
    all_is_loaded(&director)?;

    // As an end in the middle of loading leaves it.
    director.kill()?;
    for program in ["translate", "call"] {
        fs::remove_file(pins.join(format!("director_tc_{program}")))?;
        fs::remove_file(pins.join(format!("director_xdp_{program}")))?;
    }
    director.restart()?;
    asked(&bed, service).context("after an end in the middle")?;
    nothing_was_missing(&director)?;
    all_is_loaded(&director)
}
