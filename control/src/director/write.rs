//! Writes to the packet path.

use std::net::IpAddr;

use shunt_datapath::entry::{self, OriginKey, Settings, Ways};
use shunt_datapath::translation::Local;

use crate::network::routes::Prefix;

/// One write to the packet path's tables.
#[derive(Clone, Debug, PartialEq)]
pub enum Write {
    /// A whole server entry, including its next hop.
    Server {
        id: u32,
        entry: entry::Server,
    },
    /// The thresholds and weight of a server: [`entry::standing`]. `anew` clears its overloaded
    /// mark.
    Standing {
        id: u32,
        bounds: u64,
        weight: u32,
        anew: bool,
    },
    /// Only the next hop of a server.
    Way {
        id: u32,
        ways: Ways,
    },
    /// A whole service entry, including its pool word.
    Service {
        id: u32,
        entry: entry::Service,
    },
    /// Words of a pool that is not in use yet, or the short list of one that is.
    Pool {
        base: u32,
        words: Vec<u64>,
    },
    /// Switches a service to a pool, by one store.
    Switch {
        service: u32,
        pool: u64,
    },
    /// Adds an endpoint: [`entry::endpoint_word`].
    EndpointAdd {
        address: IpAddr,
        word: u32,
        id: u32,
    },
    /// The service that owns this stretch of ids for every port.
    Wide {
        number: u32,
        service: u32,
    },
    EndpointRemove {
        address: IpAddr,
        word: u32,
    },
    /// The address of a peer: a server that may be a director, known by its MAC address. `None`
    /// removes the peer.
    Peer {
        key: entry::PeerKey,
        address: Option<[u64; 2]>,
    },
    /// A local address of full NAT, and its place.
    Local {
        place: u32,
        local: Local,
    },
    /// The server that answers from a NAT endpoint and may open calls; 0 for none.
    Answerer {
        endpoint: u32,
        server: u32,
    },
    Settings(Settings),
    /// All mark endpoints that also match the origin: key, prefix length in bits, endpoint id.
    /// Replaces all earlier ones.
    Origins(Vec<(OriginKey, u32, u32)>),
    /// The next hop of a gateway or client with this hop number. An unusable one makes the packet
    /// path ask the kernel.
    Hop {
        number: u32,
        ways: Ways,
    },
    /// All networks with the hop number of their gateway or 0, and all clients with their own
    /// number. Replaces all earlier ones.
    Routes(Vec<(Prefix, u32)>),
    /// One network or client with its hop number; `None` removes it.
    Route {
        prefix: Prefix,
        number: Option<u32>,
    },
    /// Resets the counters of a server id, because it has another owner.
    Forget {
        server: u32,
    },
}
