//! Refuses changes that the table allows but the packet path has no room for.
//!
//! A change is measured against the free room, independent of the order of changes. A mark rule
//! reserves its room even while its service does not exist. So an accepted rule comes into force
//! when its service is added.

use std::collections::BTreeSet;
use std::net::IpAddr;

use shunt_datapath::entry;
use shunt_model::api::{Reason, Refusal};
use shunt_model::change::{Change, mark, server, service};
use shunt_model::mark::MarkRule;
use shunt_model::{Server, Service, ServiceKey};

use super::ids::{self, NatKey};
use super::orphans::At;
use super::slots::Place;
use super::{Director, Write, entries};

/// The numbers of IPv4 and of IPv6 endpoints.
type Count = [usize; 2];

/// The room that a change takes in the packet path.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Needs {
    services: usize,
    servers: usize,
    /// Ids of the endpoints that masqueraded servers answer from.
    answers: usize,
    /// Stretches of ids for services of every port and for places of marks.
    stretches: usize,
    /// Stretches of ids for masqueraded servers of every port.
    answering: usize,
    endpoints: Count,
}

/// Endpoints in the packet path.
#[derive(Clone, Debug, Default)]
pub(super) struct Placed {
    all: BTreeSet<At>,
    count: Count,
}

impl Placed {
    /// Counts the endpoint that a write adds or removes.
    pub(super) fn follow(&mut self, write: &Write) {
        match write {
            Write::EndpointAdd { address, word, .. } => {
                if self.all.insert((*address, *word)) {
                    self.count[family(*address)] += 1;
                }
            }
            Write::EndpointRemove { address, word } => {
                if self.all.remove(&(*address, *word)) {
                    self.count[family(*address)] -= 1;
                }
            }
            Write::Server { .. }
            | Write::Standing { .. }
            | Write::Way { .. }
            | Write::Service { .. }
            | Write::Pool { .. }
            | Write::Switch { .. }
            | Write::Wide { .. }
            | Write::Peer { .. }
            | Write::Local { .. }
            | Write::Answerer { .. }
            | Write::Settings(_)
            | Write::Origins(_)
            | Write::Hop { .. }
            | Write::Routes(_)
            | Write::Route { .. }
            | Write::Forget { .. } => {}
        }
    }
}

fn family(address: IpAddr) -> usize {
    usize::from(address.is_ipv6())
}

impl Director {
    /// Refuses a change that has no room or is not supported.
    pub(super) fn admit(&self, change: &Change) -> Result<(), Refusal> {
        let needs = match change {
            Change::Service(change) => self.admit_service(change)?,
            Change::Server(change) => self.admit_server(change)?,
            Change::Mark(change) => self.admit_mark(change)?,
            // These take no room.
            Change::Local(_) | Change::Setting(_) => return Ok(()),
        };
        self.admit_needs(change, needs)
    }

    fn admit_service(&self, change: &service::Change) -> Result<Needs, Refusal> {
        match change {
            service::Change::Add { service } => {
                self.admit_pool(service)?;
                Ok(self.of_service(service))
            }
            service::Change::Edit { service } => {
                self.admit_pool(service)?;
                Ok(Needs {
                    services: self.of_template(service),
                    ..Needs::default()
                })
            }
            service::Change::Delete { .. }
            | service::Change::Flush
            | service::Change::Zero { .. } => Ok(Needs::default()),
        }
    }

    fn admit_server(&self, change: &server::Change) -> Result<Needs, Refusal> {
        match change {
            server::Change::Add { key, server } => {
                self.admit_address(server.at.address)?;
                self.admit_member(key, server)?;
                Ok(self.of_server(key, server))
            }
            server::Change::Edit { key, server } => {
                self.admit_member(key, server)?;
                Ok(self.of_server(key, server))
            }
            server::Change::Delete { .. } => Ok(Needs::default()),
        }
    }

    fn admit_mark(&self, change: &mark::Change) -> Result<Needs, Refusal> {
        match change {
            mark::Change::Add { rule } => {
                self.admit_origin(rule)?;
                Ok(self.of_rule(rule))
            }
            mark::Change::Delete { .. } => Ok(Needs::default()),
        }
    }

    fn admit_needs(&self, change: &Change, needs: Needs) -> Result<(), Refusal> {
        let ids = &self.ids;
        if needs.services > ids.services_left() || needs.servers > ids.servers_left() {
            return no_room();
        }
        if needs.answers > ids.answers_left() {
            return refuse(format!(
                "{change}: the packet path has no room for another masqueraded server; start \
                 shuntd with larger tables (--servers)"
            ));
        }
        let stretches = ids.stretches_left().saturating_sub(self.promised(None));
        if needs.stretches > stretches || needs.answering > ids.answering_left() {
            return refuse(format!(
                "{change}: all {} endpoints of every port are taken, by services and addresses of \
                 marks or by masqueraded servers; name a port, or delete one that is not needed",
                entry::WIDES
            ));
        }
        let limit = ids.endpoints();
        for (at, needed) in needs.endpoints.into_iter().enumerate() {
            let used = self.placed.count[at] + self.promised_endpoints()[at];
            if needed != 0 && used + needed > limit[at] {
                return refuse(format!(
                    "{change}: {used} of {} endpoints of {} are in use, and the change needs \
                     {needed} more; start shuntd with larger tables (--services, --servers), or \
                     give a mark every port of an address in place of many",
                    limit[at],
                    ["IPv4", "IPv6"][at],
                ));
            }
        }
        Ok(())
    }

    fn of_service(&self, service: &Service) -> Needs {
        let mut needs = Needs {
            services: self.of_template(service),
            ..Needs::default()
        };
        if self.ids.services.contains_key(&service.key) {
            return needs;
        }
        needs.services += 1;
        // The endpoints of a mark's service were counted with its rules.
        if let ServiceKey::Address { address, .. } = service.key {
            needs.stretches = usize::from(ids::is_wide(&service.key));
            needs.endpoints[family(address)] = 2;
        }
        needs
    }

    /// 1 if a persistent service has no id for its templates yet, else 0.
    fn of_template(&self, service: &Service) -> usize {
        let slot = self.ids.services.get(&service.key);
        let has_one = slot.is_some_and(|slot| slot.ids.template != 0);
        usize::from(service.persistence.is_some() && !has_one)
    }

    fn of_server(&self, key: &ServiceKey, server: &Server) -> Needs {
        let slot = self.ids.services.get(key);
        let known = slot.and_then(|slot| slot.servers.get(&server.at));
        // An edit of the method takes a second id while flows keep the first.
        let is_known = known.is_some_and(|known| known.method == server.method);
        let mut needs = Needs {
            servers: usize::from(!is_known),
            ..Needs::default()
        };
        if !server.method.rewrites() {
            return needs;
        }
        let translated = ids::translates(key, server.at, server.method);
        for answers in NatKey::of(key, server.at) {
            let id = self.ids.endpoints.get(&answers);
            if id.is_none() {
                needs.endpoints[family(answers.address)] += 2;
            }
            // Translated flows have no endpoint id of their own.
            if translated || id.is_some_and(|id| *id != entry::BACK) {
                continue;
            }
            match answers.port {
                0 => needs.answering += 1,
                _ => needs.answers += 1,
            }
        }
        needs
    }

    fn of_rule(&self, rule: &MarkRule) -> Needs {
        let mut needs = Needs {
            stretches: self.promised(Some(rule)) - self.promised(None),
            ..Needs::default()
        };
        needs.endpoints[family(rule.target.address)] = endpoints_of(rule);
        needs
    }

    /// The number of mark places without a stretch of ids, `more` included. They get one when their
    /// service is added.
    fn promised(&self, more: Option<&MarkRule>) -> usize {
        let rules = self.table.marks().chain(more);
        let without = rules.filter(|rule| {
            let slot = self.ids.services.get(&rule.service());
            slot.is_none_or(|slot| !slot.places.contains_key(&place(rule)))
        });
        let places: BTreeSet<(ServiceKey, Place)> =
            without.map(|rule| (rule.service(), place(rule))).collect();
        places.len()
    }

    /// The endpoints reserved by rules whose service does not exist.
    fn promised_endpoints(&self) -> Count {
        let mut count = Count::default();
        let rules = self.table.marks();
        for rule in rules.filter(|rule| self.table.service(&rule.service()).is_none()) {
            count[family(rule.target.address)] += endpoints_of(rule);
        }
        count
    }

    fn admit_pool(&self, service: &Service) -> Result<(), Refusal> {
        let servers = self.table.service(&service.key);
        let servers = servers.into_iter().flat_map(|entry| &entry.servers);
        let weights = servers.map(|server| server.weight);
        if self.pools.has_room_for(service.into(), weights) {
            return Ok(());
        }
        no_room()
    }

    fn has_room_with(&self, key: &ServiceKey, server: &Server) -> bool {
        let Some(entry) = self.table.service(key) else {
            return true;
        };
        let others = entry.servers.iter().filter(|other| other.at != server.at);
        let weights = others.map(|other| other.weight).chain([server.weight]);
        self.pools.has_room_for((&entry.service).into(), weights)
    }

    /// `ip_vs_new_dest`: refuses broadcast and multicast addresses. The table cannot, because
    /// broadcast addresses depend on this machine's networks.
    fn admit_address(&self, address: IpAddr) -> Result<(), Refusal> {
        if !self.network.is_of_many(address) {
            return Ok(());
        }
        Err(Refusal {
            reason: Reason::BadAddress,
            text: format!("server address {address} is not unicast"),
        })
    }

    fn admit_member(&self, key: &ServiceKey, server: &Server) -> Result<(), Refusal> {
        let asked = match key {
            ServiceKey::Address { port, .. } => *port,
            ServiceKey::Mark { .. } => 0,
        };
        let moved = server.method.rewrites()
            && self.local.contains(&server.at.address)
            && ids::port(key, server.at) != asked
            && !entries::is_exchanged(key, server);
        if moved {
            return Err(Refusal {
                reason: Reason::NotSupported,
                text: format!(
                    "server {} is on this machine: it can have another port only by masquerade, \
                     for a service of one port",
                    server.at
                ),
            });
        }
        if self.has_room_with(key, server) {
            return Ok(());
        }
        no_room()
    }
}

/// The endpoints of a rule: one for each port, and one for the address.
fn endpoints_of(rule: &MarkRule) -> usize {
    let ports = rule.target.ports;
    2 + usize::from(ports.last) - usize::from(ports.first)
}

fn place(rule: &MarkRule) -> Place {
    (rule.target.protocol.number(), rule.target.address)
}

fn refuse(text: String) -> Result<(), Refusal> {
    Err(Refusal {
        reason: Reason::NoRoom,
        text,
    })
}

fn no_room() -> Result<(), Refusal> {
    refuse(
        "the packet path has no room for another service or server; start shuntd with larger \
         tables (--services, --servers, --pool-words)"
            .to_owned(),
    )
}

#[cfg(test)]
mod tests;
