//! A lab: network namespaces with real TCP and UDP stacks, real traffic and real peers.
//!
//! Every privileged test, the benchmark and `shunt demo` run in the lab. Nothing in it has a name
//! outside the process: namespaces are anonymous, devices live in them, and programs started here
//! end with the process. Nothing remains when the process is killed.
//!
//! ```no_run
//! use std::time::Duration;
//! use shunt_lab::{Family, HttpLoad, HttpServer, Process, ReplyVia, Topology, transfer_down};
//!
//! # fn main() -> anyhow::Result<()> {
//! let bed = Topology::builder().clients(2).servers(4).build()?;
//! let servers = bed.servers.iter().map(|server| HttpServer::start(server, 80));
//! let servers = servers.collect::<anyhow::Result<Vec<_>>>()?;
//! bed.servers_reply_via(ReplyVia::Router)?;
//! bed.servers_hold(1)?;
//! bed.director_holds(0, "lo", 1)?;
//!
//! let mut command = bed.director().command("shuntd");
//! command.args(["--config", "director.toml"]);
//! let director = Process::start(command)?;
//!
//! let web = bed.service(Family::V4, 1, 80);
//! let load = HttpLoad::to(web).workers(8).connection_per_request().start(bed.client())?;
//! load.wait_for("every server to answer", Duration::from_secs(5), |r| r.servers.len() == 4)?;
//! drop(director);
//! let report = load.stop()?;
//! println!("{} ok, {} failed, gap {:?}", report.ok, report.failed(), report.worst_gap);
//! transfer_down(&bed.clients[1], web, 10_000_000)?;
//! # drop(servers);
//! # Ok(())
//! # }
//! ```

mod addresses;
mod background;
mod checksum;
mod host;
mod http;
mod latency;
mod link;
mod netlink;
mod offload;
mod packet;
mod pass;
mod pattern;
mod prefix;
mod process;
mod route;
mod topology;
mod udp;
mod wait;

pub use addresses::{Family, Segment};
pub use checksum::verify_checksums;
pub use host::{Host, missing_capability, skipped};
pub use http::{
    Answer, HttpLoad, HttpServer, LoadReport, RunningLoad, Transfer, get, transfer_down,
    transfer_up,
};
pub use latency::Latency;
pub use link::{Link, is_present, veth};
pub use offload::Offload;
pub use packet::{Captured, PacketSocket};
pub use prefix::Prefix;
pub use process::Process;
pub use route::Route;
pub use topology::{ReplyVia, Topology, TopologyBuilder, VirtualVia};
pub use udp::{RunningProbe, UdpEcho, UdpProbe, UdpReport, udp_ask, udp_burst};
pub use wait::until;
