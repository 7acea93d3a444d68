//! Addresses of the machine itself, and which of them it speaks from.

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::routes::Prefix;

/// An address on a link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    pub interface: u32,
    pub address: IpAddr,
    /// The length of the network prefix it came with.
    pub length: u8,
    /// RFC 4862, 5.4: tentative or duplicate addresses, and (5.5.4) deprecated ones, are not for
    /// new conversations. IPv4 secondary addresses are treated alike: the kernel prefers others.
    pub preferred: bool,
    /// Valid on one link or one host only.
    pub narrow: bool,
}

/// All addresses, in the order in which the kernel told them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Addresses(Vec<Address>);

impl Addresses {
    pub fn contains(&self, address: IpAddr) -> bool {
        self.0.iter().any(|known| known.address == address)
    }

    pub fn all(&self) -> BTreeSet<IpAddr> {
        self.0.iter().map(|known| known.address).collect()
    }

    /// Says whether anything is different afterwards.
    pub fn insert(&mut self, address: Address) -> bool {
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

    pub fn remove(&mut self, interface: u32, address: IpAddr) -> bool {
        let before = self.0.len();
        self.0
            .retain(|known| known.interface != interface || known.address != address);
        self.0.len() != before
    }

    pub fn remove_link(&mut self, interface: u32) {
        self.0.retain(|known| known.interface != interface);
    }

    /// The address the machine speaks from when `to` is reached over `interface` and `gateway`.
    ///
    /// As the kernel chooses (`inet_select_addr`; RFC 6724, 5 for IPv6, without the rules about
    /// labels and privacy): wide addresses before narrow ones unless the target is narrow itself,
    /// those of the link before those of other links, preferred before others, those in the
    /// network of the gateway before others. Then those with a network of their own, because a
    /// virtual address has none and may move away; among equals the one that was there first.
    pub fn source(&self, to: IpAddr, interface: u32, gateway: Option<IpAddr>) -> Option<IpAddr> {
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
