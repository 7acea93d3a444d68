//! The operator's options.

use std::net::IpAddr;

use anyhow::{Result, ensure};
use serde::{Deserialize, Serialize};

/// What a real server is set up for. The agent keeps it as a file, for `leave` and `check`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Options {
    /// Virtual addresses to serve.
    pub vips: Vec<IpAddr>,
    /// Devices on which packets arrive. If none is named: all devices that have an address.
    pub devices: Vec<String>,
    /// Packets arrive in tunnels, which the agent must decapsulate.
    pub tunnel: bool,
    /// The encapsulation whose overhead is assumed. Every kind is decapsulated.
    pub kind: Kind,
    /// The UDP port at which GUE tunnels end; 0 disables GUE.
    pub gue_port: u16,
    /// The only sources from which tunnels are accepted.
    pub directors: Vec<IpAddr>,
    /// Tunnels are accepted from every source, if no director is named.
    pub anyone: bool,
    /// Bytes that a tunnel adds. Without it, they follow from the directors' addresses.
    pub overhead: Option<u16>,
    /// Where tunnels are decapsulated.
    pub hook: Hook,
}

/// The port that IANA registered for `gue`.
pub(crate) const GUE_PORT: u16 = 6080;

impl Default for Options {
    fn default() -> Options {
        Options {
            vips: Vec::new(),
            devices: Vec::new(),
            tunnel: false,
            kind: Kind::default(),
            gue_port: GUE_PORT,
            directors: Vec::new(),
            anyone: false,
            overhead: None,
            hook: Hook::default(),
        }
    }
}

/// The encapsulation of a packet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// IP in IP.
    #[default]
    Ipip,
    /// Generic UDP encapsulation.
    Gue,
    /// Generic routing encapsulation, with a checksum or without.
    Gre,
}

impl Kind {
    /// Bytes between the outer IP header and the packet: UDP and GUE, or GRE with its checksum.
    fn own(self) -> u16 {
        match self {
            Kind::Ipip => 0,
            Kind::Gue => 12,
            Kind::Gre => 8,
        }
    }
}

/// Where tunnels are decapsulated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Hook {
    /// tc, which keeps offloads and attaches without interrupting the device. On kernels before
    /// 6.3, whose tc cannot remove an IPv6 header from an IPv4 packet or the reverse: generic XDP.
    #[default]
    Auto,
    /// tc, on every kernel.
    Tc,
    /// XDP in the driver.
    Native,
    /// XDP in the kernel's generic path. It does not see what a tc program of the same machine
    /// redirected, for example a director in a neighbouring container.
    Generic,
}

const OUTER_V4: u16 = 20;
const OUTER_V6: u16 = 40;
/// The largest overhead. No header is longer, and a longer one would leave no room for packets.
const OVERHEAD_MOST: u16 = 256;

impl Options {
    pub(crate) fn check(&self) -> Result<()> {
        ensure!(
            !self.vips.is_empty(),
            "no virtual address; name at least one"
        );
        for address in &self.vips {
            ensure!(
                !address.is_unspecified() && !address.is_loopback() && !address.is_multicast(),
                "{address} cannot be a virtual address"
            );
            ensure!(
                !self.directors.contains(address),
                "{address} cannot be both a virtual address and a director"
            );
        }
        let overhead = self.overhead.unwrap_or_default();
        ensure!(
            overhead <= OVERHEAD_MOST,
            "an overhead of {overhead} bytes is too large; the limit is {OVERHEAD_MOST}"
        );
        Ok(())
    }

    /// The sources of tunnels must be named: a host that may send a tunnel gets its packets past
    /// the filters in front of this machine.
    pub(crate) fn check_believed(&self) -> Result<()> {
        ensure!(
            !self.tunnel || self.anyone || !self.directors.is_empty(),
            "whose tunnels? name each director with --director ADDRESS, or accept every source \
             with --from any"
        );
        Ok(())
    }

    /// Bytes added to each packet. If the directors are not known, the larger value is used.
    pub(crate) fn overhead(&self) -> u16 {
        let all_v4 = self.directors.iter().all(IpAddr::is_ipv4);
        match self.overhead {
            Some(bytes) => bytes,
            None if all_v4 && !self.directors.is_empty() => OUTER_V4 + self.kind.own(),
            None => OUTER_V6 + self.kind.own(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_overhead_is_that_of_the_directors_addresses_or_the_larger() {
        let of = |directors: &[&str]| {
            let directors = directors.iter().map(|text| text.parse().unwrap()).collect();
            Options {
                directors,
                ..Options::default()
            }
            .overhead()
        };
        assert_eq!(of(&["10.1.0.1", "10.1.0.2"]), 20);
        assert_eq!(of(&["10.1.0.1", "2001:db8::1"]), 40);
        assert_eq!(of(&[]), 40);
        for (kind, bytes) in [(Kind::Gue, 52), (Kind::Gre, 48)] {
            let options = Options {
                kind,
                ..Options::default()
            };
            assert_eq!(options.overhead(), bytes);
        }
        assert_eq!(
            Options {
                overhead: Some(28),
                ..Options::default()
            }
            .overhead(),
            28
        );
    }

    #[test]
    fn tunnels_are_taken_only_from_whom_the_operator_names() {
        let of = |tunnel, anyone, directors: &[&str]| {
            let directors = directors.iter().map(|text| text.parse().unwrap()).collect();
            let options = Options {
                tunnel,
                anyone,
                directors,
                ..Options::default()
            };
            options.check_believed()
        };
        let told = of(true, false, &[]).unwrap_err().to_string();
        assert!(
            told.contains("--director") && told.contains("--from any"),
            "{told}"
        );
        assert!(of(true, true, &[]).is_ok());
        assert!(of(true, false, &["10.1.0.1"]).is_ok());
        assert!(of(false, false, &[]).is_ok());
    }

    #[test]
    fn what_cannot_be_a_virtual_address_is_refused() {
        for address in ["127.0.0.1", "0.0.0.0", "224.0.0.1", "::1"] {
            let vips = vec![address.parse().unwrap()];
            assert!(
                Options {
                    vips,
                    ..Options::default()
                }
                .check()
                .is_err(),
                "{address}"
            );
        }
        assert!(Options::default().check().is_err());
    }
}
