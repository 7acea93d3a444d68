//! Processes on the director itself use its services.

use std::collections::BTreeSet;
use std::fs;
use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use shunt_lab::{Family, HttpLoad, Topology, UdpEcho, skipped, udp_ask, until};

use crate::bed::{LIMIT, Method, add_web, at, flawless, web_servers};
use crate::director::Director;

/// Whatever the method: the servers share the connections, by their weights, and a client
/// elsewhere is served as ever.
#[test]
fn local_client_uses_vip() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    for method in Method::ALL {
        let bed = Topology::builder().servers(2).offloads().build()?;
        let _members = method.prepare(&bed)?;
        let _http = web_servers(&bed)?;
        let mut director = Director::start(bed.director())?;
        for family in Family::BOTH {
            let case = format!("{method:?} {family:?}");
            let web = add_web(&bed, &director, family, method, 2)?;
            for host in [bed.director(), bed.client()] {
                let load = HttpLoad::to(web).workers(1).connection_per_request();
                let report = load.requests(20).run(host)?;
                flawless(&report).with_context(|| case.clone())?;
                let each: Vec<u64> = report.servers.values().copied().collect();
                ensure!(each == [10, 10], "{case}: {:?}", report.servers);
            }
            // Quiesced: nobody new. And it works without the daemon, too.
            let server = at(bed.server_address(family, 0), 80);
            director.shunt(&format!("server drain tcp/{web} {server}"))?;
            director.kill()?;
            let load = HttpLoad::to(web).workers(1).connection_per_request();
            let report = load.requests(5).run(bed.director())?;
            flawless(&report)?;
            ensure!(report.servers.len() == 1, "{case}: {:?}", report.servers);
            director.restart()?;
        }
        let stats = director.shunt("stats")?;
        ensure!(stats.contains("caller-served"), "{stats}");
    }
    Ok(())
}

/// A socket that is not connected hears from whom it asked.
fn resolve(bed: &Topology, bind: &str, dns: SocketAddr) -> Result<(String, SocketAddr)> {
    bed.director().run(|| {
        let socket = UdpSocket::bind(bind)?;
        socket.set_read_timeout(Some(Duration::from_secs(5)))?;
        socket.send_to(b"hello", dns)?;
        let mut answer = [0; 64];
        let (length, from) = socket.recv_from(&mut answer)?;
        let text = String::from_utf8_lossy(&answer[..length]).into_owned();
        Ok((text.split(' ').next().unwrap_or_default().to_owned(), from))
    })
}

#[test]
fn local_datagrams_use_the_vip_and_their_answers_come_from_it() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    for method in [Method::Masquerade, Method::Route] {
        let bed = Topology::builder().servers(2).offloads().build()?;
        let _members = method.prepare(&bed)?;
        let echo = |server| UdpEcho::start(server, 5353);
        let masquerade: Vec<UdpEcho> = bed.servers.iter().map(echo).collect::<Result<_>>()?;
        let echo = |server| UdpEcho::start(server, 53);
        let _route: Vec<UdpEcho> = bed.servers.iter().map(echo).collect::<Result<_>>()?;
        let director = Director::start(bed.director())?;
        for family in Family::BOTH {
            let dns = bed.service(family, 1, 53);
            director.ipvsadm(&format!("-A -u {dns} -s rr"))?;
            let port = if method == Method::Masquerade {
                5353
            } else {
                53
            };
            for index in 0..2 {
                let server = at(bed.server_address(family, index), port);
                director.ipvsadm(&format!("-a -u {dns} -r {server} {}", method.option()))?;
            }
            let mut binds = vec![if family == Family::V4 {
                "0.0.0.0:0"
            } else {
                "[::]:0"
            }];
            let mut mapped = dns;
            if let SocketAddr::V4(dns) = dns {
                // A socket of both families, as many languages make them.
                mapped = SocketAddr::new(dns.ip().to_ipv6_mapped().into(), dns.port());
                binds.push("[::]:0");
            }
            for bind in binds {
                let to = if bind.starts_with('[') { mapped } else { dns };
                let mut servers = BTreeSet::new();
                for _ in 0..2 {
                    let (server, from) = resolve(&bed, bind, to)?;
                    ensure!(
                        from == to,
                        "{method:?}: {server} answers from {from}, not {to}"
                    );
                    servers.insert(server);
                }
                ensure!(servers.len() == 2, "{method:?} {bind}: {servers:?}");
            }
            // And a connected one.
            udp_ask(bed.director(), dns, 100, LIMIT)?;
        }
        drop(masquerade);
    }
    Ok(())
}

/// Another namespace of the same machine, and a director that is told not to, are left alone.
#[test]
fn only_the_directors_own_processes_are_given_servers() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let bed = Topology::builder().servers(1).offloads().build()?;
    let _members = Method::Route.prepare(&bed)?;
    let _http = web_servers(&bed)?;
    let mut director = Director::start(bed.director())?;
    let web = add_web(&bed, &director, Family::V4, Method::Route, 1)?;
    let ask = |host| {
        let load = HttpLoad::to(web).workers(1).connection_per_request();
        load.requests(1).run(host)
    };
    let served = |director: &Director| -> Result<u64> {
        let stats: serde_json::Value = serde_json::from_str(&director.shunt("stats --json")?)?;
        stats["notes"]["caller-served"].as_u64().context("no note")
    };
    flawless(&ask(bed.client())?)?;
    ensure!(
        served(&director)? == 0,
        "a client elsewhere was given a server"
    );
    flawless(&ask(bed.director())?)?;
    ensure!(served(&director)? == 1, "not given");

    director.stop()?;
    director.options(&["--callers", "off"]);
    director.restart()?;

    // The kernel takes a link off its group a moment after its last pin is gone.
    until("the director's own process to be refused", LIMIT, || {
        Ok(ask(bed.director())?.failed() == 1)
    })?;
    flawless(&ask(bed.client())?)?;
    Ok(())
}

/// Neither a kill nor a daemon of another build leaves a process without a server for a moment.
#[test]
fn local_clients_are_served_over_kills_and_builds() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let bed = Topology::builder().servers(2).offloads().build()?;
    let _members = Method::Route.prepare(&bed)?;
    let _http = web_servers(&bed)?;
    let mut director = Director::start(bed.director())?;
    let web = add_web(&bed, &director, Family::V4, Method::Route, 2)?;
    let load = HttpLoad::to(web).workers(2).connection_per_request();
    let load = load.start(bed.director())?;
    for round in 0..6 {
        director.kill()?;
        if round % 2 == 1 {
            let notes = director.place()?.runtime.join("path.json");
            let mut made: serde_json::Value = serde_json::from_slice(&fs::read(&notes)?)?;
            made["build"] = round.into();
            fs::write(&notes, serde_json::to_vec(&made)?)?;
        }
        director.restart()?;
        let before = load.so_far().ok;
        load.wait_for("answers of the next daemon", LIMIT, |now| {
            now.ok > before + 20
        })?;
        let pins = fs::read_dir(director.place()?.pins)?;
        let names: Vec<_> = pins
            .map(|pin| Ok(pin?.file_name().to_string_lossy().into_owned()))
            .collect::<Result<_>>()?;
        let links = |start: &str| names.iter().filter(|name| name.starts_with(start)).count();
        ensure!(links("group-") == 6, "round {round}: {names:?}");
        ensure!(links("former-") == 0, "round {round}: {names:?}");
    }
    flawless(&load.stop()?)
}
