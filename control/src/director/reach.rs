//! Servers without a known next hop: they get no connections while another server of their service
//! can be reached.
//!
//! A server joins its pool when its next hop is known, as if it were added then. A server that was
//! reached once stays in the pool when its neighbour falls silent: the network does not decide
//! whether a server lives.

use std::net::IpAddr;

use shunt_datapath::entry::{self, method};
use shunt_model::{ServerAddress, ServiceKey};

use super::{Director, Running};
use crate::network::Route;
use crate::pool::Member;

/// The most servers that warnings name. The rest are counted.
const NAMED: usize = 4;

/// Whether packets can reach a server by this entry.
pub fn has_way(entry: &entry::Server) -> bool {
    let is_here = entry.method == method::LOCAL || entry.method == method::HERE;
    is_here || entry.ways.is_usable()
}

impl Director {
    fn is_reached(&self, id: u32) -> bool {
        self.written.get(&id).is_some_and(has_way)
    }

    /// The members that a pool is compiled from: the reachable ones, or all if no server that may
    /// be picked is reachable.
    pub(super) fn reached(&self, mut members: Vec<Member>) -> Vec<Member> {
        let serves = |member: &Member| member.weight > 0 && self.is_reached(member.id);
        if members.iter().any(serves) {
            members.retain(|member| self.is_reached(member.id));
        }
        members
    }

    /// Notes whether a server can be reached, from the entry that was written.
    pub(super) fn note_reach(
        &mut self,
        key: &ServiceKey,
        at: ServerAddress,
        entry: &entry::Server,
    ) {
        let different = match has_way(entry) {
            true => self.unreached.remove(&(*key, at)),
            false => self.unreached.insert((*key, at)),
        };
        if different {
            self.stale.insert(*key);
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
        self.unreached.contains(&(*key, at)) && unresolved(at.address)
    }

    /// What becomes of connections to a server that cannot be reached, as text; `None` for a
    /// reachable one.
    #[must_use]
    pub fn reach_text(&self, key: &ServiceKey, at: ServerAddress) -> Option<&'static str> {
        if !self.unreached.contains(&(*key, at)) {
            return None;
        }
        Some(match self.serves(key) {
            true => "not picked",
            false => "packets are dropped",
        })
    }

    /// Whether a service has a reachable server that may be picked.
    fn serves(&self, key: &ServiceKey) -> bool {
        let servers = self.table.service(key).map(|entry| &entry.servers);
        let mut servers = servers.into_iter().flatten();
        servers.any(|server| server.weight > 0 && !self.unreached.contains(&(*key, server.at)))
    }

    /// Warnings about servers without a next hop, as sentences for an operator.
    #[must_use]
    pub fn warnings(&self) -> Vec<String> {
        let mut named: Vec<String> = Vec::new();
        for (key, at) in self.unreached.iter().take(NAMED) {
            let server = self.table.service(key).and_then(|entry| entry.server(*at));
            let way = server.map(|server| self.way_text(server));
            let fate = self.reach_text(key, *at).unwrap_or_default();
            let way = way.unwrap_or_default();
            named.push(format!("server {at} of {key}: {way}; {fate}"));
        }
        if let Some(more) = self
            .unreached
            .len()
            .checked_sub(NAMED)
            .filter(|more| *more > 0)
        {
            named.push(format!(
                "{more} more servers without a next hop: shunt server list"
            ));
        }
        named
    }
}
