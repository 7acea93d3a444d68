//! What a service, a server or a timeout must fulfil to be taken into a table.
//!
//! The kernel's own rules (`ip_vs_ctl.c`), and those that ipvsadm keeps for it, so that no other
//! client can get around them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use shunt_model::api::{Reason, Refusal};
use shunt_model::mark::{MOST_PORTS, Ports};
use shunt_model::service::Granularity;
use shunt_model::{
    Encapsulation, Family, LocalAddress, MarkRule, Method, Persistence, Protocol, Scheduler,
    Server, Service, ServiceKey, Timeouts,
};

/// 31 days: ipvsadm takes no longer timeout.
pub const LONGEST_TIMEOUT_S: u32 = 31 * 24 * 60 * 60;

/// The kernel keeps weights in a signed integer.
pub const HEAVIEST: u32 = i32::MAX.unsigned_abs();

/// The persistence engines that exist: `ip_vs_pe_sip.c` is the only one.
const ENGINES: [&str; 1] = ["sip"];

pub(super) fn refuse<T>(reason: Reason, text: String) -> Result<T, Refusal> {
    Err(Refusal { reason, text })
}

pub(super) fn of_service(service: &Service) -> Result<(), Refusal> {
    let key = &service.key;
    let persistent = service.persistence.as_ref();
    let engine = persistent.and_then(|persistence| persistence.engine.as_ref());
    if let Some(engine) = engine.or(service.idle_engine.as_ref()) {
        of_engine(engine)?;
    }
    if let Some(persistence) = persistent {
        of_persistence(key, persistence)?;
    }
    if service.flags.large && service.scheduler != Scheduler::Mh {
        return refuse(
            Reason::BadRequest,
            format!(
                "service {key}: only mh has a large table; {} has none",
                service.scheduler
            ),
        );
    }
    if let ServiceKey::Address { protocol, port, .. } = *key {
        if port == 0 && service.persistence.is_none() {
            return refuse(
                Reason::BadRequest,
                format!("service {key} has port 0, which only a persistent service may have"),
            );
        }
        if service.announce.is_some() && protocol != Protocol::Tcp {
            return refuse(
                Reason::BadRequest,
                format!("service {key} is not TCP; only connections can tell who the client is"),
            );
        }
        if service.one_packet && protocol != Protocol::Udp {
            return refuse(
                Reason::BadRequest,
                format!("service {key} is not UDP; one-packet scheduling needs datagrams"),
            );
        }
    }
    Ok(())
}

fn of_engine(engine: &str) -> Result<(), Refusal> {
    if ENGINES.contains(&engine) {
        return Ok(());
    }
    refuse(
        Reason::UnknownEngine,
        format!("unknown persistence engine \"{engine}\"; known is sip"),
    )
}

fn of_persistence(key: &ServiceKey, persistence: &Persistence) -> Result<(), Refusal> {
    match (key.family(), persistence.granularity) {
        (Family::Ipv4, Granularity::Mask(_)) | (Family::Ipv6, Granularity::Prefix(1..=128)) => {}
        (Family::Ipv4, Granularity::Prefix(_)) => {
            return refuse(
                Reason::BadRequest,
                format!("service {key} is IPv4; its granularity must be a mask"),
            );
        }
        (Family::Ipv6, Granularity::Mask(_) | Granularity::Prefix(_)) => {
            return refuse(
                Reason::BadRequest,
                format!("service {key} is IPv6; its granularity must be a length of 1 to 128"),
            );
        }
    }
    if persistence.timeout_s == 0 || persistence.timeout_s > LONGEST_TIMEOUT_S {
        return refuse(
            Reason::BadRequest,
            format!("service {key}: persistence must last 1 to {LONGEST_TIMEOUT_S} seconds"),
        );
    }
    Ok(())
}

/// What the kernel asks of a server before it looks whether it knows it.
pub(super) fn of_server(key: &ServiceKey, server: &Server) -> Result<(), Refusal> {
    let at = server.at;
    let crosses = matches!(server.method, Method::Tunnel(_) | Method::FullNat);
    if Family::from(at.address) != key.family() && !crosses {
        return refuse(
            Reason::BadAddress,
            format!(
                "server {at} of service {key} is of another family; \
                 only a tunnel or full NAT reaches it"
            ),
        );
    }
    if server.weight > HEAVIEST {
        return refuse(
            Reason::OutOfRange,
            format!("server {at}: weight {} is above {HEAVIEST}", server.weight),
        );
    }
    if server.lower_threshold > server.upper_threshold {
        return refuse(
            Reason::OutOfRange,
            format!(
                "server {at}: the lower threshold {} is above the upper one {}",
                server.lower_threshold, server.upper_threshold
            ),
        );
    }
    if matches!(
        server.method,
        Method::Tunnel(Encapsulation::Gue { port: 0, .. })
    ) {
        return refuse(
            Reason::BadRequest,
            format!("server {at}: a gue tunnel needs a port"),
        );
    }
    // Only NAT rewrites ports; to say another port would promise what does not happen.
    if let ServiceKey::Address { port, .. } = *key
        && !server.method.rewrites()
        && at.port != port
    {
        return refuse(
            Reason::BadRequest,
            format!("server {at} of service {key}: without masquerading its port must be {port}"),
        );
    }
    Ok(())
}

/// What an address must be to stand in place of clients.
pub(super) fn of_local_address(local: &LocalAddress) -> Result<(), Refusal> {
    let address = local.address;
    let fits = match address {
        IpAddr::V4(address) => is_unicast_v4(address) && !address.is_loopback(),
        IpAddr::V6(address) => is_unicast_v6(address) && !address.is_loopback(),
    };
    if !fits {
        return refuse(
            Reason::BadAddress,
            format!("local address {address} is none that a server could answer to"),
        );
    }
    if local.ports.first == 0 || local.ports.first > local.ports.last {
        return refuse(
            Reason::OutOfRange,
            format!("local address {local}: that is no range of ports from 1 to 65535"),
        );
    }
    Ok(())
}

/// What a rule of a firewall mark must name.
pub(super) fn of_target(rule: &MarkRule) -> Result<(), Refusal> {
    let Ports { first, last } = rule.target.ports;
    if !rule.target.ports.is_every() && (first == 0 || first > last) {
        return refuse(
            Reason::OutOfRange,
            format!("{rule}: {first} to {last} is no range of ports from 1 to 65535"),
        );
    }
    if last - first >= MOST_PORTS {
        return refuse(
            Reason::OutOfRange,
            format!(
                "{rule}: at most {MOST_PORTS} ports a rule; leave the ports out for every port"
            ),
        );
    }
    Ok(())
}

/// What the kernel asks of a server that it does not know yet, whatever networks there are.
pub(super) fn of_server_address(address: IpAddr) -> Result<(), Refusal> {
    let fits = match address {
        IpAddr::V4(address) => is_unicast_v4(address),
        IpAddr::V6(address) => is_unicast_v6(address),
    };
    if fits {
        return Ok(());
    }
    refuse(
        Reason::BadAddress,
        format!("server address {address} is not unicast"),
    )
}

/// `inet_addr_type`: neither nowhere, nor many.
fn is_unicast_v4(address: Ipv4Addr) -> bool {
    !address.is_unspecified() && !address.is_multicast() && !address.is_broadcast()
}

/// `ipv6_addr_type`: a mapped IPv4 address counts as no unicast one, and an address of one link
/// says nothing without the link.
fn is_unicast_v6(address: Ipv6Addr) -> bool {
    !address.is_unspecified()
        && !address.is_multicast()
        && !address.is_unicast_link_local()
        && address.to_ipv4_mapped().is_none()
}

pub(super) fn of_timeouts(timeouts: &Timeouts) -> Result<(), Refusal> {
    let longest = timeouts.tcp_s.max(timeouts.tcp_fin_s).max(timeouts.udp_s);
    if longest <= LONGEST_TIMEOUT_S {
        return Ok(());
    }
    refuse(
        Reason::BadRequest,
        format!("timeout {longest} s is above {LONGEST_TIMEOUT_S} s (31 days)"),
    )
}
