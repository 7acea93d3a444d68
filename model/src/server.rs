//! A real server of a service, and how packets reach it.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::nearest::proposal;

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

impl FromStr for ServerAddress {
    type Err = UnreadableServer;

    /// `10.1.0.11:8080`, `[2001:db8:1::11]:8080`.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.parse::<SocketAddr>() {
            Ok(at) => Ok(Self {
                address: at.ip(),
                port: at.port(),
            }),
            Err(_) => Err(UnreadableServer {
                text: text.to_owned(),
            }),
        }
    }
}

/// What was written names no server.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "\"{text}\" is no server; write its address and port, \
     such as 10.1.0.11:8080 or [2001:db8:1::11]:8080"
)]
pub struct UnreadableServer {
    pub text: String,
}

/// The forwarding method.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Method {
    /// NAT: the destination is rewritten, and the source of the answers.
    Masquerade,
    /// Full NAT: the source is rewritten too, to a local address and port, so that answers come
    /// back without a route to the director.
    FullNat,
    /// Direct routing: only the MAC addresses change.
    Route,
    /// The packet travels inside another one.
    Tunnel(Encapsulation),
    /// The director itself is the server.
    Local,
}

impl Method {
    /// Whether the server gets packets at another address than the virtual one, and so maybe at
    /// another port.
    #[must_use]
    pub fn rewrites(self) -> bool {
        matches!(self, Method::Masquerade | Method::FullNat)
    }

    /// Each method by its name. A tunnel without more words is IP in IP.
    const NAMED: [(&'static str, Method); 5] = [
        ("masquerade", Method::Masquerade),
        ("fullnat", Method::FullNat),
        ("route", Method::Route),
        ("tunnel", Method::Tunnel(Encapsulation::Ipip)),
        ("local", Method::Local),
    ];
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Method::Masquerade => "masquerade",
            Method::FullNat => "fullnat",
            Method::Route => "route",
            Method::Tunnel(Encapsulation::Ipip) => "tunnel",
            Method::Tunnel(Encapsulation::Gue { .. }) => "tunnel (gue)",
            Method::Tunnel(Encapsulation::Gre { .. }) => "tunnel (gre)",
            Method::Local => "local",
        })
    }
}

impl FromStr for Method {
    type Err = UnknownMethod;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        let known = Method::NAMED.iter().find(|(known, _)| *known == name);
        match known {
            Some((_, method)) => Ok(*method),
            None => Err(UnknownMethod {
                name: name.to_owned(),
            }),
        }
    }
}

/// A name that is no forwarding method's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown method \"{name}\"{}", proposal(name, &Method::NAMED.map(|(name, _)| name)))]
pub struct UnknownMethod {
    pub name: String,
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
    /// Connections below which an overloaded server is used again; 0 is three quarters of the
    /// upper one.
    #[serde(default)]
    pub lower_threshold: u32,
}
