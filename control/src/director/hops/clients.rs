//! Clients on links, each with a hop number of its own.

use std::net::IpAddr;

use shunt_datapath::entry::Ways;

use super::super::{Director, Output, Step, Write};
use super::{CLIENTS, Hops, may_be_client, ways_by};
use crate::network::Route;
use crate::network::routes::{Gateway, Prefix};

impl Hops {
    /// A number for a client on a link: the one it released, or a free one.
    fn take_for(&mut self, client: IpAddr) -> Option<u32> {
        let number = match self.left_by(client) {
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

    /// The number that a client released.
    fn left_by(&self, client: IpAddr) -> Option<u32> {
        let mut left = self.left.iter();
        let found = left.find(|(_, (_, by))| *by == Some(client))?;
        Some(*found.0)
    }
}

impl Director {
    /// A neighbour changed. It may be a client.
    pub(in super::super) fn renew_client(&mut self, client: IpAddr) {
        let direct = self.is_client_on_link(client);
        let prepared = self.network.is_plain(client.is_ipv4());
        match (self.hops.clients.get(&client).copied(), direct) {
            (None, false) => {}
            (Some(number), _) if prepared && self.network.has_neighbour(client) => {
                self.follow(number, client);
            }
            // The client's connections keep its last next hop: the kernel forgets a neighbour that
            // is silent for a while, and connections may be silent for longer.
            (Some(number), _) => {
                self.hops.clients.remove(&client);
                self.hops.leave(number, prepared.then_some(client));
                self.remember_client(client, None);
                let prefix = Prefix::host(client);
                let around = self.hops.networks.get(&prefix);
                let around = around.map(|(_, number)| *number);
                self.write_network(prefix, around);
                if !prepared {
                    self.write_hop(number, Ways::default());
                }
            }
            (None, true) => {
                let Some(ways) = ways_by(self.network.next_hop(client), None) else {
                    return;
                };
                let Some(number) = self.hops.take_for(client) else {
                    return;
                };
                self.hops.clients.insert(client, number);
                self.remember_client(client, Some(number));
                self.write_hop(number, ways);
                let prefix = Prefix::host(client);
                let number = Some(number);
                self.write(Write::Route { prefix, number });
            }
        }
    }

    /// Writes the next hop of a client. While the kernel resolves the client again its last next
    /// hop stays, unless the client would be on another link.
    fn follow(&mut self, number: u32, client: IpAddr) {
        let route = self.network.next_hop(client);
        let written = self.hops.written.get(&number).copied().unwrap_or_default();
        let elsewhere = match &route {
            Route::Unresolved {
                interface,
                neighbour,
            } => *interface != written.interface || *neighbour != client,
            Route::Via(_) | Route::Local | Route::Unreachable { .. } => false,
        };
        match ways_by(route, None) {
            Some(ways) => self.write_hop(number, ways),
            None if elsewhere => self.write_hop(number, Ways::default()),
            None => {}
        }
    }

    fn remember_client(&mut self, client: IpAddr, number: Option<u32>) {
        let step = Step::client(client, number);
        self.outputs.push_back(Output::Remember(step));
    }

    /// Links or addresses changed, or numbers were freed: looks at every neighbour again, and at
    /// clients that released their number.
    pub(in super::super) fn renew_clients(&mut self) {
        let known: Vec<IpAddr> = self.hops.clients.keys().copied().collect();
        let neighbours: Vec<(u32, IpAddr)> = self.network.neighbours().collect();
        let neighbours = neighbours.into_iter().map(|(_, address)| address);
        for client in known.into_iter().chain(neighbours) {
            self.renew_client(client);
        }
        self.follow_left(|_| true);
    }

    /// Looks at the clients in a network whose route changed.
    pub(super) fn renew_clients_in(&mut self, network: Prefix) {
        let known = self.hops.clients.range(network.range());
        let known: Vec<IpAddr> = known.map(|(client, _)| *client).collect();
        for client in known.into_iter().chain(self.network.neighbours_in(network)) {
            self.renew_client(client);
        }
        self.follow_left(|client| network.contains(client));
    }

    /// Writes the next hops of released numbers, so that their connections follow the routes.
    fn follow_left(&mut self, is_meant: impl Fn(IpAddr) -> bool) {
        let left = self.hops.left.iter();
        let left = left.filter_map(|(number, (_, client))| Some((*number, (*client)?)));
        let left: Vec<(u32, IpAddr)> = left.filter(|(_, client)| is_meant(*client)).collect();
        for (number, client) in left {
            match self.network.is_plain(client.is_ipv4()) {
                true => self.follow(number, client),
                false => self.write_hop(number, Ways::default()),
            }
        }
    }

    /// Whether a neighbour is a client on the link: it is neither server nor gateway, has a MAC
    /// address, and is reached without a router.
    fn is_client_on_link(&self, client: IpAddr) -> bool {
        let prepared = self.network.is_plain(client.is_ipv4());
        if !prepared || !may_be_client(client) || self.by_address.has(client) {
            return false;
        }
        let Route::Via(hop) = self.network.next_hop(client) else {
            return false;
        };
        let gateway = Gateway {
            interface: hop.interface,
            address: client,
        };
        let leads = self.hops.gateways.contains_key(&gateway);
        hop.neighbour == client && hop.target_mac != [0; 6] && !leads
    }
}
