//! Addresses, routes and neighbours of a host.

use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Context, Result};
use netlink_packet_route::address::{
    AddressAttribute, AddressFlags, AddressHeaderFlags, AddressMessage,
};
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState,
};
use netlink_packet_route::route::{RouteAttribute, RouteMessage, RouteMetric, RouteScope};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use rtnetlink::RouteMessageBuilder;

use crate::host::Host;
use crate::netlink::Mode;
use crate::prefix::Prefix;
use crate::wait::until;

const USABLE_LIMIT: Duration = Duration::from_secs(5);

/// A route, built in words: `Route::to("192.0.2.0/24").via(gateway)`.
#[derive(Clone, Debug)]
pub struct Route {
    to: String,
    via: Option<IpAddr>,
    device: Option<String>,
    on_link: bool,
    mtu: Option<u32>,
    source: Option<IpAddr>,
}

impl Route {
    /// Begins a route to a prefix or an address.
    pub fn to(to: impl fmt::Display) -> Route {
        Route {
            to: to.to_string(),
            via: None,
            device: None,
            on_link: false,
            mtu: None,
            source: None,
        }
    }

    /// The default route of the gateway's family.
    pub fn default_via(gateway: IpAddr) -> Route {
        match gateway {
            IpAddr::V4(_) => Route::to("0.0.0.0/0").via(gateway),
            IpAddr::V6(_) => Route::to("::/0").via(gateway),
        }
    }

    /// Leads by this gateway.
    pub fn via(mut self, gateway: IpAddr) -> Route {
        self.via = Some(gateway);
        self
    }

    /// Leads by this device. Without one, the kernel takes the gateway's.
    pub fn device(mut self, device: &str) -> Route {
        self.device = Some(device.to_owned());
        self
    }

    /// Treats the gateway as a neighbour on the device, even if no address of the host covers it
    /// (onlink).
    pub fn on_link(mut self) -> Route {
        self.on_link = true;
        self
    }

    /// Limits the packets of the route, in bytes.
    pub fn mtu(mut self, mtu: u32) -> Route {
        self.mtu = Some(mtu);
        self
    }

    /// Sets the source address that packets of this host prefer.
    pub fn source(mut self, address: IpAddr) -> Route {
        self.source = Some(address);
        self
    }

    fn message(&self, host: &Host) -> Result<RouteMessage> {
        let to: Prefix = self.to.parse()?;
        let mut route = RouteMessageBuilder::<IpAddr>::new();
        // The kernel expects the default route without a destination.
        if to.is_default() {
            route.get_mut().header.address_family = family(to.address);
        } else {
            route = route.destination_prefix(to.address, to.length)?;
        }
        if let Some(gateway) = self.via {
            route = route.gateway(gateway)?;
        } else if to.address.is_ipv4() {
            route = route.scope(RouteScope::Link);
        }
        if let Some(device) = &self.device {
            route = route.output_interface(host.index_of(device)?);
        }
        if let Some(source) = self.source {
            route = route.pref_source(source)?;
        }
        if self.on_link {
            route = route.onlink();
        }
        let mut message = route.build();
        if let Some(mtu) = self.mtu {
            message
                .attributes
                .push(RouteAttribute::Metrics(vec![RouteMetric::Mtu(mtu)]));
        }
        Ok(message)
    }
}

impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.to)?;
        if let Some(via) = self.via {
            write!(f, " via {via}")?;
        }
        if let Some(device) = &self.device {
            write!(f, " on {device}")?;
        }
        Ok(())
    }
}

impl Host {
    /// Gives a device an address, such as `host.address("front", "10.1.0.1/24")`, and waits until
    /// it is usable. Without a length the address has no network.
    pub fn address(&self, device: &str, address: impl fmt::Display) -> Result<()> {
        let prefix: Prefix = address.to_string().parse()?;
        let mut message = self.address_message(device, prefix)?;
        if prefix.address.is_ipv6() {
            message.header.flags = AddressHeaderFlags::Nodad;
        }
        self.ask(RouteNetlinkMessage::NewAddress(message), Mode::Create)
            .with_context(|| format!("host {self}: cannot add {prefix} to {device}"))?;
        if prefix.address.is_ipv6() {
            let what = format!("host {self}: {prefix} on {device} to become usable");
            until(&what, USABLE_LIMIT, || self.is_usable(prefix.address))?;
        }
        Ok(())
    }

    /// Removes an address from a device.
    pub fn remove_address(&self, device: &str, address: impl fmt::Display) -> Result<()> {
        let prefix: Prefix = address.to_string().parse()?;
        let message = self.address_message(device, prefix)?;
        self.ask(RouteNetlinkMessage::DelAddress(message), Mode::Change)
            .map(drop)
            .with_context(|| format!("host {self}: cannot remove {prefix} from {device}"))
    }

    /// The addresses of a device, without IPv6's link-local ones.
    pub fn addresses(&self, device: &str) -> Result<Vec<Prefix>> {
        let index = self.index_of(device)?;
        let mut found = Vec::new();
        for message in self.dump_addresses()? {
            let length = message.header.prefix_len;
            let Some(address) = address_of(&message) else {
                continue;
            };
            let link_local = matches!(address, IpAddr::V6(v6) if v6.is_unicast_link_local());
            if message.header.index == index && !link_local {
                found.push(Prefix { address, length });
            }
        }
        Ok(found)
    }

    /// Adds a route, or replaces the one to the same prefix.
    pub fn route(&self, route: &Route) -> Result<()> {
        let message = route.message(self)?;
        self.ask(RouteNetlinkMessage::NewRoute(message), Mode::Replace)
            .map(drop)
            .with_context(|| format!("host {self}: cannot add the route {route}"))
    }

    /// Removes a route.
    pub fn remove_route(&self, route: &Route) -> Result<()> {
        let message = route.message(self)?;
        self.ask(RouteNetlinkMessage::DelRoute(message), Mode::Change)
            .map(drop)
            .with_context(|| format!("host {self}: cannot remove the route {route}"))
    }

    /// Sets the MAC address of a neighbour permanently.
    pub fn neighbour(&self, device: &str, address: IpAddr, mac: [u8; 6]) -> Result<()> {
        let mut message = self.neighbour_message(device, address)?;
        message.header.state = NeighbourState::Permanent;
        message
            .attributes
            .push(NeighbourAttribute::LinkLayerAddress(mac.to_vec()));
        self.ask(RouteNetlinkMessage::NewNeighbour(message), Mode::Replace)
            .map(drop)
            .with_context(|| format!("host {self}: cannot set the neighbour {address} on {device}"))
    }

    /// Forgets the neighbour's MAC address, so that it must be resolved again. An unknown neighbour
    /// is not an error.
    pub fn forget_neighbour(&self, device: &str, address: IpAddr) -> Result<()> {
        let message = self.neighbour_message(device, address)?;
        match self.ask(RouteNetlinkMessage::DelNeighbour(message), Mode::Change) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error)
                .with_context(|| format!("host {self}: cannot forget {address} on {device}")),
            _ => Ok(()),
        }
    }

    fn neighbour_message(&self, device: &str, address: IpAddr) -> Result<NeighbourMessage> {
        let mut message = NeighbourMessage::default();
        message.header.family = family(address);
        message.header.ifindex = self.index_of(device)?;
        message
            .attributes
            .push(NeighbourAttribute::Destination(match address {
                IpAddr::V4(v4) => NeighbourAddress::Inet(v4),
                IpAddr::V6(v6) => NeighbourAddress::Inet6(v6),
            }));
        Ok(message)
    }

    fn address_message(&self, device: &str, prefix: Prefix) -> Result<AddressMessage> {
        let mut message = AddressMessage::default();
        message.header.family = family(prefix.address);
        message.header.prefix_len = prefix.length;
        message.header.index = self.index_of(device)?;
        message
            .attributes
            .push(AddressAttribute::Address(prefix.address));
        if prefix.address.is_ipv4() {
            message
                .attributes
                .push(AddressAttribute::Local(prefix.address));
        }
        Ok(message)
    }

    fn is_usable(&self, address: IpAddr) -> Result<bool> {
        let all = self.dump_addresses()?;
        Ok(all
            .iter()
            .filter(|message| address_of(message) == Some(address))
            .any(|message| {
                let header = message.header.flags.contains(AddressHeaderFlags::Tentative);
                let long = message.attributes.iter().any(|attribute| {
                    matches!(attribute, AddressAttribute::Flags(flags)
                    if flags.contains(AddressFlags::Tentative))
                });
                !header && !long
            }))
    }

    fn dump_addresses(&self) -> Result<Vec<AddressMessage>> {
        let answers = self
            .ask(
                RouteNetlinkMessage::GetAddress(AddressMessage::default()),
                Mode::Dump,
            )
            .with_context(|| format!("host {self}: cannot list the addresses"))?;
        Ok(answers
            .into_iter()
            .filter_map(|answer| match answer {
                RouteNetlinkMessage::NewAddress(message) => Some(message),
                _ => None,
            })
            .collect())
    }
}

fn family(address: IpAddr) -> AddressFamily {
    match address {
        IpAddr::V4(_) => AddressFamily::Inet,
        IpAddr::V6(_) => AddressFamily::Inet6,
    }
}

fn address_of(message: &AddressMessage) -> Option<IpAddr> {
    message
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            AddressAttribute::Address(address) => Some(*address),
            _ => None,
        })
}
