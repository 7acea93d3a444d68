//! The next hop: where a frame for an address goes, by the kernel's routes and neighbours.

use std::net::IpAddr;

use super::links::{Link, Mac};
use super::routes::{Entry, Kind, Path, Table};
use super::view::View;

/// The answer to "how is this address reached?".
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Route {
    /// It is on this machine.
    Local,
    Via(NextHop),
    /// The way is known, but not who answers there.
    Unresolved {
        interface: u32,
        neighbour: IpAddr,
    },
    Unreachable {
        why: String,
    },
}

/// All that a frame needs to leave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NextHop {
    pub interface: u32,
    /// The router, or the target itself.
    pub neighbour: IpAddr,
    /// Both hardware addresses are zero on a link that needs no neighbour.
    pub target_mac: Mac,
    pub source_mac: Mac,
    /// The least of the link's and the route's.
    pub mtu: u32,
    /// The director's own address towards the target, of the same family: the outer source of a
    /// tunnel.
    pub source: Option<IpAddr>,
}

/// One way that could be taken.
pub(super) struct Way<'a> {
    pub link: &'a Link,
    pub neighbour: IpAddr,
    entry: &'a Entry,
    path: &'a Path,
}

/// What the routes alone say.
pub(super) enum Decision<'a> {
    Local,
    /// Never empty.
    Ways(Vec<Way<'a>>),
    Unreachable(String),
}

/// Every way of equal cost to `to` whose neighbour is known, or the one answer there is instead.
/// Never empty.
pub(super) fn routes(view: &View, to: IpAddr) -> Vec<Route> {
    let ways = match decide(view, to) {
        Decision::Local => return vec![Route::Local],
        Decision::Unreachable(why) => return vec![Route::Unreachable { why }],
        Decision::Ways(ways) => ways,
    };
    let known: Vec<Route> = ways
        .iter()
        .filter_map(|way| next_hop(view, way, to))
        .map(Route::Via)
        .collect();
    if !known.is_empty() {
        return known;
    }
    let Way {
        link, neighbour, ..
    } = ways[0]; // A decision for ways has at least one.
    vec![Route::Unresolved {
        interface: link.index,
        neighbour,
    }]
}

/// The next hop on this way, if its neighbour is known.
fn next_hop(view: &View, way: &Way, to: IpAddr) -> Option<NextHop> {
    let &Way {
        link,
        neighbour,
        entry,
        path,
    } = way;
    let (target_mac, source_mac) = match link.needs_neighbour() {
        true => (view.neighbours.mac(link.index, neighbour)?, link.mac),
        false => ([0; 6], [0; 6]),
    };
    let source = entry
        .source
        .filter(|source| source.is_ipv4() == to.is_ipv4());
    Some(NextHop {
        interface: link.index,
        neighbour,
        target_mac,
        source_mac,
        mtu: entry.mtu.map_or(link.mtu, |mtu| mtu.min(link.mtu)),
        source: source.or_else(|| view.addresses.source(to, link.index, path.gateway)),
    })
}

/// Walks the tables as the kernel does: a route whose links are all down is passed over.
pub(super) fn decide(view: &View, to: IpAddr) -> Decision<'_> {
    if view.addresses.contains(to) {
        return Decision::Local;
    }
    let mut passed = None;
    'tables: for table in Table::ORDER {
        for entry in view.routes.matching(table, to).flat_map(in_order) {
            let (first, equals) = entry;
            match first.kind {
                Kind::Local | Kind::Anycast => return Decision::Local,
                Kind::Throw => continue 'tables,
                Kind::Unicast => {
                    let ways = ways(view, equals, to);
                    if !ways.is_empty() {
                        return Decision::Ways(ways);
                    }
                    passed = passed.or(Some(first));
                }
                Kind::Blackhole => return refused(first, "is a blackhole"),
                Kind::Unreachable => return refused(first, "says unreachable"),
                Kind::Prohibit => return refused(first, "prohibits it"),
                Kind::Broadcast => return refused(first, "is for broadcast"),
                Kind::Multicast => return refused(first, "is for multicast"),
                Kind::Other => return refused(first, "is of a kind that is not followed"),
            }
        }
    }
    Decision::Unreachable(match passed {
        Some(entry) => format!("the route {} has no link that is up", entry.prefix),
        None => format!("no route to {to}"),
    })
}

/// Whether the best local route to an address is one to many.
pub(super) fn is_of_many(view: &View, address: IpAddr) -> bool {
    let mut routes = view.routes.matching(Table::Local, address).flatten();
    let best = routes.next().map(|entry| entry.kind);
    matches!(best, Some(Kind::Broadcast | Kind::Multicast))
}

fn refused<'a>(entry: &Entry, how: &str) -> Decision<'a> {
    Decision::Unreachable(format!("the route {} {how}", entry.prefix))
}

/// Each route of a prefix, with those of its metric from it on: they are ways of equal cost.
fn in_order(entries: &[Entry]) -> impl Iterator<Item = (&Entry, &[Entry])> {
    entries.iter().enumerate().map(|(place, first)| {
        let rest = &entries[place..];
        let same = |entry: &&Entry| entry.metric == first.metric && entry.kind == Kind::Unicast;
        (first, &rest[..rest.iter().take_while(same).count()])
    })
}

fn ways<'a>(view: &'a View, entries: &'a [Entry], to: IpAddr) -> Vec<Way<'a>> {
    let paths = entries
        .iter()
        .flat_map(|entry| entry.paths.iter().map(move |path| (entry, path)));
    paths
        .filter_map(|(entry, path)| {
            let link = view
                .links
                .get(path.interface)
                .filter(|link| link.is_usable())?;
            Some(Way {
                link,
                neighbour: path.gateway.unwrap_or(to),
                entry,
                path,
            })
        })
        .collect()
}
