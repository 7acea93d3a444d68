//! Full NAT, and masquerade for firewall marks and for one port of a service of every port.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use shunt_lab::{
    Family, HttpLoad, HttpServer, ReplyVia, Topology, UdpEcho, get, skipped, transfer_down,
    transfer_up, udp_ask, udp_burst, until,
};

use crate::bed::{Held, LIMIT, Method, at, flawless, web_servers};
use crate::director::Director;

const MB: u64 = 1_000_000;

/// An address of the director beside its own, on the link of the servers.
fn local(family: Family, number: u8) -> IpAddr {
    let text = match family {
        Family::V4 => format!("10.1.0.{number}"),
        Family::V6 => format!("2001:db8:1::{number:x}"),
    };
    text.parse().expect("an address")
}

/// Servers whose way to clients does not lead through the director, and a director with local
/// addresses.
fn prepare(bed: &Topology) -> Result<()> {
    bed.director_holds(0, "lo", 1)?;
    bed.servers_reply_via(ReplyVia::Router)?;
    for family in Family::BOTH {
        let length = if family == Family::V4 { 24 } else { 64 };
        let address = local(family, 99);
        bed.director()
            .address("back", format!("{address}/{length}"))?;
    }
    Ok(())
}

fn pool(director: &Director, ports: &str) -> Result<()> {
    for family in Family::BOTH {
        let address = local(family, 99);
        director.shunt(&format!("local add {address} --ports {ports}"))?;
    }
    Ok(())
}

/// The service with all servers of the bed by full NAT.
fn serve(bed: &Topology, director: &Director, family: Family, kind: &str, to: u16) -> Result<()> {
    let port = if kind == "tcp" { 80 } else { 53 };
    let service = at(bed.vip(family, 1), port);
    director.shunt(&format!("service add {kind}/{service} --scheduler rr"))?;
    for index in 0..bed.servers.len() {
        let server = at(bed.server_address(family, index), to);
        let line = format!("server add {kind}/{service} {server} --method fullnat");
        director.shunt(&line)?;
    }
    Ok(())
}

#[test]
fn full_nat_through_tc_with_offloads() -> Result<()> {
    cell("tc", 100 * MB)
}

#[test]
fn full_nat_through_native_xdp() -> Result<()> {
    cell("xdp-native", 10 * MB)
}

#[test]
fn full_nat_through_generic_xdp() -> Result<()> {
    cell("xdp-generic", 10 * MB)
}

/// Requests, large transfers, large datagrams and a narrow way to clients, in both families.
fn cell(hook: &str, bytes: u64) -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let bed = Topology::builder().servers(2).client_mtu(1300);
    let bed = if hook == "tc" { bed.offloads() } else { bed };
    let bed = bed.build()?;
    prepare(&bed)?;
    let start = |server| HttpServer::start(server, 8080);
    let _http = bed.servers.iter().map(start).collect::<Result<Vec<_>>>()?;
    let start = |server| UdpEcho::start(server, 5353);
    let _udp = bed.servers.iter().map(start).collect::<Result<Vec<_>>>()?;
    let director = Director::start_with(bed.director(), &["--attach", hook])?;
    pool(&director, "1024-9999")?;
    for family in Family::BOTH {
        serve(&bed, &director, family, "tcp", 8080)?;
        serve(&bed, &director, family, "udp", 5353)?;
        traffic(&bed, family, bytes).with_context(|| format!("{family:?} {hook}"))?;
    }
    let status = director.shunt("status")?;
    ensure!(status.contains(hook), "no device by {hook}:\n{status}");
    ensure!(!status.contains("warning"), "{status}");
    ensure!(
        status.contains("IPv6: 1 address with 8976 ports"),
        "{status}"
    );
    let listing = director.ipvsadm("-Ln")?;
    ensure!(listing.contains("FullNat 1"), "{listing}");
    let saved = director.ask("ipvsadm", "-Sn")?;
    let told = String::from_utf8_lossy(&saved.stderr);
    ensure!(
        told.lines().count() == 8 && told.contains("saved as masquerade"),
        "{told}"
    );
    Ok(())
}

fn traffic(bed: &Topology, family: Family, bytes: u64) -> Result<()> {
    let web = bed.service(family, 1, 80);
    let answer = get(bed.client(), web, "/")?;
    let seen = answer.client().context("no client in the answer")?;
    ensure!(seen.ip() == local(family, 99), "the server saw {seen}");
    ensure!((1024..10_000).contains(&seen.port()), "port {seen}");

    let load = HttpLoad::to(web)
        .workers(2)
        .connection_per_request()
        .requests(40);
    let report = load.run(bed.client())?;
    flawless(&report)?;
    ensure!(report.servers.len() == 2, "{:?}", report.servers);

    // The router in between tells the server how narrow the way to the client is.
    transfer_down(bed.client(), web, bytes)?;
    transfer_up(bed.client(), web, bytes)?;
    let dns = bed.service(family, 1, 53);
    for size in [16, 1200, 8192] {
        let said = udp_ask(bed.client(), dns, size, LIMIT);
        // The first one teaches the server how large a fragment may be.
        let said = said.or_else(|_| udp_ask(bed.client(), dns, size, LIMIT));
        let said = said.with_context(|| format!("datagrams of {size} bytes"))?;
        ensure!(said.starts_with("server"), "{said}");
    }
    let answered = udp_burst(bed.client(), dns, (1200, 8), LIMIT)?;
    ensure!(answered == 8, "{answered} of 8 that were sent as one");
    Ok(())
}

#[test]
fn ten_thousand_short_connections_of_full_nat() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let bed = Topology::builder().servers(2).offloads().build()?;
    prepare(&bed)?;
    let _http = web_servers(&bed)?;
    let director = Director::start(bed.director())?;
    pool(&director, "1024-9999")?;
    for family in Family::BOTH {
        serve(&bed, &director, family, "tcp", 80)?;
        let report = HttpLoad::to(bed.service(family, 1, 80))
            .workers(4)
            .connection_per_request()
            .requests(5000)
            .run(bed.client())?;
        flawless(&report)?;
        ensure!(report.connections >= 5000, "{report:?}");
        println!("{family:?}: {:.0} connections/s", report.rate());
    }
    let stats = director.shunt("stats")?;
    ensure!(!stats.contains("no-local-port"), "{stats}");
    Ok(())
}

#[test]
fn no_local_port_serves_two_connections_of_a_server() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let bed = Topology::builder().clients(2).servers(2).offloads();
    let bed = bed.build()?;
    prepare(&bed)?;
    let _http = web_servers(&bed)?;
    let director = Director::start(bed.director())?;
    pool(&director, "2000-2039")?;
    for family in Family::BOTH {
        serve(&bed, &director, family, "tcp", 80)?;
        let web = bed.service(family, 1, 80);
        let mut held = Vec::new();
        // Sixty of the eighty that there can be at two servers.
        for number in 0..60 {
            let mut one = Held::open(&bed.clients[number % 2], web)?;
            let (server, client) = one.ask_client()?;
            held.push((one, server, client));
        }
        let ends: BTreeSet<(&String, &SocketAddr)> = held
            .iter()
            .map(|(_, server, client)| (server, client))
            .collect();
        ensure!(ends.len() == 60, "{} different ends", ends.len());
        ensure!(
            held.iter()
                .all(|(_, _, client)| client.ip() == local(family, 99))
        );
        for (one, server, client) in &mut held {
            let again = one.ask_client()?;
            ensure!(again == (server.clone(), *client), "moved to {again:?}");
        }
    }
    Ok(())
}

#[test]
fn when_local_ports_run_out_the_next_connection_waits_and_the_operator_is_told() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let bed = Topology::builder().servers(1).offloads().build()?;
    prepare(&bed)?;
    let _http = web_servers(&bed)?;
    let _udp = UdpEcho::start(&bed.servers[0], 53)?;
    let director = Director::start(bed.director())?;
    serve(&bed, &director, Family::V4, "tcp", 80)?;
    let status = director.shunt("status")?;
    ensure!(status.contains("there is no local address"), "{status}");

    pool(&director, "2000-2003")?;
    let web = bed.service(Family::V4, 1, 80);
    let held = Held::open_all(bed.client(), web, 4)?;
    ensure!(get(bed.client(), web, "/").is_err(), "a fifth connection");
    for (mut one, server) in held {
        ensure!(one.ask()? == server, "a connection lost its port");
    }
    let status = director.shunt("status")?;
    ensure!(status.contains("4 used at 10.1.0."), "{status}");
    ensure!(status.contains("nearly used up"), "{status}");
    let stats = director.shunt("stats")?;
    ensure!(stats.contains("no-local-port"), "{stats}");

    // A flow that is over gives its port back.
    director.ipvsadm("--set 0 0 1")?;
    serve(&bed, &director, Family::V4, "udp", 53)?;
    let dns = bed.service(Family::V4, 1, 53);
    for _ in 0..4 {
        udp_ask(bed.client(), dns, 16, LIMIT)?;
    }
    until("a port to be given back", LIMIT, || {
        Ok(udp_ask(bed.client(), dns, 16, Duration::from_millis(500)).is_ok())
    })?;

    director.shunt(&format!(
        "local add {} --ports 9000-11000",
        local(Family::V4, 99)
    ))?;
    director.shunt("local add 10.1.0.123")?;
    let status = director.shunt("status")?;
    ensure!(status.contains("gives port 10000"), "{status}");
    ensure!(status.contains("10.1.0.123 is on no device"), "{status}");
    Ok(())
}

#[test]
fn a_kill_loses_no_translated_connection_nor_a_new_one() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let bed = Topology::builder().clients(2).servers(2).offloads();
    let bed = bed.build()?;
    prepare(&bed)?;
    let _http = web_servers(&bed)?;
    let mut director = Director::start(bed.director())?;
    pool(&director, "1024-9999")?;
    for family in Family::BOTH {
        serve(&bed, &director, family, "tcp", 80)?;
    }
    let locals = director.shunt("local list")?;
    let [web4, web6] = Family::BOTH.map(|family| bed.service(family, 1, 80));
    let held = Held::open_all(bed.client(), web6, 6)?;
    let kept = HttpLoad::to(web4).workers(4).start(&bed.clients[0])?;
    let fresh = HttpLoad::to(web6)
        .workers(2)
        .connection_per_request()
        .start(&bed.clients[1])?;
    for _ in 0..6 {
        director.kill()?;
        let (before_kept, before_fresh) = (kept.so_far().ok, fresh.so_far().ok);
        kept.wait_for("answers without a daemon", LIMIT, |now| {
            now.ok > before_kept + 20
        })?;
        fresh.wait_for("connections without a daemon", LIMIT, |now| {
            now.ok > before_fresh + 20
        })?;
        director.restart()?;
    }
    let (kept, fresh) = (kept.stop()?, fresh.stop()?);
    flawless(&kept)?;
    flawless(&fresh)?;
    ensure!(kept.connections == 4, "{} connections", kept.connections);
    for (mut one, server) in held {
        ensure!(one.ask()? == server, "a connection moved");
    }
    ensure!(director.shunt("local list")? == locals, "other addresses");
    Ok(())
}

#[test]
fn a_mark_may_masquerade_and_answers_come_from_what_was_asked() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    for (hook, offloads) in [("tc", true), ("xdp-native", false)] {
        let bed = Topology::builder().servers(2);
        let bed = if offloads { bed.offloads() } else { bed };
        let bed = bed.build()?;
        let _members = Method::Masquerade.prepare(&bed)?;
        let _http = web_servers(&bed)?;
        let more = |server| HttpServer::start(server, 8443);
        let _more: Vec<HttpServer> = bed.servers.iter().map(more).collect::<Result<_>>()?;
        let start = |server| UdpEcho::start(server, 80);
        let _udp: Vec<UdpEcho> = bed.servers.iter().map(start).collect::<Result<_>>()?;
        let mut director = Director::start_with(bed.director(), &["--attach", hook])?;
        for (family, mark, kind) in [(Family::V4, 7, ""), (Family::V6, 8, " -6")] {
            let web = bed.service(family, 1, 80);
            let target = at(web.ip(), 80);
            director.shunt(&format!("mark add {mark} tcp/{target},8443"))?;
            director.shunt(&format!("mark add {mark} udp/{target}"))?;
            director.ipvsadm(&format!("-A -f {mark}{kind} -s rr"))?;
            for index in 0..2 {
                let server = at(bed.server_address(family, index), 0);
                director.ipvsadm(&format!("-a -f {mark}{kind} -r {server} -m"))?;
            }
            for port in [80, 8443] {
                let answer = get(bed.client(), SocketAddr::new(web.ip(), port), "/")?;
                let asked = answer.address().context("no address in the answer")?;
                ensure!(asked.port() == port, "asked at {asked}");
                let seen = answer.client().map(|client| client.ip());
                ensure!(seen == Some(bed.client_address(family, 0)), "{seen:?}");
            }
            udp_ask(bed.client(), web, 3000, LIMIT)?;
            transfer_down(bed.client(), web, 5 * MB)?;
            let load = HttpLoad::to(web).workers(2).connection_per_request();
            let load = load.start(bed.client())?;
            load.wait_for("a moment of load", LIMIT, |now| now.ok > 30)?;
            director.kill()?;
            let before = load.so_far().ok;
            load.wait_for("answers without a daemon", LIMIT, |now| {
                now.ok > before + 30
            })?;
            director.restart()?;
            let report = load.stop()?;
            flawless(&report)?;
            ensure!(report.servers.len() == 2, "{:?}", report.servers);
        }
    }
    Ok(())
}

#[test]
fn every_port_of_an_address_may_lead_to_one_port_of_a_server() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let bed = Topology::builder().servers(2).offloads().build()?;
    let _members = Method::Masquerade.prepare(&bed)?;
    let start = |server| HttpServer::start(server, 8080);
    let _http: Vec<HttpServer> = bed.servers.iter().map(start).collect::<Result<_>>()?;
    let director = Director::start(bed.director())?;
    for family in Family::BOTH {
        let every = at(bed.vip(family, 1), 0);
        director.ipvsadm(&format!("-A -t {every} -s rr -p 1"))?;
        for index in 0..2 {
            let server = at(bed.server_address(family, index), 8080);
            director.ipvsadm(&format!("-a -t {every} -r {server} -m"))?;
        }
        for port in [80, 443, 9000] {
            let asked = SocketAddr::new(bed.vip(family, 1), port);
            let answer = get(bed.client(), asked, "/")?;
            let reached = answer.address().context("no address in the answer")?;
            ensure!(reached.port() == 8080, "reached {reached}");
        }
    }
    Ok(())
}
