//! The messages on the socket: rtnetlink's, and messages about next-hop objects, which the library
//! does not parse.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use netlink_packet_route::RouteNetlinkMessage;
use rtnetlink::packet_core::{NetlinkDeserializable, NetlinkHeader, NetlinkSerializable};
use shunt_control::network::objects::{Kind, Object};
use shunt_control::network::routes::Path;

// `linux/rtnetlink.h`.
const NEW: u16 = 104;
const DELETED: u16 = 105;
const GET: u16 = 106;

/// `struct nhmsg`.
const HEADER: usize = 8;

// `linux/nexthop.h`.
const ID: u16 = 1;
const GROUP: u16 = 2;
const BLACKHOLE: u16 = 4;
const INTERFACE: u16 = 5;
const GATEWAY: u16 = 6;
const FDB: u16 = 11;
/// `struct nexthop_grp`.
const MEMBER: usize = 8;
/// The bits of an attribute's type that are its number.
const NUMBER: u16 = 0x3fff;

/// One message.
#[derive(Clone, Debug)]
pub(super) enum Message {
    Route(RouteNetlinkMessage),
    /// A next-hop object; `None` if routes do not use it.
    Object(Option<Object>),
    ObjectDeleted(u32),
    GetObjects,
}

impl NetlinkDeserializable for Message {
    type Error = io::Error;

    fn deserialize(header: &NetlinkHeader, payload: &[u8]) -> Result<Self, io::Error> {
        let cut = || {
            io::Error::new(
                io::ErrorKind::InvalidData,
                "next-hop object without a number",
            )
        };
        match header.message_type {
            NEW => Ok(Self::Object(object(payload))),
            DELETED => number(payload).map(Self::ObjectDeleted).ok_or_else(cut),
            _ => RouteNetlinkMessage::deserialize(header, payload)
                .map(Self::Route)
                .map_err(io::Error::other),
        }
    }
}

impl NetlinkSerializable for Message {
    fn message_type(&self) -> u16 {
        match self {
            Self::Route(message) => message.message_type(),
            Self::Object(_) => NEW,
            Self::ObjectDeleted(_) => DELETED,
            Self::GetObjects => GET,
        }
    }

    fn buffer_len(&self) -> usize {
        match self {
            Self::Route(message) => message.buffer_len(),
            // The daemon never sends these.
            Self::Object(_) | Self::ObjectDeleted(_) | Self::GetObjects => HEADER,
        }
    }

    fn serialize(&self, buffer: &mut [u8]) {
        match self {
            Self::Route(message) => message.serialize(buffer),
            Self::Object(_) | Self::ObjectDeleted(_) | Self::GetObjects => buffer.fill(0),
        }
    }
}

/// The type and value of each attribute.
pub fn attributes(bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        let length = usize::from(u16::from_ne_bytes(rest.get(..2)?.try_into().ok()?));
        let kind = u16::from_ne_bytes(rest.get(2..4)?.try_into().ok()?);
        let value = rest.get(4..length)?;
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind & NUMBER, value))
    })
}

fn word(bytes: &[u8]) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(..4)?.try_into().ok()?))
}

fn number(payload: &[u8]) -> Option<u32> {
    let mut attributes = attributes(payload.get(HEADER..)?);
    attributes.find_map(|(kind, value)| (kind == ID).then(|| word(value))?)
}

fn ip(bytes: &[u8]) -> Option<IpAddr> {
    let v4 = <[u8; 4]>::try_from(bytes).map(Ipv4Addr::from);
    let v6 = <[u8; 16]>::try_from(bytes).map(Ipv6Addr::from);
    v4.map(IpAddr::from).or(v6.map(IpAddr::from)).ok()
}

fn object(payload: &[u8]) -> Option<Object> {
    let (mut interface, mut gateway) = (None, None);
    let (mut members, mut blackhole) = (None, false);
    for (kind, value) in attributes(payload.get(HEADER..)?) {
        match kind {
            GROUP => members = Some(value.chunks_exact(MEMBER).filter_map(word).collect()),
            BLACKHOLE => blackhole = true,
            INTERFACE => interface = word(value),
            GATEWAY => gateway = ip(value),
            // Bridges and VXLAN use such an object, routes do not.
            FDB => return None,
            _ => {}
        }
    }
    let kind = match (members, interface) {
        (Some(members), _) => Kind::Group(members),
        (None, _) if blackhole => Kind::Blackhole,
        (None, Some(interface)) => Kind::Path(Path { interface, gateway }),
        (None, None) => return None,
    };
    let id = number(payload)?;
    Some(Object { id, kind })
}
