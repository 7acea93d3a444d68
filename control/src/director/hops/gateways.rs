//! Networks and their gateways. The cost of an event depends on what it changes only.

use std::collections::BTreeMap;

use shunt_datapath::entry::Ways;

use super::super::{Director, Output, Step, Write};
use super::{FEWER, Families, Hops, MOST, Prepared, REST, ways_by};
use crate::network::routes::{Gateway, Lead, Prefix};

impl Hops {
    /// The gateway of the next wider network.
    fn around(&self, network: Prefix) -> Option<Gateway> {
        let mut wider = network.wider();
        let (lead, _) = wider.find_map(|wider| self.networks.get(&wider))?;
        lead.gateway
    }

    /// Queues the gateways without a number for one.
    pub(super) fn ask_again(&mut self) {
        for (gateway, prepared) in &self.gateways {
            if prepared.number == 0 {
                self.restless.entry(*gateway).or_default();
            }
        }
    }

    /// Adds a network. A gateway without networks so far is queued for a number.
    fn enter(&mut self, network: Prefix, lead: Lead, number: u32) {
        self.networks.insert(network, (lead, number));
        let Some(gateway) = lead.gateway else {
            return;
        };
        let prepared = self.gateways.entry(gateway).or_insert_with(|| {
            self.restless.entry(gateway).or_default();
            Prepared::default()
        });
        prepared.networks.insert(network, lead.mtu);
    }

    /// The number of a network's gateway; 0 while it has none.
    fn number(&self, lead: Lead) -> u32 {
        let prepared = lead.gateway.and_then(|gateway| self.gateways.get(&gateway));
        prepared.map_or(0, |prepared| prepared.number)
    }
}

impl Director {
    /// The routes to these networks changed.
    pub(in super::super) fn renew_networks(&mut self, networks: Vec<Prefix>) {
        if !self.hops.begun {
            self.begin_hops();
            self.keep_neighbours();
            return;
        }
        let place = self.outputs.len();
        let mut step = Step::default();
        for network in networks.iter().copied().chain(self.renew_families()) {
            self.renew_network(network, &mut step);
        }
        if !step.is_empty() {
            self.outputs.insert(place, Output::Remember(step));
        }
        for network in networks {
            self.renew_clients_in(network);
        }
        self.keep_routers();
    }

    /// Policy rules changed.
    pub(in super::super) fn renew_rules(&mut self) {
        if self.hops.begun {
            self.renew_networks(Vec::new());
        }
    }

    /// Which families can be prepared with the present rules and routes.
    fn families(&self) -> Families {
        let is_prepared = |v4: bool| {
            let most = if self.hops.families.has(v4) {
                MOST
            } else {
                FEWER
            };
            self.network.is_plain(v4) && self.network.count_networks(v4) <= most
        };
        Families {
            v4: is_prepared(true),
            v6: is_prepared(false),
        }
    }

    /// The networks of families whose preparation began or ended.
    fn renew_families(&mut self) -> Vec<Prefix> {
        let families = self.families();
        let before = std::mem::replace(&mut self.hops.families, families);
        let mut different = Vec::new();
        for v4 in [true, false] {
            if before.has(v4) != self.hops.families.has(v4) {
                let known = self.hops.networks.keys().copied();
                different.extend(known.filter(|network| network.address().is_ipv4() == v4));
                different.extend(self.network.networks(v4));
            }
        }
        different
    }

    fn prepared_lead(&self, network: Prefix) -> Option<Lead> {
        let is_prepared = self.hops.families.has(network.address().is_ipv4());
        is_prepared.then(|| self.network.lead(network)).flatten()
    }

    /// Prepares all networks when the first full account of the routes is in.
    fn begin_hops(&mut self) {
        self.hops.begun = true;
        // Until the account shows too many networks, both families count as prepared.
        self.hops.families = Families { v4: true, v6: true };
        self.hops.families = self.families();
        for v4 in [true, false] {
            for network in self.network.networks(v4).collect::<Vec<_>>() {
                if let Some(lead) = self.prepared_lead(network) {
                    self.hops.enter(network, lead, 0);
                }
            }
        }
        self.take_up_numbers();
        let mut all: Vec<(Prefix, u32)> = Vec::new();
        let hops = &mut self.hops;
        for (network, (lead, number)) in &mut hops.networks {
            let gateway = lead.gateway.and_then(|gateway| hops.gateways.get(&gateway));
            *number = gateway.map_or(0, |prepared| prepared.number);
            all.push((*network, *number));
        }
        let clients = hops.clients.iter();
        all.extend(clients.map(|(at, number)| (Prefix::host(*at), *number)));
        self.write(Write::Routes(all));
    }

    /// Restores an earlier daemon's numbers if the gateways and their MTUs are the same.
    fn take_up_numbers(&mut self) {
        let known = std::mem::take(&mut self.hops.known);
        let gateways = self.hops.gateways.iter();
        let limits = gateways.map(|(at, prepared)| (*at, prepared.numbered().mtu));
        let same = limits.eq(known.iter().map(|(at, numbered)| (*at, numbered.mtu)));
        if same {
            self.hops.restless.clear();
            for (gateway, numbered) in &known {
                if let Some(prepared) = self.hops.gateways.get_mut(gateway) {
                    prepared.number = numbered.number;
                }
            }
            self.renew_hops();
        } else {
            for numbered in known.values() {
                self.hops.leave(numbered.number, None);
            }
            self.number_gateways();
        }
        let left = self.hops.left.iter();
        let left = left.filter(|(_, (_, client))| client.is_none());
        for number in left.map(|(number, _)| *number).collect::<Vec<_>>() {
            self.write_hop(number, Ways::default());
        }
    }

    /// The route to one network may have changed: writes its number. A gateway gives its number up
    /// if connections that hold it would go the wrong way.
    fn renew_network(&mut self, network: Prefix, step: &mut Step) {
        let lead = self.prepared_lead(network);
        let known = self.hops.networks.get(&network).copied();
        let (before, written) = known.unzip();
        if lead == before {
            return;
        }
        let around = self.hops.around(network);
        let by = |lead: Option<Lead>| lead.map_or(around, |lead| lead.gateway);
        let (was, is) = (by(before), by(lead));
        if let Some(gateway) = was.filter(|_| was != is) {
            self.give_up(gateway, step);
        }
        let left = before.and_then(|lead| lead.gateway);
        if let Some(gateway) = left.filter(|_| left != lead.and_then(|lead| lead.gateway)) {
            self.leave_network(gateway, network, step);
        }
        let number = lead.map(|lead| self.hops.number(lead));
        match lead {
            Some(lead) => self.hops.enter(network, lead, number.unwrap_or_default()),
            None => drop(self.hops.networks.remove(&network)),
        }
        if number != written {
            self.write_network(network, number);
        }
        let limited = |lead: &Lead| lead.mtu.is_some();
        if let Some(gateway) = lead.and_then(|lead| lead.gateway)
            && (lead.as_ref().is_some_and(limited) || before.as_ref().is_some_and(limited))
        {
            self.limit(gateway, step);
        }
    }

    /// Writes a network's number, unless it is the address of a client with its own number.
    pub(super) fn write_network(&mut self, prefix: Prefix, number: Option<u32>) {
        let is_client = prefix.is_host() && self.hops.clients.contains_key(&prefix.address());
        if !is_client {
            self.write(Write::Route { prefix, number });
        }
    }

    /// Removes a network from a gateway. A gateway without networks goes.
    fn leave_network(&mut self, gateway: Gateway, network: Prefix, step: &mut Step) {
        let Some(prepared) = self.hops.gateways.get_mut(&gateway) else {
            return;
        };
        let limited = prepared.networks.remove(&network).flatten().is_some();
        if prepared.networks.is_empty() {
            self.give_up(gateway, step);
        } else if limited {
            self.limit(gateway, step);
        }
    }

    /// A gateway gives its number up: connections that hold it ask the kernel.
    fn give_up(&mut self, gateway: Gateway, step: &mut Step) {
        let Some(prepared) = self.hops.gateways.get_mut(&gateway) else {
            return;
        };
        let number = std::mem::take(&mut prepared.number);
        if number != 0 {
            self.hops.restless.insert(gateway, number);
            step.gateway(gateway, None);
            self.write_hop(number, Ways::default());
        }
    }

    /// The least MTU of a gateway's networks may have changed.
    fn limit(&mut self, gateway: Gateway, step: &mut Step) {
        let prepared = self.hops.gateways.get(&gateway);
        let numbered = prepared
            .map(Prepared::numbered)
            .filter(|one| one.number != 0);
        if numbered.is_some() {
            step.gateway(gateway, numbered);
            self.renew_hop(gateway);
        }
    }

    /// Numbers the waiting gateways if it is time. True if it was.
    pub(in super::super) fn rest_hops(&mut self) -> bool {
        let waits = self.hops.renewed.is_some_and(|at| self.seen < at + REST);
        if self.hops.restless.is_empty() || waits {
            return false;
        }
        self.hops.renewed = Some(self.seen);
        let restless = self.number_gateways();
        for (gateway, before) in restless {
            let Some(prepared) = self.hops.gateways.get(&gateway) else {
                self.hops.leave(before, None);
                continue;
            };
            let number = prepared.number;
            for network in prepared.networks.keys().copied().collect::<Vec<_>>() {
                if let Some((_, written)) = self.hops.networks.get_mut(&network)
                    && std::mem::replace(written, number) != number
                {
                    self.write_network(network, Some(number));
                }
            }
            if before != 0 {
                self.hops.leave(before, None);
            }
        }
        true
    }

    /// Numbers the waiting gateways, writes their next hops, and removes gateways without networks.
    /// Returns the gateways that waited with the numbers they gave up.
    fn number_gateways(&mut self) -> BTreeMap<Gateway, u32> {
        let restless = std::mem::take(&mut self.hops.restless);
        let mut step = Step::default();
        for gateway in restless.keys() {
            let Some(prepared) = self.hops.gateways.get(gateway) else {
                continue;
            };
            if prepared.networks.is_empty() {
                self.hops.gateways.remove(gateway);
                continue;
            }
            let number = self.hops.take();
            self.hops.turned_away |= number.is_none();
            if let Some(prepared) = self.hops.gateways.get_mut(gateway) {
                prepared.number = number.unwrap_or_default();
                step.gateway(*gateway, number.map(|_| prepared.numbered()));
            }
        }
        if !step.is_empty() {
            self.outputs.push_back(Output::Remember(step));
        }
        for gateway in restless.keys() {
            self.renew_hop(*gateway);
        }
        restless
    }

    /// The MAC address or link of a gateway changed.
    pub(in super::super) fn renew_hop(&mut self, gateway: Gateway) {
        let prepared = self.hops.gateways.get(&gateway);
        let Some(numbered) = prepared
            .map(Prepared::numbered)
            .filter(|one| one.number != 0)
        else {
            return;
        };
        let ways = ways_by(self.network.by_gateway(gateway), numbered.mtu);
        self.write_hop(numbered.number, ways.unwrap_or_default());
    }

    /// Rewrites the next hop of every gateway.
    pub(in super::super) fn renew_hops(&mut self) {
        for gateway in self.hops.gateways.keys().copied().collect::<Vec<_>>() {
            self.renew_hop(gateway);
        }
    }
}
