//! The authoritative table of services and real servers, with the meaning IPVS gives to a change.
//!
//! Pure: it says yes or no and what changed; the caller changes the packet path. A refused change
//! leaves everything as it was. Counters, connections and health are never in here.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::ops::Bound;

use shunt_model::api::{Reason, Refusal};
use shunt_model::batch::{MOST_REFUSED, Refused};
use shunt_model::change::Change;
use shunt_model::wanted::{Pool, Wanted};
use shunt_model::{
    Family, LocalPorts, MarkRule, Server, ServerAddress, Service, ServiceKey, Settings, Timeouts,
};

use order::Place;
use rules::refuse;

mod inverse;
mod locals;
mod marks;
mod order;
mod rules;
mod servers;
mod services;
mod settings;
#[cfg(test)]
mod tests;

pub use rules::{HEAVIEST, LONGEST_TIMEOUT_S};

/// How much a table takes; beyond that, adding is refused with [`Reason::NoRoom`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Services, those of marks included.
    pub services: usize,
    /// Servers of all services together.
    pub servers: usize,
}

impl Default for Limits {
    /// A service for every port of an address, each with four servers.
    fn default() -> Self {
        Self {
            services: 65_536,
            servers: 262_144,
        }
    }
}

/// A service and its servers, the newest server first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The service, as it was added or last edited.
    pub service: Service,
    /// The newest first, as IPVS lists them.
    pub servers: Vec<Server>,
    place: Place,
}

impl Entry {
    /// The server with this address and port.
    #[must_use]
    pub fn server(&self, at: ServerAddress) -> Option<&Server> {
        self.servers.iter().find(|server| server.at == at)
    }

    fn index(&self, at: ServerAddress) -> Result<usize, Refusal> {
        let index = self.servers.iter().position(|server| server.at == at);
        match index {
            Some(index) => Ok(index),
            None => refuse(
                Reason::NoSuchServer,
                format!("service {} has no server {at}", self.service.key),
            ),
        }
    }
}

/// What a change changed: all that is needed to make the packet path agree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Applied {
    /// A service was added, without servers.
    ServiceAdded {
        /// The service's key.
        key: ServiceKey,
    },
    /// A service has other properties.
    ServiceEdited {
        /// The service before the change. It has the same key.
        before: Service,
    },
    /// A service was deleted with its servers.
    ServiceDeleted {
        /// The service and the servers that it had.
        entry: Entry,
    },
    /// Every service that there was, in the kernel's order.
    Flushed {
        /// The services and the servers that they had.
        entries: Vec<Entry>,
    },
    /// A server was added to a service.
    ServerAdded {
        /// The service's key.
        key: ServiceKey,
        /// The server's address and port.
        at: ServerAddress,
    },
    /// A server has another method, weight or thresholds.
    ServerEdited {
        /// The service's key.
        key: ServiceKey,
        /// The server before the change. It has the same address and port.
        before: Server,
    },
    /// A server was deleted from a service.
    ServerDeleted {
        /// The service's key.
        key: ServiceKey,
        /// The server as it was.
        server: Server,
    },
    /// The counters of one service and its servers are to be zeroed, or all.
    Zeroed {
        /// The service's key; `None` for all services.
        key: Option<ServiceKey>,
    },
    /// The timeouts that are in force from here on.
    TimeoutsSet {
        /// In seconds.
        timeouts: Timeouts,
    },
    /// A setting of the director is another.
    SettingSet,
    /// A rule of marks was added.
    MarkAdded {
        /// The rule.
        rule: MarkRule,
    },
    /// A rule of marks was deleted.
    MarkDeleted {
        /// The rule.
        rule: MarkRule,
    },
    /// The local addresses of this family are others.
    LocalsChanged {
        /// The family of the addresses.
        family: Family,
    },
}

/// The services, their servers and the timeouts.
#[derive(Clone, Debug)]
pub struct Table {
    entries: BTreeMap<ServiceKey, Entry>,
    places: BTreeMap<Place, ServiceKey>,
    marks: BTreeSet<MarkRule>,
    locals: BTreeMap<IpAddr, LocalPorts>,
    servers: usize,
    added: u64,
    timeouts: Timeouts,
    settings: Settings,
    limits: Limits,
    namespace: u8,
}

impl Default for Table {
    fn default() -> Self {
        Self::new(Limits::default())
    }
}

impl Table {
    /// An empty table with the default settings and timeouts.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self {
            entries: BTreeMap::new(),
            places: BTreeMap::new(),
            marks: BTreeSet::new(),
            locals: BTreeMap::new(),
            servers: 0,
            added: 0,
            timeouts: Timeouts::default(),
            settings: Settings::default(),
            limits,
            namespace: order::NAMESPACE,
        }
    }

    /// The same table in the order of another kernel: see `order`.
    #[must_use]
    pub fn in_namespace(self, namespace: u8) -> Self {
        Self { namespace, ..self }
    }

    /// Does the whole change or nothing of it.
    pub fn apply(&mut self, change: &Change) -> Result<Applied, Refusal> {
        self.check(change)?;
        self.take(change)
    }

    /// Makes all changes of a list, or none if any is refused. A table costs a copy of itself.
    pub fn apply_all(&mut self, changes: &[Change]) -> Result<(), Vec<Refused>> {
        let before = self.clone();
        let mut refused = Vec::new();
        for (index, change) in changes.iter().enumerate() {
            if let Err(refusal) = self.apply(change) {
                refused.push(Refused { index, refusal });
            }
            if refused.len() == MOST_REFUSED {
                break;
            }
        }
        if refused.is_empty() {
            return Ok(());
        }
        *self = before;
        Err(refused)
    }

    /// Refuses what [`Table::apply`] refuses, in the order in which IPVS looks: of several
    /// mistakes, the first one is named (`ip_vs_genl_set_cmd`, `ip_vs_add_dest`).
    ///
    /// Nothing is changed, so that limits of the packet path can be looked at in between.
    pub fn check(&self, change: &Change) -> Result<(), Refusal> {
        match change {
            Change::Service(change) => self.check_service(change),
            Change::Server(change) => self.check_server(change),
            Change::Mark(change) => self.check_mark(change),
            Change::Local(change) => self.check_local(change),
            Change::Setting(change) => self.check_setting(change),
        }
    }

    /// Does a change to which [`Table::check`] has no objection.
    pub fn take(&mut self, change: &Change) -> Result<Applied, Refusal> {
        match change {
            Change::Service(change) => self.take_service(change),
            Change::Server(change) => self.take_server(change),
            Change::Mark(change) => self.take_mark(change),
            Change::Local(change) => self.take_local(change),
            Change::Setting(change) => Ok(self.take_setting(change)),
        }
    }

    /// Every service, in the order in which the kernel lists them.
    pub fn services(&self) -> impl Iterator<Item = &Entry> {
        self.places.values().map(|key| &self.entries[key])
    }

    /// Every service, in the order in which they were added: added again in this order, they are
    /// listed as they are here.
    #[must_use]
    pub fn oldest_first(&self) -> Vec<&Entry> {
        let mut entries: Vec<&Entry> = self.entries.values().collect();
        entries.sort_by_key(|entry| entry.place.number());
        entries
    }

    /// All of the table. Its changes from nothing make the same table, listed in the same order.
    #[must_use]
    pub fn wanted(&self) -> Wanted {
        let pool = |entry: &Entry| Pool {
            service: entry.service.clone(),
            servers: entry.servers.iter().rev().cloned().collect(),
        };
        Wanted {
            settings: self.settings,
            timeouts: self.timeouts,
            marks: self.marks().copied().collect(),
            locals: self.locals().collect(),
            services: self.oldest_first().into_iter().map(pool).collect(),
        }
    }

    /// The next keys in their own order: from the first on, or after one of them, even if it is
    /// not there any more.
    #[must_use]
    pub fn keys_after(&self, last: Option<ServiceKey>, count: usize) -> Vec<ServiceKey> {
        let from = last.map_or(Bound::Unbounded, Bound::Excluded);
        let keys = self.entries.range((from, Bound::Unbounded));
        keys.map(|(key, _)| *key).take(count).collect()
    }

    /// The service with this key, and its servers.
    #[must_use]
    pub fn service(&self, key: &ServiceKey) -> Option<&Entry> {
        self.entries.get(key)
    }

    /// How many services there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether it has no service.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// How many servers all services have together.
    #[must_use]
    pub fn servers(&self) -> usize {
        self.servers
    }

    /// The timeouts of `ipvsadm --set`.
    #[must_use]
    pub fn timeouts(&self) -> Timeouts {
        self.timeouts
    }

    /// The director's settings.
    #[must_use]
    pub fn settings(&self) -> Settings {
        self.settings
    }

    fn known(&self, key: &ServiceKey) -> Result<&Entry, Refusal> {
        match self.entries.get(key) {
            Some(entry) => Ok(entry),
            None => no_such_service(key),
        }
    }

    fn entry(&mut self, key: &ServiceKey) -> Result<&mut Entry, Refusal> {
        match self.entries.get_mut(key) {
            Some(entry) => Ok(entry),
            None => no_such_service(key),
        }
    }
}

fn no_such_service<T>(key: &ServiceKey) -> Result<T, Refusal> {
    refuse(Reason::NoSuchService, format!("there is no service {key}"))
}
