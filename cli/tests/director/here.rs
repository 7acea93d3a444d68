//! Masqueraded servers that are the director itself.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use shunt_lab::{Family, HttpLoad, HttpServer, Topology, UdpEcho, skipped, udp_ask, until};

use crate::bed::{Held, LIMIT, at, flawless};
use crate::director::Director;

/// How long a datagram may take that is lost while nothing translates.
const TRY: Duration = Duration::from_millis(100);

/// A service on port 80 leads to port 8080 of the director's own address: for TCP, for datagrams
/// that need several packets, and also after the daemon was killed and after somebody took the
/// program for answers off.
#[test]
fn a_server_on_the_director_itself_has_another_port() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let bed = Topology::builder().servers(1).offloads().build()?;
    bed.director_holds(0, "lo", 1)?;
    let _http = HttpServer::start(bed.director(), 8080)?;
    let _echo = UdpEcho::start(bed.director(), 8080)?;
    let mut director = Director::start(bed.director())?;
    for family in Family::BOTH {
        let web = bed.service(family, 1, 80);
        // The virtual address itself: an echo answers from the address that was asked.
        let own = at(web.ip(), 8080);
        for protocol in ["-t", "-u"] {
            director.ipvsadm(&format!("-A {protocol} {web} -s rr"))?;
            director.ipvsadm(&format!("-a {protocol} {web} -r {own} -m"))?;
        }
        let load = HttpLoad::to(web).workers(2).connection_per_request();
        flawless(&load.requests(20).run(bed.client())?).with_context(|| format!("{family:?}"))?;
        udp_ask(bed.client(), web, 100, LIMIT)?;
        udp_ask(bed.client(), web, 3000, LIMIT)?;

        let mut held = Held::open(bed.client(), web)?;
        held.ask()?;
        director.kill()?;
        held.ask().context("without the daemon")?;
        director.restart()?;
        held.ask().context("with the next daemon")?;
        take_off_what_leaves(&director)?;
        until("answers to be translated again", LIMIT, || {
            Ok(udp_ask(bed.client(), web, 100, TRY).is_ok())
        })?;
        let listing = director.ipvsadm("-Lnc")?;
        ensure!(listing.contains("ESTABLISHED"), "{listing}");
        director.ipvsadm("-C")?;
    }
    Ok(())
}

/// As somebody with `rm` or `bpftool link detach` does: the kernel ends a link that nobody holds.
fn take_off_what_leaves(director: &Director) -> Result<()> {
    let mut removed = 0;
    for pin in fs::read_dir(director.place()?.pins)? {
        let pin = pin?.path();
        if pin.to_string_lossy().ends_with("-leave") {
            fs::remove_file(pin)?;
            removed += 1;
        }
    }
    ensure!(removed > 0, "no device has the program for what leaves");
    Ok(())
}

// `ip_vs_nat_xmit`: from the world there is no way to a loopback address.
#[test]
fn a_loopback_address_serves_the_directors_own_processes() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let bed = Topology::builder().servers(1).build()?;
    bed.director_holds(0, "lo", 1)?;
    let _http = HttpServer::start(bed.director(), 8080)?;
    let director = Director::start(bed.director())?;
    for (family, loopback) in [(Family::V4, "127.0.0.1:8080"), (Family::V6, "[::1]:8080")] {
        let web = bed.service(family, 1, 80);
        director.ipvsadm(&format!("-A -t {web} -s rr"))?;
        director.ipvsadm(&format!("-a -t {web} -r {loopback} -m"))?;
        let load = HttpLoad::to(web).workers(1).connection_per_request();
        flawless(&load.requests(3).run(bed.director())?).with_context(|| format!("{family:?}"))?;
    }
    Ok(())
}
