//! The machine as the kernel describes it over netlink: devices, addresses, default routes.

use std::future::Future;
use std::net::{IpAddr, Ipv4Addr};

use anyhow::{Context, Result, ensure};
use futures_util::TryStreamExt;
use netlink_packet_route::address::AddressScope;
use netlink_packet_route::address::{AddressAttribute, AddressHeaderFlags, AddressMessage};
use netlink_packet_route::link::{LinkAttribute, LinkFlags, LinkLayerType, LinkMessage};
use netlink_packet_route::route::{RouteAttribute, RouteMessage};
use rtnetlink::{Handle, RouteMessageBuilder};

#[derive(Clone, Debug, Default)]
pub(crate) struct Machine {
    pub devices: Vec<Device>,
    /// Indices of the devices of the best IPv4 default routes.
    pub default_by: Vec<u32>,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Device {
    pub index: u32,
    pub name: String,
    pub mtu: u32,
    pub is_ethernet: bool,
    pub is_loopback: bool,
    pub is_up: bool,
    pub addresses: Vec<IpAddr>,
}

impl Machine {
    pub(crate) fn look() -> Result<Machine> {
        ask(async |netlink: Handle| {
            let links: Vec<LinkMessage> = netlink.link().get().execute().try_collect().await?;
            let addresses: Vec<AddressMessage> =
                netlink.address().get().execute().try_collect().await?;
            let all = RouteMessageBuilder::<Ipv4Addr>::new().build();
            let routes: Vec<RouteMessage> =
                netlink.route().get(all).execute().try_collect().await?;
            let mut devices: Vec<Device> = links.iter().filter_map(device).collect();
            for message in &addresses {
                let index = message.header.index;
                let Some(device) = devices.iter_mut().find(|device| device.index == index) else {
                    continue;
                };
                device.addresses.extend(local(message));
            }
            Ok(Machine {
                devices,
                default_by: default_by(&routes),
            })
        })
        .context("cannot ask the kernel for its devices and addresses")
    }

    pub(crate) fn loopback(&self) -> Result<&Device> {
        self.devices
            .iter()
            .find(|device| device.is_loopback)
            .context("there is no device lo")
    }

    /// The devices on which the directors' packets arrive.
    pub(crate) fn facing(&self, names: &[String]) -> Result<Vec<&Device>> {
        if names.is_empty() {
            let numbered = |device: &&Device| {
                let address = |address: &IpAddr| !is_link_local(*address);
                device.is_ethernet && device.is_up && device.addresses.iter().any(address)
            };
            return Ok(self.devices.iter().filter(numbered).collect());
        }
        names.iter().map(|name| self.named(name)).collect()
    }

    fn named(&self, name: &str) -> Result<&Device> {
        let device = self.devices.iter().find(|device| device.name == name);
        let device = device.with_context(|| format!("there is no device {name}"))?;
        ensure!(device.is_ethernet, "{name} is not an Ethernet device");
        Ok(device)
    }

    /// The addresses at which a tunnel can end: all except virtual and link-local ones.
    pub(crate) fn own(&self, vips: &[IpAddr]) -> Vec<IpAddr> {
        let devices = self.devices.iter().filter(|device| !device.is_loopback);
        let addresses = devices.flat_map(|device| device.addresses.iter().copied());
        addresses
            .filter(|address| !vips.contains(address) && !is_link_local(*address))
            .collect()
    }
}

/// Puts a virtual address on the loopback device, as a single host.
pub(crate) fn add_address(index: u32, address: IpAddr) -> Result<()> {
    ask(async |netlink: Handle| {
        let mut request = netlink.address().add(index, address, host_length(address));
        let header = &mut request.message_mut().header;
        match address {
            // The kernel never chooses the address as a source of the machine's own connections.
            IpAddr::V4(_) => header.scope = AddressScope::Host,
            IpAddr::V6(_) => header.flags = AddressHeaderFlags::Nodad,
        }
        Ok(request.execute().await?)
    })
    .with_context(|| format!("cannot add {address} to lo"))
}

pub(crate) fn remove_address(index: u32, address: IpAddr) -> Result<()> {
    ask(async |netlink: Handle| {
        let all: Vec<AddressMessage> = netlink.address().get().execute().try_collect().await?;
        let there = |message: &AddressMessage| {
            message.header.index == index
                && message.header.prefix_len == host_length(address)
                && local(message) == Some(address)
        };
        for message in all.into_iter().filter(there) {
            netlink.address().del(message).execute().await?;
        }
        Ok(())
    })
    .with_context(|| format!("cannot remove {address} from lo"))
}

pub(crate) fn host_length(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

fn is_link_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => v4.is_link_local() || v4.is_loopback(),
        IpAddr::V6(v6) => v6.is_unicast_link_local() || v6.is_loopback(),
    }
}

/// Asks the kernel in the network namespace of the calling thread.
fn ask<R, F>(work: impl FnOnce(Handle) -> F) -> Result<R>
where
    F: Future<Output = Result<R>>,
{
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()
        .context("cannot start a runtime")?;
    runtime.block_on(async {
        let (connection, netlink, _) = rtnetlink::new_connection()?;
        tokio::spawn(connection);
        work(netlink).await
    })
}

fn device(message: &LinkMessage) -> Option<Device> {
    let mut device = Device {
        index: message.header.index,
        is_ethernet: message.header.link_layer_type == LinkLayerType::Ether,
        is_loopback: message.header.flags.contains(LinkFlags::Loopback),
        is_up: message.header.flags.contains(LinkFlags::Up),
        ..Device::default()
    };
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => device.name.clone_from(name),
            LinkAttribute::Mtu(mtu) => device.mtu = *mtu,
            _ => {}
        }
    }
    if device.name.is_empty() {
        None
    } else {
        Some(device)
    }
}

/// The machine's own address. On a point-to-point link `Address` is the peer's.
fn local(message: &AddressMessage) -> Option<IpAddr> {
    let mut found = None;
    for attribute in &message.attributes {
        match attribute {
            AddressAttribute::Local(address) => return Some(*address),
            AddressAttribute::Address(address) => found = Some(*address),
            _ => {}
        }
    }
    found
}

/// The devices of the default routes with the lowest metric.
fn default_by(routes: &[RouteMessage]) -> Vec<u32> {
    let metric = |route: &RouteMessage| {
        route
            .attributes
            .iter()
            .find_map(|attribute| match attribute {
                RouteAttribute::Priority(metric) => Some(*metric),
                _ => None,
            })
    };
    let defaults: Vec<_> = routes
        .iter()
        .filter(|route| route.header.destination_prefix_length == 0)
        .collect();
    let best = defaults
        .iter()
        .map(|route| metric(route).unwrap_or(0))
        .min();
    defaults
        .into_iter()
        .filter(|route| Some(metric(route).unwrap_or(0)) == best)
        .flat_map(|route| &route.attributes)
        .flat_map(|attribute| match attribute {
            RouteAttribute::Oif(index) => vec![*index],
            RouteAttribute::MultiPath(hops) => hops.iter().map(|hop| hop.interface_index).collect(),
            _ => Vec::new(),
        })
        .collect()
}
