//! Computes the packet path's entries from the operator's table and the state of the network.

use std::collections::BTreeSet;
use std::net::IpAddr;

use shunt_datapath::checksum;
use shunt_datapath::connection::{self, TIMEOUTS_S};
use shunt_datapath::entry::{
    self, PoolWord, Settings, Ways, method, server_flag, service_flag, wide_flag,
};
use shunt_model::next_hop::{Mac, NextHop};
use shunt_model::service::Granularity;
use shunt_model::{
    Announce, Encapsulation, Family, Method, Server, Service, ServiceKey, TunnelChecksum,
};

use super::Clock;
use super::effects::{self, Defences};
use super::ids::{self, Ids};
use super::slots::ServiceIds;
use crate::network::{Network, Route};
use crate::table::Table;

/// ICMP errors a tick and CPU. The kernel's default is 1,000 a second (`icmp_msgs_per_sec`).
const ICMP_LIMIT: u32 = 1000;

/// An address as two words in wire order.
#[must_use]
pub(super) fn words(address: IpAddr) -> [u64; 2] {
    match address {
        IpAddr::V4(address) => [u64::from(u32::from_ne_bytes(address.octets())), 0],
        IpAddr::V6(address) => {
            let bytes = address.octets();
            let (a, b) = bytes.split_at(8);
            let word = |half: &[u8]| u64::from_ne_bytes(half.try_into().unwrap_or_default());
            [word(a), word(b)]
        }
    }
}

fn sum(address: IpAddr) -> u32 {
    let [a, b] = words(address);
    checksum::add(checksum::of_u64(a), checksum::of_u64(b))
}

/// The flags of a service that exists.
fn service_flags(service: &Service) -> u8 {
    let mut flags = service_flag::PRESENT;
    if service.flags.port {
        flags |= service_flag::PORT;
    }
    if service.flags.fallback {
        flags |= service_flag::FALLBACK;
    }
    if service.one_packet {
        flags |= service_flag::ONE_PACKET;
    }
    let engine = service.persistence.as_ref().and_then(|p| p.engine.as_ref());
    if engine.is_some() {
        flags |= service_flag::CALLS;
    }
    flags |= match service.announce {
        None => 0,
        Some(Announce::Toa) => service_flag::TOA,
        Some(Announce::Proxy) => service_flag::PROXY,
    };
    flags
}

/// The entry of a service. Without `asked` it is the entry of a deleted service.
#[must_use]
pub(super) fn service(
    key: &ServiceKey,
    asked: Option<&Service>,
    (pool, ids): (PoolWord, &ServiceIds),
    clock: Clock,
    settings: &shunt_model::Settings,
) -> Option<entry::Service> {
    let (address, port, protocol) = match key {
        ServiceKey::Address {
            protocol,
            address,
            port,
        } => (words(*address), *port, protocol.number()),
        ServiceKey::Mark { .. } => ([0, 0], 0, 0),
    };
    let family = if key.family() == Family::Ipv6 {
        service_flag::IPV6
    } else {
        0
    };
    let mut entry = entry::Service {
        pool: pool.0,
        address,
        port: port.to_be(),
        protocol,
        flags: asked.map_or(0, service_flags) | family,
        switches: effects::switches(key, settings),
        epoch: ids.epoch,
        ..entry::Service::default()
    };
    if let Some(granularity) = ids.granularity {
        entry.template = ids.template;
        entry.granularity = mask(granularity);
    }
    if let Some(persistence) = asked.and_then(|service| service.persistence.as_ref()) {
        // A persistence timeout must be shorter than a round of the clock. IPVS's limit of 31 days
        // is.
        let ticks = clock.ticks(persistence.timeout_s);
        entry.persistence = ticks.min(connection::TEMPLATE_LIVES);
    }
    Some(entry)
}

/// The mask of a persistence granularity, in wire order.
fn mask(granularity: Granularity) -> [u64; 2] {
    match granularity {
        Granularity::Mask(mask) => words(IpAddr::V4(mask)),
        Granularity::Prefix(bits) => {
            let host = u128::MAX.checked_shr(u32::from(bits)).unwrap_or(0);
            words(IpAddr::V6((!host).into()))
        }
    }
}

/// The inputs of a server's entry besides the server itself.
#[derive(Debug)]
pub(super) struct Surroundings<'a> {
    pub network: &'a Network,
    pub local: &'a BTreeSet<IpAddr>,
    pub service: u32,
    pub endpoint: u32,
    /// The entry of this server in the packet path.
    pub before: Option<entry::Server>,
    /// What becomes of its connections: [`entry::fate`].
    pub fate: u16,
}

/// The entry of a server.
#[must_use]
pub(super) fn server(
    key: &ServiceKey,
    server: &Server,
    to: &Surroundings<'_>,
) -> Option<entry::Server> {
    let at = server.at.address;
    // A mark has no address. Its flows are translated one by one and do not use this one.
    let (address, port) = match key {
        ServiceKey::Address { address, port, .. } => (address, port),
        ServiceKey::Mark { .. } => (&at, &0),
    };
    let mut entry = entry::Server {
        address: words(at),
        port: ids::port(key, server.at).to_be(),
        method: number(key, server, to.local),
        flags: server_flags(server),
        fate: to.fate,
        service: to.service,
        endpoint: to.endpoint,
        virtual_address: words(*address),
        virtual_port: port.to_be(),
        ..entry::Server::default()
    };
    if let Method::Tunnel(encapsulation) = server.method {
        let (port, checksum) = outer(encapsulation);
        entry.tunnel_port = port.to_be();
        entry.flags |= checksum;
    }
    if at.is_ipv6() == address.is_ipv6() {
        entry.address_delta = checksum::fold(checksum::change(sum(*address), sum(at)));
    }
    let ports = checksum::change_u16(port.to_be(), entry.port);
    entry.port_delta = checksum::fold(ports);
    if entry.method == method::LOCAL || entry.method == method::HERE {
        return Some(entry);
    }
    if to.network.has_several_ways(at) {
        entry.flags |= server_flag::SEVERAL_WAYS;
    }
    let route = to.network.next_hop(at);
    if let Route::Unresolved { interface, .. } = route {
        // The kernel is resolving the neighbour again. Until it answers, or the route leads
        // elsewhere, the last known next hop stays.
        if let Some(before) = to
            .before
            .filter(|before| before.ways.interface == interface)
        {
            entry.ways = before.ways;
            entry.outer_source = before.outer_source;
            entry.outer_sum = before.outer_sum;
        }
    }
    if let Route::Via(hop) = route {
        let mtu = u16::try_from(hop.mtu).unwrap_or(u16::MAX);
        entry.ways = Ways::new(hop.target_mac, hop.source_mac, hop.interface, mtu);
        if is_tunnel(entry.method) {
            match hop.source.filter(|source| source.is_ipv6() == at.is_ipv6()) {
                Some(source) => {
                    entry.outer_source = words(source);
                    entry.outer_sum = checksum::fold(checksum::add(sum(source), sum(at)));
                }
                // Without an address of this machine towards the server there is no outer header.
                None => entry.ways = Ways::default(),
            }
        }
    }
    Some(entry)
}

/// The flags of a server that exists.
fn server_flags(server: &Server) -> u8 {
    let mut flags = server_flag::PRESENT;
    if server.at.address.is_ipv6() {
        flags |= server_flag::IPV6;
    }
    if server.upper_threshold != 0 {
        flags |= server_flag::LIMITED;
    }
    if server.method == Method::FullNat {
        flags |= server_flag::FULL_NAT;
    }
    flags
}

/// The method's number in the packet path. A server on this machine gets its packets unchanged
/// unless they are masqueraded.
fn number(key: &ServiceKey, server: &Server, local: &BTreeSet<IpAddr>) -> u8 {
    if is_local(server, local) {
        return match is_exchanged(key, server) {
            true => method::HERE,
            false => method::LOCAL,
        };
    }
    if ids::translates(key, server.at, server.method) {
        return method::TRANSLATE;
    }
    match server.method {
        Method::Masquerade | Method::FullNat => method::MASQUERADE,
        Method::Route => method::ROUTE,
        Method::Tunnel(Encapsulation::Ipip) => method::TUNNEL,
        Method::Tunnel(Encapsulation::Gue { .. }) => method::GUE,
        Method::Tunnel(Encapsulation::Gre { .. }) => method::GRE,
        Method::Local => method::LOCAL,
    }
}

/// Whether packets to a server on this machine get another address or port. Packets for a loopback
/// address at the service's own port stay as they are: a program that listens on every address
/// receives them, and a loopback address cannot be reached from the network.
#[must_use]
pub(super) fn is_exchanged(key: &ServiceKey, server: &Server) -> bool {
    let ServiceKey::Address { address, port, .. } = *key else {
        return false;
    };
    let moved = ids::port(key, server.at) != port;
    let elsewhere = server.at.address != address && !server.at.address.is_loopback();
    server.method == Method::Masquerade
        && !ids::translates(key, server.at, server.method)
        && (moved || elsewhere)
}

fn is_local(server: &Server, local: &BTreeSet<IpAddr>) -> bool {
    local.contains(&server.at.address)
        || server.at.address.is_loopback()
        || server.method == Method::Local
}

/// Whether the packet path looks for answers among frames that leave.
#[must_use]
pub(super) fn looks_at_what_leaves(settings: &Settings) -> bool {
    settings.masquerades & entry::nat::HERE != 0
}

fn is_tunnel(number: u8) -> bool {
    matches!(number, method::TUNNEL | method::GUE | method::GRE)
}

/// The UDP port of a tunnel's far end, and the flag of its checksum. A forwarded packet is already
/// checksummed, so `Remote` leaves the far end nothing to compute (`ipvs_gue_encap`).
fn outer(encapsulation: Encapsulation) -> (u16, u8) {
    let (port, checksum) = match encapsulation {
        Encapsulation::Ipip => (0, TunnelChecksum::Off),
        Encapsulation::Gue { port, checksum } => (port, checksum),
        Encapsulation::Gre { checksum } => (0, checksum),
    };
    let flag = match checksum {
        TunnelChecksum::Off => 0,
        TunnelChecksum::On | TunnelChecksum::Remote => server_flag::CHECKSUM,
    };
    (port, flag)
}

/// How a server is reached, as text for an operator.
#[must_use]
pub(super) fn next_hop(network: &Network, local: &BTreeSet<IpAddr>, server: &Server) -> NextHop {
    if is_local(server, local) {
        return NextHop::Local;
    }
    match network.next_hop(server.at.address) {
        Route::Local => NextHop::Local,
        Route::Via(hop) => {
            let name = network.links().find(|link| link.index == hop.interface);
            NextHop::Neighbour {
                device: name.map_or_else(|| hop.interface.to_string(), |link| link.name.clone()),
                mac: Mac(hop.target_mac),
                neighbour: hop.neighbour,
                mtu: hop.mtu,
            }
        }
        Route::Unresolved { neighbour, .. } => NextHop::Unresolved { neighbour },
        Route::Unreachable { why } => NextHop::Unreachable { why },
    }
}

/// The packet path's settings.
#[must_use]
pub(super) fn settings(table: &Table, clock: Clock, ids: &Ids, defences: Defences) -> Settings {
    let asked = table.timeouts();
    let mut timeouts = TIMEOUTS_S;
    let set = [
        (connection::ESTABLISHED, asked.tcp_s),
        (connection::FIN_WAIT, asked.tcp_fin_s),
        (connection::UDP_FIRST, asked.udp_s),
        (connection::UDP, asked.udp_s),
    ];
    for (state, seconds) in set {
        if let Some(place) = timeouts.get_mut(state as usize) {
            *place = seconds;
        }
    }
    Settings {
        timeouts: connection::complete(timeouts.map(|seconds| clock.ticks(seconds))),
        switches: effects::global(&table.settings(), defences),
        masquerades: ids.masquerades(),
        icmp_limit: ICMP_LIMIT,
        wide: if ids.has_wide() {
            wide_flag::EVERY_PORT
        } else {
            0
        },
        drop_rate: defences.drop_rate,
        reserved: 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // ip_vs_xmit.c, ipvs_gue_encap: the remote checksum is for what was left to a device.
    #[test]
    fn a_tunnel_has_its_port_and_a_checksum_unless_it_is_off() {
        use TunnelChecksum::{Off, On, Remote};
        for (checksum, flag) in [(Off, 0), (On, 4), (Remote, 4)] {
            let gue = Encapsulation::Gue {
                port: 6080,
                checksum,
            };
            assert_eq!(outer(gue), (6080, flag));
            assert_eq!(outer(Encapsulation::Gre { checksum }), (0, flag));
        }
        assert_eq!(outer(Encapsulation::Ipip), (0, 0));
    }

    #[test]
    fn every_kind_of_tunnel_has_a_method_of_its_own() {
        let of = |encapsulation| {
            let server = Server {
                at: "10.1.0.7:80".parse().unwrap(),
                method: Method::Tunnel(encapsulation),
                weight: 1,
                upper_threshold: 0,
                lower_threshold: 0,
            };
            let key = "tcp/192.0.2.1:80".parse().unwrap();
            number(&key, &server, &BTreeSet::new())
        };
        let checksum = TunnelChecksum::Off;
        let kinds = [
            Encapsulation::Ipip,
            Encapsulation::Gue { port: 1, checksum },
            Encapsulation::Gre { checksum },
        ];
        assert_eq!(kinds.map(of), [method::TUNNEL, method::GUE, method::GRE]);
    }
}
