//! The machine's own addresses, and which of them is the source of a packet.

use std::collections::BTreeSet;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::routes::Prefix;

/// An address on a link.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Address {
    /// The kernel's index of the link.
    pub interface: u32,
    /// The address itself, not that of its network.
    pub address: IpAddr,
    /// The prefix length of its network.
    pub length: u8,
    /// False for tentative and duplicate addresses (RFC 4862, 5.4), deprecated ones (5.5.4), and
    /// IPv4 secondary ones: the kernel prefers other sources.
    pub preferred: bool,
    /// Valid on one link or one host only.
    pub narrow: bool,
}

/// All addresses, in the order in which the kernel reported them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Addresses(Vec<Address>);

impl Addresses {
    pub(super) fn contains(&self, address: IpAddr) -> bool {
        self.0.iter().any(|known| known.address == address)
    }

    pub(super) fn all(&self) -> BTreeSet<IpAddr> {
        self.0.iter().map(|known| known.address).collect()
    }

    /// Adds or replaces an address; true if anything changed.
    pub(super) fn insert(&mut self, address: Address) -> bool {
        let place = self.0.iter().position(|known| {
            known.interface == address.interface && known.address == address.address
        });
        match place {
            Some(place) if self.0[place] == address => false,
            Some(place) => {
                self.0[place] = address;
                true
            }
            None => {
                self.0.push(address);
                true
            }
        }
    }

    pub(super) fn remove(&mut self, interface: u32, address: IpAddr) -> bool {
        let before = self.0.len();
        self.0
            .retain(|known| known.interface != interface || known.address != address);
        self.0.len() != before
    }

    pub(super) fn remove_link(&mut self, interface: u32) {
        self.0.retain(|known| known.interface != interface);
    }

    /// The source address of packets to `to` over `interface` and `gateway`.
    ///
    /// The order is the kernel's (`inet_select_addr`; RFC 6724, 5 for IPv6, without the rules about
    /// labels and privacy). Wide addresses come before narrow ones unless the target is narrow,
    /// addresses of the link before those of other links, preferred addresses before the rest, and
    /// addresses in the network of the gateway or target before the rest. Then come addresses with
    /// a network of their own, because a virtual address has none and may move away. Among equals
    /// the oldest is chosen.
    pub(super) fn source(
        &self,
        to: IpAddr,
        interface: u32,
        gateway: Option<IpAddr>,
    ) -> Option<IpAddr> {
        let neighbour = gateway.unwrap_or(to);
        let to_narrow = is_link_local(to);
        self.0
            .iter()
            .filter(|own| own.address.is_ipv4() == to.is_ipv4())
            .filter(|own| !own.narrow || (to_narrow && own.interface == interface))
            .min_by_key(|own| {
                let network = Prefix::new(own.address, own.length);
                (
                    own.narrow != to_narrow,
                    own.interface != interface,
                    !own.preferred,
                    !network.contains(neighbour) && !network.contains(to),
                    network.is_host(),
                )
            })
            .map(|own| own.address)
    }
}

fn is_link_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.is_link_local(),
        IpAddr::V6(address) => address.is_unicast_link_local(),
    }
}
