//! The ways to clients, made ready: each gateway of the main table has a number, and each network
//! of the table the number of the gateway that leads there.
//!
//! A masqueraded connection remembers the number. So a number never comes to mean another gateway
//! while connections may remember it: when networks and gateways are paired anew, every gateway
//! gets a fresh number and the earlier ones say nothing any more, after which the walk asks the
//! kernel's routes instead.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use shunt_datapath::entry::{HOPS, Ways};

use super::{Director, Output, Step, Write};
use crate::network::Route;
use crate::network::routes::Lead;

/// Networks that are made ready; a machine with more of them asks the kernel for each answer.
const MOST: usize = 4096;

/// Who has which number.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hops {
    leads: Vec<Lead>,
    pub gateways: BTreeMap<IpAddr, Numbered>,
    last: u32,
}

/// A gateway's number, and the least limit that its routes set to the size of packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Numbered {
    pub number: u32,
    pub mtu: Option<u32>,
}

impl Hops {
    /// Takes up the numbers of an earlier daemon.
    pub fn restore(&mut self, gateways: BTreeMap<IpAddr, Numbered>) {
        self.last = gateways
            .values()
            .map(|numbered| numbered.number)
            .max()
            .unwrap_or(0);
        self.gateways = gateways;
    }

    fn next(&mut self) -> u32 {
        self.last = self.last % (HOPS - 1) + 1;
        self.last
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
        let before = self.hops.gateways.keys().copied().collect::<Vec<_>>();
        let limits = limits(&leads);
        let known: BTreeMap<IpAddr, Option<u32>> = self
            .hops
            .gateways
            .iter()
            .map(|(at, numbered)| (*at, numbered.mtu))
            .collect();
        // An earlier daemon's numbers hold if they stand for the same gateways.
        if !(first && known == limits) {
            self.hops.gateways.clear();
            for (gateway, mtu) in limits.into_iter().take(HOPS as usize / 2) {
                let number = self.hops.next();
                self.hops.gateways.insert(gateway, Numbered { number, mtu });
            }
        }
        self.hops.leads = leads;
        for gateway in before.iter().chain(self.hops.gateways.keys()) {
            self.targets.look_at(*gateway);
        }
        let step = Step::gateways(&self.hops.gateways);
        self.outputs.push_back(Output::Remember(step));
        let taken: BTreeMap<u32, IpAddr> = self
            .hops
            .gateways
            .iter()
            .map(|(at, numbered)| (numbered.number, *at))
            .collect();
        for number in 1..HOPS {
            let ways = taken
                .get(&number)
                .map_or_else(Ways::default, |at| self.ways_to(*at));
            self.write(Write::Hop { number, ways });
        }
        let number = |lead: &Lead| (lead.prefix, self.hops.number(lead));
        let routes = self.hops.leads.iter().map(number).collect();
        self.write(Write::Routes(routes));
    }

    /// A gateway's MAC address or interface is different.
    pub(super) fn renew_hop(&mut self, gateway: IpAddr) {
        if let Some(numbered) = self.hops.gateways.get(&gateway) {
            let number = numbered.number;
            let ways = self.ways_to(gateway);
            self.write(Write::Hop { number, ways });
        }
    }

    fn ways_to(&self, gateway: IpAddr) -> Ways {
        let Route::Via(hop) = self.network.next_hop(gateway) else {
            return Ways::default();
        };
        let limit = self
            .hops
            .gateways
            .get(&gateway)
            .and_then(|numbered| numbered.mtu);
        let mtu = limit.map_or(hop.mtu, |limit| limit.min(hop.mtu));
        let mtu = u16::try_from(mtu).unwrap_or(u16::MAX);
        Ways::new(hop.target_mac, hop.source_mac, hop.interface, mtu)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::super::{Clock, Sizes};
    use super::*;
    use crate::carried::Gate;
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
        let table = Table::new(Gate::Carried, Limits::default());
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
        writes(&mut director);
        hear(&mut director, route("172.16.0.0", 12, Some("10.1.0.253")));
        let (routes, hops) = said(&writes(&mut director));
        let numbers: Vec<u32> = routes.iter().map(|(_, number)| *number).collect();
        assert!(!numbers.contains(&1), "{routes:?}");
        assert_eq!(hops.keys().copied().collect::<Vec<_>>(), [2, 3]);
    }
}
