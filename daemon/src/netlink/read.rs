//! Turns messages of rtnetlink (RFC 3549) into inputs of the network machine.
//!
//! Pure. It skips messages about anything but links, addresses, routes, rules and neighbours of
//! IPv4 and IPv6.

use std::net::IpAddr;

use netlink_packet_route::address::{AddressAttribute, AddressFlags, AddressMessage, AddressScope};
use netlink_packet_route::link::{LinkAttribute, LinkFlags, LinkInfo, LinkLayerType, LinkMessage};
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteMessage, RouteMetric, RouteType, RouteVia,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use rtnetlink::packet_core::NLM_F_REPLACE;
use shunt_control::network::neighbours::State;
use shunt_control::network::routes::{Kind, Path, Prefix, RouteEntry};
use shunt_control::network::{Address, Input, Link, Mac, Neighbour};

use super::message::Message;
use super::rule::rule;

/// The input that a message stands for, given the flags of its netlink header.
pub(super) fn input(message: Message, flags: u16) -> Option<Input> {
    match message {
        Message::Route(message) => of_route(message, flags),
        Message::Object(object) => object.map(Input::ObjectChanged),
        Message::ObjectDeleted(id) => Some(Input::ObjectRemoved { id }),
        Message::GetObjects => None,
    }
}

fn of_route(message: RouteNetlinkMessage, flags: u16) -> Option<Input> {
    match message {
        RouteNetlinkMessage::NewLink(message) => link(message).map(Input::LinkChanged),
        RouteNetlinkMessage::DelLink(message) => link(message).map(|link| Input::LinkRemoved {
            interface: link.index,
        }),
        RouteNetlinkMessage::NewAddress(message) => address(message).map(Input::AddressAdded),
        RouteNetlinkMessage::DelAddress(message) => address(message).map(
            |Address {
                 interface, address, ..
             }| Input::AddressRemoved { interface, address },
        ),
        RouteNetlinkMessage::NewRoute(message) => route(message).map(|route| Input::RouteAdded {
            route,
            replace: flags & NLM_F_REPLACE != 0,
        }),
        RouteNetlinkMessage::DelRoute(message) => route(message).map(Input::RouteRemoved),
        RouteNetlinkMessage::NewRule(message) => rule(message).map(Input::RuleAdded),
        RouteNetlinkMessage::DelRule(message) => rule(message).map(Input::RuleRemoved),
        RouteNetlinkMessage::NewNeighbour(message) => {
            neighbour(message).map(Input::NeighbourChanged)
        }
        RouteNetlinkMessage::DelNeighbour(message) => neighbour(message).map(
            |Neighbour {
                 interface, address, ..
             }| { Input::NeighbourRemoved { interface, address } },
        ),
        _ => None,
    }
}

/// Whether the kernel drops IPv4 routes with this event without notification. It does so when a
/// device goes down or away, and when an address goes (`fib_flush`). When a device loses its
/// carrier, the kernel drops next-hop objects and their routes (`nexthop_flush_dev`).
pub(super) fn hides_lost_routes(input: &Input) -> bool {
    match input {
        Input::LinkChanged(link) => !link.is_usable(),
        Input::LinkRemoved { .. } => true,
        Input::AddressRemoved { address, .. } => address.is_ipv4(),
        Input::AddressAdded(_)
        | Input::RouteAdded { .. }
        | Input::RouteRemoved(_)
        | Input::RuleAdded(_)
        | Input::RuleRemoved(_)
        | Input::ObjectChanged(_)
        | Input::ObjectRemoved { .. }
        | Input::NeighbourChanged(_)
        | Input::NeighbourRemoved { .. }
        | Input::ResyncBegin
        | Input::ResyncEnd
        | Input::Tick => false,
    }
}

fn link(message: LinkMessage) -> Option<Link> {
    // A bridge reports its ports in messages of its own family. There, a port that leaves the
    // bridge is "deleted", but the device stays.
    if message.header.interface_family != AddressFamily::Unspec {
        return None;
    }
    let flags = message.header.flags;
    let mut link = Link {
        index: message.header.index,
        name: String::new(),
        mac: Mac::default(),
        mtu: 0,
        up: flags.contains(LinkFlags::Up),
        carrier: flags.contains(LinkFlags::LowerUp),
        kind: None,
        master: None,
        loopback: flags.contains(LinkFlags::Loopback),
        ethernet: message.header.link_layer_type == LinkLayerType::Ether,
        bare: is_bare(message.header.link_layer_type),
        without_arp: flags.contains(LinkFlags::Noarp),
    };
    for attribute in message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name = name,
            LinkAttribute::Address(bytes) => link.mac = mac(&bytes).unwrap_or_default(),
            LinkAttribute::Mtu(mtu) => link.mtu = mtu,
            LinkAttribute::Controller(master) => link.master = (master != 0).then_some(master),
            LinkAttribute::LinkInfo(infos) => {
                link.kind = infos.into_iter().find_map(|info| match info {
                    LinkInfo::Kind(kind) => Some(kind.to_string()),
                    _ => None,
                });
            }
            _ => {}
        }
    }
    Some(link)
}

/// The kinds of devices before which the kernel takes an Ethernet header off
/// (`dev_is_mac_header_xmit`).
fn is_bare(kind: LinkLayerType) -> bool {
    matches!(
        kind,
        LinkLayerType::None
            | LinkLayerType::Ppp
            | LinkLayerType::Rawip
            | LinkLayerType::Tunnel
            | LinkLayerType::Tunnel6
            | LinkLayerType::Sit
            | LinkLayerType::Ipgre
            | LinkLayerType::Ip6gre
    )
}

fn address(message: AddressMessage) -> Option<Address> {
    let mut flags = AddressFlags::from_bits_retain(u32::from(message.header.flags.bits()));
    let (mut of_link, mut own) = (None, None);
    for attribute in message.attributes {
        match attribute {
            // On a point-to-point link this is the peer's address, and `Local` is this machine's.
            AddressAttribute::Address(address) => of_link = Some(address),
            AddressAttribute::Local(address) => own = Some(address),
            AddressAttribute::Flags(all) => flags = all,
            _ => {}
        }
    }
    let shunned = AddressFlags::Secondary
        | AddressFlags::Tentative
        | AddressFlags::Dadfailed
        | AddressFlags::Deprecated;
    Some(Address {
        interface: message.header.index,
        address: own.or(of_link)?,
        length: message.header.prefix_len,
        preferred: !flags.intersects(shunned),
        narrow: matches!(
            message.header.scope,
            AddressScope::Link | AddressScope::Host
        ),
    })
}

fn route(message: RouteMessage) -> Option<RouteEntry> {
    let header = message.header;
    // A cloned route is a cached result of a look-up, not a configured route.
    if header.flags.contains(RouteFlags::Cloned) {
        return None;
    }
    let any = match header.address_family {
        AddressFamily::Inet => IpAddr::from([0; 4]),
        AddressFamily::Inet6 => IpAddr::from([0; 16]),
        _ => return None,
    };
    let mut entry = RouteEntry {
        prefix: Prefix::new(any, header.destination_prefix_length),
        table: header.table.into(),
        metric: 0,
        type_of_service: header.tos,
        kind: kind(header.kind),
        paths: Vec::new(),
        object: None,
        mtu: None,
        source: None,
        from: (header.source_prefix_length != 0)
            .then(|| Prefix::new(any, header.source_prefix_length)),
    };
    let (mut interface, mut single) = (None, None);
    for attribute in message.attributes {
        match attribute {
            RouteAttribute::Destination(target) => {
                entry.prefix = Prefix::new(ip(&target)?, header.destination_prefix_length);
            }
            RouteAttribute::Source(from) if header.source_prefix_length != 0 => {
                entry.from = Some(Prefix::new(ip(&from)?, header.source_prefix_length));
            }
            RouteAttribute::NhId(id) => entry.object = Some(id),
            RouteAttribute::Table(table) => entry.table = table,
            RouteAttribute::Priority(metric) => entry.metric = metric,
            RouteAttribute::PrefSource(source) => entry.source = ip(&source),
            RouteAttribute::Oif(index) => interface = Some(index),
            RouteAttribute::MultiPath(hops) => {
                entry.paths = hops
                    .iter()
                    .map(|hop| Path {
                        interface: hop.interface_index,
                        gateway: hop.attributes.iter().find_map(gateway),
                    })
                    .collect();
            }
            RouteAttribute::Metrics(metrics) => {
                entry.mtu = metrics.iter().find_map(|metric| match metric {
                    RouteMetric::Mtu(mtu) if *mtu != 0 => Some(*mtu),
                    _ => None,
                });
            }
            other => single = single.or_else(|| gateway(&other)),
        }
    }
    if let Some(interface) = interface
        && entry.paths.is_empty()
    {
        entry.paths.push(Path {
            interface,
            gateway: single,
        });
    }
    Some(entry)
}

fn gateway(attribute: &RouteAttribute) -> Option<IpAddr> {
    match attribute {
        RouteAttribute::Gateway(address) => ip(address),
        // RFC 5549: an IPv6 router for an IPv4 prefix.
        RouteAttribute::Via(RouteVia::Inet(address)) => Some((*address).into()),
        RouteAttribute::Via(RouteVia::Inet6(address)) => Some((*address).into()),
        _ => None,
    }
}

fn ip(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(address) => Some((*address).into()),
        RouteAddress::Inet6(address) => Some((*address).into()),
        _ => None,
    }
}

fn kind(kind: RouteType) -> Kind {
    match kind {
        RouteType::Unicast => Kind::Unicast,
        RouteType::Local => Kind::Local,
        RouteType::Anycast => Kind::Anycast,
        RouteType::Broadcast => Kind::Broadcast,
        RouteType::Multicast => Kind::Multicast,
        RouteType::BlackHole => Kind::Blackhole,
        RouteType::Unreachable => Kind::Unreachable,
        RouteType::Prohibit => Kind::Prohibit,
        RouteType::Throw => Kind::Throw,
        _ => Kind::Other,
    }
}

fn neighbour(message: NeighbourMessage) -> Option<Neighbour> {
    // A proxy entry only makes this machine answer for the address. It gives no way to it.
    if message.header.flags.contains(NeighbourFlags::Proxy) {
        return None;
    }
    let (mut address, mut hardware) = (None, None);
    for attribute in message.attributes {
        match attribute {
            NeighbourAttribute::Destination(NeighbourAddress::Inet(ip)) => {
                address = Some(IpAddr::from(ip));
            }
            NeighbourAttribute::Destination(NeighbourAddress::Inet6(ip)) => {
                address = Some(IpAddr::from(ip));
            }
            NeighbourAttribute::LinkLayerAddress(bytes) => hardware = mac(&bytes),
            _ => {}
        }
    }
    Some(Neighbour {
        interface: message.header.ifindex,
        address: address?,
        mac: hardware,
        state: state(message.header.state),
    })
}

fn state(state: NeighbourState) -> State {
    match state {
        NeighbourState::Incomplete => State::Incomplete,
        NeighbourState::Reachable => State::Reachable,
        NeighbourState::Stale => State::Stale,
        NeighbourState::Delay => State::Delay,
        NeighbourState::Probe => State::Probe,
        NeighbourState::Failed => State::Failed,
        NeighbourState::Noarp => State::NoArp,
        NeighbourState::Permanent => State::Permanent,
        _ => State::None,
    }
}

fn mac(bytes: &[u8]) -> Option<Mac> {
    bytes.try_into().ok()
}
