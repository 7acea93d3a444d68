//! Servers of full NAT that are told who the client is.

use std::net::IpAddr;

use anyhow::{Context, Result, ensure};
use shunt_lab::{Family, HttpLoad, Process, ReplyVia, Topology, get, skipped, until};

use crate::bed::{LIMIT, at, flawless, web_servers};
use crate::director::{Director, called};

/// An address of the director that no other test has: what is remembered of ends of connections
/// is remembered for the whole machine.
fn local(family: Family) -> IpAddr {
    let text = match family {
        Family::V4 => "10.1.0.97",
        Family::V6 => "2001:db8:1::97",
    };
    text.parse().expect("an address")
}

fn prepare(bed: &Topology, director: &Director) -> Result<()> {
    bed.director_holds(0, "lo", 1)?;
    bed.servers_reply_via(ReplyVia::Router)?;
    for family in Family::BOTH {
        let length = if family == Family::V4 { 24 } else { 64 };
        let address = local(family);
        bed.director()
            .address("back", format!("{address}/{length}"))?;
        director.shunt(&format!("local add {address} --ports 4000-4999"))?;
        let service = bed.service(family, 1, 80);
        director.shunt(&format!("service add tcp/{service} --announce toa"))?;
        for index in 0..bed.servers.len() {
            let server = at(bed.server_address(family, index), 80);
            director.shunt(&format!(
                "server add tcp/{service} {server} --method fullnat"
            ))?;
        }
    }
    Ok(())
}

#[test]
fn a_server_of_full_nat_sees_the_client_that_the_syn_names() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    for (hook, offloads) in [("tc", true), ("xdp-native", false), ("xdp-generic", false)] {
        let bed = Topology::builder().servers(1);
        let bed = if offloads { bed.offloads() } else { bed };
        let bed = bed.build()?;
        let director = Director::start_with(bed.director(), &["--attach", hook])?;
        prepare(&bed, &director)?;
        // It listens before the agent comes.
        let _http = web_servers(&bed)?;
        for family in Family::BOTH {
            let seen = seen(&bed, family).with_context(|| format!("{family:?} {hook}"))?;
            ensure!(seen == local(family), "without an agent: {seen}");
        }

        let believed = Family::BOTH.map(|family| local(family).to_string());
        let mut words = vec!["agent", "toa"];
        words.extend(believed.iter().map(String::as_str));
        let agent = Process::start(called(&bed.servers[0], "shunt", &words))?;
        for family in Family::BOTH {
            let client = bed.client_address(family, 0);
            until(&format!("{client} to be seen by {hook}"), LIMIT, || {
                Ok(seen(&bed, family)? == client)
            })?;
            let web = bed.service(family, 1, 80);
            let load = HttpLoad::to(web).workers(2).connection_per_request();
            flawless(&load.requests(50).run(bed.client())?)?;
            ensure!(seen(&bed, family)? == client, "no longer");
            // Who speaks to the server itself is whom he is.
            let direct = at(bed.server_address(family, 0), 80).parse()?;
            let own = get(bed.director(), direct, "/")?.client();
            let own = own.context("no client in the answer")?.ip();
            ensure!(own != client, "the director is taken for {client}");

            director.shunt(&format!("service edit tcp/{web} --announce off"))?;
            let silent = seen(&bed, family)?;
            ensure!(silent == local(family), "not announced: {silent}");
            director.shunt(&format!("service edit tcp/{web} --announce toa"))?;
            ensure!(seen(&bed, family)? == client, "announced again");
        }
        let status = agent.stop(LIMIT)?;
        ensure!(status.success(), "the agent ended with {status}");
        for family in Family::BOTH {
            let seen = seen(&bed, family)?;
            ensure!(seen == local(family), "after the agent: {seen}");
        }
    }
    Ok(())
}

/// The client's address as the server sees it.
fn seen(bed: &Topology, family: Family) -> Result<IpAddr> {
    let answer = get(bed.client(), bed.service(family, 1, 80), "/")?;
    let client = answer.client().context("no client in the answer")?;
    Ok(client.ip())
}
