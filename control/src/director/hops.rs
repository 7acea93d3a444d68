//! Prepared next hops towards clients, each with a hop number. Each gateway of the main table has a
//! number, and each network of the table has the number of its gateway. Each client on a link whose
//! MAC address is known has its own number. A gateway is an address on a link: the same address on
//! another link is another gateway.
//!
//! A masqueraded connection holds the number. So a number must not get another gateway or client
//! while a connection holds it. A gateway that loses a network gives its number up and gets another
//! one. A released number is free when two consecutive scans found no connection that holds it. The
//! packet path asks the kernel's routes where a number has no next hop.
//!
//! Nothing is prepared where policy rules may decide about answers, and no gateway is where there
//! are more than [`MOST`] networks: the packet path asks the kernel for each answer.
//!
//! Clients on links have at most [`CLIENTS`] numbers, first come first served. Gateways have the
//! rest of [`HOPS`]. Answers without a number go by the kernel, and get one when numbers are freed.

mod clients;
mod gateways;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use shunt_datapath::entry::{HOPS, Settings, Ways, nat};

use super::allocator::Allocator;
use super::{Director, Write};
use crate::network::Route;
use crate::network::routes::{Gateway, Lead, Prefix};

/// The most networks of a family that are prepared. With the clients on links they fit the tries of
/// 4,096 entries.
const MOST: usize = 3072;
/// A family that had more networks is prepared again at this number.
const FEWER: usize = 2560;
/// The most clients on links that are prepared.
pub(super) const CLIENTS: usize = 896;
/// Consecutive scans without a connection after which a number is free. The first may have begun
/// too early.
const SCANS: u8 = 2;
/// The least interval between numberings of gateways. While routes keep changing the packet path
/// asks the kernel.
pub(super) const REST: Duration = Duration::from_secs(1);
/// The most gateways that are kept alive, and the most neighbours without a number.
const KEPT: usize = 1024;

/// The gateways, networks and clients with their hop numbers.
#[derive(Clone, Debug, Default)]
pub(super) struct Hops {
    /// The first full account of the routes is in.
    begun: bool,
    /// The numbers of an earlier daemon's gateways, until then.
    known: BTreeMap<Gateway, Numbered>,
    /// Every prepared network, with its number in the packet path.
    networks: BTreeMap<Prefix, (Lead, u32)>,
    gateways: BTreeMap<Gateway, Prepared>,
    clients: BTreeMap<IpAddr, u32>,
    /// Gateways that wait for a number, with the number that each gave up, or 0. Their networks
    /// still have that number.
    restless: BTreeMap<Gateway, u32>,
    /// When gateways were numbered last.
    renewed: Option<Instant>,
    /// Whether the networks of IPv4 and IPv6 are prepared.
    families: Families,
    numbers: Allocator,
    /// Released numbers that connections may still hold: the number of scans that found none, and
    /// the client that had it.
    left: BTreeMap<u32, (u8, Option<IpAddr>)>,
    /// The next hop of each number in the packet path.
    written: BTreeMap<u32, Ways>,
    /// A gateway or client found no free number.
    turned_away: bool,
    /// The numbers that the last scan found in connections.
    remembered: Option<Remembered>,
    /// The routers that were kept alive last.
    routers: BTreeSet<Gateway>,
}

/// A gateway's number, or 0, and its networks with the MTU of their routes.
#[derive(Clone, Debug, Default)]
struct Prepared {
    number: u32,
    networks: BTreeMap<Prefix, Option<u32>>,
}

/// A gateway's number, and the least MTU in bytes that its routes set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Numbered {
    pub number: u32,
    pub mtu: Option<u32>,
}

/// For each family, whether its networks are prepared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Families {
    v4: bool,
    v6: bool,
}

impl Families {
    fn has(self, v4: bool) -> bool {
        if v4 { self.v4 } else { self.v6 }
    }
}

/// A bit for each number that some connection holds. Bit 0: some connection asks the kernel.
pub type Remembered = [u64; HOPS as usize / 64];

fn is_remembered(remembered: &Remembered, number: u32) -> bool {
    let word = remembered.get(number as usize / 64);
    word.is_some_and(|word| word >> (number % 64) & 1 != 0)
}

impl Hops {
    /// Restores the numbers from a snapshot. All other numbers may be in connections, so they are
    /// released, not free.
    pub(super) fn restore(
        &mut self,
        gateways: BTreeMap<Gateway, Numbered>,
        clients: BTreeMap<IpAddr, u32>,
    ) {
        (1..HOPS).for_each(|number| self.numbers.take(number));
        self.left = (1..HOPS).map(|number| (number, (0, None))).collect();
        let known = gateways.values().map(|numbered| numbered.number);
        for number in known.chain(clients.values().copied()) {
            self.left.remove(&number);
        }
        self.clients = clients;
        self.known = gateways;
    }

    /// The numbers of gateways for the snapshot.
    pub(super) fn numbered(&self) -> BTreeMap<Gateway, Numbered> {
        if !self.begun {
            return self.known.clone();
        }
        let numbered = self.gateways.iter().filter(|(_, one)| one.number != 0);
        let known = numbered.map(|(gateway, one)| (*gateway, one.numbered()));
        known.collect()
    }

    pub(super) fn clients(&self) -> &BTreeMap<IpAddr, u32> {
        &self.clients
    }

    /// Takes the lowest free number.
    fn take(&mut self) -> Option<u32> {
        let number = Some(self.numbers.lowest()).filter(|number| *number < HOPS)?;
        self.numbers.take(number);
        Some(number)
    }

    fn leave(&mut self, number: u32, client: Option<IpAddr>) {
        self.left.insert(number, (0, client));
    }
}

impl Prepared {
    fn numbered(&self) -> Numbered {
        Numbered {
            number: self.number,
            mtu: self.networks.values().flatten().min().copied(),
        }
    }
}

impl Director {
    /// Writes the next hop of a number if it differs.
    fn write_hop(&mut self, number: u32, ways: Ways) {
        if self.hops.written.insert(number, ways) != Some(ways) {
            self.write(Write::Hop { number, ways });
        }
    }

    /// When gateways that wait for a number get one.
    pub(super) fn hops_deadline(&self) -> Option<Instant> {
        let waits = !self.hops.restless.is_empty();
        let renewed = self.hops.renewed.map(|renewed| renewed + REST);
        waits.then(|| renewed.unwrap_or(self.seen))
    }

    /// Takes in a scan that found these numbers in connections. Frees released numbers that stayed
    /// unused.
    pub fn unused_hops(&mut self, remembered: &Remembered) {
        let mut free = Vec::new();
        self.hops.left.retain(|number, (scans, _)| {
            *scans = match is_remembered(remembered, *number) {
                true => 0,
                false => *scans + 1,
            };
            if *scans >= SCANS {
                free.push(*number);
            }
            *scans < SCANS
        });
        self.hops.remembered = Some(*remembered);
        let is_free = !free.is_empty();
        for number in free {
            self.hops.numbers.give_back(number);
        }
        if is_free && std::mem::take(&mut self.hops.turned_away) {
            self.hops.ask_again();
            self.renew_clients();
        }
        self.keep_neighbours();
    }

    /// Keeps the neighbours alive that answers go to: gateways, and clients on links with
    /// connections.
    ///
    /// Forwarded packets do not pass the kernel's stack, so the kernel would not notice that a
    /// neighbour is gone or has another MAC address.
    pub(super) fn keep_neighbours(&mut self) {
        self.hops.routers = self.network.gateways();
        let routers = self.hops.routers.iter().take(KEPT);
        let routers = routers.map(|router| (router.interface, router.address));
        let mut kept: BTreeSet<(u32, IpAddr)> = routers.collect();
        let numbered = self.hops.clients.iter();
        let left = self.hops.left.iter();
        let left = left.filter_map(|(number, (_, client))| Some((client.as_ref()?, number)));
        for (client, number) in numbered.chain(left) {
            if self.has_connections(*number) {
                kept.extend(self.neighbour_towards(*client));
            }
        }
        if self.has_connections(0) {
            let others = self.network.neighbours();
            let others = others.filter(|(_, address)| {
                !self.hops.clients.contains_key(address) && may_be_client(*address)
            });
            kept.extend(others.take(KEPT));
        }
        self.network.keep(kept, self.seen);
    }

    /// Keeps neighbours alive again if the routes name other gateways.
    fn keep_routers(&mut self) {
        if self.network.gateways() != self.hops.routers {
            self.keep_neighbours();
        }
    }

    /// Whether connections may use this number. Connections of full NAT look their hop up for each
    /// answer and hold no number, so every number may be in use where flows are translated.
    fn has_connections(&self, number: u32) -> bool {
        let remembered = self.hops.remembered.as_ref();
        let remembered = remembered.is_some_and(|all| is_remembered(all, number));
        let translates = |settings: &Settings| settings.masquerades & nat::TRANSLATES != 0;
        remembered || (number != 0 && self.settings.as_ref().is_some_and(translates))
    }

    fn neighbour_towards(&self, client: IpAddr) -> Option<(u32, IpAddr)> {
        match self.network.next_hop(client) {
            Route::Via(hop) => Some((hop.interface, hop.neighbour)),
            Route::Unresolved {
                interface,
                neighbour,
            } => Some((interface, neighbour)),
            Route::Local | Route::Unreachable { .. } => None,
        }
    }

    /// The number of gateways and clients on links with a prepared next hop.
    #[must_use]
    pub fn prepared_hops(&self) -> u32 {
        let gateways = self.hops.gateways.values();
        let gateways = gateways.filter(|prepared| prepared.number != 0).count();
        u32::try_from(gateways + self.hops.clients.len()).unwrap_or(u32::MAX)
    }
}

/// The next hop of a route, with an MTU limit. `None` while only the MAC address is missing.
fn ways_by(route: Route, limit: Option<u32>) -> Option<Ways> {
    match route {
        Route::Via(hop) => {
            let mtu = limit.map_or(hop.mtu, |limit| limit.min(hop.mtu));
            let mtu = u16::try_from(mtu).unwrap_or(u16::MAX);
            let (target, source) = (hop.target_mac, hop.source_mac);
            Some(Ways::new(target, source, hop.interface, mtu))
        }
        Route::Unresolved { .. } => None,
        Route::Local | Route::Unreachable { .. } => Some(Ways::default()),
    }
}

/// Whether a neighbour may be a client. A link-local address is valid on one link only (RFC 4291,
/// 2.4), and nobody asks a virtual address from there.
fn may_be_client(address: IpAddr) -> bool {
    let narrow = match address {
        IpAddr::V4(_) => false,
        IpAddr::V6(address) => address.is_unicast_link_local(),
    };
    !narrow && !address.is_multicast()
}
