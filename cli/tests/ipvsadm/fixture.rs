//! Names that a test says, and numbers read back from what the original printed.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use shunt_cli::ipvsadm::names::Names;
use shunt_model::{
    Connection, Counters, EngineData, Family, Protocol, Rates, ServerAddress, ServiceKey, State,
};

use crate::memory::{Numbers, Traffic};

/// The lines of `/etc/services` that matter to the transcripts.
const SERVICES: [(&str, u16, Protocol); 9] = [
    ("domain", 53, Protocol::Tcp),
    ("domain", 53, Protocol::Udp),
    ("http", 80, Protocol::Tcp),
    ("https", 443, Protocol::Tcp),
    ("https", 443, Protocol::Udp),
    ("sip", 5060, Protocol::Tcp),
    ("sip", 5060, Protocol::Udp),
    ("http-alt", 8080, Protocol::Tcp),
    ("tproxy", 8081, Protocol::Tcp),
];

/// Hosts as `/etc/hosts` has them, and [`SERVICES`].
#[derive(Debug)]
pub(crate) struct Fixture {
    hosts: Vec<(IpAddr, String)>,
}

impl Fixture {
    pub(crate) fn new() -> Self {
        let localhost = (Ipv4Addr::LOCALHOST.into(), "localhost".to_owned());
        Self {
            hosts: vec![localhost],
        }
    }

    /// Takes a line of `/etc/hosts`; other lines are none of its business.
    pub(crate) fn learn(&mut self, line: &str) {
        let mut words = line.split_whitespace();
        let address = words.next().and_then(|word| word.parse().ok());
        if let (Some(address), Some(name)) = (address, words.next()) {
            self.hosts.push((address, name.to_owned()));
        }
    }
}

impl Names for Fixture {
    fn address(&self, host: &str) -> Option<Ipv4Addr> {
        self.hosts.iter().find_map(|(address, name)| match address {
            IpAddr::V4(address) if name == host => Some(*address),
            IpAddr::V4(_) | IpAddr::V6(_) => None,
        })
    }

    fn host(&self, address: IpAddr) -> Option<String> {
        let found = self.hosts.iter().find(|(known, _)| *known == address);
        found.map(|(_, name)| name.clone())
    }

    fn port(&self, service: &str, protocol: Protocol) -> Option<u16> {
        let fits = |row: &&(&str, u16, Protocol)| row.0 == service && row.2 == protocol;
        SERVICES.iter().find(fits).map(|row| row.1)
    }

    fn service(&self, port: u16, protocol: Protocol) -> Option<String> {
        let fits = |row: &&(&str, u16, Protocol)| row.1 == port && row.2 == protocol;
        SERVICES.iter().find(fits).map(|row| row.0.to_owned())
    }
}

/// The numbers in a listing of services, whichever form it has.
pub(crate) fn traffic(listing: &str) -> Traffic {
    let mut traffic = HashMap::new();
    let mut form = "";
    let mut service = None;
    for line in listing.lines() {
        if line.starts_with("Prot ") {
            form = line;
            continue;
        }
        let words: Vec<_> = line.split_whitespace().collect();
        let Some(protocol) = words.first().copied().and_then(protocol) else {
            if let (["->", at, ..], Some((key, _))) = (words.as_slice(), service)
                && let Some(at) = address(at, None)
            {
                let at = ServerAddress {
                    address: at.ip(),
                    port: at.port(),
                };
                traffic.insert((key, Some(at)), numbers(form, &words));
            }
            continue;
        };
        let at = address(words[1], None).unwrap();
        let key = ServiceKey::Address {
            protocol,
            address: at.ip(),
            port: at.port(),
        };
        service = Some((key, Family::from(at.ip())));
        traffic.insert((key, None), numbers(form, &words));
    }
    traffic
}

/// The numbers of connections in `/proc/net/ip_vs`.
pub(crate) fn traffic_of_proc(text: &str) -> Traffic {
    let mut traffic = HashMap::new();
    let mut service = None;
    for line in text.lines() {
        let words: Vec<_> = line.split_whitespace().collect();
        match (
            words[..].first().copied().and_then(protocol),
            service,
            &words[..],
        ) {
            (Some(protocol), ..) => {
                let at = address_of_proc(words[1]);
                service = Some(ServiceKey::Address {
                    protocol,
                    address: at.address,
                    port: at.port,
                });
            }
            (None, Some(key), ["->", at, .., active, inactive]) => {
                let numbers = Numbers {
                    active: active.parse().unwrap(),
                    inactive: inactive.parse().unwrap(),
                    ..Numbers::default()
                };
                traffic.insert((key, Some(address_of_proc(at))), numbers);
            }
            // The title.
            (None, ..) => {}
        }
    }
    traffic
}

/// Hexadecimal digits, of IPv6 in brackets.
fn address_of_proc(word: &str) -> ServerAddress {
    let (address, port) = word.rsplit_once(':').unwrap();
    let address = match address.strip_prefix('[') {
        Some(address) => address.trim_end_matches(']').parse().unwrap(),
        None => Ipv4Addr::from_bits(u32::from_str_radix(address, 16).unwrap()).into(),
    };
    let port = u16::from_str_radix(port, 16).unwrap();
    ServerAddress { address, port }
}

/// The numbers in `/proc/net/ip_vs_stats`.
pub(crate) fn statistics(text: &str) -> (Counters, Rates) {
    let row = |number: usize| {
        let line = text.lines().nth(number).unwrap();
        let numbers = line.split_whitespace();
        let read = |word| u64::from_str_radix(word, 16).unwrap();
        <[u64; 5]>::try_from(numbers.map(read).collect::<Vec<_>>()).unwrap()
    };
    let [connections, in_packets, out_packets, in_bytes, out_bytes] = row(2);
    let counters = Counters {
        connections,
        in_packets,
        out_packets,
        in_bytes,
        out_bytes,
    };
    let [connections, in_packets, out_packets, in_bytes, out_bytes] = row(5);
    let rates = Rates {
        connections,
        in_packets,
        out_packets,
        in_bytes,
        out_bytes,
    };
    (counters, rates)
}

fn numbers(form: &str, words: &[&str]) -> Numbers {
    let number = |back: usize| words.iter().nth_back(back).map_or(0, |word| number(word));
    let small = |back| u32::try_from(number(back)).unwrap();
    let mut numbers = Numbers::default();
    if form.contains(" Conns ") {
        numbers.counters = Counters {
            connections: number(4),
            in_packets: number(3),
            out_packets: number(2),
            in_bytes: number(1),
            out_bytes: number(0),
        };
    } else if form.contains(" CPS ") {
        numbers.rates = Rates {
            connections: number(4),
            in_packets: number(3),
            out_packets: number(2),
            in_bytes: number(1),
            out_bytes: number(0),
        };
    } else if words[0] == "->" {
        numbers.active = small(1);
        numbers.inactive = small(0);
        if form.contains("PersistConn") {
            numbers.persistent = small(2);
        }
    }
    numbers
}

/// A number, perhaps rounded to a unit; 0 if it is none.
fn number(word: &str) -> u64 {
    let unit = match word.chars().last() {
        Some('K') => 1_000,
        Some('M') => 1_000_000,
        Some('G') => 1_000_000_000,
        _ => 1,
    };
    let digits = word.trim_end_matches(['K', 'M', 'G']);
    digits.parse::<u64>().map_or(0, |number| number * unit)
}

/// The entries of a connection listing, or the first line that no entry of ours can say.
pub(crate) fn connections(listing: &str, names: &Fixture) -> Result<Vec<Connection>, String> {
    let entries = listing
        .lines()
        .filter(|line| !line.starts_with("IPVS") && !line.starts_with("pro "));
    let read = |line: &str| connection(line, names).ok_or_else(|| line.to_owned());
    entries.map(read).collect()
}

fn connection(line: &str, names: &Fixture) -> Option<Connection> {
    let words: Vec<_> = line.split_whitespace().collect();
    let [
        protocol_name,
        expires,
        state,
        client,
        virtual_address,
        server,
        ref engine @ ..,
    ] = words[..]
    else {
        return None;
    };
    let engine = match *engine {
        [] => None,
        [name, data] => Some(EngineData {
            name: name.to_owned(),
            data: data.to_owned(),
        }),
        _ => return None,
    };
    // The template of a mark's client is for every protocol.
    let is_marked = protocol_name == "IP";
    let protocol = protocol(if is_marked { "TCP" } else { protocol_name })?;
    let (minutes, seconds) = expires.split_once(':')?;
    let at = |word| address(word, Some((protocol, names)));
    let virtual_address = at(virtual_address)?;
    let mark = match virtual_address.ip() {
        IpAddr::V4(mark) if is_marked => Some(mark.to_bits()),
        _ => None,
    };
    Some(Connection {
        protocol,
        mark,
        client: at(client)?,
        virtual_address,
        server: at(server)?,
        state: State::ALL
            .into_iter()
            .find(|known| known.to_string() == state)?,
        expires_s: minutes.parse::<u32>().ok()? * 60 + seconds.parse::<u32>().ok()?,
        engine,
    })
}

fn protocol(name: &str) -> Option<Protocol> {
    let known = [Protocol::Tcp, Protocol::Udp, Protocol::Sctp];
    known.into_iter().find(|known| known.to_string() == name)
}

/// An address and a port, which may be a name if the protocol is known.
fn address(word: &str, named: Option<(Protocol, &Fixture)>) -> Option<SocketAddr> {
    let (host, port) = word.rsplit_once(':')?;
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let port = match (port.parse(), named) {
        (Ok(port), _) => port,
        (Err(_), Some((protocol, names))) => names.port(port, protocol)?,
        (Err(_), None) => return None,
    };
    Some(SocketAddr::new(host.parse().ok()?, port))
}
