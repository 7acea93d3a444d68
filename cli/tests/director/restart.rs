//! The packet path goes on without its daemon, and the next daemon takes it up as it is.

use std::fs;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use shunt_lab::{Family, HttpLoad, Topology, UdpEcho, UdpProbe, get, skipped, until, veth};

use crate::bed::{Held, LIMIT, Method, add_web, at, flawless, web_servers};
use crate::director::{Director, called};
use crate::table::numbers;

/// For tens of thousands of connections, on a machine with other work.
const LOAD_LIMIT: Duration = Duration::from_secs(240);

#[test]
fn twenty_kills_under_load_lose_no_request_of_masqueraded_servers() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let bed = Topology::builder()
        .clients(2)
        .servers(3)
        .offloads()
        .build()?;
    kills(&bed, Method::Masquerade, "tc")
}

#[test]
fn twenty_kills_under_load_lose_no_request_through_native_xdp() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let bed = Topology::builder().clients(2).servers(3).build()?;
    kills(&bed, Method::Route, "xdp-native")
}

/// Kept connections by IPv4, a connection per request by IPv6.
fn kills(bed: &Topology, method: Method, hook: &str) -> Result<()> {
    let _members = method.prepare(bed)?;
    let _http = web_servers(bed)?;
    let mut director = Director::start_with(bed.director(), &["--attach", hook])?;
    let web4 = add_web(bed, &director, Family::V4, method, 3)?;
    let web6 = add_web(bed, &director, Family::V6, method, 3)?;
    let table = director.ipvsadm("-Sn")?;
    let kept = HttpLoad::to(web4).workers(6).start(&bed.clients[0])?;
    let fresh = HttpLoad::to(web6)
        .workers(2)
        .connection_per_request()
        .start(&bed.clients[1])?;
    let mut connections = 0;
    for round in 1..=20 {
        director.kill()?;
        let (before_kept, before_fresh) = (kept.so_far().ok, fresh.so_far().ok);
        kept.wait_for("answers without a daemon", LIMIT, |now| {
            now.ok > before_kept + 20
        })?;
        fresh.wait_for("connections without a daemon", LIMIT, |now| {
            now.ok > before_fresh + 20
        })?;
        director.restart()?;
        ensure!(
            director.ipvsadm("-Sn")? == table,
            "round {round}: another table"
        );
        let stats = director.ipvsadm("-Ln --stats --exact")?;
        let mut now = 0;
        for index in 0..bed.servers.len() {
            now += numbers(&stats, &at(bed.server_address(Family::V6, index), 80))?[0];
        }
        ensure!(
            now >= connections + 20,
            "round {round}: {connections} connections, then {now}"
        );
        connections = now;
    }
    let (kept, fresh) = (kept.stop()?, fresh.stop()?);
    println!(
        "20 kills, {method:?} by {hook}: kept {} ok, gap {:?}; per request {} ok, gap {:?}",
        kept.ok, kept.worst_gap, fresh.ok, fresh.worst_gap
    );
    if kept.failed() + fresh.failed() != 0 {
        // What the packet path counted says where to look.
        println!("{}", director.shunt("stats")?);
    }
    flawless(&kept)?;
    flawless(&fresh)?;
    ensure!(
        kept.connections == 6,
        "{} connections for 6 workers",
        kept.connections
    );
    Ok(())
}

/// Fragments go by a program of their own, which the first one finds by a table.
#[test]
fn neither_a_kill_nor_another_build_loses_a_fragment() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    for (hook, offloads) in [("tc", true), ("xdp-native", false)] {
        let bed = Topology::builder().servers(1);
        let bed = if offloads { bed.offloads() } else { bed };
        let bed = bed.build()?;
        let _members = Method::Masquerade.prepare(&bed)?;
        let _udp = UdpEcho::start(&bed.servers[0], 53)?;
        let mut director = Director::start_with(bed.director(), &["--attach", hook])?;
        let service = bed.service(Family::V4, 1, 53);
        let server = at(bed.server_address(Family::V4, 0), 53);
        director.ipvsadm(&format!("-A -u {service}"))?;
        director.ipvsadm(&format!("-a -u {service} -r {server} -m"))?;
        let probe = UdpProbe::to(service).bytes(2500).start(bed.client())?;
        for round in 0..8 {
            director.kill()?;
            if round % 2 == 1 {
                let notes = director.place()?.runtime.join("path.json");
                let mut made: Value = serde_json::from_slice(&fs::read(&notes)?)?;
                made["build"] = round.into();
                fs::write(&notes, serde_json::to_vec(&made)?)?;
            }
            director.restart()?;
            let before = probe.so_far().received;
            until("answers of the next daemon", LIMIT, || {
                Ok(probe.so_far().received > before + 20)
            })?;
        }
        let report = probe.stop()?;
        println!("{hook}: {} sent, {} lost", report.sent, report.lost());
        ensure!(report.lost() == 0, "{hook}: {report:?}");
        let stats = director.shunt("stats --json")?;
        let stats: Value = serde_json::from_str(&stats)?;
        let followed = stats["notes"]["fragment-followed"].as_u64();
        ensure!(followed > Some(2 * report.received - 1), "{stats:#}");
    }
    Ok(())
}

#[test]
fn a_kill_in_the_middle_of_changes_leaves_a_table_that_works() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let bed = Topology::builder().servers(3).offloads().build()?;
    let _members = Method::Masquerade.prepare(&bed)?;
    let _http = web_servers(&bed)?;
    let mut director = Director::start(bed.director())?;
    let web = add_web(&bed, &director, Family::V4, Method::Masquerade, 2)?;
    let third = at(bed.server_address(Family::V4, 2), 80);
    get(bed.client(), web, "/")?;
    let load = HttpLoad::to(web)
        .workers(2)
        .connection_per_request()
        .start(bed.client())?;
    for round in 0..10_u64 {
        let seen = load.so_far().ok;
        let words = [
            format!("-a -t {web} -r {third} -m -w 0"),
            format!("-E -t {web} -s wrr"),
            format!("-e -t {web} -r {third} -m -w 0 -x 0"),
            format!("-d -t {web} -r {third}"),
            format!("-E -t {web} -s rr"),
        ];
        // The kill comes at another moment of the changes each time.
        let mut asked = Vec::new();
        for line in &words {
            let line: Vec<&str> = line.split_whitespace().collect();
            asked.push(
                called(bed.director(), "ipvsadm", &line)
                    .stderr(Stdio::null())
                    .spawn()?,
            );
        }
        load.wait_for("a moment of load", LIMIT, |now| now.ok > seen + round * 3)?;
        director.kill()?;
        for mut child in asked {
            child.wait()?;
        }
        director.restart()?;
        let table = director.ipvsadm("-Sn")?;
        ensure!(
            table.contains(&format!("-A -t {web} -s ")),
            "round {round}:\n{table}"
        );
        if table.contains(&third) {
            director.ipvsadm(&format!("-d -t {web} -r {third}"))?;
        }
    }
    let report = load.stop()?;
    flawless(&report)?;
    ensure!(report.servers.len() == 2, "{:?}", report.servers);
    Ok(())
}

#[test]
fn what_changed_while_no_daemon_ran_is_caught_up() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let bed = Topology::builder().servers(1).offloads().build()?;
    let _members = Method::Masquerade.prepare(&bed)?;
    let _http = web_servers(&bed)?;
    let mut director = Director::start(bed.director())?;
    let web = add_web(&bed, &director, Family::V4, Method::Masquerade, 1)?;
    get(bed.client(), web, "/")?;
    director.kill()?;
    bed.servers[0].set_mac("eth0", [2, 0, 0, 0, 8, 1])?;
    bed.director().delete("back")?;
    veth(bed.director(), "back", &bed.switch, "again")?;
    bed.switch.bridge_port("back", "again")?;
    let back = bed.director_back(Family::V4, 0);
    bed.director().address("back", format!("{back}/24"))?;
    director.restart()?;
    until("the service to answer", LIMIT, || {
        Ok(get(bed.client(), web, "/").is_ok())
    })
}

#[test]
fn a_restart_changes_no_number_and_moves_no_flow() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let bed = Topology::builder().servers(3).offloads().build()?;
    let _members = Method::Masquerade.prepare(&bed)?;
    let _http = web_servers(&bed)?;
    let mut director = Director::start(bed.director())?;
    let mut all = Vec::new();
    for family in Family::BOTH {
        let web = add_web(&bed, &director, family, Method::Masquerade, 3)?;
        all.extend(Held::open_all(bed.client(), web, 7)?);
    }
    let account = |director: &Director| -> Result<Vec<String>> {
        let mut listed = connections(&director.ipvsadm("-Lcn")?);
        listed.push(director.ipvsadm("-Ln")?);
        listed.push(director.ipvsadm("-Ln --stats --exact")?);
        Ok(listed)
    };
    let before = account(&director)?;
    director.kill()?;
    director.restart()?;
    let after = account(&director)?;
    ensure!(before == after, "before: {before:#?}\nafter: {after:#?}");
    ensure!(before.len() == 2 * 7 + 2, "{before:#?}");
    for (held, server) in &mut all {
        ensure!(held.ask()? == *server, "a flow moved");
    }
    Ok(())
}

/// The rows of `-Lcn` without the time that is left.
fn connections(listing: &str) -> Vec<String> {
    let without = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        [&words[..1], &words[2..]].concat().join(" ")
    };
    let mut rows: Vec<String> = listing.lines().skip(2).map(without).collect();
    rows.sort();
    rows
}

#[test]
fn a_stop_leaves_the_packet_path_or_takes_it_away_as_asked() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let bed = Topology::builder().servers(1).offloads().build()?;
    let _members = Method::Masquerade.prepare(&bed)?;
    let _http = web_servers(&bed)?;
    let mut director = Director::start(bed.director())?;
    let web = add_web(&bed, &director, Family::V4, Method::Masquerade, 1)?;
    get(bed.client(), web, "/")?;
    director.stop()?;
    ensure!(
        get(bed.client(), web, "/")?.server == "server1",
        "nothing forwards after a stop"
    );

    let place = director.place()?;
    director.options(&["--stop", "remove"]);
    director.restart()?;
    get(bed.client(), web, "/")?;
    director.stop()?;
    ensure!(!place.pins.exists(), "{} is there", place.pins.display());
    let mut left: Vec<_> = fs::read_dir(&place.runtime)?
        .map(|file| Ok(file?.file_name()))
        .collect::<Result<_>>()?;
    left.retain(|name| name != "lock");
    ensure!(
        left.is_empty(),
        "{left:?} left in {}",
        place.runtime.display()
    );
    // The kernel takes a link off when its last reader is done.
    until("nothing to forward", LIMIT, || {
        Ok(get(bed.client(), web, "/").is_err())
    })?;
    director.restart()?;
    ensure!(
        !director.ipvsadm("-Sn")?.contains("-A"),
        "the table is not empty"
    );
    Ok(())
}

/// What is over gives its places away at once, with its way back, though no daemon looks after it.
#[test]
fn closed_connections_make_room_without_a_daemon() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let bed = Topology::builder()
        .clients(2)
        .servers(3)
        .offloads()
        .build()?;
    let _members = Method::Masquerade.prepare(&bed)?;
    let _http = web_servers(&bed)?;
    let mut director = Director::start(bed.director())?;
    let web = add_web(&bed, &director, Family::V6, Method::Masquerade, 3)?;
    director.kill()?;

    // With their ways back these are more entries than the table has places.
    let load = HttpLoad::to(web).workers(4).connection_per_request();
    let start = |client| load.clone().requests(20_000).start(client);
    let loads: Vec<_> = bed.clients.iter().map(start).collect::<Result<_>>()?;
    let reports = loads
        .into_iter()
        .map(|load| load.finish(LOAD_LIMIT))
        .collect::<Result<Vec<_>>>()?;
    director.restart()?;
    for report in reports {
        flawless(&report).with_context(|| director.shunt("stats").unwrap_or_default())?;
    }
    Ok(())
}
