//! A real server of a service, and how packets reach it.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::nearest::proposal;

/// The address and port of a real server. They identify it within its service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ServerAddress {
    /// The real address, which may be of another family than the virtual address.
    pub address: IpAddr,
    /// The real port; 0 for a server of a service of every port, or of a mark.
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

/// The text is not the address and port of a server.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "\"{text}\" is not a server; write its address and port, \
     such as 10.1.0.11:8080 or [2001:db8:1::11]:8080"
)]
pub struct UnreadableServer {
    /// The text as it was given.
    pub text: String,
}

/// The forwarding method.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Method {
    /// NAT: the destination is rewritten, and the source of the answers.
    Masquerade,
    /// Full NAT: the source is also rewritten, to a local address and port, so that the server
    /// needs no route to the clients through the director.
    FullNat,
    /// Direct routing: only the MAC addresses change.
    Route,
    /// Tunnel: the packet is encapsulated in another one.
    Tunnel(Encapsulation),
    /// The director itself is the server.
    Local,
}

impl Method {
    /// Whether the server receives packets at its own address, not at the virtual one. Only then
    /// may its port differ from the service's.
    #[must_use]
    pub fn rewrites(self) -> bool {
        matches!(self, Method::Masquerade | Method::FullNat)
    }

    /// The methods by name. `tunnel` alone is IP in IP.
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
            Method::Tunnel(tunnel) => return f.pad(&tunnel.to_string()),
            Method::Local => "local",
        })
    }
}

impl FromStr for Method {
    type Err = UnknownMethod;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        let known = Method::NAMED.iter().find(|(known, _)| *known == name);
        let tunnel = || name.parse().ok().map(Method::Tunnel);
        let method = known.map(|(_, method)| *method).or_else(tunnel);
        method.ok_or_else(|| UnknownMethod {
            name: name.to_owned(),
        })
    }
}

impl fmt::Display for Encapsulation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let checksum = match self {
            Encapsulation::Ipip => return f.write_str("tunnel"),
            Encapsulation::Gue { port, checksum } => {
                write!(f, "gue:{port}")?;
                checksum
            }
            Encapsulation::Gre { checksum } => {
                f.write_str("gre")?;
                checksum
            }
        };
        f.write_str(match checksum {
            TunnelChecksum::Off => "",
            TunnelChecksum::On => "+checksum",
            TunnelChecksum::Remote => "+remote-checksum",
        })
    }
}

/// Reads a tunnel as an operator writes it: `gre` or `gue:6080`, each with an optional `+checksum`,
/// or `gue:6080+remote-checksum`.
impl FromStr for Encapsulation {
    type Err = UnknownMethod;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let unknown = || UnknownMethod {
            name: text.to_owned(),
        };
        let (name, more) = text.split_once('+').unwrap_or((text, ""));
        let checksum = match more {
            "" if !text.ends_with('+') => TunnelChecksum::Off,
            "checksum" => TunnelChecksum::On,
            "remote-checksum" => TunnelChecksum::Remote,
            _ => return Err(unknown()),
        };
        match name.split_once(':') {
            None if name == "gre" && checksum != TunnelChecksum::Remote => {
                Ok(Encapsulation::Gre { checksum })
            }
            Some(("gue", port)) => {
                let port = port.parse().ok().filter(|port| *port != 0);
                let port = port.ok_or_else(unknown)?;
                Ok(Encapsulation::Gue { port, checksum })
            }
            _ => Err(unknown()),
        }
    }
}

/// The name is not that of a forwarding method.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "unknown method \"{name}\"{}; tunnels may be gre and gue:PORT too, with +checksum",
    proposal(name, &Method::NAMED.map(|(name, _)| name))
)]
pub struct UnknownMethod {
    /// The name as it was given.
    pub name: String,
}

/// The encapsulation of a tunnelled packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Encapsulation {
    /// IP in IP (RFC 2003, RFC 2473, RFC 4213).
    Ipip,
    /// Generic UDP encapsulation to a UDP port.
    Gue {
        /// The destination port of the outer UDP header; IANA registered 6080.
        port: u16,
        /// The checksum of the outer UDP header.
        checksum: TunnelChecksum,
    },
    /// Generic routing encapsulation (RFC 2784).
    Gre {
        /// The checksum of the GRE header.
        checksum: TunnelChecksum,
    },
}

/// The checksum of the tunnel's own header.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TunnelChecksum {
    /// No checksum.
    #[default]
    Off,
    /// A checksum over the encapsulated packet.
    On,
    /// The other end computes the inner checksum (GUE only).
    Remote,
}

/// A real server, as an operator configures it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Server {
    /// The address and port, by which the server is named within its service.
    pub at: ServerAddress,
    /// How packets get to the server.
    pub method: Method,
    /// The weight, at most 2,147,483,647. A server of weight 0 is quiesced: it gets no new
    /// connection and keeps its established ones.
    pub weight: u32,
    /// The number of connections at which the server is overloaded; 0 is no limit.
    #[serde(default)]
    pub upper_threshold: u32,
    /// The number of connections below which an overloaded server is used again; 0 means three
    /// quarters of the upper threshold.
    #[serde(default)]
    pub lower_threshold: u32,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tunnels_are_read_with_their_port_and_checksum() {
        let read = |text: &str| text.parse::<Method>();
        let gue = |checksum| {
            Ok(Method::Tunnel(Encapsulation::Gue {
                port: 6080,
                checksum,
            }))
        };
        let gre = |checksum| Ok(Method::Tunnel(Encapsulation::Gre { checksum }));
        assert_eq!(read("gue:6080"), gue(TunnelChecksum::Off));
        assert_eq!(read("gue:6080+checksum"), gue(TunnelChecksum::On));
        assert_eq!(
            read("gue:6080+remote-checksum"),
            gue(TunnelChecksum::Remote)
        );
        assert_eq!(read("gre"), gre(TunnelChecksum::Off));
        for text in ["gue:6080", "gue:6080+checksum", "gre+checksum", "tunnel"] {
            assert_eq!(read(text).unwrap().to_string(), text);
        }
        assert_eq!(read("gre+checksum"), gre(TunnelChecksum::On));
        for wrong in [
            "gue",
            "gue:0",
            "gue:70000",
            "gre+",
            "gre+remote-checksum",
            "gre:1",
        ] {
            let told = read(wrong).unwrap_err().to_string();
            assert!(told.contains("gre and gue:PORT too"), "{wrong}: {told}");
        }
    }
}
