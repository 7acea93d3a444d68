//! Frames above 64 kB (BIG TCP): a sender leaves more segments to a device than a length in a
//! header can count.
//!
//! Client, director and server are neighbours: Linux 6.18 does not forward such frames of IPv6
//! itself.

use std::fs;
use std::net::{IpAddr, SocketAddr};

use anyhow::{Context, Result};
use shunt_lab::{
    Family, Host, HttpServer, Route, skipped, transfer_down, transfer_up, until, veth,
};

use crate::bed::LIMIT;
use crate::director::Director;

const LARGEST: u32 = 185_000;
const BYTES: u64 = 40_000_000;

fn address(family: Family, v4: &str, v6: &str) -> Result<IpAddr> {
    Ok(match family {
        Family::V4 => v4.parse()?,
        Family::V6 => v6.parse()?,
    })
}

struct Bed {
    client: Host,
    director: Host,
    server: Host,
}

fn bed() -> Result<Bed> {
    let [client, director, server] = ["big-client", "big-director", "big-server"].map(Host::new);
    let bed = Bed {
        client: client?,
        director: director?,
        server: server?,
    };
    veth(&bed.client, "eth0", &bed.director, "front")?;
    veth(&bed.server, "eth0", &bed.director, "back")?;
    let devices = [
        (&bed.client, "eth0", ["198.51.100.2/24", "2001:db8:c::2/64"]),
        (
            &bed.director,
            "front",
            ["198.51.100.1/24", "2001:db8:c::1/64"],
        ),
        (&bed.director, "back", ["10.1.0.1/24", "2001:db8:1::1/64"]),
        (&bed.server, "eth0", ["10.1.0.11/24", "2001:db8:1::11/64"]),
    ];
    for (host, device, addresses) in devices {
        host.set_largest_frame(device, LARGEST)?;
        for address in addresses {
            host.address(device, address)?;
        }
    }
    // Answers of servers by route go through the director's own stack.
    bed.director.sysctls(&[
        ("net.ipv4.ip_forward", "1"),
        ("net.ipv6.conf.all.forwarding", "1"),
    ])?;
    for family in Family::BOTH {
        let front = address(family, "198.51.100.1", "2001:db8:c::1")?;
        bed.client.route(&Route::default_via(front))?;
        let back = address(family, "10.1.0.1", "2001:db8:1::1")?;
        bed.server.route(&Route::default_via(back))?;
    }
    Ok(bed)
}

/// Bytes and frames that a host has received by a device.
fn received(host: &Host, device: &str) -> Result<(u64, u64)> {
    let text = host.run(|| Ok(fs::read_to_string("/proc/thread-self/net/dev")?))?;
    let mut lines = text.lines().filter_map(|line| line.split_once(':'));
    let (_, counts) = lines
        .find(|(name, _)| name.trim() == device)
        .context("no such device")?;
    let mut counts = counts.split_whitespace().map(str::parse::<u64>);
    let mut next = || counts.next().context("no count")?.context("no number");
    Ok((next()?, next()?))
}

/// Transfers until the mean frame that this host receives is above 64 kB.
fn above_64_kb(to: &Host, transfer: impl Fn() -> Result<()>) -> Result<()> {
    until("frames above 64 kB", LIMIT, || {
        let (bytes, frames) = received(to, "eth0")?;
        transfer()?;
        let (more_bytes, more_frames) = received(to, "eth0")?;
        Ok((more_bytes - bytes) / (more_frames - frames).max(1) > 65_536)
    })
}

#[test]
fn frames_above_64_kb_go_both_ways_by_masquerade_and_to_servers_by_route() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let bed = bed()?;
    let _http = HttpServer::start(&bed.server, 80)?;
    let director = Director::start(&bed.director)?;
    for family in Family::BOTH {
        let web = SocketAddr::new(address(family, "192.0.2.1", "2001:db8:f::1")?, 80);
        let server = SocketAddr::new(address(family, "10.1.0.11", "2001:db8:1::11")?, 80);
        director.ipvsadm(&format!("-A -t {web}"))?;
        director.ipvsadm(&format!("-a -t {web} -r {server} -m"))?;
        let case = || format!("{family:?}");
        let up = || transfer_up(&bed.client, web, BYTES).map(drop);
        above_64_kb(&bed.server, up).with_context(case)?;
        let down = || transfer_down(&bed.client, web, BYTES).map(drop);
        above_64_kb(&bed.client, down).with_context(case)?;

        director.ipvsadm("-C")?;
        let length = if family == Family::V4 { 32 } else { 128 };
        bed.server.address("lo", format!("{}/{length}", web.ip()))?;
        director.ipvsadm(&format!("-A -t {web}"))?;
        director.ipvsadm(&format!("-a -t {web} -r {server} -g"))?;
        above_64_kb(&bed.server, up).with_context(case)?;
        director.ipvsadm("-C")?;
    }
    Ok(())
}
