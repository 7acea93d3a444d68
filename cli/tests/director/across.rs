//! Full NAT between IPv4 and IPv6: clients of one family, servers of the other.

use std::net::{IpAddr, SocketAddr};

use anyhow::{Context, Result, ensure};
use shunt_lab::{
    Family, HttpLoad, Process, ReplyVia, Topology, UdpEcho, get, skipped, transfer_down,
    transfer_up, udp_ask, udp_burst, until,
};

use crate::bed::{Held, LIMIT, at, flawless, web_servers};
use crate::director::{Director, called};
use crate::sctp::{self, End};

const MB: u64 = 1_000_000;

/// The family that servers have in this file, by that of their clients.
fn other(family: Family) -> Family {
    match family {
        Family::V4 => Family::V6,
        Family::V6 => Family::V4,
    }
}

/// An address of the director that no other test has.
fn local(family: Family) -> IpAddr {
    let text = match family {
        Family::V4 => "10.1.0.95",
        Family::V6 => "2001:db8:1::95",
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
        let address = local(family);
        bed.director()
            .address("back", format!("{address}/{length}"))?;
    }
    Ok(())
}

fn pool(director: &Director) -> Result<()> {
    for family in Family::BOTH {
        let address = local(family);
        director.shunt(&format!("local add {address} --ports 1024-9999"))?;
    }
    Ok(())
}

/// The service for clients of this family with the servers of the other one.
fn serve(
    bed: &Topology,
    director: &Director,
    family: Family,
    kind: &str,
    port: u16,
    more: &str,
) -> Result<SocketAddr> {
    let service = bed.service(family, 1, port);
    director.shunt(&format!(
        "service add {kind}/{service} --scheduler rr {more}"
    ))?;
    for index in 0..bed.servers.len() {
        let server = at(bed.server_address(other(family), index), port);
        let line = format!("server add {kind}/{service} {server} --method fullnat");
        director.shunt(&line)?;
    }
    Ok(service)
}

#[test]
fn clients_reach_servers_of_the_other_family_through_tc_with_offloads() -> Result<()> {
    through("tc", 50 * MB)
}

#[test]
fn clients_reach_servers_of_the_other_family_through_native_xdp() -> Result<()> {
    through("xdp-native", 10 * MB)
}

#[test]
fn clients_reach_servers_of_the_other_family_through_generic_xdp() -> Result<()> {
    through("xdp-generic", 10 * MB)
}

/// Requests, large transfers and large datagrams, with ways of the usual size, with a narrow way
/// to clients, and with a narrow one to servers.
fn through(hook: &str, bytes: u64) -> Result<()> {
    if skipped() {
        return Ok(());
    }
    for (front, back) in [(1500, 1500), (1400, 1500), (1500, 1400)] {
        let bed = Topology::builder().servers(2);
        let bed = if hook == "tc" { bed.offloads() } else { bed };
        let bed = match (front, back) {
            (1500, 1500) => bed,
            (_, 1500) => bed.client_mtu(front),
            _ => bed.back_mtu(back),
        };
        let bed = bed.build()?;
        prepare(&bed)?;
        let _http = web_servers(&bed)?;
        let start = |server| UdpEcho::start(server, 53);
        let _udp = bed.servers.iter().map(start).collect::<Result<Vec<_>>>()?;
        let director = Director::start_with(bed.director(), &["--attach", hook])?;
        pool(&director)?;
        let case = |family: Family| {
            let stats = director.shunt("stats").unwrap_or_default();
            format!("{family:?} {hook}, MTU {front} and {back}\n{stats}")
        };
        for family in Family::BOTH {
            let web = serve(&bed, &director, family, "tcp", 80, "")?;
            transfers(&bed, family, web, bytes).with_context(|| case(family))?;
            is_listed(&bed, &director, family, web)?;
        }
        if (front, back) == (1500, 1500) {
            let stats = director.shunt("stats")?;
            ensure!(
                !stats.contains("answered-too-big"),
                "a segment was lost:\n{stats}"
            );
        }
        for family in Family::BOTH {
            let dns = serve(&bed, &director, family, "udp", 53, "")?;
            datagrams(&bed, dns).with_context(|| case(family))?;
        }
        let status = director.shunt("status")?;
        ensure!(status.contains(hook), "no device by {hook}:\n{status}");
        ensure!(!status.contains("warning"), "{status}");
    }
    Ok(())
}

fn transfers(bed: &Topology, family: Family, web: SocketAddr, bytes: u64) -> Result<()> {
    let answer = get(bed.client(), web, "/")?;
    let seen = answer.client().context("no client in the answer")?;
    ensure!(seen.ip() == local(other(family)), "the server saw {seen}");

    let load = HttpLoad::to(web).workers(2).connection_per_request();
    let report = load.requests(1000).run(bed.client())?;
    flawless(&report)?;
    ensure!(report.servers.len() == 2, "{:?}", report.servers);
    flawless(
        &HttpLoad::to(web)
            .workers(2)
            .requests(500)
            .run(bed.client())?,
    )?;

    for _ in 0..2 {
        transfer_down(bed.client(), web, bytes).context("down")?;
        transfer_up(bed.client(), web, bytes).context("up")?;
    }
    Ok(())
}

fn datagrams(bed: &Topology, dns: SocketAddr) -> Result<()> {
    for size in [16, 1200, 1400, 8192] {
        let mut said = Err(anyhow::anyhow!("not asked"));
        // Each server, and the client, may have to be taught how large a packet may be.
        for _ in 0..6 {
            said = udp_ask(bed.client(), dns, size, LIMIT / 10);
            if said.is_ok() {
                break;
            }
        }
        said.with_context(|| format!("datagrams of {size} bytes"))?;
    }
    let answered = udp_burst(bed.client(), dns, (1200, 8), LIMIT)?;
    ensure!(answered == 8, "{answered} of 8 that were sent as one");
    Ok(())
}

/// Whether a connection is listed with both families, by both faces.
fn is_listed(bed: &Topology, director: &Director, family: Family, web: SocketAddr) -> Result<()> {
    let held = Held::open_all(bed.client(), web, 2)?;
    let client = SocketAddr::new(bed.client_address(family, 0), 0).to_string();
    let client = client.trim_end_matches('0');
    for index in 0..2 {
        let server = at(bed.server_address(other(family), index), 80);
        let wanted = |line: &&str| {
            line.contains(client) && line.contains(&server) && line.contains(&web.to_string())
        };
        let listed = director.ipvsadm("-Lcn")?;
        ensure!(listed.lines().any(|line| wanted(&line)), "{listed}");
        let listed = director.shunt("connection list")?;
        ensure!(listed.lines().any(|line| wanted(&line)), "{listed}");
        let listed = director.ipvsadm(&format!("-Ln -t {web}"))?;
        let line = format!("-> {server}");
        let is_full = |row: &str| row.contains(&line) && row.contains("FullNat");
        ensure!(listed.lines().any(is_full), "{listed}");
    }
    drop(held);
    Ok(())
}

#[test]
fn a_client_of_the_other_family_hears_that_nobody_listens() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    for (hook, offloads) in [("tc", true), ("xdp-native", false)] {
        let bed = Topology::builder().servers(1);
        let bed = if offloads { bed.offloads() } else { bed };
        let bed = bed.build()?;
        prepare(&bed)?;
        let director = Director::start_with(bed.director(), &["--attach", hook])?;
        pool(&director)?;
        for family in Family::BOTH {
            // The server's kernel answers with an ICMP error of its own family.
            let dns = serve(&bed, &director, family, "udp", 53, "")?;
            let told = udp_ask(bed.client(), dns, 16, LIMIT).err();
            let told = format!("{:#}", told.context("somebody answered")?);
            ensure!(told.contains("refused"), "{family:?} {hook}: {told}");
            let web = serve(&bed, &director, family, "tcp", 80, "")?;
            let told = get(bed.client(), web, "/").err();
            let told = format!("{:#}", told.context("somebody answered")?);
            ensure!(told.contains("refused"), "{family:?} {hook}: {told}");
        }
    }
    Ok(())
}

#[test]
fn a_kill_loses_no_connection_between_families() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let bed = Topology::builder().clients(2).servers(2).offloads();
    let bed = bed.build()?;
    prepare(&bed)?;
    let _http = web_servers(&bed)?;
    let mut director = Director::start(bed.director())?;
    pool(&director)?;
    let web4 = serve(&bed, &director, Family::V4, "tcp", 80, "")?;
    let web6 = serve(&bed, &director, Family::V6, "tcp", 80, "")?;
    let held = Held::open_all(bed.client(), web6, 6)?;
    let kept = HttpLoad::to(web4).workers(4).start(&bed.clients[0])?;
    let fresh = HttpLoad::to(web6)
        .workers(2)
        .connection_per_request()
        .start(&bed.clients[1])?;
    for _ in 0..3 {
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
    Ok(())
}

#[test]
fn without_a_local_address_of_the_servers_family_the_operator_is_told_what_to_add() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let bed = Topology::builder().servers(1).offloads().build()?;
    prepare(&bed)?;
    let _http = web_servers(&bed)?;
    let director = Director::start(bed.director())?;
    for family in Family::BOTH {
        // One of the client's own family is of no use.
        director.shunt(&format!("local add {} --ports 1024-9999", local(family)))?;
        let web = serve(&bed, &director, family, "tcp", 80, "")?;
        let status = director.shunt("status")?;
        let name = if family == Family::V4 { "IPv6" } else { "IPv4" };
        let told = format!("there is no local address for {name}");
        ensure!(status.contains(&told), "{status}");
        ensure!(status.contains("shunt local add"), "{status}");
        ensure!(get(bed.client(), web, "/").is_err(), "it was served");
        let address = local(other(family));
        director.shunt(&format!("local add {address} --ports 1024-9999"))?;
        get(bed.client(), web, "/")?;
        director.shunt(&format!("local delete {address}"))?;
        director.shunt(&format!("service delete tcp/{web}"))?;
        director.shunt(&format!("local delete {}", local(family)))?;
    }
    // ipvsadm has no word for it.
    let web = bed.service(Family::V4, 1, 80);
    let server = at(bed.server_address(Family::V6, 0), 8080);
    director.shunt(&format!("service add tcp/{web}"))?;
    let words = format!("server add tcp/{web} {server} --method fullnat --weight 7");
    director.shunt(&words)?;
    let saved = director.ask("ipvsadm", "-Sn")?;
    let told = String::from_utf8_lossy(&saved.stderr);
    ensure!(told.contains(&words), "{told}");
    let saved = String::from_utf8_lossy(&saved.stdout);
    ensure!(saved.lines().count() == 1, "{saved}");
    director.shunt(&format!("service delete tcp/{web}"))?;
    // Other methods cannot do it, and say what can.
    let web = bed.service(Family::V4, 1, 80);
    let server = at(bed.server_address(Family::V6, 0), 80);
    director.shunt(&format!("service add tcp/{web}"))?;
    let refused = director.ask(
        "shunt",
        &format!("server add tcp/{web} {server} --method masquerade"),
    )?;
    let told = String::from_utf8_lossy(&refused.stderr);
    ensure!(
        !refused.status.success() && told.contains("only a tunnel or full NAT reaches it"),
        "{told}"
    );
    Ok(())
}

#[test]
fn a_server_is_told_by_the_syn_of_a_client_of_the_other_family() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    for (hook, offloads) in [("tc", true), ("xdp-native", false)] {
        let bed = Topology::builder().servers(1);
        let bed = if offloads { bed.offloads() } else { bed };
        let bed = bed.build()?;
        prepare(&bed)?;
        let _http = web_servers(&bed)?;
        let director = Director::start_with(bed.director(), &["--attach", hook])?;
        pool(&director)?;
        let believed = Family::BOTH.map(|family| local(family).to_string());
        let mut words = vec!["agent", "toa"];
        words.extend(believed.iter().map(String::as_str));
        let agent = Process::start(called(&bed.servers[0], "shunt", &words))?;
        for family in Family::BOTH {
            let web = serve(&bed, &director, family, "tcp", 80, "--announce toa")?;
            let client = bed.client_address(family, 0);
            until(&format!("{client} to be seen by {hook}"), LIMIT, || {
                let answer = get(bed.client(), web, "/")?;
                let seen = answer.client().context("no client in the answer")?;
                Ok(seen.ip().to_canonical() == client)
            })?;
            let load = HttpLoad::to(web).workers(2).connection_per_request();
            flawless(&load.requests(50).run(bed.client())?)?;
        }
        agent.stop(LIMIT)?;
    }
    Ok(())
}

#[test]
fn an_association_leads_from_one_family_to_the_other() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    for (hook, offloads) in [("tc", true), ("xdp-native", false)] {
        let bed = Topology::builder().servers(1);
        let bed = if offloads { bed.offloads() } else { bed };
        let bed = bed.build()?;
        prepare(&bed)?;
        let director = Director::start_with(bed.director(), &["--attach", hook])?;
        for family in Family::BOTH {
            let seen = SocketAddr::new(local(other(family)), 5000);
            director.shunt(&format!("local add {} --ports 5000-5000", seen.ip()))?;
            let service = serve(&bed, &director, family, "sctp", 3868, "")?;
            let own = SocketAddr::new(bed.client_address(family, 0), 41_000);
            let client = End::open(bed.client(), own)?;
            let at_server = SocketAddr::new(bed.server_address(other(family), 0), 3868);
            let server = End::open(&bed.servers[0], at_server)?;
            let case = || format!("{family:?} {hook}");
            for (asked, answered) in [
                (sctp::INIT, sctp::INIT_ACK),
                (sctp::COOKIE_ECHO, sctp::COOKIE_ACK),
                (sctp::DATA, sctp::DATA),
            ] {
                client.says(service, asked)?;
                let heard = server.hears(seen.ip(), [5000, 3868], asked);
                heard.with_context(case)?;
                server.says(seen, answered)?;
                let heard = client.hears(service.ip(), [3868, 41_000], answered);
                heard.with_context(case)?;
            }
        }
    }
    Ok(())
}
