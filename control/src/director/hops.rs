//! The ways to clients, made ready: each gateway of the main table has a number, and each network
//! of the table the number of the gateway that leads there; each client on a link itself whose MAC
//! address is known has a number of its own. A gateway is an address on a link: the same one on
//! another link is another gateway.
//!
//! A masqueraded connection remembers the number. So a number never comes to mean another gateway
//! or client while connections may remember it: a gateway that loses a network gives its number up
//! and gets another one, and a number that was left is given away again when two scans in a row
//! found no connection with it. Where a number says nothing the walk asks the kernel's routes.
//!
//! Where policy rules may decide about answers nothing is prepared, and where there are more than
//! [`MOST`] networks no gateway is: the kernel is asked for each answer.
//!
//! The rule when all are taken: clients on links have [`CLIENTS`] at the most, the first to come;
//! the rest of [`HOPS`] is the gateways'. Who has none asks the kernel, and is looked at again when
//! numbers come back.

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

/// Networks of a family that are made ready. With the clients on links they fit the tries of 4,096.
const MOST: usize = 3072;
/// A family that had more is made ready again when it has no more than this.
const FEWER: usize = 2560;
/// Clients on links that are made ready.
pub const CLIENTS: usize = 896;
/// Scans without a connection after which a number is nobody's: one may have been under way.
const SCANS: u8 = 2;
/// Gateways get numbers once in such a while: while routes are restless the kernel is asked.
pub const REST: Duration = Duration::from_secs(1);
/// Neighbours without a number that are kept alive for connections that ask the kernel, and
/// gateways.
const KEPT: usize = 1024;

/// Who has which number.
#[derive(Clone, Debug, Default)]
pub struct Hops {
    /// The first account of the routes is in.
    begun: bool,
    /// What an earlier daemon's gateways had, until then.
    known: BTreeMap<Gateway, Numbered>,
    /// Every network that is prepared, and the number that it has in the packet path.
    networks: BTreeMap<Prefix, (Lead, u32)>,
    gateways: BTreeMap<Gateway, Prepared>,
    clients: BTreeMap<IpAddr, u32>,
    /// Gateways that wait for a number, and the one that each gave up, or 0. Networks
    /// have it still.
    restless: BTreeMap<Gateway, u32>,
    /// When gateways got numbers last.
    renewed: Option<Instant>,
    /// Whether the networks of IPv4 and IPv6 are prepared at all.
    families: Families,
    numbers: Allocator,
    /// Numbers that nobody has, while connections may: in how many scans there was none, and the
    /// client that had it.
    left: BTreeMap<u32, (u8, Option<IpAddr>)>,
    /// What was said of a number.
    said: BTreeMap<u32, Ways>,
    /// Somebody found no number.
    turned_away: bool,
    /// What the last scan found in connections.
    remembered: Option<Remembered>,
    /// The routers that were kept alive last.
    routers: BTreeSet<Gateway>,
}

/// A gateway's number, or 0, and the networks that it leads to with their limits.
#[derive(Clone, Debug, Default)]
struct Prepared {
    number: u32,
    networks: BTreeMap<Prefix, Option<u32>>,
}

/// A gateway's number, and the least limit that its routes set to the size of packets.
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

/// The numbers that some connection remembers. Number 0: some connection asks the kernel.
pub type Remembered = [u64; HOPS as usize / 64];

fn is_remembered(remembered: &Remembered, number: u32) -> bool {
    let word = remembered.get(number as usize / 64);
    word.is_some_and(|word| word >> (number % 64) & 1 != 0)
}

impl Hops {
    /// Takes up the numbers of an earlier daemon. Any other may be one that it left.
    pub fn restore(
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

    /// The numbers of gateways, as a later daemon takes them up.
    pub fn numbered(&self) -> BTreeMap<Gateway, Numbered> {
        if !self.begun {
            return self.known.clone();
        }
        let numbered = self.gateways.iter().filter(|(_, one)| one.number != 0);
        let known = numbered.map(|(gateway, one)| (*gateway, one.numbered()));
        known.collect()
    }

    pub fn clients(&self) -> &BTreeMap<IpAddr, u32> {
        &self.clients
    }

    /// A number that nobody has.
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
    /// Says where a number leads, if it is another place than before.
    fn say(&mut self, number: u32, ways: Ways) {
        if self.hops.said.insert(number, ways) != Some(ways) {
            self.write(Write::Hop { number, ways });
        }
    }

    /// When gateways that wait for numbers get them.
    pub(super) fn hops_deadline(&self) -> Option<Instant> {
        let waits = !self.hops.restless.is_empty();
        let renewed = self.hops.renewed.map(|renewed| renewed + REST);
        waits.then(|| renewed.unwrap_or(self.seen))
    }

    /// A scan found these numbers in connections: others that were left may be given away again.
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

    /// Keeps alive whom answers go to: gateways, and clients on links that have connections.
    ///
    /// Packets that we forward do not pass the kernel's stack, so it would not notice that one is
    /// gone or has another MAC address.
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

    /// The same after routes are different, if they name other gateways.
    fn keep_routers(&mut self) {
        if self.network.gateways() != self.hops.routers {
            self.keep_neighbours();
        }
    }

    /// Connections of full NAT look their hop up with each answer and remember none.
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

    /// How many gateways and clients on links have a prepared way.
    #[must_use]
    pub fn prepared_hops(&self) -> u32 {
        let gateways = self.hops.gateways.values();
        let gateways = gateways.filter(|prepared| prepared.number != 0).count();
        u32::try_from(gateways + self.hops.clients.len()).unwrap_or(u32::MAX)
    }
}

/// The ways of a route, with a limit to the size of packets; `None` while only a MAC address is not
/// known.
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

/// Link-local addresses are on one link only (RFC 4291, 2.4), where no virtual address is spoken to
/// from.
fn may_be_client(address: IpAddr) -> bool {
    let narrow = match address {
        IpAddr::V4(_) => false,
        IpAddr::V6(address) => address.is_unicast_link_local(),
    };
    !narrow && !address.is_multicast()
}
