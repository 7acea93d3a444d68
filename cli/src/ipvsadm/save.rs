//! `ipvsadm -S`: the table as the commands that make it.
//!
//! The original loses the thresholds of a server; here they are saved, in words it understands.

use std::io::{self, Write};

use shunt_model::api::ServiceStatus;
use shunt_model::{
    Encapsulation, Family, Method, Protocol, Server, Service, ServiceKey, TunnelChecksum,
};

use super::addresses;
use super::listing::{granularity, protocol, scheduler_flags};
use super::names::Names;
use super::order::sort_servers;

/// One service and its servers.
pub(super) fn write_service(
    out: &mut dyn Write,
    status: ServiceStatus,
    names: Option<&dyn Names>,
) -> io::Result<()> {
    let service = &status.service;
    let name = service_words(&service.key, names);
    let scheduler = service.scheduler;
    writeln!(out, "-A {name} -s {scheduler}{}", options(service))?;
    let protocol = protocol(&service.key);
    for status in sort_servers(status.servers) {
        let server = &status.server;
        if crosses(&service.key, server) {
            continue;
        }
        let at = addresses::write(server.at.address, server.at.port, protocol, names);
        writeln!(out, "-a {name} -r {at} {}", server_words(server))?;
    }
    Ok(())
}

/// What of a service its lines do not say, a sentence for each server.
pub(super) fn unsaid(status: &ServiceStatus) -> Vec<String> {
    let key = status.service.key;
    // As one word of a command.
    let word = key.to_string().replace(' ', "/");
    let servers = status.servers.iter().map(|status| &status.server);
    let full = servers.filter(|server| server.method == Method::FullNat);
    let sentence = |server: &Server| {
        let at = server.at;
        if crosses(&key, server) {
            return format!(
                "server {at} of {key}: ipvsadm has no word for full NAT between IPv4 and IPv6, so \
                 it is not saved; after a restore: shunt server add {word} {at} --method fullnat{}",
                shunt_words(server)
            );
        }
        format!(
            "server {at} of {key}: ipvsadm has no word for full NAT, so it is saved as masquerade; \
             after a restore: shunt server edit {word} {at} --method fullnat"
        )
    };
    let mut sentences: Vec<String> = full.map(sentence).collect();
    if let Some(how) = status.service.announce {
        sentences.push(format!(
            "service {key}: ipvsadm has no word for announcing clients; after a restore: \
             shunt service edit {word} --announce {how}"
        ));
    }
    sentences
}

/// Whether a server is one that no word of ipvsadm could name: it would be refused, or be another.
fn crosses(key: &ServiceKey, server: &Server) -> bool {
    server.method == Method::FullNat && Family::from(server.at.address) != key.family()
}

/// Weight and thresholds in the words of `shunt server add`.
fn shunt_words(server: &Server) -> String {
    let mut text = format!(" --weight {}", server.weight);
    if server.upper_threshold != 0 {
        text += &format!(" --upper-threshold {}", server.upper_threshold);
    }
    if server.lower_threshold != 0 {
        text += &format!(" --lower-threshold {}", server.lower_threshold);
    }
    text
}

fn service_words(key: &ServiceKey, names: Option<&dyn Names>) -> String {
    match *key {
        ServiceKey::Mark { mark, family } => {
            let mark = mark.get().cast_signed();
            match family {
                Family::Ipv4 => format!("-f {mark}"),
                Family::Ipv6 => format!("-f {mark} -6"),
            }
        }
        ServiceKey::Address {
            protocol,
            address,
            port,
        } => {
            let word = match protocol {
                Protocol::Tcp => "-t",
                Protocol::Udp => "-u",
                Protocol::Sctp => "--sctp-service",
            };
            let at = addresses::write(address, port, Some(protocol), names);
            format!("{word} {at}")
        }
    }
}

fn options(service: &Service) -> String {
    let mut text = String::new();
    if let Some(persistence) = &service.persistence {
        text += &format!(" -p {}", persistence.timeout_s);
        if let Some(mask) = granularity(persistence.granularity) {
            text += &format!(" -M {mask}");
        }
    }
    // An engine is saved without persistence, too.
    let persistent = service.persistence.as_ref();
    let engine = persistent.and_then(|persistence| persistence.engine.as_ref());
    if let Some(engine) = engine.or(service.idle_engine.as_ref()) {
        text += &format!(" --pe {engine}");
    }
    if service.one_packet {
        text += " -o";
    }
    if service.flags.has_bits() {
        text += &format!(" -b {}", scheduler_flags(service));
    }
    text
}

fn server_words(server: &Server) -> String {
    let method = match server.method {
        // The nearest that it has: see [`unsaid`].
        Method::Masquerade | Method::FullNat => "-m",
        Method::Tunnel(_) => "-i",
        Method::Local | Method::Route => "-g",
    };
    let mut text = format!("{method} -w {}", server.weight);
    if let Method::Tunnel(encapsulation) = server.method {
        text += &tunnel_words(encapsulation);
    }
    if server.upper_threshold != 0 {
        text += &format!(" -x {}", server.upper_threshold);
    }
    if server.lower_threshold != 0 {
        text += &format!(" -y {}", server.lower_threshold);
    }
    text
}

fn tunnel_words(encapsulation: Encapsulation) -> String {
    let checksum_word = |checksum| match checksum {
        TunnelChecksum::Off => "--tun-nocsum",
        TunnelChecksum::On => "--tun-csum",
        TunnelChecksum::Remote => "--tun-remcsum",
    };
    match encapsulation {
        Encapsulation::Ipip => " --tun-type ipip".into(),
        Encapsulation::Gue { port, checksum } => {
            let checksum = checksum_word(checksum);
            format!(" --tun-type gue --tun-port {port} {checksum}")
        }
        Encapsulation::Gre { checksum } => {
            format!(" --tun-type gre {}", checksum_word(checksum))
        }
    }
}
