//! Every method, family and hook carries real traffic.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use shunt_lab::{
    Family, HttpLoad, HttpServer, Topology, UdpEcho, get, skipped, transfer_down, transfer_up,
    udp_ask,
};

use crate::bed::{LIMIT, Method, at, web_servers};
use crate::director::Director;

const MB: u64 = 1_000_000;

/// Masquerading sends to other ports than the service's.
fn ports(method: Method) -> [(&'static str, u16, u16); 2] {
    match method {
        Method::Masquerade => [("-t", 80, 8080), ("-u", 53, 5353)],
        Method::Route | Method::Tunnel | Method::Gue | Method::Gre => {
            [("-t", 80, 80), ("-u", 53, 53)]
        }
    }
}

#[test]
fn masquerading_through_tc_with_offloads() -> Result<()> {
    cell(Method::Masquerade, "tc", 100 * MB)
}

#[test]
fn direct_routing_through_tc_with_offloads() -> Result<()> {
    cell(Method::Route, "tc", 100 * MB)
}

#[test]
fn tunnels_through_tc_with_offloads() -> Result<()> {
    cell(Method::Tunnel, "tc", 100 * MB)
}

#[test]
fn masquerading_through_native_xdp() -> Result<()> {
    cell(Method::Masquerade, "xdp-native", 10 * MB)
}

#[test]
fn direct_routing_through_native_xdp() -> Result<()> {
    cell(Method::Route, "xdp-native", 10 * MB)
}

#[test]
fn tunnels_through_native_xdp() -> Result<()> {
    cell(Method::Tunnel, "xdp-native", 10 * MB)
}

#[test]
fn masquerading_through_generic_xdp() -> Result<()> {
    cell(Method::Masquerade, "xdp-generic", 10 * MB)
}

#[test]
fn direct_routing_through_generic_xdp() -> Result<()> {
    cell(Method::Route, "xdp-generic", 10 * MB)
}

#[test]
fn tunnels_through_generic_xdp() -> Result<()> {
    cell(Method::Tunnel, "xdp-generic", 10 * MB)
}

#[test]
fn gue_through_tc_with_offloads() -> Result<()> {
    cell(Method::Gue, "tc", 50 * MB)
}

#[test]
fn gre_through_tc_with_offloads() -> Result<()> {
    cell(Method::Gre, "tc", 50 * MB)
}

#[test]
fn gue_through_native_xdp() -> Result<()> {
    cell(Method::Gue, "xdp-native", 10 * MB)
}

#[test]
fn gre_through_native_xdp() -> Result<()> {
    cell(Method::Gre, "xdp-native", 10 * MB)
}

#[test]
fn gue_through_generic_xdp() -> Result<()> {
    cell(Method::Gue, "xdp-generic", 10 * MB)
}

/// Servers of the other family are reached by tunnels only.
#[test]
fn tunnels_to_servers_of_the_other_family() -> Result<()> {
    to_the_other_family(Method::Tunnel)
}

#[test]
fn gue_to_servers_of_the_other_family() -> Result<()> {
    to_the_other_family(Method::Gue)
}

#[test]
fn gre_to_servers_of_the_other_family() -> Result<()> {
    to_the_other_family(Method::Gre)
}

fn to_the_other_family(method: Method) -> Result<()> {
    if skipped() {
        return Ok(());
    }
    for (hook, bytes) in [("tc", 20 * MB), ("xdp-native", 5 * MB)] {
        let bed = Topology::builder().servers(2);
        let bed = if hook == "tc" { bed.offloads() } else { bed };
        let bed = bed.build()?;
        let _members = method.prepare(&bed)?;
        let _http = web_servers(&bed)?;
        let director = Director::start_with(bed.director(), &["--attach", hook])?;
        for (family, other) in [(Family::V4, Family::V6), (Family::V6, Family::V4)] {
            let web = bed.service(family, 1, 80);
            director.ipvsadm(&format!("-A -t {web} -s rr"))?;
            for index in 0..2 {
                let server = at(bed.server_address(other, index), 80);
                let how = method.option();
                director.ipvsadm(&format!("-a -t {web} -r {server} {how}"))?;
            }
            let case = || format!("{method:?} {family:?} in {other:?} by {hook}");
            let load = HttpLoad::to(web)
                .workers(1)
                .connection_per_request()
                .requests(20);
            let report = load.run(bed.client())?;
            ensure!(
                report.servers.len() == 2,
                "{}: {:?}",
                case(),
                report.failures
            );
            transfer_down(bed.client(), web, bytes).with_context(case)?;
            transfer_up(bed.client(), web, bytes).with_context(case)?;
        }
    }
    Ok(())
}

/// HTTP spreads, addresses are right, large transfers are whole, large datagrams arrive; in both
/// families.
fn cell(method: Method, hook: &str, bytes: u64) -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let bed = Topology::builder().servers(3);
    let bed = if hook == "tc" { bed.offloads() } else { bed };
    let bed = bed.build()?;
    let _members = method.prepare(&bed)?;
    let [(_, _, http), (_, _, udp)] = ports(method);
    let start = |server| HttpServer::start(server, http);
    let _http = bed.servers.iter().map(start).collect::<Result<Vec<_>>>()?;
    let start = |server| UdpEcho::start(server, udp);
    let _udp = bed.servers.iter().map(start).collect::<Result<Vec<_>>>()?;
    let director = Director::start_with(bed.director(), &["--attach", hook])?;
    for family in Family::BOTH {
        let case = || {
            format!(
                "{method:?} {hook} {family:?}:\n{}",
                director.log().unwrap_or_default()
            )
        };
        services(&bed, &director, method, family).with_context(case)?;
        traffic(&bed, method, family, bytes).with_context(case)?;
    }
    let status = director.shunt("status")?;
    ensure!(status.contains(hook), "no device by {hook}:\n{status}");
    Ok(())
}

fn services(bed: &Topology, director: &Director, method: Method, family: Family) -> Result<()> {
    for (option, port, server_port) in ports(method) {
        let service = at(bed.vip(family, 1), port);
        director.ipvsadm(&format!("-A {option} {service} -s rr"))?;
        for index in 0..bed.servers.len() {
            let server = at(bed.server_address(family, index), server_port);
            let how = method.option();
            director.ipvsadm(&format!("-a {option} {service} -r {server} {how}"))?;
        }
    }
    Ok(())
}

fn traffic(bed: &Topology, method: Method, family: Family, bytes: u64) -> Result<()> {
    let web = bed.service(family, 1, 80);
    let answer = get(bed.client(), web, "/")?;
    let client = answer.client().map(|client| client.ip());
    ensure!(
        client == Some(bed.client_address(family, 0)),
        "the server saw {client:?}"
    );
    let index: usize = answer.server.trim_start_matches("server").parse()?;
    let asked = match method {
        Method::Masquerade => at(bed.server_address(family, index - 1), 8080),
        Method::Route | Method::Tunnel | Method::Gue | Method::Gre => web.to_string(),
    };
    ensure!(
        answer.field("address") == Some(asked.as_str()),
        "asked at {:?}",
        answer.address()
    );

    let load = HttpLoad::to(web)
        .workers(1)
        .connection_per_request()
        .requests(30);
    let report = load.run(bed.client())?;
    let even: BTreeMap<String, u64> = (1..=3).map(|n| (format!("server{n}"), 10)).collect();
    ensure!(
        report.servers == even,
        "{:?} of {:?}",
        report.failures,
        report.servers
    );

    let down = transfer_down(bed.client(), web, bytes)?;
    let up = transfer_up(bed.client(), web, bytes)?;
    println!(
        "{method:?} {family:?}: {} MB, down {:.2} Gbit/s, up {:.2} Gbit/s",
        bytes / MB,
        down.bits_per_second() / 1e9,
        up.bits_per_second() / 1e9
    );
    let dns = bed.service(family, 1, 53);
    for size in [16, 1400, 8192] {
        let mut said = udp_ask(bed.client(), dns, size, LIMIT);
        if said.is_err() && method.is_tunnel() {
            // The first one teaches the client how large a fragment the tunnel takes.
            said = udp_ask(bed.client(), dns, size, LIMIT);
        }
        let said = said.with_context(|| format!("datagrams of {size} bytes"))?;
        ensure!(said.starts_with("server"), "{said}");
    }
    Ok(())
}
