//! `ipvsadm -L`: services and servers, in each of the six forms.

use std::io::{self, Write};

use shunt_model::api::{ServerStatus, ServiceStatus};
use shunt_model::service::Granularity;
use shunt_model::{
    Counters, Encapsulation, Family, Method, Protocol, Rates, Scheduler, Service, ServiceKey,
    TunnelChecksum,
};

use super::addresses;
use super::arguments::Arguments;
use super::names::Names;
use super::order::sort_servers;
use super::words::Kind;

/// The bytes of a service's column, and of a server's without its arrow. IPv6 is never cut.
const SERVICE_COLUMN: usize = 33;
const SERVER_COLUMN: usize = 28;

/// What the columns show. Where several are asked for, the first here wins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    Stats,
    Rate,
    Thresholds,
    PersistentConnections,
    TunnelInfo,
    Plain,
}

/// How a listing is written.
#[derive(Clone, Copy)]
pub(super) struct Listing<'a> {
    pub form: Form,
    /// Without, addresses and ports are numbers.
    pub names: Option<&'a dyn Names>,
    pub sorted: bool,
    pub exact: bool,
}

impl<'a> Listing<'a> {
    pub(super) fn new(arguments: &Arguments, names: &'a dyn Names) -> Self {
        let form = [
            (Kind::Stats, Form::Stats),
            (Kind::Rate, Form::Rate),
            (Kind::Thresholds, Form::Thresholds),
            (Kind::PersistentConn, Form::PersistentConnections),
            (Kind::TunInfo, Form::TunnelInfo),
        ]
        .into_iter()
        .find(|(kind, _)| arguments.has(*kind));
        Self {
            form: form.map_or(Form::Plain, |(_, form)| form),
            names: (!arguments.has(Kind::Numeric)).then_some(names),
            sorted: !arguments.has(Kind::NoSort),
            exact: arguments.has(Kind::Exact),
        }
    }

    /// All that is listed when no word is given.
    pub(super) fn plain(names: &'a dyn Names) -> Self {
        Self {
            form: Form::Plain,
            names: Some(names),
            sorted: true,
            exact: false,
        }
    }

    pub(super) fn write_title(&self, out: &mut dyn Write) -> io::Result<()> {
        let local = "Prot LocalAddress:Port";
        let remote = "  -> RemoteAddress:Port";
        match self.form {
            Form::Stats => {
                let [a, b, c, d, e] = ["Conns", "InPkts", "OutPkts", "InBytes", "OutBytes"];
                writeln!(out, "{local:<33} {a:>8} {b:>8} {c:>8} {d:>8} {e:>8}")?;
            }
            Form::Rate => {
                let [a, b, c, d, e] = ["CPS", "InPPS", "OutPPS", "InBPS", "OutBPS"];
                writeln!(out, "{local:<33} {a:>8} {b:>8} {c:>8} {d:>8} {e:>8}")?;
            }
            Form::Thresholds => {
                let [a, b, c, d] = ["Uthreshold", "Lthreshold", "ActiveConn", "InActConn"];
                writeln!(out, "{local:<33} {a:<10} {b:<10} {c:<10} {d:<10}")?;
            }
            Form::PersistentConnections => {
                let [a, b, c, d] = ["Weight", "PersistConn", "ActiveConn", "InActConn"];
                writeln!(out, "{local:<33} {a:<9} {b:<11} {c:<10} {d:<10}")?;
            }
            Form::TunnelInfo => {
                writeln!(out, "{local} Scheduler Flags")?;
                let info = "TunnelInfo    Weight ActiveConn InActConn";
                return writeln!(out, "{remote}           Forward {info}");
            }
            Form::Plain => {
                writeln!(out, "{local} Scheduler Flags")?;
                let plain = "Weight ActiveConn InActConn";
                return writeln!(out, "{remote}           Forward {plain}");
            }
        }
        writeln!(out, "{remote}")
    }

    /// One service and its servers.
    pub(super) fn write_service(
        &self,
        out: &mut dyn Write,
        status: ServiceStatus,
    ) -> io::Result<()> {
        let service = &status.service;
        let name = self.service_name(&service.key);
        match self.form {
            Form::Stats => {
                let numbers = numbers_of_counters(&status.counters);
                writeln!(out, "{name:<33}{}", self.numbers(numbers))?;
            }
            Form::Rate => {
                let numbers = numbers_of_rates(&status.rates);
                writeln!(out, "{name:<33}{}", self.numbers(numbers))?;
            }
            _ => writeln!(out, "{name} {}{}", service.scheduler, flags(service))?,
        }
        let protocol = protocol(&service.key);
        let servers = if self.sorted {
            sort_servers(status.servers)
        } else {
            status.servers
        };
        for server in servers {
            self.write_server(out, &server, protocol)?;
        }
        Ok(())
    }

    fn write_server(
        &self,
        out: &mut dyn Write,
        status: &ServerStatus,
        protocol: Option<Protocol>,
    ) -> io::Result<()> {
        let server = &status.server;
        let at = server.at;
        let mut name = addresses::write(at.address, at.port, protocol, self.names);
        if at.address.is_ipv4() {
            addresses::cut(&mut name, SERVER_COLUMN);
        }
        write!(out, "  -> {name:<28}")?;
        let weight = server.weight;
        let active = status.active_connections;
        let inactive = status.inactive_connections;
        match self.form {
            Form::Stats => {
                let numbers = numbers_of_counters(&status.counters);
                writeln!(out, "{}", self.numbers(numbers))
            }
            Form::Rate => {
                // Here connections and packets are never rounded.
                let [connections, in_packets, out_packets, in_bytes, out_bytes] =
                    numbers_of_rates(&status.rates);
                write!(out, " {connections:>8} {in_packets:>8} {out_packets:>8}")?;
                writeln!(out, "{}", self.numbers([in_bytes, out_bytes]))
            }
            Form::Thresholds => {
                let (upper, lower) = (server.upper_threshold, server.lower_threshold);
                writeln!(out, " {upper:<10} {lower:<10} {active:<10} {inactive:<10}")
            }
            Form::PersistentConnections => {
                let persistent = status.persistent_connections;
                writeln!(
                    out,
                    " {weight:<9} {persistent:<11} {active:<10} {inactive:<10}"
                )
            }
            Form::TunnelInfo => {
                let method = method(server.method);
                let tunnel = tunnel(server.method);
                write!(out, " {method:<7} {tunnel:<13}")?;
                writeln!(out, " {weight:<6} {active:<10} {inactive:<10}")
            }
            Form::Plain => {
                let method = method(server.method);
                writeln!(out, " {method:<7} {weight:<6} {active:<10} {inactive:<10}")
            }
        }
    }

    fn service_name(&self, key: &ServiceKey) -> String {
        match *key {
            ServiceKey::Mark { mark, family } => {
                // ipvsadm writes marks as signed numbers.
                let mark = mark.get().cast_signed();
                match family {
                    Family::Ipv4 => format!("FWM  {mark}"),
                    Family::Ipv6 => format!("FWM  {mark} IPv6"),
                }
            }
            ServiceKey::Address {
                protocol,
                address,
                port,
            } => {
                let at = addresses::write(address, port, Some(protocol), self.names);
                let mut name = format!("{:<4} {at}", protocol.to_string());
                if address.is_ipv4() {
                    addresses::cut(&mut name, SERVICE_COLUMN);
                }
                name
            }
        }
    }

    fn numbers<const COUNT: usize>(&self, numbers: [u64; COUNT]) -> String {
        let write = |number| match self.exact {
            true => format!(" {number:>8}"),
            false => format!("{:>9}", rounded(number)),
        };
        numbers.into_iter().map(write).collect()
    }
}

/// Eight digits, then thousands, millions, and so on.
fn rounded(number: u64) -> String {
    match number {
        0..100_000_000 => number.to_string(),
        100_000_000..1_000_000_000 => format!("{}K", number / 1_000),
        1_000_000_000..100_000_000_000 => format!("{}M", number / 1_000_000),
        100_000_000_000..100_000_000_000_000 => format!("{}G", number / 1_000_000_000),
        _ => format!("{}T", number / 1_000_000_000_000),
    }
}

fn numbers_of_counters(counters: &Counters) -> [u64; 5] {
    [
        counters.connections,
        counters.in_packets,
        counters.out_packets,
        counters.in_bytes,
        counters.out_bytes,
    ]
}

fn numbers_of_rates(rates: &Rates) -> [u64; 5] {
    [
        rates.connections,
        rates.in_packets,
        rates.out_packets,
        rates.in_bytes,
        rates.out_bytes,
    ]
}

/// The protocol whose names a service's ports have; a mark says nothing about protocols.
pub(super) fn protocol(key: &ServiceKey) -> Option<Protocol> {
    match *key {
        ServiceKey::Address { protocol, .. } => Some(protocol),
        ServiceKey::Mark { .. } => None,
    }
}

/// What follows the scheduler's name.
fn flags(service: &Service) -> String {
    let mut text = String::new();
    if service.flags.has_bits() {
        text += &format!(" ({})", scheduler_flags(service));
    }
    if let Some(persistence) = &service.persistence {
        text += &format!(" persistent {}", persistence.timeout_s);
        if let Some(mask) = granularity(persistence.granularity) {
            text += &format!(" mask {mask}");
        }
        if let Some(engine) = &persistence.engine {
            text += &format!(" pe {engine}");
        }
    }
    if service.one_packet {
        text += " ops";
    }
    text
}

/// The scheduler's own names of its flags. A flag that sh or mh does not know has none.
pub(super) fn scheduler_flags(service: &Service) -> String {
    let names = match service.scheduler {
        Scheduler::Sh => ["sh-fallback", "sh-port", ""],
        Scheduler::Mh => ["mh-fallback", "mh-port", ""],
        _ => ["flag-1", "flag-2", "flag-3"],
    };
    let flags = service.flags;
    let set = [flags.fallback, flags.port, flags.third];
    let named: Vec<_> = names
        .into_iter()
        .zip(set)
        .filter(|(name, set)| *set && !name.is_empty())
        .map(|(name, _)| name)
        .collect();
    named.join(",")
}

/// The granularity, unless it is a whole address.
pub(super) fn granularity(granularity: Granularity) -> Option<String> {
    match granularity {
        Granularity::Mask(mask) if mask.is_broadcast() => None,
        Granularity::Mask(mask) => Some(mask.to_string()),
        Granularity::Prefix(128) => None,
        Granularity::Prefix(length) => Some(length.to_string()),
    }
}

fn method(method: Method) -> &'static str {
    match method {
        Method::Masquerade => "Masq",
        Method::FullNat => "FullNat",
        Method::Local => "Local",
        Method::Tunnel(_) => "Tunnel",
        Method::Route => "Route",
    }
}

fn tunnel(method: Method) -> String {
    let checksum_name = |checksum| match checksum {
        TunnelChecksum::Off => "-c",
        TunnelChecksum::On => "+c",
        TunnelChecksum::Remote => "r+c",
    };
    match method {
        Method::Masquerade | Method::FullNat | Method::Local | Method::Route => "n/a".into(),
        Method::Tunnel(Encapsulation::Ipip) => "ipip".into(),
        Method::Tunnel(Encapsulation::Gue { port, checksum }) => {
            format!("gue:{port}:{}", checksum_name(checksum))
        }
        Method::Tunnel(Encapsulation::Gre { checksum }) => {
            format!("gre:{}", checksum_name(checksum))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_above_eight_digits_are_rounded_down_to_a_unit() {
        for (number, text) in [
            (99_999_999, "99999999"),
            (100_000_000, "100000K"),
            (999_999_999, "999999K"),
            (1_000_000_000, "1000M"),
            (99_999_999_999, "99999M"),
            (100_000_000_000, "100G"),
            (99_999_999_999_999, "99999G"),
            (100_000_000_000_000, "100T"),
        ] {
            assert_eq!(rounded(number), text);
        }
    }
}
