//! What is written to the packet path.

use std::net::IpAddr;

use shunt_datapath::entry::{self, OriginKey, Settings, Ways};
use shunt_datapath::translation::Local;

use crate::network::routes::Prefix;

/// One step towards what the packet path's tables must say.
#[derive(Clone, Debug, PartialEq)]
pub enum Write {
    /// A whole server entry. The way comes with it.
    Server {
        id: u32,
        entry: entry::Server,
    },
    /// How a server stands: [`entry::standing`]. If `anew`, it is not overloaded.
    Standing {
        id: u32,
        bounds: u64,
        weight: u32,
        anew: bool,
    },
    /// Only the way to a server.
    Way {
        id: u32,
        ways: Ways,
    },
    /// A whole service entry; the pool word comes with it.
    Service {
        id: u32,
        entry: entry::Service,
    },
    /// Words of a pool that nobody uses yet.
    Pool {
        base: u32,
        words: Vec<u64>,
    },
    /// From here on the service uses that pool: one store.
    Switch {
        service: u32,
        pool: u64,
    },
    /// An endpoint is to be found, by [`entry::endpoint_word`].
    EndpointAdd {
        address: IpAddr,
        word: u32,
        id: u32,
    },
    /// The service that has the endpoint of every port with this number.
    Wide {
        number: u32,
        service: u32,
    },
    EndpointRemove {
        address: IpAddr,
        word: u32,
    },
    /// The address of a server whose frames may be what it forwards as a director; `None` if it is
    /// none any more.
    Peer {
        key: entry::PeerKey,
        address: Option<[u64; 2]>,
    },
    /// A local address: its place, and what stands there.
    Local {
        place: u32,
        local: Local,
    },
    /// The server that answers from a NAT endpoint, if its service has calls; 0 if none has.
    Answerer {
        endpoint: u32,
        server: u32,
    },
    Settings(Settings),
    /// Every endpoint of packets from somewhere, with the bits of what it is found by: in place of
    /// all before.
    Origins(Vec<(OriginKey, u32, u32)>),
    /// The way to a gateway that leads to clients; one that may not be used says so itself.
    Hop {
        number: u32,
        ways: Ways,
    },
    /// Every network of clients, with the number of its gateway or 0, and every client that has
    /// one of its own: in place of all before.
    Routes(Vec<(Prefix, u32)>),
    /// One of them, or no longer.
    Route {
        prefix: Prefix,
        number: Option<u32>,
    },
    /// The counters of a server begin anew: the id has another owner.
    Forget {
        server: u32,
    },
}
