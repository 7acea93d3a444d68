//! Servers without a known next hop: they get no connections while another server of their service
//! can be reached.
//!
//! A server joins its pool when its next hop is known, as if it were added then. A server that was
//! reached once stays in the pool when its neighbour falls silent: the network does not decide
//! whether a server lives.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use shunt_datapath::entry::{self, method};
use shunt_model::event::Fact;
use shunt_model::next_hop::OutOfReach;
use shunt_model::warning::Warning;
use shunt_model::{Server, ServerAddress, ServiceKey};

use super::{Director, Output, Running};
use crate::eligibility::{self, Eligibility, Facts, Reach};
use crate::network::Route;
use crate::pool::Member;

/// The most servers that warnings name. The rest are counted.
const NAMED: usize = 4;

/// Whether packets can reach a server by this entry.
pub(super) fn has_way(entry: &entry::Server) -> bool {
    let is_here = entry.method == method::LOCAL || entry.method == method::HERE;
    is_here || entry.ways.is_usable()
}

/// The servers without a next hop, by service.
#[derive(Clone, Debug, Default)]
pub(super) struct Unreached(BTreeMap<ServiceKey, BTreeSet<ServerAddress>>);

impl Unreached {
    /// True if the server was reached before.
    fn insert(&mut self, key: &ServiceKey, at: ServerAddress) -> bool {
        self.0.entry(*key).or_default().insert(at)
    }

    /// True if the server was not reached before.
    pub(super) fn remove(&mut self, key: &ServiceKey, at: ServerAddress) -> bool {
        let Some(servers) = self.0.get_mut(key) else {
            return false;
        };
        let was_there = servers.remove(&at);
        if servers.is_empty() {
            self.0.remove(key);
        }
        was_there
    }

    fn contains(&self, key: &ServiceKey, at: ServerAddress) -> bool {
        let servers = self.0.get(key);
        servers.is_some_and(|servers| servers.contains(&at))
    }

    /// The number of these servers of one service.
    fn of(&self, key: &ServiceKey) -> usize {
        self.0.get(key).map_or(0, BTreeSet::len)
    }

    fn iter(&self) -> impl Iterator<Item = (&ServiceKey, &ServerAddress)> {
        let each = |(key, servers)| std::iter::repeat(key).zip(servers);
        self.0.iter().flat_map(each)
    }

    fn len(&self) -> usize {
        self.0.values().map(BTreeSet::len).sum()
    }
}

impl Director {
    fn is_reached(&self, id: u32) -> bool {
        self.written.get(&id).is_some_and(has_way)
    }

    /// The members that a pool is compiled from: the reachable ones, or all if no server that may
    /// be picked is reachable.
    pub(super) fn listed(&self, members: Vec<Member>) -> Vec<Member> {
        let reached = |member: &Member| (member.weight, self.is_reached(member.id));
        let is_served = eligibility::is_served(members.iter().map(reached));
        let listed = |member: Member| {
            let eligibility = eligibility::of(Facts {
                weight: member.weight,
                reach: Reach::new(self.is_reached(member.id), is_served),
                is_overloaded: false,
            });
            let weight = eligibility.weight();
            eligibility
                .is_listed()
                .then_some(Member { weight, ..member })
        };
        members.into_iter().filter_map(listed).collect()
    }

    /// Notes whether a server can be reached, from the entry that was written.
    pub(super) fn note_reach(
        &mut self,
        key: &ServiceKey,
        at: ServerAddress,
        entry: &entry::Server,
    ) {
        let different = match has_way(entry) {
            true => self.unreached.remove(key, at),
            false => self.unreached.insert(key, at),
        };
        if different {
            self.stale.insert(*key);
            let (service, server) = (*key, at);
            self.outputs.push_back(Output::Event(match has_way(entry) {
                true => Fact::ServerReached { service, server },
                false => Fact::ServerUnreached { service, server },
            }));
        }
    }

    /// Recompiles the pool of a service ([`super::Output::Pool`]).
    pub fn renew(&mut self, key: &ServiceKey, running: &dyn Running) {
        self.renew_pool(key, running);
    }

    /// Whether only the neighbour's MAC address is missing to reach a server.
    #[must_use]
    pub fn is_awaited(&self, key: &ServiceKey, at: ServerAddress) -> bool {
        let unresolved = |to: IpAddr| matches!(self.network.next_hop(to), Route::Unresolved { .. });
        self.unreached.contains(key, at) && unresolved(at.address)
    }

    /// What becomes of new connections for a server that cannot be reached; `None` for a reachable
    /// one.
    #[must_use]
    pub fn out_of_reach(&self, key: &ServiceKey, at: ServerAddress) -> Option<OutOfReach> {
        match self.reach(key, at) {
            Reach::Reached => None,
            Reach::Unreached => Some(OutOfReach::NotPicked),
            Reach::NobodyReached => Some(OutOfReach::Dropped),
        }
    }

    fn reach(&self, key: &ServiceKey, at: ServerAddress) -> Reach {
        let is_reached = |at: ServerAddress| !self.unreached.contains(key, at);
        if is_reached(at) {
            return Reach::Reached;
        }
        let servers = self.table.service(key).map(|entry| &entry.servers);
        // While no server is reached, as before the network is known, this needs no look at each of
        // them: otherwise adding or listing n servers would take n * n looks.
        if servers.map(Vec::len) == Some(self.unreached.of(key)) {
            return Reach::NobodyReached;
        }
        let servers = servers.into_iter().flatten();
        let reached = servers.map(|server| (server.weight, is_reached(server.at)));
        Reach::new(false, eligibility::is_served(reached))
    }

    /// Whether a server may be picked, and with which weight.
    #[must_use]
    pub fn eligibility(
        &self,
        key: &ServiceKey,
        server: &Server,
        running: &dyn Running,
    ) -> Eligibility {
        let slot = self.ids.services.get(key);
        let id = slot
            .and_then(|slot| slot.servers.get(&server.at))
            .map(|slot| slot.id);
        let has_threshold = server.upper_threshold != 0;
        eligibility::of(Facts {
            weight: server.weight,
            reach: self.reach(key, server.at),
            is_overloaded: has_threshold && id.is_some_and(|id| running.is_overloaded(id)),
        })
    }

    /// Warnings about servers without a next hop.
    #[must_use]
    pub fn warnings(&self) -> Vec<Warning> {
        let named = self.unreached.iter().take(NAMED);
        let named = named.filter_map(|(key, at)| {
            let server = self.table.service(key).and_then(|entry| entry.server(*at));
            Some(Warning::ServerOutOfReach {
                service: *key,
                server: *at,
                next_hop: server.map(|server| self.next_hop(server)),
                fate: self.out_of_reach(key, *at)?,
            })
        });
        let mut warnings: Vec<Warning> = named.collect();
        let count = self.unreached.len().saturating_sub(NAMED);
        if count > 0 {
            warnings.push(Warning::MoreServersOutOfReach { count });
        }
        warnings
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unreached_servers_are_counted_by_service() {
        let service = |port: u16| format!("tcp/192.0.2.1:{port}").parse().unwrap();
        let server = |n: u8| format!("10.1.0.{n}:80").parse().unwrap();
        let (web, other): (ServiceKey, ServiceKey) = (service(80), service(81));
        let mut unreached = Unreached::default();
        for (key, n, is_first) in [
            (web, 1, true),
            (web, 2, true),
            (web, 1, false),
            (other, 1, true),
        ] {
            assert_eq!(unreached.insert(&key, server(n)), is_first);
        }
        assert_eq!((unreached.of(&web), unreached.of(&other)), (2, 1));
        assert_eq!((unreached.len(), unreached.iter().count()), (3, 3));
        assert!(unreached.remove(&web, server(2)) && !unreached.remove(&web, server(2)));
        assert!(unreached.contains(&web, server(1)) && !unreached.contains(&web, server(2)));
        assert!(unreached.remove(&other, server(1)));
        assert_eq!((unreached.of(&web), unreached.of(&other)), (1, 0));
    }
}
