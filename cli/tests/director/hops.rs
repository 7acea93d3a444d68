//! The ways to clients are prepared, and used: masqueraded answers ask the kernel for none.

use anyhow::{Context, Result, ensure};
use shunt_lab::{Family, Host, HttpLoad, Route, Segment, Topology, get, skipped, until, veth};

use crate::bed::{LIMIT, Method, add_web, flawless, web_servers};
use crate::director::Director;

/// Ways to clients that are prepared, and answers for others.
fn hops(director: &Director) -> Result<(u64, u64)> {
    let status: serde_json::Value = serde_json::from_str(&director.shunt("status --json")?)?;
    let number = |name: &str| status[name].as_u64().with_context(|| format!("{status}"));
    Ok((number("client_hops")?, number("client_routes_asked")?))
}

#[test]
fn answers_go_by_prepared_ways_through_a_gateway_that_changes() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let bed = Topology::builder()
        .clients(2)
        .servers(2)
        .offloads()
        .build()?;
    let _members = Method::Masquerade.prepare(&bed)?;
    let _http = web_servers(&bed)?;
    for name in ["ipv4.conf.front.arp_notify", "ipv6.conf.front.ndisc_notify"] {
        bed.router.sysctl(&format!("net.{name}"), "1")?;
    }
    let director = Director::start(bed.director())?;
    let mut loads = Vec::new();
    for (client, family) in bed.clients.iter().zip(Family::BOTH) {
        let web = add_web(&bed, &director, family, Method::Masquerade, 2)?;
        get(client, web, "/")?;
        let load = HttpLoad::to(web).workers(4).patience(LIMIT);
        loads.push(load.connection_per_request().start(client)?);
    }
    let answers = |more: u64| -> Result<()> {
        for load in &loads {
            let seen = load.so_far().ok;
            load.wait_for("answers", LIMIT, |now| now.ok > seen + more)?;
        }
        Ok(())
    };
    answers(100)?;
    let (prepared, asked) = hops(&director)?;
    ensure!(
        prepared >= 2 && asked == 0,
        "{prepared} prepared, {asked} asked"
    );

    // The gateway has another MAC address.
    bed.router.set_mac("front", [2, 0, 0, 0, 9, 1])?;
    answers(200)?;
    ensure!(hops(&director)?.1 == 0, "{:?}", hops(&director)?);

    // The clients are behind another gateway: the same machine by another address.
    for family in Family::BOTH {
        let other = Segment::Front.host(family, 77);
        let length = Segment::Front.prefix(family).length;
        bed.router.address("front", format!("{other}/{length}"))?;
        let route = Route::to(Segment::Clients.prefix(family)).via(other);
        bed.director().route(&route)?;
    }
    // Connections of before ask the kernel until they end; those since do not.
    until("answers to ask nobody", LIMIT, || {
        let before = hops(&director)?.1;
        answers(100)?;
        Ok(hops(&director)?.1 == before)
    })?;
    ensure!(hops(&director)?.0 > prepared, "{:?}", hops(&director)?);
    for load in loads {
        let report = load.stop()?;
        println!("{} ok, gap {:?}", report.ok, report.worst_gap);
        flawless(&report)?;
    }
    Ok(())
}

#[test]
fn answers_go_by_prepared_ways_to_a_client_on_the_link() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let bed = Topology::builder().servers(2).offloads().build()?;
    let _members = Method::Masquerade.prepare(&bed)?;
    let _http = web_servers(&bed)?;
    let near = Host::new("near")?;
    veth(&near, "eth0", &bed.switch, "near")?;
    bed.switch.bridge_port("front", "near")?;
    let mut director = Director::start(bed.director())?;
    for family in Family::BOTH {
        let segment = Segment::Front;
        let (own, length) = (segment.host(family, 88), segment.prefix(family).length);
        near.address("eth0", format!("{own}/{length}"))?;
        let by = bed.director_front(family, 0);
        near.route(&Route::to(Segment::Virtual.prefix(family)).via(by))?;
        let web = add_web(&bed, &director, family, Method::Masquerade, 2)?;
        let before = hops(&director)?.0;
        get(&near, web, "/")?;
        until("the client's way to be prepared", LIMIT, || {
            Ok(hops(&director)?.0 > before)
        })?;
        let (prepared, asked) = hops(&director)?;
        let load = HttpLoad::to(web).workers(4).connection_per_request();
        let load = load.patience(LIMIT).start(&near)?;
        let seen = load.so_far().ok;
        load.wait_for("answers", LIMIT, |now| now.ok > seen + 100)?;
        ensure!(hops(&director)?.1 == asked, "{:?}", hops(&director)?);

        // A restart in between changes nothing.
        director.kill()?;
        director.restart()?;
        let seen = load.so_far().ok;
        load.wait_for("answers", LIMIT, |now| now.ok > seen + 100)?;
        ensure!(hops(&director)?.0 == prepared, "{:?}", hops(&director)?);
        ensure!(hops(&director)?.1 == asked, "{:?}", hops(&director)?);
        flawless(&load.stop()?)?;
    }
    Ok(())
}
