//! The origin that a rule may ask for: a network of clients, a device, or both.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::Family;

/// A network: an address and a prefix length, with no bit set beyond that length.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Network {
    address: IpAddr,
    length: u8,
}

impl Network {
    /// The address, whose bits beyond the length are zero.
    #[must_use]
    pub fn address(self) -> IpAddr {
        self.address
    }

    /// The prefix length in bits: at most 32 for IPv4, 128 for IPv6.
    #[must_use]
    pub fn length(self) -> u8 {
        self.length
    }
}

/// The address with all bits beyond the prefix length cleared.
fn masked(address: IpAddr, length: u8) -> IpAddr {
    match address {
        IpAddr::V4(v4) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(length)).unwrap_or(0);
            IpAddr::V4((u32::from(v4) & mask).into())
        }
        IpAddr::V6(v6) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(length)).unwrap_or(0);
            IpAddr::V6((u128::from(v6) & mask).into())
        }
    }
}

impl FromStr for Network {
    type Err = UnreadableOrigin;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let form = || UnreadableOrigin::Network {
            text: text.to_owned(),
        };
        let (address, length) = text.split_once('/').unwrap_or((text, ""));
        let address: IpAddr = address.parse().map_err(|_| form())?;
        let whole = if address.is_ipv6() { 128 } else { 32 };
        let length = match length {
            "" => whole,
            length => length
                .parse()
                .ok()
                .filter(|length| *length <= whole)
                .ok_or_else(form)?,
        };
        let network = masked(address, length);
        if network != address {
            return Err(UnreadableOrigin::Host {
                text: text.to_owned(),
                network: format!("{network}/{length}"),
            });
        }
        Ok(Self { address, length })
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.length)
    }
}

impl TryFrom<String> for Network {
    type Error = UnreadableOrigin;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<Network> for String {
    fn from(network: Network) -> Self {
        network.to_string()
    }
}

/// The longest name of a device: `IFNAMSIZ` without the terminating zero.
const LONGEST: usize = 15;

/// The name of a network device.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Device {
    bytes: [u8; LONGEST],
    length: u8,
}

impl Device {
    /// The name, as the kernel writes it.
    #[must_use]
    pub fn name(&self) -> &str {
        let bytes = self.bytes.get(..self.length.into()).unwrap_or_default();
        std::str::from_utf8(bytes).unwrap_or_default()
    }
}

impl FromStr for Device {
    type Err = UnreadableOrigin;

    // The rules are those of the kernel's `dev_valid_name`.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let is_bad = |letter: char| letter == '/' || letter == ':' || letter.is_whitespace();
        let mut bytes = [0; LONGEST];
        match bytes.get_mut(..text.len()) {
            Some(place) if !matches!(text, "" | "." | "..") && !text.contains(is_bad) => {
                place.copy_from_slice(text.as_bytes());
            }
            _ => {
                return Err(UnreadableOrigin::Device {
                    text: text.to_owned(),
                });
            }
        }
        let length = text.len() as u8;
        Ok(Self { bytes, length })
    }
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl fmt::Debug for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.name())
    }
}

impl TryFrom<String> for Device {
    type Error = UnreadableOrigin;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<Device> for String {
    fn from(device: Device) -> Self {
        device.to_string()
    }
}

/// The origin that a rule asks for. An empty one matches every packet.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Origin {
    /// The client's address is in this network.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<Network>,
    /// The packet came in by this device.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<Device>,
}

impl Origin {
    /// Whether the rule asks for no network and no device.
    #[must_use]
    pub fn is_anywhere(&self) -> bool {
        *self == Self::default()
    }

    /// The address family of the network, if there is one.
    #[must_use]
    pub fn family(&self) -> Option<Family> {
        self.network.map(|network| Family::from(network.address))
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.network, self.device) {
            (None, None) => f.write_str("anywhere"),
            (Some(network), None) => write!(f, "{network}"),
            (None, Some(device)) => write!(f, "{device}"),
            (Some(network), Some(device)) => write!(f, "{network} by {device}"),
        }
    }
}

/// The text is not an origin.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "the text of each variant describes it")]
pub enum UnreadableOrigin {
    #[error(
        "\"{text}\" is not a network; write an address and a prefix length, such as 10.0.0.0/8"
    )]
    Network { text: String },
    #[error("\"{text}\" has bits set beyond its prefix length; write {network}")]
    Host { text: String, network: String },
    #[error("\"{text}\" is not a device name: 1 to 15 bytes, without / : or blanks")]
    Device { text: String },
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told<T: FromStr<Err = UnreadableOrigin> + fmt::Debug>(text: &str) -> String {
        text.parse::<T>().unwrap_err().to_string()
    }

    #[test]
    fn networks_are_read_and_written() {
        for text in ["10.0.0.0/8", "0.0.0.0/0", "2001:db8::/32", "::/0"] {
            assert_eq!(text.parse::<Network>().unwrap().to_string(), text);
        }
        let one: Network = "192.0.2.7".parse().unwrap();
        assert_eq!(one.to_string(), "192.0.2.7/32");
    }

    #[test]
    fn what_is_no_network_is_told_why() {
        assert_eq!(
            told::<Network>("10.1.2.3/8"),
            "\"10.1.2.3/8\" has bits set beyond its prefix length; write 10.0.0.0/8"
        );
        for text in ["10.0.0.0/33", "10.0.0/8", "2001:db8::/129", "10.0.0.0/-1"] {
            assert!(told::<Network>(text).contains("is not a network"), "{text}");
        }
    }

    #[test]
    fn devices_have_names_that_the_kernel_takes() {
        assert_eq!("eth0.100".parse::<Device>().unwrap().name(), "eth0.100");
        for text in ["", ".", "..", "a/b", "a b", "eth0:1", "0123456789abcdef"] {
            assert!(told::<Device>(text).contains("not a device name"), "{text}");
        }
    }
}
