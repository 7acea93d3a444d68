//! Servers to which no next hop is known: a connection is not given to one while another of its
//! service can be reached.
//!
//! A server joins its pool when its way is known, as if it were added then. Who was reached once
//! and falls silent stays: whether a server lives is not for the network to say.

use std::net::IpAddr;

use shunt_datapath::entry::{self, method};
use shunt_model::{ServerAddress, ServiceKey};

use super::{Director, Running};
use crate::network::Route;
use crate::pool::Member;

/// Servers that a warning names; the others are counted.
const NAMED: usize = 4;

/// Whether packets get to a server by this entry.
pub fn has_way(entry: &entry::Server) -> bool {
    let is_here = entry.method == method::LOCAL || entry.method == method::HERE;
    is_here || entry.ways.is_usable()
}

impl Director {
    fn is_reached(&self, id: u32) -> bool {
        self.written.get(&id).is_some_and(has_way)
    }

    /// The members that a pool is compiled of: those that can be reached, or all of them where no
    /// server that may be picked can be reached.
    pub(super) fn reached(&self, mut members: Vec<Member>) -> Vec<Member> {
        let serves = |member: &Member| member.weight > 0 && self.is_reached(member.id);
        if members.iter().any(serves) {
            members.retain(|member| self.is_reached(member.id));
        }
        members
    }

    /// Notes whether a server can be reached, after its entry was written.
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

    /// Compiles the pool of a service anew ([`super::Output::Pool`]).
    pub fn renew(&mut self, key: &ServiceKey, running: &dyn Running) {
        self.renew_pool(key, running);
    }

    /// Whether it is only a neighbour's answer that is missing to reach a server.
    #[must_use]
    pub fn is_awaited(&self, key: &ServiceKey, at: ServerAddress) -> bool {
        let unresolved = |to: IpAddr| matches!(self.network.next_hop(to), Route::Unresolved { .. });
        self.unreached.contains(&(*key, at)) && unresolved(at.address)
    }

    /// What becomes of new connections for a server that cannot be reached; nothing for others.
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

    /// Whether any server of a service that may be picked can be reached.
    fn serves(&self, key: &ServiceKey) -> bool {
        let servers = self.table.service(key).map(|entry| &entry.servers);
        let mut servers = servers.into_iter().flatten();
        servers.any(|server| server.weight > 0 && !self.unreached.contains(&(*key, server.at)))
    }

    /// A sentence for what an operator should look at.
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
