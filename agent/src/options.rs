//! What the operator asks for.

use std::net::IpAddr;

use anyhow::{Result, ensure};
use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Options {
    /// Virtual addresses to serve.
    pub vips: Vec<IpAddr>,
    /// Devices by which packets come; all that have an address if none is named.
    pub devices: Vec<String>,
    /// Packets come by tunnels, which are to be taken off here.
    pub tunnel: bool,
    /// What tunnels come in. All are taken off; this one says how many bytes it adds.
    pub kind: Kind,
    /// The UDP port that GUE tunnels end at; 0: none does.
    pub gue_port: u16,
    /// The only ends of tunnels that are believed.
    pub directors: Vec<IpAddr>,
    /// Everybody's tunnels are believed, if no director is named.
    pub anyone: bool,
    /// Bytes that a tunnel puts before a packet. Without it, what the directors' addresses say.
    pub overhead: Option<u16>,
    pub hook: Hook,
}

/// IANA: `gue`.
pub const GUE_PORT: u16 = 6080;

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

/// What a packet travels in.
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

/// Where tunnels are taken off.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Hook {
    /// tc, which keeps offloads and attaches without a stop of the device; generic XDP on kernels
    /// before 6.3, whose tc cannot take an IPv6 header off an IPv4 packet or the reverse.
    #[default]
    Auto,
    Tc,
    /// XDP in the driver.
    Native,
    /// XDP in the kernel's own path. It does not see what a tc program of the same machine
    /// redirected, as a director in a neighbouring container does.
    Generic,
}

const OUTER_V4: u16 = 20;
const OUTER_V6: u16 = 40;
/// More could not be a header, and would leave no room for packets.
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
            "an overhead of {overhead} bytes is too much; {OVERHEAD_MOST} are the most"
        );
        Ok(())
    }

    /// Whose tunnels are taken must be said: whoever may send one gets packets past what guards
    /// this machine.
    pub(crate) fn check_believed(&self) -> Result<()> {
        ensure!(
            !self.tunnel || self.anyone || !self.directors.is_empty(),
            "whose tunnels? name each director with --director ADDRESS, or say --from any to take \
             everybody's"
        );
        Ok(())
    }

    /// Bytes before each packet. Who does not know the directors is on the safe side.
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
