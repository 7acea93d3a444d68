//! The paths of routes and next-hop objects.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

/// One path of a route: a link, and the router on it. Without a router the target is on the link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Path {
    /// The kernel's index of the link.
    pub interface: u32,
    /// An IPv4 route may have an IPv6 gateway (RFC 5549).
    pub gateway: Option<IpAddr>,
}

/// A router on a link. The same address on another link is another router.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Gateway {
    /// The kernel's index of the link.
    pub interface: u32,
    /// The router's address on that link.
    pub address: IpAddr,
}

impl Path {
    pub(super) fn router(&self) -> Option<Gateway> {
        let interface = self.interface;
        self.gateway.map(|address| Gateway { interface, address })
    }
}
