//! Devices: creating, joining and changing them.

use std::io;

use anyhow::{Context, Result};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{
    InfoData, InfoVeth, LinkAttribute, LinkFlags, LinkMessage, State,
};
use rtnetlink::{LinkBridge, LinkMessageBuilder, LinkUnspec, LinkVeth};

use crate::host::Host;
use crate::netlink::Mode;

/// The kernel's description of a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// The kernel's interface index.
    pub index: u32,
    /// The name at present.
    pub name: String,
    /// The hardware address; zeros if the device has none.
    pub mac: [u8; 6],
    /// The longest packet in bytes.
    pub mtu: u32,
    /// Whether the device is set up.
    pub up: bool,
    /// Whether the device has a carrier, so that frames can pass.
    pub running: bool,
}

/// A cable: joins two hosts by a pair of devices, and sets both up. `a` and `b` may be the same
/// host.
pub fn veth(a: &Host, name_a: &str, b: &Host, name_b: &str) -> Result<()> {
    let peer = LinkUnspec::new_with_name(name_b)
        .setns_by_fd(b.fd())
        .build();
    let request = LinkMessageBuilder::<LinkVeth>::new(name_a, name_b)
        .set_info_data(InfoData::Veth(InfoVeth::Peer(peer)))
        .build();
    a.ask(RouteNetlinkMessage::NewLink(request), Mode::Create)
        .with_context(|| format!("cannot join {a} ({name_a}) and {b} ({name_b}) by a veth pair"))?;
    // Neither end can be set up in the same request: it has no peer yet.
    a.up(name_a)?;
    b.up(name_b)
}

impl Host {
    /// Makes a switch: a bridge without spanning tree, which forwards from the start.
    pub fn bridge(&self, name: &str) -> Result<()> {
        let request = LinkBridge::new(name)
            .forward_delay(0)
            .mcast_snooping(false)
            .up()
            .build();
        self.ask(RouteNetlinkMessage::NewLink(request), Mode::Create)
            .map(drop)
            .with_context(|| format!("host {self}: cannot make the bridge {name}"))
    }

    /// Makes a device a port of a bridge of the same host.
    pub fn bridge_port(&self, bridge: &str, device: &str) -> Result<()> {
        let bridge_index = self.link(bridge)?.index;
        self.change(device, "join a bridge", |link| {
            link.controller(bridge_index)
        })
    }

    /// The device with this name.
    pub fn link(&self, device: &str) -> Result<Link> {
        let request = LinkUnspec::new_with_name(device).build();
        let answers = self
            .ask(RouteNetlinkMessage::GetLink(request), Mode::Change)
            .with_context(|| format!("host {self}: cannot find device {device}"))?;
        answers
            .into_iter()
            .find_map(read_link)
            .with_context(|| format!("host {self}: the kernel does not describe {device}"))
    }

    /// All devices, by index.
    pub fn links(&self) -> Result<Vec<Link>> {
        let answers = self
            .ask(
                RouteNetlinkMessage::GetLink(LinkMessage::default()),
                Mode::Dump,
            )
            .with_context(|| format!("host {self}: cannot list the devices"))?;
        let mut links: Vec<Link> = answers.into_iter().filter_map(read_link).collect();
        links.sort_by_key(|link| link.index);
        Ok(links)
    }

    /// Sets a device up.
    pub fn up(&self, device: &str) -> Result<()> {
        self.change(device, "set up", LinkMessageBuilder::up)
    }

    /// Sets a device down, which also removes its routes.
    pub fn down(&self, device: &str) -> Result<()> {
        self.change(device, "set down", LinkMessageBuilder::down)
    }

    /// Sets the longest packet of a device, in bytes.
    pub fn set_mtu(&self, device: &str, mtu: u32) -> Result<()> {
        self.change(device, "change the MTU", |link| link.mtu(mtu))
    }

    /// Lets a device send and join frames of up to so many bytes, above 64 kB too (BIG TCP).
    pub fn set_largest_frame(&self, device: &str, bytes: u32) -> Result<()> {
        let sizes = [
            LinkAttribute::GsoMaxSize(bytes),
            LinkAttribute::GroMaxSize(bytes),
            LinkAttribute::GsoIpv4MaxSize(bytes),
            LinkAttribute::GroIpv4MaxSize(bytes),
        ];
        for size in sizes {
            self.change(device, "change the largest frame", |link| {
                link.append_extra_attribute(size)
            })?;
        }
        Ok(())
    }

    /// Gives a device another hardware address.
    pub fn set_mac(&self, device: &str, mac: [u8; 6]) -> Result<()> {
        self.change(device, "change the MAC", |link| link.address(mac.to_vec()))
    }

    /// Gives a device another name, as an operator does.
    pub fn rename(&self, device: &str, name: &str) -> Result<()> {
        self.change(device, "rename", |link| link.name(name))
    }

    /// Deletes a device. The other end of a veth pair is deleted with it.
    pub fn delete(&self, device: &str) -> Result<()> {
        let index = self.link(device)?.index;
        let request = LinkUnspec::new_with_index(index).build();
        self.ask(RouteNetlinkMessage::DelLink(request), Mode::Change)
            .map(drop)
            .with_context(|| format!("host {self}: cannot delete {device}"))
    }

    fn change(
        &self,
        device: &str,
        what: &str,
        with: impl FnOnce(LinkMessageBuilder<LinkUnspec>) -> LinkMessageBuilder<LinkUnspec>,
    ) -> Result<()> {
        let index = self.link(device)?.index;
        let request = with(LinkUnspec::new_with_index(index)).build();
        self.ask(RouteNetlinkMessage::SetLink(request), Mode::Change)
            .map(drop)
            .with_context(|| format!("host {self}: cannot {what}: {device}"))
    }

    pub(crate) fn index_of(&self, device: &str) -> Result<u32> {
        Ok(self.link(device)?.index)
    }
}

fn read_link(answer: RouteNetlinkMessage) -> Option<Link> {
    let RouteNetlinkMessage::NewLink(message) = answer else {
        return None;
    };
    let mut link = Link {
        index: message.header.index,
        name: String::new(),
        mac: [0; 6],
        mtu: 0,
        up: message.header.flags.contains(LinkFlags::Up),
        running: false,
    };
    for attribute in message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name = name,
            LinkAttribute::Mtu(mtu) => link.mtu = mtu,
            LinkAttribute::Address(mac) => link.mac = mac.try_into().unwrap_or_default(),
            LinkAttribute::OperState(state) => {
                link.running = matches!(state, State::Up | State::Unknown);
            }
            _ => {}
        }
    }
    Some(link)
}

/// Whether the error means that the object exists already.
pub fn is_present(error: &anyhow::Error) -> bool {
    let cause = error.downcast_ref::<io::Error>();
    cause.is_some_and(|cause| cause.raw_os_error() == Some(libc::EEXIST))
}
