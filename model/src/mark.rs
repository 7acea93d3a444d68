//! Rules that mark packets: which addresses and ports belong to a firewall mark.
//!
//! Netfilter marks a packet in PREROUTING, which comes after the hooks of the packet path. A
//! director therefore has mark rules of its own, and can read `iptables` rules into them.

use std::fmt;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::nearest::proposal;
use crate::{Family, Origin, Protocol, ServiceKey};

/// The limit of ports in one rule. A rule for more ports must be a rule for every port.
pub const MOST_PORTS: u16 = 1024;

/// A range of ports, both ends included; 0 to 0 means every port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Ports {
    /// The lowest port.
    pub first: u16,
    /// The highest port.
    pub last: u16,
}

impl Ports {
    /// Every port of an address.
    pub const EVERY: Ports = Ports { first: 0, last: 0 };

    /// Whether the range stands for every port.
    #[must_use]
    pub fn is_every(self) -> bool {
        self == Self::EVERY
    }

    /// Whether the two ranges share a port. A rule for every port never overlaps one for single
    /// ports, because single ports are looked up first.
    #[must_use]
    pub fn overlaps(self, other: Ports) -> bool {
        self.is_every() == other.is_every() && self.first <= other.last && other.first <= self.last
    }
}

/// The target whose packets get a mark.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Target {
    /// The transport protocol of the packets.
    pub protocol: Protocol,
    /// The destination address of the packets.
    pub address: IpAddr,
    /// The destination ports of the packets.
    pub ports: Ports,
}

/// A rule: packets to the target have the mark.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct MarkRule {
    /// The firewall mark, by which a service is found.
    pub mark: NonZeroU32,
    /// The destination of the packets that get the mark.
    pub target: Target,
    /// From which clients, or by which device, the packets come.
    #[serde(default, skip_serializing_if = "Origin::is_anywhere")]
    pub origin: Origin,
}

impl MarkRule {
    /// The service that receives the packets that the rule marks.
    #[must_use]
    pub fn service(&self) -> ServiceKey {
        ServiceKey::Mark {
            mark: self.mark,
            family: Family::from(self.target.address),
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let protocol = self.protocol.to_string().to_lowercase();
        match self.address {
            IpAddr::V4(address) => write!(f, "{protocol} {address}")?,
            IpAddr::V6(address) => write!(f, "{protocol} [{address}]")?,
        }
        match self.ports {
            Ports::EVERY => Ok(()),
            Ports { first, last } if first == last => write!(f, ":{first}"),
            Ports { first, last } => write!(f, ":{first}-{last}"),
        }
    }
}

impl fmt::Display for MarkRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "mark {} for {}", self.mark, self.target)?;
        if self.origin.is_anywhere() {
            return Ok(());
        }
        write!(f, " from {}", self.origin)
    }
}

/// Reads targets as an operator writes them: `tcp/192.0.2.1:80,443,8000-8010`, `udp/[2001:db8::1]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Targets(pub Vec<Target>);

impl FromStr for Targets {
    type Err = UnreadableTarget;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let form = || UnreadableTarget::Form {
            text: text.to_owned(),
        };
        let (name, place) = text.split_once(['/', ' ']).ok_or_else(form)?;
        let protocol = match name {
            "tcp" => Protocol::Tcp,
            "udp" => Protocol::Udp,
            "sctp" => Protocol::Sctp,
            _ => {
                return Err(UnreadableTarget::Protocol {
                    name: name.to_owned(),
                });
            }
        };
        let (address, ports) = match place.strip_prefix('[') {
            Some(rest) => {
                let (address, ports) = rest.split_once(']').ok_or_else(form)?;
                let ports = ports
                    .strip_prefix(':')
                    .or(Some("").filter(|_| ports.is_empty()));
                (address, ports.ok_or_else(form)?)
            }
            None => place.split_once(':').unwrap_or((place, "")),
        };
        let address: IpAddr = address.parse().map_err(|_| form())?;
        if address.is_ipv6() != place.starts_with('[') {
            return Err(form());
        }
        let target = |ports| Target {
            protocol,
            address,
            ports,
        };
        if ports.is_empty() {
            return Ok(Targets(vec![target(Ports::EVERY)]));
        }
        let ports = ports.split(',').map(|piece| read_ports(piece, text));
        let targets: Result<_, _> = ports.map(|ports| ports.map(target)).collect();
        Ok(Targets(targets?))
    }
}

fn read_ports(piece: &str, text: &str) -> Result<Ports, UnreadableTarget> {
    let (first, last) = piece.split_once(['-', ':']).unwrap_or((piece, piece));
    match (first.parse(), last.parse()) {
        (Ok(first), Ok(last)) if 0 < first && first <= last => Ok(Ports { first, last }),
        _ => Err(UnreadableTarget::Ports {
            piece: piece.to_owned(),
            text: text.to_owned(),
        }),
    }
}

/// The text is not a target of a rule.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "the text of each variant describes it")]
pub enum UnreadableTarget {
    #[error("unknown protocol \"{name}\"{}", proposal(name, &["tcp", "udp", "sctp"]))]
    Protocol { name: String },
    #[error("\"{piece}\" in \"{text}\" is not a port from 1 to 65535 or a range such as 80-89")]
    Ports { piece: String, text: String },
    #[error(
        "\"{text}\" is not a target; write protocol, address and ports, such as \
         tcp/192.0.2.1:80,443 or udp/[2001:db8::1]:5000-5100, or no port for every port"
    )]
    Form { text: String },
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Vec<String> {
        let targets: Targets = text.parse().unwrap();
        targets.0.iter().map(Target::to_string).collect()
    }

    #[test]
    fn targets_are_read_port_by_port() {
        assert_eq!(
            read("tcp/192.0.2.1:80,443,8000-8010"),
            [
                "tcp 192.0.2.1:80",
                "tcp 192.0.2.1:443",
                "tcp 192.0.2.1:8000-8010"
            ]
        );
        assert_eq!(read("udp/[2001:db8::1]"), ["udp [2001:db8::1]"]);
        assert_eq!(read("udp [2001:db8::1]:53"), ["udp [2001:db8::1]:53"]);
        assert_eq!(read("tcp/192.0.2.1"), ["tcp 192.0.2.1"]);
    }

    #[test]
    fn what_is_no_target_is_told_why() {
        let told = |text: &str| text.parse::<Targets>().unwrap_err().to_string();
        assert_eq!(
            told("tpc/192.0.2.1:80"),
            "unknown protocol \"tpc\", did you mean \"tcp\"?"
        );
        assert_eq!(
            told("tcp/192.0.2.1:80,90-70"),
            "\"90-70\" in \"tcp/192.0.2.1:80,90-70\" is not a port from 1 to 65535 or a range \
             such as 80-89"
        );
        assert!(told("tcp/2001:db8::1:80").contains("is not a target"));
        assert!(told("192.0.2.1:80").contains("is not a target"));
    }

    #[test]
    fn every_port_is_apart_from_single_ones() {
        let some = Ports {
            first: 80,
            last: 90,
        };
        assert!(some.overlaps(Ports {
            first: 90,
            last: 95
        }));
        assert!(!some.overlaps(Ports {
            first: 91,
            last: 95
        }));
        assert!(!some.overlaps(Ports::EVERY));
        assert!(Ports::EVERY.overlaps(Ports::EVERY));
    }
}
