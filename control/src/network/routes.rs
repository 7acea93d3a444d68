//! Routes: the kernel's routing tables. In a table the longest prefix comes first, then the lowest
//! metric. [`super::rules`] decides which tables a packet visits.
//!
//! Routes for a type of service are ignored. Routes for a source network are noted but not
//! followed.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde::{Deserialize, Serialize};

use super::objects::{Objects, Resolved};
pub use super::path::{Gateway, Path};

/// An address and the number of its leading bits that count. The rest is zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Prefix {
    address: IpAddr,
    length: u8,
}

impl Prefix {
    /// Clears the bits beyond `length`. `length` is capped at the width of the address.
    #[must_use]
    pub fn new(address: IpAddr, length: u8) -> Self {
        let length = length.min(width(address));
        let address = of_bits(masked(bits(address), length), address.is_ipv4());
        Self { address, length }
    }

    /// The prefix of one address.
    #[must_use]
    pub fn host(address: IpAddr) -> Self {
        Self::new(address, width(address))
    }

    /// The address, whose bits beyond the length are zero.
    #[must_use]
    pub fn address(&self) -> IpAddr {
        self.address
    }

    /// The number of leading bits that count.
    #[must_use]
    pub fn length(&self) -> u8 {
        self.length
    }

    /// Whether an address of the same family has these leading bits.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        address.is_ipv4() == self.address.is_ipv4()
            && masked(bits(address), self.length) == bits(self.address)
    }

    /// Whether it is one address.
    #[must_use]
    pub fn is_host(&self) -> bool {
        self.length == width(self.address)
    }

    /// Its first and its last address.
    #[must_use]
    pub fn range(&self) -> std::ops::RangeInclusive<IpAddr> {
        let last = bits(self.address) | !masked(u128::MAX, self.length);
        self.address..=of_bits(last, self.address.is_ipv4())
    }

    /// The networks that contain it, the narrowest first.
    pub fn wider(&self) -> impl Iterator<Item = Prefix> + use<> {
        let address = self.address;
        let lengths = (0..self.length).rev();
        lengths.map(move |length| Prefix::new(address, length))
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
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Kind {
    /// It leads to the route's paths.
    Unicast,
    /// It is for this machine.
    Local,
    /// It is for this machine, one of several with the address.
    Anycast,
    /// It is for all machines on the link.
    Broadcast,
    /// It is for a group of machines.
    Multicast,
    /// The packet is dropped in silence.
    Blackhole,
    /// The packet is refused by "host unreachable".
    Unreachable,
    /// The packet is refused by "administratively prohibited".
    Prohibit,
    /// Go on with the next table.
    Throw,
    /// A type that the kernel may add; it is not followed.
    Other,
}

/// The gateway and MTU of a network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lead {
    /// `None` if clients are on the link itself or there are several paths.
    pub gateway: Option<Gateway>,
    /// The MTU that the route sets, in bytes.
    pub mtu: Option<u32>,
}

/// One route of a table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouteEntry {
    /// The targets of the route.
    pub prefix: Prefix,
    /// The number of the table that has the route.
    pub table: u32,
    /// Of two routes for one prefix, the one with the lower metric is taken.
    pub metric: u32,
    /// 0 for a route for every packet; routes for others are ignored.
    pub type_of_service: u8,
    /// What it does with a packet.
    pub kind: Kind,
    /// Empty if only the next-hop object has them.
    pub paths: Vec<Path>,
    /// The number of its next-hop object (`ip nexthop`).
    pub object: Option<u32>,
    /// The MTU that the route sets, in bytes.
    pub mtu: Option<u32>,
    /// The preferred source address.
    pub source: Option<IpAddr>,
    /// It is for packets from this network only.
    pub from: Option<Prefix>,
}

impl RouteEntry {
    /// A unicast route of the main table for every packet, with metric 0.
    #[must_use]
    pub fn unicast(prefix: Prefix, paths: Vec<Path>) -> Self {
        Self {
            prefix,
            table: MAIN,
            metric: 0,
            type_of_service: 0,
            kind: Kind::Unicast,
            paths,
            object: None,
            mtu: None,
            source: None,
            from: None,
        }
    }

    /// Its kind and paths, after its next-hop object.
    pub(super) fn resolved(&self, objects: &Objects) -> (Kind, Vec<Path>) {
        match self.object.and_then(|id| objects.resolve(id)) {
            Some(Resolved::Blackhole) => (Kind::Blackhole, Vec::new()),
            Some(Resolved::Paths(paths)) => (self.kind, paths),
            None => (self.kind, self.paths.clone()),
        }
    }

    /// Whether one route replaces the other.
    fn has_place_of(&self, other: &RouteEntry) -> bool {
        self.metric == other.metric && self.type_of_service == other.type_of_service
    }

    fn covers(&self, other: &RouteEntry) -> bool {
        self.kind == other.kind
            && !other.paths.is_empty()
            && other.paths.iter().all(|path| self.paths.contains(path))
    }
}

/// `rt_class_t` in `linux/rtnetlink.h`.
pub const LOCAL: u32 = 255;
/// The table of routes that name no table.
pub const MAIN: u32 = 254;
/// The table that the last rule names, as a rule empty.
pub const DEFAULT: u32 = 253;

/// All routes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Routes {
    tables: BTreeMap<(u32, bool), Lengths>,
    /// The number of paths by each router.
    routers: BTreeMap<Gateway, usize>,
    /// Routes for packets from a network.
    sourced: Vec<RouteEntry>,
}

/// The routes of one table and family: by prefix length, by network, in order of metric.
type Lengths = BTreeMap<u8, BTreeMap<u128, Vec<RouteEntry>>>;

impl Routes {
    /// The gateway and MTU of a network of the main table; `None` if the table has no such network.
    pub(super) fn lead(&self, prefix: Prefix, objects: &Objects) -> Option<Lead> {
        let best = self.entries(MAIN, prefix)?.first()?;
        let gateway = match best.resolved(objects) {
            (Kind::Unicast, paths) if paths.len() == 1 => paths[0].router(),
            _ => None,
        };
        let mtu = best.mtu;
        Some(Lead { gateway, mtu })
    }

    fn entries(&self, table: u32, prefix: Prefix) -> Option<&Vec<RouteEntry>> {
        let lengths = self.tables.get(&(table, prefix.address.is_ipv4()))?;
        lengths.get(&prefix.length)?.get(&bits(prefix.address))
    }

    /// Every network of a family in the main table.
    pub(super) fn networks(&self, v4: bool) -> impl Iterator<Item = Prefix> {
        let lengths = self.tables.get(&(MAIN, v4)).into_iter().flatten();
        lengths.flat_map(move |(&length, networks)| {
            let prefix = move |bits: &u128| Prefix::new(of_bits(*bits, v4), length);
            networks.keys().map(prefix)
        })
    }

    /// The number of networks of a family in the main table.
    pub(super) fn count(&self, v4: bool) -> usize {
        let lengths = self.tables.get(&(MAIN, v4)).into_iter().flatten();
        lengths.map(|(_, networks)| networks.len()).sum()
    }

    /// Every router that some route names.
    pub(super) fn routers(&self) -> impl Iterator<Item = Gateway> {
        self.routers.keys().copied()
    }

    /// Whether any route depends on the source of a packet.
    pub(super) fn mind_sources(&self) -> bool {
        !self.sourced.is_empty()
    }

    fn all(&self) -> impl Iterator<Item = &RouteEntry> {
        let tables = self.tables.values().flat_map(BTreeMap::values);
        let entries = tables.flat_map(BTreeMap::values).flatten();
        entries.chain(&self.sourced)
    }

    /// The networks whose routes use one of these next-hop objects.
    pub(super) fn users(&self, is_one: impl Fn(u32) -> bool) -> BTreeSet<Prefix> {
        let users = self.all().filter(|entry| entry.object.is_some_and(&is_one));
        users.map(|entry| entry.prefix).collect()
    }

    /// The networks whose routes differ between two accounts.
    pub(super) fn different(&self, other: &Self) -> BTreeSet<Prefix> {
        let mut different = BTreeSet::new();
        for (one, another) in [(self, other), (other, self)] {
            for (table, lengths) in &one.tables {
                let theirs = another.tables.get(table);
                if theirs == Some(lengths) {
                    continue;
                }
                for (length, networks) in lengths {
                    let theirs = theirs.and_then(|lengths| lengths.get(length));
                    for (network, entries) in networks {
                        if theirs.and_then(|networks| networks.get(network)) != Some(entries) {
                            let address = of_bits(*network, table.1);
                            different.insert(Prefix::new(address, *length));
                        }
                    }
                }
            }
        }
        different
    }

    /// The routes for `to` in a table, best first.
    pub(super) fn matching(&self, table: u32, to: IpAddr) -> impl Iterator<Item = &[RouteEntry]> {
        let lengths = self
            .tables
            .get(&(table, to.is_ipv4()))
            .into_iter()
            .flatten()
            .rev();
        let bits = bits(to);
        lengths.filter_map(move |(&length, networks)| {
            networks.get(&masked(bits, length)).map(Vec::as_slice)
        })
    }

    /// Adds a route; true if anything changed. `replace` removes the first route with its metric,
    /// as `ip route replace` does.
    ///
    /// When a router joins an IPv6 route the kernel reports the route again with all routers, so
    /// routes that the added one covers are removed.
    pub(super) fn insert(&mut self, entry: RouteEntry, replace: bool) -> bool {
        if entry.type_of_service != 0 {
            return false;
        }
        let routers = &mut self.routers;
        if entry.from.is_some() {
            let is_new = !self.sourced.contains(&entry);
            if is_new {
                count(routers, &entry.paths);
                self.sourced.push(entry);
            }
            return is_new;
        }
        let (key, length, network) = place(&entry);
        let networks = self.tables.entry(key).or_default().entry(length);
        let entries = networks.or_default().entry(network).or_default();
        if entries.contains(&entry) {
            return false;
        }
        if replace && let Some(first) = entries.iter().position(|old| old.has_place_of(&entry)) {
            uncount(routers, &entries.remove(first).paths);
        }
        entries.retain(|old| {
            let covered = old.has_place_of(&entry) && entry.covers(old);
            if covered {
                uncount(routers, &old.paths);
            }
            !covered
        });
        count(routers, &entry.paths);
        let place = entries.partition_point(|old| old.metric <= entry.metric);
        entries.insert(place, entry);
        true
    }

    /// Removes a route, or the named paths of one; true if anything changed.
    pub(super) fn remove(&mut self, entry: &RouteEntry) -> bool {
        let routers = &mut self.routers;
        if entry.from.is_some() {
            let same = |old: &RouteEntry| old.from == entry.from && old.prefix == entry.prefix;
            let same = |old: &RouteEntry| same(old) && old.table == entry.table;
            let found = self
                .sourced
                .iter()
                .position(|old| same(old) && old.has_place_of(entry) && old.object == entry.object);
            if let Some(found) = found {
                uncount(routers, &self.sourced.swap_remove(found).paths);
            }
            return found.is_some();
        }
        let (key, length, network) = place(entry);
        let Some(lengths) = self.tables.get_mut(&key) else {
            return false;
        };
        let Some(networks) = lengths.get_mut(&length) else {
            return false;
        };
        let Some(entries) = networks.get_mut(&network) else {
            return false;
        };
        let Some(found) = found(entries, entry) else {
            return false;
        };
        let old = &mut entries[found];
        // Paths belong to the object, so they do not identify the route.
        if entry.object.is_some() {
            uncount(routers, &old.paths);
            old.paths.clear();
        }
        old.paths.retain(|path| {
            let named = entry.paths.contains(path);
            if named {
                uncount(routers, &[*path]);
            }
            !named
        });
        if old.paths.is_empty() {
            entries.remove(found);
        }
        // Empty maps are removed, so that a look-up visits only lengths that exist.
        if entries.is_empty() {
            networks.remove(&network);
        }
        if networks.is_empty() {
            lengths.remove(&length);
        }
        true
    }

    /// Removes all paths over a link, and routes without a path. Returns their networks.
    pub(super) fn remove_link(&mut self, interface: u32) -> BTreeSet<Prefix> {
        self.thin(|entry| {
            let before = entry.paths.len();
            entry.paths.retain(|path| path.interface != interface);
            before == 0 || !entry.paths.is_empty()
        })
    }

    /// Removes the routes of a next-hop object. Returns their networks.
    pub(super) fn remove_object(&mut self, id: u32) -> BTreeSet<Prefix> {
        self.thin(|entry| entry.object != Some(id))
    }

    /// Keeps the routes for which `keep` is true; it may remove paths. Returns the networks that
    /// changed.
    fn thin(&mut self, keep: impl Fn(&mut RouteEntry) -> bool) -> BTreeSet<Prefix> {
        let mut different = BTreeSet::new();
        let routers = &mut self.routers;
        let mut thin = |entry: &mut RouteEntry| {
            let before = entry.paths.clone();
            let kept = keep(entry);
            if !kept {
                entry.paths.clear();
            }
            if !kept || entry.paths != before {
                different.insert(entry.prefix);
                uncount(routers, &before);
                count(routers, &entry.paths);
            }
            kept
        };
        self.sourced.retain_mut(&mut thin);
        for lengths in self.tables.values_mut() {
            for networks in lengths.values_mut() {
                networks.retain(|_, entries| {
                    entries.retain_mut(&mut thin);
                    !entries.is_empty()
                });
            }
            lengths.retain(|_, networks| !networks.is_empty());
        }
        different
    }
}

/// The route that a removal means: the equal one, or one that contains its paths.
fn found(entries: &[RouteEntry], entry: &RouteEntry) -> Option<usize> {
    // The object decides the kind, and may have changed since.
    let same_kind = |old: &RouteEntry| entry.object.is_some() || old.kind == entry.kind;
    let same =
        |old: &RouteEntry| old.has_place_of(entry) && old.object == entry.object && same_kind(old);
    let exact =
        |old: &RouteEntry| same(old) && (entry.object.is_some() || old.paths == entry.paths);
    let wider = |old: &RouteEntry| same(old) && old.covers(entry);
    let exact = entries.iter().position(exact);
    exact.or_else(|| entries.iter().position(wider))
}

fn count(routers: &mut BTreeMap<Gateway, usize>, paths: &[Path]) {
    for router in paths.iter().filter_map(Path::router) {
        *routers.entry(router).or_default() += 1;
    }
}

fn uncount(routers: &mut BTreeMap<Gateway, usize>, paths: &[Path]) {
    for router in paths.iter().filter_map(Path::router) {
        if let Some(paths) = routers.get_mut(&router) {
            *paths -= 1; // It was counted.
            if *paths == 0 {
                routers.remove(&router);
            }
        }
    }
}

/// Where a route is kept.
fn place(entry: &RouteEntry) -> ((u32, bool), u8, u128) {
    let Prefix { address, length } = entry.prefix;
    ((entry.table, address.is_ipv4()), length, bits(address))
}

fn width(address: IpAddr) -> u8 {
    match address {
        IpAddr::V4(_) => 32,
        IpAddr::V6(_) => 128,
    }
}

/// The address in the upper bits of 128, so that both families are masked alike.
fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u128::from(address.to_bits()) << 96,
        IpAddr::V6(address) => address.to_bits(),
    }
}

fn of_bits(bits: u128, v4: bool) -> IpAddr {
    match v4 {
        true => IpAddr::V4(Ipv4Addr::from_bits((bits >> 96) as u32)),
        false => IpAddr::V6(Ipv6Addr::from_bits(bits)),
    }
}

fn masked(bits: u128, length: u8) -> u128 {
    match length {
        0 => 0,
        length => bits & (u128::MAX << (128 - u32::from(length))),
    }
}
