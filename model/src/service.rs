//! A virtual service: the address that clients connect to, and how its connections are scheduled.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU32;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::nearest::proposal;
use crate::{Scheduler, SchedulerFlags, ServiceSettings};

/// The transport protocol of a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// TCP (RFC 9293).
    Tcp,
    /// UDP (RFC 768).
    Udp,
    /// SCTP (RFC 9260).
    Sctp,
}

impl Protocol {
    /// The number in the IP header (IANA, Assigned Internet Protocol Numbers).
    #[must_use]
    pub fn number(self) -> u8 {
        match self {
            Protocol::Tcp => 6,
            Protocol::Udp => 17,
            Protocol::Sctp => 132,
        }
    }

    /// The protocol with this number, if a service can have it.
    #[must_use]
    pub fn from_number(number: u8) -> Option<Self> {
        match number {
            6 => Some(Protocol::Tcp),
            17 => Some(Protocol::Udp),
            132 => Some(Protocol::Sctp),
            _ => None,
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Protocol::Tcp => "TCP",
            Protocol::Udp => "UDP",
            Protocol::Sctp => "SCTP",
        })
    }
}

/// The address family of a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Family {
    /// The virtual address is IPv4.
    Ipv4,
    /// The virtual address is IPv6.
    Ipv6,
}

impl From<IpAddr> for Family {
    fn from(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(_) => Family::Ipv4,
            IpAddr::V6(_) => Family::Ipv6,
        }
    }
}

/// The key of a service: a virtual address with protocol and port, or a firewall mark.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum ServiceKey {
    /// A virtual address with protocol and port.
    Address {
        /// The transport protocol of the packets.
        protocol: Protocol,
        /// The virtual address.
        address: IpAddr,
        /// Port 0 means every port of the address.
        port: u16,
    },
    /// A firewall mark.
    Mark {
        /// The mark that the director's own rules give to packets.
        mark: NonZeroU32,
        /// A mark has one service for each family.
        family: Family,
    },
}

impl ServiceKey {
    /// The family of the packets that the service takes.
    #[must_use]
    pub fn family(&self) -> Family {
        match *self {
            ServiceKey::Address { address, .. } => address.into(),
            ServiceKey::Mark { family, .. } => family,
        }
    }
}

impl fmt::Display for ServiceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            ServiceKey::Address {
                protocol,
                address,
                port,
            } => {
                let protocol = protocol.to_string().to_lowercase();
                match address {
                    IpAddr::V4(address) => write!(f, "{protocol} {address}:{port}"),
                    IpAddr::V6(address) => write!(f, "{protocol} [{address}]:{port}"),
                }
            }
            ServiceKey::Mark {
                mark,
                family: Family::Ipv4,
            } => write!(f, "mark {mark}"),
            ServiceKey::Mark {
                mark,
                family: Family::Ipv6,
            } => write!(f, "mark {mark} ipv6"),
        }
    }
}

impl FromStr for ServiceKey {
    type Err = UnreadableService;

    /// Reads `tcp 192.0.2.1:80`, `udp/[2001:db8::1]:53`, `mark 7` or `mark 7 ipv6`, with a space or
    /// a slash between the words. It reads what `Display` prints.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let words: Vec<&str> = text
            .split([' ', '/'])
            .filter(|word| !word.is_empty())
            .collect();
        let at = |word: &str| {
            word.parse::<SocketAddr>()
                .map_err(|_| UnreadableService::Address {
                    text: word.to_owned(),
                })
        };
        let (protocol, address) = match words.as_slice() {
            ["mark", mark] | ["mark", mark, "ipv4"] => return key_of_mark(mark, Family::Ipv4),
            ["mark", mark, "ipv6"] => return key_of_mark(mark, Family::Ipv6),
            ["tcp", address] => (Protocol::Tcp, address),
            ["udp", address] => (Protocol::Udp, address),
            ["sctp", address] => (Protocol::Sctp, address),
            [protocol, address] if at(address).is_ok() => {
                return Err(UnreadableService::Protocol {
                    name: (*protocol).to_owned(),
                });
            }
            _ => {
                return Err(UnreadableService::Form {
                    text: text.to_owned(),
                });
            }
        };
        let at = at(address)?;
        Ok(ServiceKey::Address {
            protocol,
            address: at.ip(),
            port: at.port(),
        })
    }
}

fn key_of_mark(mark: &str, family: Family) -> Result<ServiceKey, UnreadableService> {
    match mark.parse() {
        Ok(mark) => Ok(ServiceKey::Mark { mark, family }),
        Err(_) => Err(UnreadableService::Mark {
            text: mark.to_owned(),
        }),
    }
}

/// The text is not the key of a service.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "the text of each variant describes it")]
pub enum UnreadableService {
    #[error("unknown protocol \"{name}\"{}", proposal(name, &["tcp", "udp", "sctp"]))]
    Protocol { name: String },
    #[error(
        "\"{text}\" is not an address and port; write 192.0.2.1:80, or [2001:db8::1]:80 for IPv6"
    )]
    Address { text: String },
    #[error("\"{text}\" is not a firewall mark; a mark is a number from 1 to 4294967295")]
    Mark { text: String },
    #[error(
        "\"{text}\" is not a service; write protocol, address and port, \
         such as tcp/192.0.2.1:80 or udp/[2001:db8::1]:53"
    )]
    Form { text: String },
}

/// Persistence: a client keeps its server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Persistence {
    /// Seconds that a template lives after its last connection.
    pub timeout_s: u32,
    /// The granularity: a mask over IPv4 addresses, or the prefix length for IPv6.
    pub granularity: Granularity,
    /// The persistence engine, such as `sip`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub engine: Option<String>,
}

/// The part of a client's address that identifies a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Granularity {
    /// A mask of any bit pattern; as in IPVS, its ones need not be contiguous.
    Mask(std::net::Ipv4Addr),
    /// A prefix length from 1 to 128.
    Prefix(u8),
}

/// A virtual service, as an operator configures it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Service {
    /// By what the service's packets are known.
    pub key: ServiceKey,
    /// How a server is picked for a new connection.
    pub scheduler: Scheduler,
    /// The flags of the scheduler.
    #[serde(default)]
    pub flags: SchedulerFlags,
    /// Whether a client keeps its server, and for how long.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub persistence: Option<Persistence>,
    /// The persistence engine of a service without persistence. It has no effect, but is kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idle_engine: Option<String>,
    /// One-packet scheduling: each datagram is scheduled anew.
    #[serde(default)]
    pub one_packet: bool,
    /// The settings that differ from the director's.
    #[serde(default, skip_serializing_if = "ServiceSettings::is_empty")]
    pub settings: ServiceSettings,
    /// How the director announces clients to servers of full NAT, if it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub announce: Option<Announce>,
}

/// How the director announces a client's address and port to a server of full NAT.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Announce {
    /// In an option of the SYN (TOA: TCP option address, kind 254), which `shunt agent toa` reads.
    Toa,
    /// In a header before the first byte (PROXY protocol, version 2), which HAProxy, nginx and many
    /// other servers read.
    Proxy,
}

impl fmt::Display for Announce {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Announce::Toa => "toa",
            Announce::Proxy => "proxy",
        })
    }
}

/// The three timeouts of `ipvsadm --set`, in seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Timeouts {
    /// The timeout of an established TCP connection.
    pub tcp_s: u32,
    /// The timeout of a TCP connection after a FIN.
    pub tcp_fin_s: u32,
    /// The timeout of a UDP flow.
    pub udp_s: u32,
}

impl Default for Timeouts {
    /// The kernel's defaults: `tcp_timeouts` and `udp_timeouts` in `net/netfilter/ipvs`.
    fn default() -> Self {
        Self {
            tcp_s: 900,
            tcp_fin_s: 120,
            udp_s: 300,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_is_read_as_it_is_printed_and_with_slashes() {
        for text in [
            "tcp 192.0.2.1:80",
            "udp [2001:db8::1]:53",
            "mark 7",
            "mark 7 ipv6",
        ] {
            let key: ServiceKey = text.parse().unwrap();
            assert_eq!(key.to_string(), text);
            assert_eq!(text.replace(' ', "/").parse(), Ok(key));
        }
    }

    #[test]
    fn what_is_no_service_is_told_why() {
        let told = |text: &str| text.parse::<ServiceKey>().unwrap_err().to_string();
        assert_eq!(
            told("tpc/192.0.2.1:80"),
            "unknown protocol \"tpc\", did you mean \"tcp\"?"
        );
        assert_eq!(
            told("tcp/192.0.2.1"),
            "\"192.0.2.1\" is not an address and port; write 192.0.2.1:80, \
             or [2001:db8::1]:80 for IPv6"
        );
        assert_eq!(
            told("mark 0"),
            "\"0\" is not a firewall mark; a mark is a number from 1 to 4294967295"
        );
        assert_eq!(
            told("web"),
            "\"web\" is not a service; write protocol, address and port, \
             such as tcp/192.0.2.1:80 or udp/[2001:db8::1]:53"
        );
    }
}
