//! Routes: the kernel's routing tables, as far as a packet without mark or source goes through
//! them: `local`, then `main`, then `default`, the longest prefix first, the lowest metric first.
//!
//! Policy rules, routes for a type of service and other tables are never followed.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// An address and how many of its leading bits count; the others are zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Prefix {
    address: IpAddr,
    length: u8,
}

impl Prefix {
    /// Bits beyond `length` are cleared, and `length` is at most the width of the address.
    #[must_use]
    pub fn new(address: IpAddr, length: u8) -> Self {
        let length = length.min(width(address));
        let bits = masked(bits(address), length);
        let address = match address {
            IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::from_bits((bits >> 96) as u32)),
            IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::from_bits(bits)),
        };
        Self { address, length }
    }

    /// One address.
    #[must_use]
    pub fn host(address: IpAddr) -> Self {
        Self::new(address, width(address))
    }

    #[must_use]
    pub fn address(&self) -> IpAddr {
        self.address
    }

    #[must_use]
    pub fn length(&self) -> u8 {
        self.length
    }

    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        address.is_ipv4() == self.address.is_ipv4()
            && masked(bits(address), self.length) == bits(self.address)
    }

    /// Is it one address?
    #[must_use]
    pub fn is_host(&self) -> bool {
        self.length == width(self.address)
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.length {
            0 => f.write_str("default"),
            length => write!(f, "{}/{length}", self.address),
        }
    }
}

/// What a route does with a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Unicast,
    Local,
    Anycast,
    Broadcast,
    Multicast,
    Blackhole,
    Unreachable,
    Prohibit,
    /// Go on with the next table.
    Throw,
    Other,
}

/// One way of a route: a link, and the router on it unless the target is on the link itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Path {
    pub interface: u32,
    /// An IPv4 route may have an IPv6 gateway (RFC 5549).
    pub gateway: Option<IpAddr>,
}

/// A network, and who leads there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lead {
    pub prefix: Prefix,
    /// `None` where clients are on the link itself, or there is more than one way.
    pub gateway: Option<IpAddr>,
    pub mtu: Option<u32>,
}

/// One route of a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub prefix: Prefix,
    pub table: u32,
    pub metric: u32,
    pub type_of_service: u8,
    pub kind: Kind,
    pub paths: Vec<Path>,
    pub mtu: Option<u32>,
    /// The address to speak from.
    pub source: Option<IpAddr>,
}

impl Entry {
    /// Routes with the same place take each other's place.
    fn has_place_of(&self, other: &Entry) -> bool {
        self.metric == other.metric && self.type_of_service == other.type_of_service
    }

    fn covers(&self, other: &Entry) -> bool {
        self.kind == other.kind
            && !other.paths.is_empty()
            && other.paths.iter().all(|path| self.paths.contains(path))
    }
}

/// The tables a packet visits, in this order: the kernel's default rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Table {
    Local,
    Main,
    Default,
}

impl Table {
    pub const ORDER: [Table; 3] = [Table::Local, Table::Main, Table::Default];

    /// `rt_class_t` in `linux/rtnetlink.h`.
    fn from_number(number: u32) -> Option<Self> {
        match number {
            255 => Some(Table::Local),
            254 => Some(Table::Main),
            253 => Some(Table::Default),
            _ => None,
        }
    }
}

/// All routes that a packet may meet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Routes(BTreeMap<(Table, bool), Lengths>);

/// Of one table and family: by length, by network, in order of metric.
type Lengths = BTreeMap<u8, BTreeMap<u128, Vec<Entry>>>;

impl Routes {
    /// Every network that the main table knows, with the gateway that leads there if there is just
    /// one, and the route's own limit on the size of packets.
    pub fn gateways(&self) -> Vec<Lead> {
        let main = self
            .0
            .iter()
            .filter(|((table, _), _)| *table == Table::Main);
        let networks = main.flat_map(|(_, lengths)| lengths.values().flat_map(BTreeMap::values));
        let lead = |entries: &Vec<Entry>| {
            let best = entries.first()?;
            let gateway = match best.paths.as_slice() {
                [path] if best.kind == Kind::Unicast => path.gateway,
                _ => None,
            };
            Some(Lead {
                prefix: best.prefix,
                gateway,
                mtu: best.mtu,
            })
        };
        networks.filter_map(lead).collect()
    }

    /// The routes for `to` in a table, best first.
    pub fn matching(&self, table: Table, to: IpAddr) -> impl Iterator<Item = &[Entry]> {
        let lengths = self
            .0
            .get(&(table, to.is_ipv4()))
            .into_iter()
            .flatten()
            .rev();
        let bits = bits(to);
        lengths.filter_map(move |(&length, networks)| {
            networks.get(&masked(bits, length)).map(Vec::as_slice)
        })
    }

    /// Adds a route; `replace` takes out the first of its place, as `ip route replace` does.
    /// Says whether anything is different afterwards.
    ///
    /// The kernel tells a route over several IPv6 routers again, with all of them, when one comes
    /// in; so what the added route covers goes out.
    pub fn insert(&mut self, entry: Entry, replace: bool) -> bool {
        let Some((key, length, network)) = place(&entry) else {
            return false;
        };
        let networks = self.0.entry(key).or_default().entry(length).or_default();
        let entries = networks.entry(network).or_default();
        if entries.contains(&entry) {
            return false;
        }
        if replace && let Some(first) = entries.iter().position(|old| old.has_place_of(&entry)) {
            entries.remove(first);
        }
        entries.retain(|old| !(old.has_place_of(&entry) && entry.covers(old)));
        let place = entries.partition_point(|old| old.metric <= entry.metric);
        entries.insert(place, entry);
        true
    }

    /// Takes out a route, or the named paths of one. Says whether anything is different afterwards.
    pub fn remove(&mut self, entry: &Entry) -> bool {
        let Some((key, length, network)) = place(entry) else {
            return false;
        };
        let Some(lengths) = self.0.get_mut(&key) else {
            return false;
        };
        let Some(networks) = lengths.get_mut(&length) else {
            return false;
        };
        let Some(entries) = networks.get_mut(&network) else {
            return false;
        };
        let same = |old: &Entry| old.has_place_of(entry) && old.kind == entry.kind;
        let exact = entries
            .iter()
            .position(|old| same(old) && old.paths == entry.paths);
        let wider = || {
            entries
                .iter()
                .position(|old| same(old) && old.covers(entry))
        };
        let Some(found) = exact.or_else(wider) else {
            return false;
        };
        entries[found]
            .paths
            .retain(|path| !entry.paths.contains(path));
        if entries[found].paths.is_empty() {
            entries.remove(found);
        }
        // Empty places go, so that a look-up visits only lengths that exist.
        if entries.is_empty() {
            networks.remove(&network);
        }
        if networks.is_empty() {
            lengths.remove(&length);
        }
        true
    }

    /// Takes out all paths over a link, and the routes that are left with none.
    pub fn remove_link(&mut self, interface: u32) {
        for lengths in self.0.values_mut() {
            for networks in lengths.values_mut() {
                networks.retain(|_, entries| {
                    entries.retain_mut(|entry| {
                        let before = entry.paths.len();
                        entry.paths.retain(|path| path.interface != interface);
                        before == 0 || !entry.paths.is_empty()
                    });
                    !entries.is_empty()
                });
            }
            lengths.retain(|_, networks| !networks.is_empty());
        }
    }
}

/// Where a route is kept, or nothing for one that no packet meets.
fn place(entry: &Entry) -> Option<((Table, bool), u8, u128)> {
    let table = Table::from_number(entry.table)?;
    let Prefix { address, length } = entry.prefix;
    let met = entry.type_of_service == 0;
    met.then(|| ((table, address.is_ipv4()), length, bits(address)))
}

fn width(address: IpAddr) -> u8 {
    match address {
        IpAddr::V4(_) => 32,
        IpAddr::V6(_) => 128,
    }
}

/// The address at the upper end of 128 bits, so that both families are masked alike.
fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u128::from(address.to_bits()) << 96,
        IpAddr::V6(address) => address.to_bits(),
    }
}

fn masked(bits: u128, length: u8) -> u128 {
    match length {
        0 => 0,
        length => bits & (u128::MAX << (128 - u32::from(length))),
    }
}
