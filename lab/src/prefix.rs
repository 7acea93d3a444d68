//! An address with a prefix length: `10.1.0.1/24`, `2001:db8::1`.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use anyhow::{Context, Result, bail};

/// An address and its prefix length. Without a length, the prefix is the whole address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Prefix {
    /// The address, whose bits beyond the length may be set.
    pub address: IpAddr,
    /// The prefix length in bits.
    pub length: u8,
}

impl Prefix {
    /// Whether every address is in the prefix.
    pub fn is_default(&self) -> bool {
        self.length == 0
    }

    fn full_length(address: IpAddr) -> u8 {
        match address {
            IpAddr::V4(_) => 32,
            IpAddr::V6(_) => 128,
        }
    }
}

impl FromStr for Prefix {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Prefix> {
        let (address, length) = match text.split_once('/') {
            Some((address, length)) => (address, Some(length)),
            None => (text, None),
        };
        let address: IpAddr = address
            .parse()
            .with_context(|| format!("{text:?} is not an address or prefix"))?;
        let full = Prefix::full_length(address);
        let length = match length {
            None => full,
            Some(length) => length
                .parse()
                .with_context(|| format!("{text:?} has no valid prefix length"))?,
        };
        if length > full {
            bail!("{text:?} has a prefix length above {full}");
        }
        Ok(Prefix { address, length })
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_without_a_length_is_a_network_of_one() {
        assert_eq!(
            "10.1.0.1".parse::<Prefix>().unwrap().to_string(),
            "10.1.0.1/32"
        );
        assert_eq!(
            "2001:db8::1".parse::<Prefix>().unwrap().to_string(),
            "2001:db8::1/128"
        );
    }

    #[test]
    fn a_length_beyond_the_family_is_refused() {
        assert!("10.1.0.1/33".parse::<Prefix>().is_err());
        assert!("2001:db8::/129".parse::<Prefix>().is_err());
        assert!("10.1.0.1/".parse::<Prefix>().is_err());
        assert!("ten/8".parse::<Prefix>().is_err());
    }
}
