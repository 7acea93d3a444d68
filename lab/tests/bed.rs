//! The bed carries real traffic by plain forwarding, before any director works in it.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Result;
use shunt_lab::{
    Captured, Family, HttpLoad, HttpServer, PacketSocket, ReplyVia, Topology, UdpEcho, UdpProbe,
    VirtualVia, get, skipped, transfer_down, transfer_up, udp_ask, verify_checksums,
};

const LIMIT: Duration = Duration::from_secs(5);

#[test]
fn a_client_reaches_a_server_through_router_and_director() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let bed = Topology::builder().clients(2).build()?;
    let _server = HttpServer::start(&bed.servers[1], 80)?;
    let _echo = UdpEcho::start(&bed.servers[1], 53)?;
    for family in Family::BOTH {
        let to = bed.server_address(family, 1);
        let mut front = PacketSocket::open(bed.director(), "front")?;
        let answer = get(&bed.clients[1], SocketAddr::new(to, 80), "/")?;
        assert_eq!((answer.status, answer.server.as_str()), (200, "server2"));
        assert_eq!(
            answer.client().map(|client| client.ip()),
            Some(bed.client_address(family, 1))
        );
        assert_eq!(answer.address(), Some(SocketAddr::new(to, 80)));
        let passed = front
            .receive(LIMIT, is_tcp)?
            .expect("the request passes the director");
        verify_checksums(&passed.frame)?;
        assert_eq!(
            udp_ask(bed.client(), SocketAddr::new(to, 53), 8192, LIMIT)?,
            "server2"
        );
    }
    Ok(())
}

#[test]
fn answers_can_leave_past_the_director() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let bed = Topology::builder().servers(1).build()?;
    let _server = HttpServer::start(&bed.servers[0], 80)?;
    bed.servers_reply_via(ReplyVia::Router)?;
    for family in Family::BOTH {
        let mut back = PacketSocket::open(&bed.router, "back")?;
        get(
            bed.client(),
            SocketAddr::new(bed.server_address(family, 0), 80),
            "/",
        )?;
        let passed = back.receive(LIMIT, |captured| !captured.outgoing && is_tcp(captured))?;
        verify_checksums(&passed.expect("the answer passes the router").frame)?;
    }
    Ok(())
}

#[test]
fn a_virtual_address_is_found_by_route_and_by_asking_the_segment() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let bed = Topology::builder().directors(2).build()?;
    bed.director_holds(0, "lo", 1)?;
    bed.director_holds(1, "front", 2)?;
    let _servers = [
        HttpServer::start(&bed.directors[0], 80)?,
        HttpServer::start(&bed.directors[1], 80)?,
    ];
    for family in Family::BOTH {
        let answer = get(bed.client(), bed.service(family, 1, 80), "/")?;
        assert_eq!(answer.server, "director1");
    }
    bed.route_virtual(VirtualVia::OnLink)?;
    for family in Family::BOTH {
        let answer = get(bed.client(), bed.service(family, 2, 80), "/")?;
        assert_eq!(answer.server, "director2");
    }
    Ok(())
}

#[test]
fn servers_behind_a_gateway_are_reached() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let bed = Topology::builder().behind_gateway().build()?;
    let _server = HttpServer::start(&bed.servers[1], 80)?;
    for family in Family::BOTH {
        let to = SocketAddr::new(bed.server_address(family, 1), 80);
        for via in [ReplyVia::Director(0), ReplyVia::Router] {
            bed.servers_reply_via(via)?;
            assert_eq!(get(bed.client(), to, "/")?.server, "server2");
        }
    }
    Ok(())
}

#[test]
fn ten_megabytes_arrive_whole_both_ways() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let bed = Topology::builder().servers(1).build()?;
    let server = HttpServer::start(&bed.servers[0], 80)?;
    for family in Family::BOTH {
        let to = SocketAddr::new(bed.server_address(family, 0), 80);
        let down = transfer_down(bed.client(), to, 10_000_000)?;
        let up = transfer_up(bed.client(), to, 10_000_000)?;
        assert_eq!((down.bytes, up.bytes), (10_000_000, 10_000_000));
    }
    assert_eq!(server.uploaded(), 20_000_000);
    server.stop()
}

#[test]
fn a_small_mtu_is_told_to_who_sends_more() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let bed = Topology::builder().servers(1).client_mtu(1300).build()?;
    let _server = HttpServer::start(&bed.servers[0], 80)?;
    for family in Family::BOTH {
        let mut back = PacketSocket::open(bed.director(), "back")?;
        let to = SocketAddr::new(bed.server_address(family, 0), 80);
        transfer_down(bed.client(), to, 100_000)?;
        let told = back
            .receive(LIMIT, is_too_big)?
            .expect("the router tells the server");
        verify_checksums(&told.frame)?;
    }
    Ok(())
}

#[test]
fn a_load_counts_every_answer_and_every_failure() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let bed = Topology::builder().servers(1).build()?;
    let server = HttpServer::start(&bed.servers[0], 80)?;
    let to = SocketAddr::new(bed.server_address(Family::V4, 0), 80);

    let kept = HttpLoad::to(to).requests(2000).run(bed.client())?;
    assert_eq!(
        (kept.ok, kept.failed(), kept.connections),
        (2000, 0, 4),
        "{kept:?}"
    );
    assert_eq!((kept.share("server1"), server.requests()), (1.0, 2000));

    let each = HttpLoad::to(to)
        .connection_per_request()
        .workers(16)
        .requests(1000);
    let each = each.run(bed.client())?;
    assert_eq!(
        (each.ok, each.failed(), each.connections),
        (1000, 0, 1000),
        "{each:?}"
    );

    let running = HttpLoad::to(to).start(bed.client())?;
    running.wait_for("some answers", LIMIT, |report| report.ok > 100)?;
    server.stop()?;
    running.wait_for("some failures", LIMIT, |report| report.failed() > 10)?;
    let report = running.stop()?;
    assert!(
        report.failures.contains_key("connect: connection refused"),
        "{report:?}"
    );
    Ok(())
}

#[test]
fn a_load_deals_its_workers_out_to_all_addresses() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let bed = Topology::builder().servers(2).build()?;
    let servers = bed
        .servers
        .iter()
        .map(|server| HttpServer::start(server, 80));
    let servers = servers.collect::<Result<Vec<_>>>()?;
    let at = |index| SocketAddr::new(bed.server_address(Family::V4, index), 80);

    let load = HttpLoad::to(at(0)).also(at(1)).workers(4);
    let report = load.requests(100).run(bed.client())?;

    assert_eq!((report.ok, report.failed()), (100, 0), "{report:?}");
    // Each worker keeps one connection.
    let connections: Vec<u64> = servers.iter().map(HttpServer::connections).collect();
    assert_eq!(connections, [2, 2]);
    Ok(())
}

#[test]
fn a_probe_counts_what_is_lost() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let bed = Topology::builder().servers(1).build()?;
    let to = SocketAddr::new(bed.server_address(Family::V6, 0), 53);
    let echo = UdpEcho::start(&bed.servers[0], 53)?;
    // The kernel queues few packets for a neighbour that is not resolved yet.
    udp_ask(bed.client(), to, 64, LIMIT)?;
    let report = UdpProbe::to(to)
        .rate(10_000)
        .flows(8)
        .count(1000)
        .run(bed.client())?;
    assert_eq!(
        (report.sent, report.lost(), echo.datagrams()),
        (1000, 0, 1001),
        "{report:?}"
    );
    echo.stop()?;
    let report = UdpProbe::to(to).rate(10_000).count(100).run(bed.client())?;
    assert_eq!((report.sent, report.lost()), (100, 100), "{report:?}");
    Ok(())
}

fn is_tcp(captured: &Captured) -> bool {
    let frame = &captured.frame;
    frame.get(23) == Some(&6) && frame[12..14] == [0x08, 0x00]
        || frame.get(20) == Some(&6) && frame[12..14] == [0x86, 0xdd]
}

/// The ICMP messages RFC 792, destination unreachable, fragmentation needed, and RFC 4443, packet
/// too big.
fn is_too_big(captured: &Captured) -> bool {
    let frame = &captured.frame;
    frame.get(23) == Some(&1) && frame.get(34..36) == Some(&[3, 4])
        || frame.get(20) == Some(&58) && frame.get(54) == Some(&2)
}
