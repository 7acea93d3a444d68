//! The addresses of the classic bed. Hosts of a kind are numbered from one.
//!
//! | segment | IPv4 | IPv6 |
//! | --- | --- | --- |
//! | virtual addresses | 192.0.2.0/24 | 2001:db8:2::/64 |
//! | clients | 198.51.100.0/24 | 2001:db8:c::/64 |
//! | front: router, directors | 203.0.113.0/24 | 2001:db8:f::/64 |
//! | back: directors, servers | 10.1.0.0/24 | 2001:db8:1::/64 |
//! | far: servers behind a gateway | 10.1.1.0/24 | 2001:db8:1:1::/64 |

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::prefix::Prefix;

/// An address family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// Both families, for tests that hold for each.
    pub const BOTH: [Family; 2] = [Family::V4, Family::V6];

    /// The length of a single host's prefix.
    pub fn host_length(self) -> u8 {
        match self {
            Family::V4 => 32,
            Family::V6 => 128,
        }
    }
}

/// A network of the bed, or the range of virtual addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Segment {
    /// Virtual addresses, which no device has.
    Virtual,
    /// Clients and the router.
    Clients,
    /// The router and directors.
    Front,
    /// Directors and servers.
    Back,
    /// Servers behind a gateway.
    Far,
}

impl Segment {
    /// The network's address and prefix length: 24 bits of IPv4, 64 of IPv6.
    pub fn prefix(self, family: Family) -> Prefix {
        let length = match family {
            Family::V4 => 24,
            Family::V6 => 64,
        };
        Prefix {
            address: self.host(family, 0),
            length,
        }
    }

    /// The address with this number in the segment.
    pub fn host(self, family: Family, number: u8) -> IpAddr {
        let (a, b, c) = match self {
            Segment::Virtual => (192, 0, 2),
            Segment::Clients => (198, 51, 100),
            Segment::Front => (203, 0, 113),
            Segment::Back => (10, 1, 0),
            Segment::Far => (10, 1, 1),
        };
        let (third, fourth) = match self {
            Segment::Virtual => (0x2, 0),
            Segment::Clients => (0xc, 0),
            Segment::Front => (0xf, 0),
            Segment::Back => (0x1, 0),
            Segment::Far => (0x1, 1),
        };
        match family {
            Family::V4 => Ipv4Addr::new(a, b, c, number).into(),
            Family::V6 => {
                Ipv6Addr::new(0x2001, 0xdb8, third, fourth, 0, 0, 0, number.into()).into()
            }
        }
    }

    /// An address of the segment with the segment's prefix length, as a device gets it.
    pub(crate) fn with_length(self, family: Family, number: u8) -> Prefix {
        Prefix {
            address: self.host(family, number),
            length: self.prefix(family).length,
        }
    }
}

/// Numbers within a segment. Each is the number of the first host of its kind.
pub(crate) const CLIENTS_FROM: u8 = 10;
pub(crate) const DIRECTORS_FROM: u8 = 10;
pub(crate) const SERVERS_FROM: u8 = 100;
pub(crate) const ROUTER: u8 = 1;
/// Numbers on the back segment.
pub(crate) const ROUTER_BACK: u8 = 254;
pub(crate) const GATEWAY_BACK: u8 = 253;
pub(crate) const GATEWAY_FAR: u8 = 1;
