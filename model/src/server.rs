//! A real server of a service, and how packets reach it.

use std::fmt;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

/// The address and port of a real server: what names it within its service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ServerAddress {
    pub address: IpAddr,
    pub port: u16,
}

impl fmt::Display for ServerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.address {
            IpAddr::V4(address) => write!(f, "{address}:{}", self.port),
            IpAddr::V6(address) => write!(f, "[{address}]:{}", self.port),
        }
    }
}

/// The forwarding method.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Method {
    /// NAT: the destination is rewritten, and the source of the answers.
    Masquerade,
    /// Direct routing: only the MAC addresses change.
    Route,
    /// The packet travels inside another one.
    Tunnel(Encapsulation),
    /// The director itself is the server.
    Local,
}

/// What a tunnelled packet travels in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Encapsulation {
    /// IP in IP (RFC 2003, RFC 2473, RFC 4213).
    Ipip,
    /// Generic UDP encapsulation to a UDP port.
    Gue { port: u16, checksum: TunnelChecksum },
    /// Generic routing encapsulation (RFC 2784).
    Gre { checksum: TunnelChecksum },
}

/// The checksum of the tunnel's own header.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TunnelChecksum {
    #[default]
    Off,
    On,
    /// The inner checksum is left to the other end (GUE only).
    Remote,
}

/// A real server as an operator asks for it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Server {
    pub at: ServerAddress,
    pub method: Method,
    /// 0 quiesces: no new connection, established ones stay. At most 2,147,483,647.
    pub weight: u32,
    /// Connections at which the server counts as overloaded; 0 is no limit.
    #[serde(default)]
    pub upper_threshold: u32,
    /// Connections below which an overloaded server is used again; 0 is three quarters of the upper.
    #[serde(default)]
    pub lower_threshold: u32,
}
