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
        /// The server's id.
        id: u32,
        /// All words of its entry.
        entry: entry::Server,
    },
    /// The thresholds and weight of a server: [`entry::standing`]. `anew` clears its overloaded
    /// mark.
    Standing {
        /// The server's id.
        id: u32,
        /// Both thresholds, packed.
        bounds: u64,
        /// The configured weight.
        weight: u32,
        /// The id is another server's, or the thresholds changed.
        anew: bool,
    },
    /// Only the next hop of a server.
    Way {
        /// The server's id.
        id: u32,
        /// The next hop.
        ways: Ways,
    },
    /// A whole service entry, including its pool word.
    Service {
        /// The service's id.
        id: u32,
        /// All words of its entry.
        entry: entry::Service,
    },
    /// Words of a pool that is not in use yet, or the short list of one that is.
    Pool {
        /// The index of the first word.
        base: u32,
        /// The words from there on.
        words: Vec<u64>,
    },
    /// Switches a service to a pool, by one store.
    Switch {
        /// The service's id.
        service: u32,
        /// The pool's place, length and scheduler ([`entry::PoolWord`]).
        pool: u64,
    },
    /// Adds an endpoint: [`entry::endpoint_word`].
    EndpointAdd {
        /// The endpoint's address.
        address: IpAddr,
        /// Its port, protocol and kind.
        word: u32,
        /// The id that keys of flows have for it.
        id: u32,
    },
    /// The service that owns this stretch of ids for every port.
    Wide {
        /// The number of the stretch.
        number: u32,
        /// The service's id.
        service: u32,
    },
    /// Removes an endpoint, so that packets to it are left to the kernel.
    EndpointRemove {
        /// The endpoint's address.
        address: IpAddr,
        /// Its port, protocol and kind.
        word: u32,
    },
    /// The address of a peer: a server that may be a director, known by its MAC address. `None`
    /// removes the peer.
    Peer {
        /// The MAC address of the peer and the service.
        key: entry::PeerKey,
        /// The peer's address, in the form of the keys.
        address: Option<[u64; 2]>,
    },
    /// A local address of full NAT, and its place.
    Local {
        /// The index in the table of local addresses.
        place: u32,
        /// The address with its range of ports.
        local: Local,
    },
    /// The server that answers from a NAT endpoint and may open calls; 0 for none.
    Answerer {
        /// The endpoint's id.
        endpoint: u32,
        /// The server's id.
        server: u32,
    },
    /// The settings of the packet path, all in one store.
    Settings(Settings),
    /// All mark endpoints that also match the origin: key, prefix length in bits, endpoint id.
    /// Replaces all earlier ones.
    Origins(Vec<(OriginKey, u32, u32)>),
    /// The next hop of a gateway or client with this hop number. An unusable one makes the packet
    /// path ask the kernel.
    Hop {
        /// The hop number.
        number: u32,
        /// The next hop.
        ways: Ways,
    },
    /// All networks with the hop number of their gateway or 0, and all clients with their own
    /// number. Replaces all earlier ones.
    Routes(Vec<(Prefix, u32)>),
    /// One network or client with its hop number; `None` removes it.
    Route {
        /// The network, or the client's address.
        prefix: Prefix,
        /// The hop number.
        number: Option<u32>,
    },
    /// Resets the counters of a server id, because it has another owner.
    Forget {
        /// The server's id.
        server: u32,
    },
}
