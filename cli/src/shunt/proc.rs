//! `shunt proc`: the texts of the kernel's `/proc/net/ip_vs*`, byte for byte, from Shunt's table.
//!
//! Programs that watch IPVS read these files. The formats are those of `ip_vs_info_seq_show` and
//! similar functions in `net/netfilter/ipvs`: addresses and counters are hexadecimal, weights are
//! decimal.

use std::fmt::{self, Write as _};
use std::io::{self, Write};
use std::net::{IpAddr, SocketAddr};

use clap::ValueEnum;
use shunt_model::api::{Reason, ServiceStatus, Statistics};
use shunt_model::service::Granularity;
use shunt_model::{Connection, Method, Persistence, Server, ServiceKey};

use super::{Halt, Outside, refused};
use crate::client::Client;
use crate::ipvsadm::TABLE_SIZE;

/// The kernel prints the persistence timeout in its own ticks. This is their number per second in
/// the kernels of most distributions (`CONFIG_HZ`).
const TICKS: u64 = 250;

/// A file of the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum File {
    /// Services and their servers
    #[value(name = "ip_vs")]
    Table,
    /// All traffic, and its rates
    #[value(name = "ip_vs_stats")]
    Stats,
    /// The same by processor; refused, because the daemon does not count by processor
    #[value(name = "ip_vs_stats_percpu")]
    StatsByProcessor,
    /// Connections
    #[value(name = "ip_vs_conn")]
    Connections,
    /// Connections, and whether another director created them
    #[value(name = "ip_vs_conn_sync")]
    ConnectionsByOrigin,
    /// Protocols with a module of their own; there are none
    #[value(name = "ip_vs_app")]
    Applications,
}

impl File {
    pub(super) fn write(self, outside: &mut Outside<'_>) -> Result<(), Halt> {
        if outside.json {
            return Err(Halt::Usage(
                "\"proc\" has only the kernel's format; for JSON use \"service list\", \"stats\" \
                 or \"connection list\""
                    .to_owned(),
            ));
        }
        if self == File::StatsByProcessor {
            return Err(refused(
                Reason::NotSupported,
                "ip_vs_stats_percpu: the daemon gives counters of all processors together; \
                 ask for ip_vs_stats"
                    .to_owned(),
            ));
        }
        let mut client = (outside.open)()?;
        let out = &mut *outside.out;
        match self {
            File::Table => write_table(out, &client.services()?)?,
            File::Stats => write_statistics(out, &client.statistics()?)?,
            File::Connections => write_connections(out, client.as_mut(), false)?,
            File::ConnectionsByOrigin => write_connections(out, client.as_mut(), true)?,
            File::Applications => writeln!(out, "prot port    usecnt name")?,
            // Refused above, before the daemon is asked.
            File::StatsByProcessor => {}
        }
        Ok(())
    }
}

fn write_table(out: &mut dyn Write, services: &[ServiceStatus]) -> io::Result<()> {
    writeln!(out, "IP Virtual Server version 1.2.1 (size={TABLE_SIZE})")?;
    writeln!(out, "Prot LocalAddress:Port Scheduler Flags")?;
    let columns = "Forward Weight ActiveConn InActConn";
    writeln!(out, "  -> RemoteAddress:Port {columns}")?;
    for status in services {
        write_service(out, status)?;
    }
    Ok(())
}

fn write_service(out: &mut dyn Write, status: &ServiceStatus) -> io::Result<()> {
    let service = &status.service;
    let scheduler = service.scheduler;
    let one_packet = if service.one_packet { "ops " } else { "" };
    match service.key {
        ServiceKey::Mark { mark, .. } => write!(out, "FWM  {mark:08X} {scheduler} {one_packet}")?,
        ServiceKey::Address {
            protocol,
            address,
            port,
        } => {
            let at = AtPort(address, port);
            write!(out, "{protocol}  {at} {scheduler} ")?;
            // For IPv6 addresses the kernel omits the word and the space after it.
            if address.is_ipv4() {
                write!(out, "{one_packet} ")?;
            }
        }
    }
    if let Some(persistence) = &service.persistence {
        let Persistence {
            timeout_s,
            granularity,
            ..
        } = persistence;
        let mask = match *granularity {
            Granularity::Mask(mask) => mask.to_bits(),
            // The kernel prints the mask, which is in network order, as a number of the machine's
            // order.
            Granularity::Prefix(length) => u32::from_be_bytes(u32::from(length).to_ne_bytes()),
        };
        let ticks = u64::from(*timeout_s) * TICKS;
        write!(out, "persistent {ticks} {mask:08X}")?;
    }
    writeln!(out)?;
    for status in &status.servers {
        let Server {
            at, method, weight, ..
        } = status.server;
        let at = AtPort(at.address, at.port);
        let method = match method {
            Method::Masquerade => "Masq",
            Method::FullNat => "FullNat",
            Method::Local => "Local",
            Method::Tunnel(_) => "Tunnel",
            Method::Route => "Route",
        };
        let (active, inactive) = (status.active_connections, status.inactive_connections);
        writeln!(
            out,
            "  -> {at}      {method:<7} {weight:<6} {active:<10} {inactive:<10}"
        )?;
    }
    Ok(())
}

fn write_statistics(out: &mut dyn Write, statistics: &Statistics) -> io::Result<()> {
    let (counters, rates) = (statistics.counters, statistics.rates);
    let [incoming, outgoing] = ["Incoming", "Outgoing"];
    writeln!(
        out,
        "   Total Incoming Outgoing {incoming:>16} {outgoing:>16}"
    )?;
    let bytes = "Bytes";
    writeln!(out, "   Conns  Packets  Packets {bytes:>16} {bytes:>16}")?;
    write_numbers(
        out,
        [
            counters.connections,
            counters.in_packets,
            counters.out_packets,
            counters.in_bytes,
            counters.out_bytes,
        ],
    )?;
    let bytes = "Bytes/s";
    writeln!(out, "\n Conns/s   Pkts/s   Pkts/s {bytes:>16} {bytes:>16}")?;
    write_numbers(
        out,
        [
            rates.connections,
            rates.in_packets,
            rates.out_packets,
            rates.in_bytes,
            rates.out_bytes,
        ],
    )
}

fn write_numbers(out: &mut dyn Write, [a, b, c, d, e]: [u64; 5]) -> io::Result<()> {
    writeln!(out, "{a:8X} {b:8X} {c:8X} {d:16X} {e:16X}")
}

fn write_connections(
    out: &mut dyn Write,
    client: &mut dyn Client,
    with_origin: bool,
) -> Result<(), Halt> {
    let columns = match with_origin {
        true => "Origin Expires",
        false => "Expires PEName PEData",
    };
    let ends = "Pro FromIP   FPrt ToIP     TPrt DestIP   DPrt";
    writeln!(out, "{ends} State       {columns}")?;
    for connection in client.connections()? {
        let Connection {
            protocol,
            client,
            virtual_address,
            server,
            state,
            expires_s,
            mark,
            engine,
        } = connection?;
        let protocol = match mark {
            Some(_) => "IP".to_owned(),
            None => protocol.to_string(),
        };
        let ends = [client, virtual_address, server].map(End);
        let [client, service, server] = ends;
        // No connection comes from another director.
        let origin = if with_origin { "LOCAL  " } else { "" };
        write!(
            out,
            "{protocol:<3} {client} {service} {server} {state:<11} {origin}{expires_s:>7}"
        )?;
        if let Some(engine) = engine.filter(|_| !with_origin) {
            write!(out, " {} ", engine.name)?;
            out.write_all(&engine.bytes())?;
        }
        writeln!(out)?;
    }
    Ok(())
}

/// `%08X` of an IPv4 address, `%pI6` of an IPv6 address, with all digits.
struct Digits(IpAddr);

impl fmt::Display for Digits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            IpAddr::V4(address) => write!(f, "{:08X}", address.to_bits()),
            IpAddr::V6(address) => {
                for (number, group) in address.segments().into_iter().enumerate() {
                    if number > 0 {
                        f.write_char(':')?;
                    }
                    write!(f, "{group:04x}")?;
                }
                Ok(())
            }
        }
    }
}

/// An address and a port in the form of services and servers.
struct AtPort(IpAddr, u16);

impl fmt::Display for AtPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let AtPort(address, port) = *self;
        let digits = Digits(address);
        match address {
            IpAddr::V4(_) => write!(f, "{digits}:{port:04X}"),
            IpAddr::V6(_) => write!(f, "[{digits}]:{port:04X}"),
        }
    }
}

/// An end of a connection.
struct End(SocketAddr);

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {:04X}", Digits(self.0.ip()), self.0.port())
    }
}
