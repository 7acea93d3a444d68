//! Local addresses: the source addresses that servers of full NAT see in place of clients.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A range of ports, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct LocalPorts {
    /// The lowest port, at least 1.
    pub first: u16,
    /// The highest port.
    pub last: u16,
}

impl LocalPorts {
    /// The number of ports in the range.
    #[must_use]
    pub fn count(self) -> u32 {
        u32::from(self.last.saturating_sub(self.first)) + 1
    }
}

impl Default for LocalPorts {
    /// The range ends below the ports that Linux gives to its own connections
    /// (`ip_local_port_range`) and begins above the well-known ports.
    fn default() -> Self {
        Self {
            first: 1024,
            last: 32_767,
        }
    }
}

impl fmt::Display for LocalPorts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.first, self.last)
    }
}

impl FromStr for LocalPorts {
    type Err = UnreadablePorts;

    /// `1024-32767`.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let ends = text
            .split_once('-')
            .map(|(first, last)| (first.parse(), last.parse()));
        match ends {
            Some((Ok(first), Ok(last))) if 0 < first && first <= last => Ok(Self { first, last }),
            _ => Err(UnreadablePorts {
                text: text.to_owned(),
            }),
        }
    }
}

/// The text is not a range of ports.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("\"{text}\" is not a range of ports from 1 to 65535; write it as 1024-32767")]
pub struct UnreadablePorts {
    /// The text as it was given.
    pub text: String,
}

/// A local address of the director and the ports of it that full NAT may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LocalAddress {
    /// An address that the servers route to the director.
    pub address: IpAddr,
    /// The ports of this address that full NAT may use.
    pub ports: LocalPorts,
}

impl fmt::Display for LocalAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ports {}", self.address, self.ports)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_read_as_they_are_printed() {
        let ports: LocalPorts = "1024-2047".parse().unwrap();
        assert_eq!(
            (ports.to_string().as_str(), ports.count()),
            ("1024-2047", 1024)
        );
        for text in ["", "1024", "0-5", "9-8", "1-65536", "a-b"] {
            let told = text.parse::<LocalPorts>().unwrap_err().to_string();
            assert!(told.contains("not a range of ports"), "{told}");
        }
    }
}
