//! Shows the bed in use, and its throughput on this machine: `cargo run --release --example bed`.

use std::net::SocketAddr;
use std::time::Instant;

use anyhow::Result;
use shunt_lab::{Family, HttpLoad, HttpServer, Topology, transfer_down};

fn main() -> Result<()> {
    let begin = Instant::now();
    let bed = Topology::builder().servers(16).build()?;
    println!(
        "bed with 16 servers         {:>8.0} ms",
        begin.elapsed().as_secs_f64() * 1e3
    );

    let servers = bed
        .servers
        .iter()
        .map(|server| HttpServer::start(server, 80));
    let _servers = servers.collect::<Result<Vec<_>>>()?;
    let to = SocketAddr::new(bed.server_address(Family::V4, 0), 80);

    let kept = HttpLoad::to(to)
        .workers(16)
        .requests(50_000)
        .run(bed.client())?;
    println!(
        "requests, kept connections  {:>8.0} /s, {} failed",
        kept.rate(),
        kept.failed()
    );
    let median = kept.latency.percentile(50.0).as_micros();
    let tail = kept.latency.percentile(99.0).as_micros();
    println!("latency, median and 99 %    {median:>8} us, {tail} us");

    let each = HttpLoad::to(to)
        .workers(32)
        .connection_per_request()
        .requests(10_000);
    let each = each.run(bed.client())?;
    println!(
        "short connections           {:>8.0} /s, {} failed",
        each.rate(),
        each.failed()
    );

    let down = transfer_down(bed.client(), to, 200_000_000)?;
    println!(
        "one download                {:>8.2} Gbit/s",
        down.bits_per_second() / 1e9
    );

    let begin = Instant::now();
    drop((_servers, bed));
    println!(
        "all gone again              {:>8.0} ms",
        begin.elapsed().as_secs_f64() * 1e3
    );
    Ok(())
}
