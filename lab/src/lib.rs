//! A lab: network namespaces, the traffic of real TCP and UDP stacks, real peers.
//!
//! Every privileged test, the benchmark and `shunt demo` run in it. Nothing in it has a name
//! outside the process: namespaces are anonymous, devices live in them, and programs started
//! here end with us, so that nothing remains when the process is killed.

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
pub use udp::{RunningProbe, UdpEcho, UdpProbe, UdpReport, udp_ask};
pub use wait::until;
