//! Links: the devices of the machine, as far as forwarding cares about them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// A hardware address. All zero where the link has none.
pub type Mac = [u8; 6];

/// A device and its state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Link {
    /// The kernel's interface index. A later link may get the index of one that went.
    pub index: u32,
    /// The name at present.
    pub name: String,
    /// The link's own hardware address.
    pub mac: Mac,
    /// The longest packet in bytes.
    pub mtu: u32,
    /// Switched on by the operator.
    pub up: bool,
    /// The cable, or what stands for it, is connected.
    pub carrier: bool,
    /// The kind of a virtual device, such as `veth` or `bridge`. A network card has none.
    pub kind: Option<String>,
    /// The bridge, bond or team that takes this device's frames.
    pub master: Option<u32>,
    /// It is the loopback device, or one like it.
    pub loopback: bool,
    /// Its frames begin with an Ethernet header.
    pub ethernet: bool,
    /// Its frames are IP packets without a header in front: tun, WireGuard, PPP, IP tunnels.
    pub bare: bool,
    /// The kernel resolves no neighbours here: a point-to-point link, or `ip link set DEVICE arp
    /// off`.
    pub without_arp: bool,
}

impl Link {
    /// An Ethernet card that is up and connected, with an MTU of 1,500 bytes.
    #[must_use]
    pub fn card(index: u32, name: &str, mac: Mac) -> Self {
        Self {
            index,
            name: name.to_owned(),
            mac,
            mtu: 1500,
            up: true,
            carrier: true,
            kind: None,
            master: None,
            loopback: false,
            ethernet: true,
            bare: false,
            without_arp: false,
        }
    }

    /// Whether frames can leave through it.
    #[must_use]
    pub fn is_usable(&self) -> bool {
        self.up && self.carrier
    }

    /// Whether frames carry the hardware address of a neighbour.
    #[must_use]
    pub fn has_neighbours(&self) -> bool {
        self.ethernet && !self.loopback
    }

    /// Whether the kernel resolves its neighbours.
    #[must_use]
    pub fn resolves(&self) -> bool {
        self.has_neighbours() && !self.without_arp
    }
}

/// All links, by index.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Links(BTreeMap<u32, Link>);

impl Links {
    pub(super) fn get(&self, index: u32) -> Option<&Link> {
        self.0.get(&index)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Link> {
        self.0.values()
    }

    /// Adds or replaces a link; true if anything changed.
    pub(super) fn insert(&mut self, link: Link) -> bool {
        self.0.get(&link.index) != Some(&link) && {
            self.0.insert(link.index, link);
            true
        }
    }

    pub(super) fn remove(&mut self, index: u32) -> bool {
        self.0.remove(&index).is_some()
    }
}
