//! The table and the network change while traffic flows.

use std::net::SocketAddr;

use anyhow::{Context, Result, ensure};
use shunt_lab::{Family, HttpLoad, HttpServer, Topology, get, skipped, until, veth};

use crate::bed::{Held, LIMIT, Method, add_web, at, flawless, web_servers};
use crate::director::Director;
use crate::table::live;

#[test]
fn servers_come_and_go_under_load_and_nobody_else_notices() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let bed = Topology::builder()
        .clients(2)
        .servers(3)
        .offloads()
        .build()?;
    let _members = Method::Masquerade.prepare(&bed)?;
    let http = web_servers(&bed)?;
    let director = Director::start(bed.director())?;
    let web = add_web(&bed, &director, Family::V4, Method::Masquerade, 2)?;
    let server = |index| at(bed.server_address(Family::V4, index), 80);
    let kept = HttpLoad::to(web).workers(6).start(&bed.clients[0])?;
    let fresh = HttpLoad::to(web)
        .workers(2)
        .connection_per_request()
        .start(&bed.clients[1])?;
    kept.wait_for("both servers to answer", LIMIT, |now| {
        now.servers.len() == 2
    })?;

    director.ipvsadm(&format!("-a -t {web} -r {} -m", server(2)))?;
    fresh.wait_for("the added server to answer", LIMIT, |now| {
        now.servers.contains_key("server3")
    })?;

    director.ipvsadm(&format!("-e -t {web} -r {} -m -w 0", server(0)))?;
    // A connection that was let in just before may still be on its way.
    let asked = fresh.so_far().ok;
    fresh.wait_for("requests after the change", LIMIT, |now| {
        now.ok > asked + 10
    })?;
    let (connections, requests) = (http[0].connections(), http[0].requests());
    let asked = fresh.so_far().ok;
    fresh.wait_for("requests to the others", LIMIT, |now| now.ok > asked + 100)?;
    ensure!(
        http[0].connections() == connections,
        "a quiesced server got a connection"
    );
    ensure!(
        http[0].requests() > requests,
        "a quiesced server lost its connections"
    );

    // Kept connections of the quiesced server end with their clients; then it can go.
    flawless(&kept.stop()?)?;
    until("the quiesced server to be idle", LIMIT, || {
        Ok(live(&director.ipvsadm("-Ln")?, &server(0))?.0 == 0)
    })?;
    director.ipvsadm(&format!("-d -t {web} -r {}", server(0)))?;
    let asked = fresh.so_far().ok;
    fresh.wait_for("requests after the removal", LIMIT, |now| {
        now.ok > asked + 50
    })?;

    // A server that goes with connections takes only those along.
    let mut all = Vec::new();
    until("connections to both servers", LIMIT, || {
        all.extend(Held::open_all(&bed.clients[0], web, 1)?);
        let at = |name: &str| all.iter().any(|(_, server)| server == name);
        Ok(at("server2") && at("server3"))
    })?;
    director.ipvsadm(&format!("-d -t {web} -r {}", server(1)))?;
    let asked = fresh.so_far().ok;
    fresh.wait_for("requests after the second removal", LIMIT, |now| {
        now.ok > asked + 50
    })?;
    for (held, _) in all.iter_mut().filter(|(_, server)| server == "server3") {
        ensure!(held.ask()? == "server3", "a flow moved");
    }
    let fresh = fresh.stop()?;
    println!(
        "servers come and go: {} ok, {:?}, gap {:?}",
        fresh.ok, fresh.servers, fresh.worst_gap
    );
    flawless(&fresh)
}

#[test]
fn the_director_itself_can_be_a_server() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let bed = Topology::builder().servers(1).offloads().build()?;
    let _members = Method::Masquerade.prepare(&bed)?;
    let _remote = web_servers(&bed)?;
    let _here = HttpServer::start(bed.director(), 80)?;
    let director = Director::start(bed.director())?;
    for family in Family::BOTH {
        let web = add_web(&bed, &director, family, Method::Masquerade, 1)?;
        let own = at(bed.director_back(family, 0), 80);
        director.ipvsadm(&format!("-a -t {web} -r {own} -m"))?;
        let load = HttpLoad::to(web)
            .workers(1)
            .connection_per_request()
            .requests(20);
        let report = load.run(bed.client())?;
        flawless(&report)?;
        let half = |name| report.servers.get(name) == Some(&10);
        ensure!(half("director1") && half("server1"), "{:?}", report.servers);
        let seen = get(bed.client(), web, "/")?
            .client()
            .map(|client| client.ip());
        ensure!(
            seen == Some(bed.client_address(family, 0)),
            "the server saw {seen:?}"
        );
        let listing = director.ipvsadm("-Ln")?;
        let (active, inactive) = live(&listing, &own)?;
        ensure!(active + inactive >= 10, "{listing}");
    }
    Ok(())
}

#[test]
fn a_gateway_may_stand_between_director_and_servers() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    for method in [Method::Masquerade, Method::Tunnel] {
        let bed = Topology::builder()
            .servers(2)
            .behind_gateway()
            .offloads()
            .build()?;
        let _members = method.prepare(&bed)?;
        let _http = web_servers(&bed)?;
        let director = Director::start(bed.director())?;
        for family in Family::BOTH {
            let web = add_web(&bed, &director, family, method, 2)?;
            settled(&bed, web).with_context(|| format!("{method:?} {family:?}"))?;
            let load = HttpLoad::to(web).connection_per_request().requests(100);
            let report = load.run(bed.client())?;
            flawless(&report)?;
            ensure!(report.servers.len() == 2, "{:?}", report.servers);
        }
    }
    Ok(())
}

#[test]
fn another_mac_address_of_a_server_is_followed() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    for method in [Method::Masquerade, Method::Route] {
        let bed = Topology::builder().servers(1).offloads().build()?;
        let _members = method.prepare(&bed)?;
        let _http = web_servers(&bed)?;
        let director = Director::start(bed.director())?;
        let webs = Family::BOTH.map(|family| add_web(&bed, &director, family, method, 1));
        // By default the kernel takes no second address of a neighbour within a second.
        bed.director().sysctl("net.ipv4.neigh.back.locktime", "0")?;
        let server = &bed.servers[0];
        server.sysctls(&[
            ("net.ipv4.conf.eth0.arp_notify", "1"),
            ("net.ipv6.conf.eth0.ndisc_notify", "1"),
        ])?;
        for (number, web) in (1..).zip(webs) {
            let web = web?;
            settled(&bed, web)?;
            server.set_mac("eth0", [2, 0, 0, 0, 7, number])?;
            settled(&bed, web).with_context(|| format!("{method:?} {web}"))?;
        }
    }
    Ok(())
}

#[test]
fn a_device_that_is_deleted_and_made_again_is_taken_up() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let bed = Topology::builder().servers(1).offloads().build()?;
    let _members = Method::Masquerade.prepare(&bed)?;
    let _http = web_servers(&bed)?;
    let director = Director::start(bed.director())?;
    let webs = Family::BOTH.map(|family| add_web(&bed, &director, family, Method::Masquerade, 1));
    // As when a driver is loaded again: the machine's neighbours know its address.
    let shown = ip(&bed, &["-o", "link", "show", "back"])?;
    let mut words = shown.split_whitespace();
    words.find(|word| *word == "link/ether");
    let mac = words.next().context("no MAC address")?;
    for web in webs {
        let web = web?;
        settled(&bed, web)?;
        bed.director().delete("back")?;
        ensure!(
            get(bed.client(), web, "/").is_err(),
            "answered without the device"
        );

        veth(bed.director(), "back", &bed.switch, "again")?;
        ip(&bed, &["link", "set", "back", "address", mac])?;
        bed.switch.bridge_port("back", "again")?;
        let [v4, v6] = Family::BOTH.map(|family| bed.director_back(family, 0));
        bed.director()
            .address("back", format!("{v4}/24").as_str())?;
        bed.director()
            .address("back", format!("{v6}/64").as_str())?;
        settled(&bed, web).with_context(|| director.shunt("status").unwrap_or_default())?;
    }
    Ok(())
}

/// Runs `ip` on the director.
fn ip(bed: &Topology, words: &[&str]) -> Result<String> {
    let output = bed.director().command("ip").args(words).output()?;
    let error = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "ip {words:?}: {error}");
    Ok(String::from_utf8(output.stdout)?)
}

/// The service answers within the limit.
fn settled(bed: &Topology, web: SocketAddr) -> Result<()> {
    let mut last = String::new();
    let asked = until("the service to answer", LIMIT, || {
        match get(bed.client(), web, "/") {
            Ok(answer) => Ok(answer.status == 200),
            Err(error) => {
                last = format!("{error:#}");
                Ok(false)
            }
        }
    });
    asked.with_context(|| last)
}
