//! The next hop of an address, from the kernel's routes and neighbours.

use std::net::IpAddr;

use super::links::{Link, Mac};
use super::routes;
use super::routes::{Gateway, Kind, Path, RouteEntry};
use super::rules::Action;
use super::view::View;

/// How an address is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Route {
    /// It is on this machine.
    Local,
    /// A frame can leave at once.
    Via(NextHop),
    /// The neighbour is known, but not its MAC address.
    Unresolved {
        /// The kernel's index of the link.
        interface: u32,
        /// The router, or the target itself.
        neighbour: IpAddr,
    },
    /// No route leads there, or one that refuses.
    Unreachable {
        /// The reason as a clause.
        why: String,
    },
}

/// Everything that a frame needs to leave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NextHop {
    /// The kernel's index of the link.
    pub interface: u32,
    /// The router, or the target itself.
    pub neighbour: IpAddr,
    /// Both hardware addresses are zero on a link that needs no neighbour.
    pub target_mac: Mac,
    /// The link's own hardware address.
    pub source_mac: Mac,
    /// The lesser MTU of the link and the route, in bytes.
    pub mtu: u32,
    /// The director's own address towards the target, of the same family. It is the outer source of
    /// a tunnel.
    pub source: Option<IpAddr>,
}

/// One path of equal cost.
pub(super) struct Way<'a> {
    pub link: &'a Link,
    pub neighbour: IpAddr,
    entry: &'a RouteEntry,
    path: Path,
}

/// The decision of the routes alone.
pub(super) enum Decision<'a> {
    Local,
    /// Never empty.
    Ways(Vec<Way<'a>>),
    Unreachable(String),
}

/// Every next hop of equal cost whose neighbour is known, or else the one other answer. Never
/// empty.
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

/// The next hop by this path, if its neighbour is known.
fn next_hop(view: &View, way: &Way, to: IpAddr) -> Option<NextHop> {
    let &Way {
        link,
        neighbour,
        entry,
        path,
    } = way;
    let (target_mac, source_mac) = macs(view, link, neighbour)?;
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

/// The hardware addresses of a frame for a neighbour, if they are known.
///
/// On a link without resolution (`ip link set DEVICE arp off`) operators enter neighbours by hand.
/// For the rest the kernel uses the link's own address (`arp_constructor`, `ndisc_constructor`).
fn macs(view: &View, link: &Link, neighbour: IpAddr) -> Option<(Mac, Mac)> {
    if !link.has_neighbours() {
        return Some(([0; 6], [0; 6]));
    }
    let known = view.neighbours.mac(link.index, neighbour);
    let target = known.or(link.without_arp.then_some(link.mac))?;
    Some((target, link.mac))
}

/// The next hop of a router on its own link, whatever the routes to the router's address are.
pub(super) fn by_gateway(view: &View, gateway: Gateway) -> Route {
    let Gateway { interface, address } = gateway;
    let Some(link) = view.links.get(interface).filter(|link| link.is_usable()) else {
        let why = format!("the link to {address} is not up");
        return Route::Unreachable { why };
    };
    match macs(view, link, address) {
        Some((target_mac, source_mac)) => Route::Via(NextHop {
            interface,
            neighbour: address,
            target_mac,
            source_mac,
            mtu: link.mtu,
            source: view.addresses.source(address, interface, None),
        }),
        None => Route::Unresolved {
            interface,
            neighbour: address,
        },
    }
}

/// The answer of one table about an address.
enum Answer<'a> {
    Nothing,
    /// Found by a route with this prefix length.
    Found(Decision<'a>, u8),
    Refused(Decision<'a>),
}

/// Walks the rules and their tables as the kernel does.
pub(super) fn decide(view: &View, to: IpAddr) -> Decision<'_> {
    if view.addresses.contains(to) {
        return Decision::Local;
    }
    let mut passed = None;
    for (action, suppressed) in view.rules.met(to) {
        let table = match action {
            Action::Table(table) => table,
            // These are never met: they only choose the next rule.
            Action::Goto(_) | Action::Nop => continue,
            Action::Blackhole => return refused("a policy rule", "is a blackhole"),
            Action::Unreachable => return refused("a policy rule", "makes it unreachable"),
            Action::Prohibit => return refused("a policy rule", "prohibits it"),
        };
        match look_up(view, table, to, &mut passed) {
            Answer::Nothing => {}
            Answer::Found(_, length)
                if suppressed.is_some_and(|most| u32::from(length) <= most) => {}
            Answer::Found(decision, _) | Answer::Refused(decision) => return decision,
        }
    }
    Decision::Unreachable(match passed {
        Some(entry) => format!("the route {} has no link that is up", entry.prefix),
        None => format!("no route to {to}"),
    })
}

/// Whether the best local route to an address is broadcast or multicast.
pub(super) fn is_of_many(view: &View, address: IpAddr) -> bool {
    let mut routes = view.routes.matching(routes::LOCAL, address).flatten();
    let best = routes.next().map(|entry| entry.kind);
    matches!(best, Some(Kind::Broadcast | Kind::Multicast))
}

/// Looks an address up in a table. A route whose links are all down is skipped.
fn look_up<'a>(
    view: &'a View,
    table: u32,
    to: IpAddr,
    passed: &mut Option<&'a RouteEntry>,
) -> Answer<'a> {
    for (first, equals) in view.routes.matching(table, to).flat_map(in_order) {
        let route = || format!("the route {}", first.prefix);
        let refuse = |how| Answer::Refused(refused(&route(), how));
        match first.resolved(&view.objects).0 {
            Kind::Local | Kind::Anycast => {
                return Answer::Found(Decision::Local, first.prefix.length());
            }
            Kind::Throw => return Answer::Nothing,
            Kind::Unicast => {
                let ways = ways(view, equals, to);
                if !ways.is_empty() {
                    return Answer::Found(Decision::Ways(ways), first.prefix.length());
                }
                passed.get_or_insert(first);
            }
            Kind::Blackhole => return refuse("is a blackhole"),
            Kind::Unreachable => return refuse("makes it unreachable"),
            Kind::Prohibit => return refuse("prohibits it"),
            Kind::Broadcast => return refuse("is for broadcast"),
            Kind::Multicast => return refuse("is for multicast"),
            Kind::Other => return refuse("is of a kind that is not supported"),
        }
    }
    Answer::Nothing
}

fn refused<'a>(what: &str, how: &str) -> Decision<'a> {
    Decision::Unreachable(format!("{what} {how}"))
}

/// Each route of a prefix with the routes of the same metric from it on: their paths have equal
/// cost.
fn in_order(entries: &[RouteEntry]) -> impl Iterator<Item = (&RouteEntry, &[RouteEntry])> {
    entries.iter().enumerate().map(|(place, first)| {
        let rest = &entries[place..];
        let same =
            |entry: &&RouteEntry| entry.metric == first.metric && entry.kind == Kind::Unicast;
        (first, &rest[..rest.iter().take_while(same).count()])
    })
}

fn ways<'a>(view: &'a View, entries: &'a [RouteEntry], to: IpAddr) -> Vec<Way<'a>> {
    let paths = entries.iter().flat_map(|entry| {
        let (_, paths) = entry.resolved(&view.objects);
        paths.into_iter().map(move |path| (entry, path))
    });
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
