//! The ways to clients, made ready: each gateway of the main table has a number, and each network
//! of the table the number of the gateway that leads there; each client on a link itself whose MAC
//! address is known has a number of its own.
//!
//! A masqueraded connection remembers the number. So a number never comes to mean another gateway
//! or client while connections may remember it: when networks and gateways are paired anew, every
//! gateway gets another number, and a number that was left is given away again when two scans in a
//! row found no connection with it. Where a number says nothing the walk asks the kernel's routes.
//!
//! The rule when all are taken: clients on links have [`CLIENTS`] at the most, the first to come;
//! the rest of [`HOPS`] is the gateways'. Who has none asks the kernel, and is looked at again when
//! numbers come back.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use shunt_datapath::entry::{HOPS, Ways};

use super::numbers::Numbers;
use super::{Director, Output, Step, Write};
use crate::network::Route;
use crate::network::routes::{Lead, Prefix};

/// Networks that are made ready; a machine with more of them asks the kernel for each answer. With
/// the clients on links they fit the tries of 4,096.
const MOST: usize = 3072;
/// Clients on links that are made ready.
pub const CLIENTS: usize = 896;
/// Scans without a connection after which a number is nobody's: one may have been under way.
const SCANS: u8 = 2;

/// Who has which number.
#[derive(Clone, Debug, Default)]
pub struct Hops {
    leads: Vec<Lead>,
    pub gateways: BTreeMap<IpAddr, Numbered>,
    pub clients: BTreeMap<IpAddr, u32>,
    numbers: Numbers,
    /// Numbers that nobody has, while connections may: in how many scans there was none, and the
    /// client that had it.
    left: BTreeMap<u32, (u8, Option<IpAddr>)>,
    /// What was said of a number.
    said: BTreeMap<u32, Ways>,
    /// A client found no number.
    turned_away: bool,
}

/// A gateway's number, and the least limit that its routes set to the size of packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Numbered {
    pub number: u32,
    pub mtu: Option<u32>,
}

/// The numbers that some connection remembers.
pub type Remembered = [u64; HOPS as usize / 64];

impl Hops {
    /// Takes up the numbers of an earlier daemon. Any other may be one that it left.
    pub fn restore(
        &mut self,
        gateways: BTreeMap<IpAddr, Numbered>,
        clients: BTreeMap<IpAddr, u32>,
    ) {
        (1..HOPS).for_each(|number| self.numbers.take(number));
        self.left = (1..HOPS).map(|number| (number, (0, None))).collect();
        let known = gateways.values().map(|numbered| numbered.number);
        for number in known.chain(clients.values().copied()) {
            self.left.remove(&number);
        }
        self.gateways = gateways;
        self.clients = clients;
    }

    /// A number that nobody has.
    fn take(&mut self) -> Option<u32> {
        let number = Some(self.numbers.lowest()).filter(|number| *number < HOPS)?;
        self.numbers.take(number);
        Some(number)
    }

    /// The number of a client on a link: the one it left, or a free one.
    fn take_for(&mut self, client: IpAddr) -> Option<u32> {
        let had = |(_, left): &(&u32, &(u8, Option<IpAddr>))| left.1 == Some(client);
        let number = match self.left.iter().find(had).map(|(number, _)| *number) {
            Some(number) => {
                self.left.remove(&number);
                Some(number)
            }
            None if self.clients.len() < CLIENTS => self.take(),
            None => None,
        };
        self.turned_away |= number.is_none();
        number
    }

    /// How many gateways and clients have a number.
    pub fn len(&self) -> usize {
        self.gateways.len() + self.clients.len()
    }

    fn number(&self, lead: &Lead) -> u32 {
        let numbered = lead.gateway.and_then(|gateway| self.gateways.get(&gateway));
        numbered.map_or(0, |numbered| numbered.number)
    }
}

/// The gateways of these networks with the least of their limits.
fn limits(leads: &[Lead]) -> BTreeMap<IpAddr, Option<u32>> {
    let mut limits: BTreeMap<IpAddr, Option<u32>> = BTreeMap::new();
    for lead in leads {
        let Some(gateway) = lead.gateway else {
            continue;
        };
        let limit = limits.entry(gateway).or_insert(lead.mtu);
        *limit = match (*limit, lead.mtu) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
    }
    limits
}

impl Director {
    /// Pairs networks and gateways anew, if they are different.
    pub(super) fn renew_hops(&mut self) {
        let mut leads = self.network.gateways();
        if leads.len() > MOST {
            leads.clear();
        }
        let first = self.hops.leads.is_empty();
        if leads == self.hops.leads {
            return;
        }
        let limits = limits(&leads);
        let known: BTreeMap<IpAddr, Option<u32>> = self
            .hops
            .gateways
            .iter()
            .map(|(at, numbered)| (*at, numbered.mtu))
            .collect();
        self.hops.leads = leads;
        // An earlier daemon's numbers hold if they stand for the same gateways.
        let before = match first && known == limits {
            true => BTreeMap::new(),
            false => self.number_gateways(limits),
        };
        let step = Step::gateways(&self.hops.gateways);
        self.outputs.push_back(Output::Remember(step));
        for gateway in self.hops.gateways.keys().copied().collect::<Vec<_>>() {
            self.targets.look_at(gateway);
            self.renew_hop(gateway);
        }
        self.write_routes();
        for (gateway, numbered) in before {
            self.targets.look_at(gateway);
            self.say(numbered.number, Ways::default());
        }
    }

    /// Gives every gateway another number; says which they had.
    fn number_gateways(
        &mut self,
        limits: BTreeMap<IpAddr, Option<u32>>,
    ) -> BTreeMap<IpAddr, Numbered> {
        let before = std::mem::take(&mut self.hops.gateways);
        for (gateway, mtu) in limits {
            let Some(number) = self.hops.take() else {
                break;
            };
            self.hops.gateways.insert(gateway, Numbered { number, mtu });
        }
        let left = before.values().map(|numbered| (numbered.number, (0, None)));
        self.hops.left.extend(left);
        before
    }

    fn write_routes(&mut self) {
        let number = |lead: &Lead| (lead.prefix, self.hops.number(lead));
        let clients = self.hops.clients.iter();
        let clients = clients.map(|(at, number)| (Prefix::host(*at), *number));
        let routes = self.hops.leads.iter().map(number).chain(clients).collect();
        self.write(Write::Routes(routes));
    }

    /// A gateway's MAC address or interface is different.
    pub(super) fn renew_hop(&mut self, gateway: IpAddr) {
        if let Some(numbered) = self.hops.gateways.get(&gateway).copied() {
            let ways = self.ways_to(gateway, numbered.mtu);
            self.say(numbered.number, ways.unwrap_or_default());
        }
    }

    /// Says where a number leads, if it is another place than before.
    fn say(&mut self, number: u32, ways: Ways) {
        if self.hops.said.insert(number, ways) != Some(ways) {
            self.write(Write::Hop { number, ways });
        }
    }

    /// What is known of a neighbour is different: it may be a client.
    pub(super) fn renew_client(&mut self, client: IpAddr) {
        let direct = self.is_client_on_link(client);
        match (self.hops.clients.get(&client).copied(), direct) {
            (None, false) => {}
            (Some(number), _) if self.network.has_neighbour(client) => {
                // While it is asked for again it is where it was.
                if let Some(ways) = self.ways_to(client, None) {
                    self.say(number, ways);
                }
            }
            // Its connections go on by where it was: the kernel forgets whom it has not heard of
            // for a while, and connections need not be heard of for a while.
            (Some(number), _) => {
                self.hops.clients.remove(&client);
                self.hops.left.insert(number, (0, Some(client)));
                self.remember_client(client, None);
                let (prefix, number) = (Prefix::host(client), None);
                self.write(Write::Route { prefix, number });
            }
            (None, true) => {
                let Some(ways) = self.ways_to(client, None) else {
                    return;
                };
                let Some(number) = self.hops.take_for(client) else {
                    return;
                };
                self.hops.clients.insert(client, number);
                self.remember_client(client, Some(number));
                self.say(number, ways);
                let prefix = Prefix::host(client);
                let number = Some(number);
                self.write(Write::Route { prefix, number });
            }
        }
    }

    fn remember_client(&mut self, client: IpAddr, number: Option<u32>) {
        let step = Step::client(client, number);
        self.outputs.push_back(Output::Remember(step));
    }

    /// Looks at every neighbour again: routes are different, or numbers came back.
    pub(super) fn renew_clients(&mut self) {
        let known: Vec<IpAddr> = self.hops.clients.keys().copied().collect();
        for client in known.into_iter().chain(self.network.neighbours()) {
            self.renew_client(client);
        }
    }

    /// A neighbour that is neither server nor gateway, with a MAC address, and no router between.
    fn is_client_on_link(&self, client: IpAddr) -> bool {
        let narrow = match client {
            IpAddr::V4(_) => false,
            // RFC 4291, 2.4: on one link only, where no virtual address is spoken to from.
            IpAddr::V6(address) => address.is_unicast_link_local(),
        };
        let other = self.targets.has(client) || self.hops.gateways.contains_key(&client);
        if narrow || other || client.is_multicast() {
            return false;
        }
        let Route::Via(hop) = self.network.next_hop(client) else {
            return false;
        };
        hop.neighbour == client && hop.target_mac != [0; 6]
    }

    /// The ways to a gateway or client; `None` while only its MAC address is not known.
    fn ways_to(&self, to: IpAddr, limit: Option<u32>) -> Option<Ways> {
        match self.network.next_hop(to) {
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

    /// A scan found these numbers in connections: others that were left may be given away again.
    pub fn unused_hops(&mut self, remembered: &Remembered) {
        let is_remembered = |number: u32| {
            let word = remembered.get(number as usize / 64);
            word.is_some_and(|word| word >> (number % 64) & 1 != 0)
        };
        let mut free = Vec::new();
        self.hops.left.retain(|number, (scans, _)| {
            *scans = if is_remembered(*number) {
                0
            } else {
                *scans + 1
            };
            if *scans >= SCANS {
                free.push(*number);
            }
            *scans < SCANS
        });
        if free.is_empty() {
            return;
        }
        for number in free {
            self.hops.numbers.give_back(number);
        }
        if std::mem::take(&mut self.hops.turned_away) {
            self.renew_clients();
        }
    }

    /// How many gateways and clients on links have a prepared way.
    #[must_use]
    pub fn prepared_hops(&self) -> u32 {
        u32::try_from(self.hops.len()).unwrap_or(u32::MAX)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::super::{Clock, Sizes};
    use super::*;
    use crate::network::neighbours::State;
    use crate::network::routes::{Entry, Kind, Path, Prefix};
    use crate::network::{Input, Link, Neighbour};
    use crate::table::{Limits, Table};

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn route(network: &str, length: u8, gateway: Option<&str>) -> Input {
        let route = Entry {
            prefix: Prefix::new(ip(network), length),
            table: 254,
            metric: 0,
            type_of_service: 0,
            kind: Kind::Unicast,
            paths: vec![Path {
                interface: 2,
                gateway: gateway.map(ip),
            }],
            mtu: None,
            source: None,
        };
        Input::RouteAdded {
            route,
            replace: false,
        }
    }

    fn neighbour(address: &str, last: u8) -> Input {
        Input::NeighbourChanged(Neighbour {
            interface: 2,
            address: ip(address),
            mac: Some([2, 0, 0, 0, 0, last]),
            state: State::Reachable,
        })
    }

    /// A director on one link, with a network behind a gateway.
    fn director() -> Director {
        let sizes = Sizes {
            services: 16,
            servers: 16,
            pool_words: 1024,
        };
        let table = Table::new(Limits::default());
        let clock = Clock {
            tick_ns: 1_000_000_000,
        };
        let mut director = Director::new(table, sizes, clock, Instant::now());
        let link = Link {
            index: 2,
            name: "eth0".to_owned(),
            mac: [2, 0, 0, 0, 0, 1],
            mtu: 1500,
            up: true,
            carrier: true,
            kind: None,
            master: None,
            loopback: false,
            ethernet: true,
            bare: false,
            without_arp: false,
        };
        hear(&mut director, Input::LinkChanged(link));
        hear(&mut director, route("10.1.0.0", 24, None));
        hear(&mut director, neighbour("10.1.0.254", 9));
        director
    }

    fn hear(director: &mut Director, input: Input) {
        director.network_event(input, Instant::now());
    }

    fn writes(director: &mut Director) -> Vec<Write> {
        let outputs = std::iter::from_fn(|| director.poll());
        let writes = outputs.filter_map(|output| match output {
            Output::Write(write) => Some(write),
            _ => None,
        });
        writes.collect()
    }

    /// The last routes that were written, and the ways to gateways that may be used.
    fn said(writes: &[Write]) -> (Vec<(Prefix, u32)>, BTreeMap<u32, Ways>) {
        let mut routes = Vec::new();
        let mut hops = BTreeMap::new();
        for write in writes {
            match write {
                Write::Routes(all) => routes.clone_from(all),
                Write::Hop { number, ways } if ways.is_usable() => {
                    hops.insert(*number, *ways);
                }
                Write::Hop { number, .. } => {
                    hops.remove(number);
                }
                _ => {}
            }
        }
        (routes, hops)
    }

    #[test]
    fn a_network_behind_a_gateway_leads_to_its_number_and_a_link_to_none() {
        let mut director = director();
        hear(&mut director, route("0.0.0.0", 0, Some("10.1.0.254")));
        let (routes, hops) = said(&writes(&mut director));
        assert!(
            routes.contains(&(Prefix::new(ip("0.0.0.0"), 0), 1)),
            "{routes:?}"
        );
        assert!(
            routes.contains(&(Prefix::new(ip("10.1.0.0"), 24), 0)),
            "{routes:?}"
        );
        let ours = [2, 0, 0, 0, 0, 1];
        assert_eq!(
            hops,
            BTreeMap::from([(1, Ways::new([2, 0, 0, 0, 0, 9], ours, 2, 1500))])
        );
    }

    #[test]
    fn a_gateway_with_another_mac_address_keeps_its_number() {
        let mut director = director();
        hear(&mut director, route("0.0.0.0", 0, Some("10.1.0.254")));
        writes(&mut director);
        hear(&mut director, neighbour("10.1.0.254", 77));
        let ways = Ways::new([2, 0, 0, 0, 0, 77], [2, 0, 0, 0, 0, 1], 2, 1500);
        assert_eq!(writes(&mut director), [Write::Hop { number: 1, ways }]);
    }

    #[test]
    fn a_number_never_comes_to_mean_another_gateway() {
        let mut director = director();
        hear(&mut director, neighbour("10.1.0.253", 8));
        hear(&mut director, route("0.0.0.0", 0, Some("10.1.0.254")));
        let (_, hops) = said(&writes(&mut director));
        hear(&mut director, route("172.16.0.0", 12, Some("10.1.0.253")));
        let later = writes(&mut director);
        let (routes, fresh) = said(&later);
        let networks = routes.iter().filter(|(prefix, _)| !prefix.is_host());
        for (prefix, number) in networks.filter(|(_, number)| *number != 0) {
            assert!(
                !hops.contains_key(number) && fresh.contains_key(number),
                "{prefix}"
            );
        }
        let left = Write::Hop {
            number: hops_of(&hops, 9),
            ways: Ways::default(),
        };
        assert!(later.contains(&left), "{later:?}");
    }

    /// The number of the ways to a neighbour that is no client.
    fn hops_of(hops: &BTreeMap<u32, Ways>, last: u8) -> u32 {
        let wanted = Ways::new([2, 0, 0, 0, 0, last], [2, 0, 0, 0, 0, 1], 2, 1500);
        let found = hops.iter().filter(|(_, ways)| **ways == wanted);
        found.map(|(number, _)| *number).max().unwrap()
    }

    fn client(last: u16) -> String {
        format!("10.1.{}.{}", last >> 8, last & 255)
    }

    /// One whose link has room for thousands of clients.
    fn wide() -> Director {
        let mut director = director();
        hear(&mut director, route("10.1.0.0", 16, None));
        writes(&mut director);
        director
    }

    #[test]
    fn a_client_on_the_link_has_a_number_of_its_own_and_keeps_it() {
        let mut director = wide();
        hear(&mut director, neighbour("10.1.7.7", 7));
        let known = writes(&mut director);
        let [
            Write::Hop { number, ways },
            Write::Route { prefix, number: to },
        ] = known.as_slice()
        else {
            panic!("{known:?}");
        };
        assert_eq!(
            (*prefix, *to),
            (Prefix::host(ip("10.1.7.7")), Some(*number))
        );
        let ours = [2, 0, 0, 0, 0, 1];
        assert_eq!(*ways, Ways::new([2, 0, 0, 0, 0, 7], ours, 2, 1500));

        hear(&mut director, neighbour("10.1.7.7", 8));
        let ways = Ways::new([2, 0, 0, 0, 0, 8], ours, 2, 1500);
        assert_eq!(
            writes(&mut director),
            [Write::Hop {
                number: *number,
                ways
            }]
        );
    }

    #[test]
    fn a_client_that_is_forgotten_keeps_its_way_while_a_connection_remembers_it() {
        let mut director = wide();
        hear(&mut director, neighbour("10.1.7.7", 7));
        let known = writes(&mut director);
        let Some(Write::Hop { number, .. }) = known.first().cloned() else {
            panic!("{known:?}");
        };
        let gone = Input::NeighbourRemoved {
            interface: 2,
            address: ip("10.1.7.7"),
        };
        hear(&mut director, gone.clone());
        let prefix = Prefix::host(ip("10.1.7.7"));
        assert_eq!(
            writes(&mut director),
            [Write::Route {
                prefix,
                number: None
            }]
        );

        // Another client does not get the number, and the same one does.
        let mut remembered = Remembered::default();
        remembered[number as usize / 64] |= 1 << (number % 64);
        (0..5).for_each(|_| director.unused_hops(&remembered));
        hear(&mut director, neighbour("10.1.7.8", 8));
        let other = writes(&mut director);
        assert!(!other.contains(&Write::Route {
            prefix: Prefix::host(ip("10.1.7.8")),
            number: Some(number)
        }));
        hear(&mut director, neighbour("10.1.7.7", 7));
        assert_eq!(
            writes(&mut director),
            [Write::Route {
                prefix,
                number: Some(number)
            }]
        );

        hear(&mut director, gone);
        writes(&mut director);
        (0..2).for_each(|_| director.unused_hops(&Remembered::default()));
        hear(&mut director, neighbour("10.1.7.9", 9));
        let prefix = Prefix::host(ip("10.1.7.9"));
        let given = Write::Route {
            prefix,
            number: Some(number),
        };
        assert!(writes(&mut director).contains(&given));
    }

    #[test]
    fn the_first_896_clients_have_numbers_and_another_when_one_is_gone() {
        let mut director = wide();
        // 10.1.0.254 is one already.
        for last in 256..2256 {
            hear(&mut director, neighbour(&client(last), 7));
        }
        let routes = |writes: &[Write]| {
            let is_route = |write: &&Write| matches!(write, Write::Route { .. });
            writes.iter().filter(is_route).count()
        };
        assert_eq!(routes(&writes(&mut director)), CLIENTS - 1);
        // A gateway still finds a number.
        hear(&mut director, route("0.0.0.0", 0, Some("10.1.0.254")));
        let (all, _) = said(&writes(&mut director));
        let default = all.iter().find(|(prefix, _)| prefix.length() == 0);
        assert!(
            default.is_some_and(|(_, number)| *number != 0),
            "{default:?}"
        );
        let address = ip(&client(300));
        hear(
            &mut director,
            Input::NeighbourRemoved {
                interface: 2,
                address,
            },
        );
        assert_eq!(routes(&writes(&mut director)), 1);
        (0..2).for_each(|_| director.unused_hops(&Remembered::default()));
        let again = writes(&mut director);
        assert_eq!(routes(&again), 1, "{again:?}");
    }

    #[test]
    fn servers_and_link_local_addresses_have_no_number() {
        let mut director = wide();
        for address in ["224.0.0.1", "fe80::7", "ff02::1"] {
            hear(&mut director, neighbour(address, 7));
        }
        assert_eq!(writes(&mut director), []);
    }
}
