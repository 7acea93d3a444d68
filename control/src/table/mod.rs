//! The authoritative table of services and real servers, with the meaning IPVS gives to a change.
//!
//! Pure: it says yes or no and what changed; the caller changes the packet path. A refused change
//! leaves everything as it was. Counters, connections and health are never in here.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::ops::Bound;

use shunt_model::api::{Change, Reason, Refusal};
use shunt_model::{
    Family, LocalPorts, MarkRule, Server, ServerAddress, Service, ServiceKey, Setting, Settings,
    Timeouts,
};

use order::Place;
use rules::refuse;

mod check;
mod locals;
mod marks;
mod order;
mod rules;
#[cfg(test)]
mod tests;

pub use rules::{HEAVIEST, LONGEST_TIMEOUT_S};

/// How much a table takes; beyond that, adding is refused with [`Reason::NoRoom`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
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
    pub service: Service,
    pub servers: Vec<Server>,
    place: Place,
}

impl Entry {
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
    ServiceAdded {
        key: ServiceKey,
    },
    ServiceEdited {
        before: Service,
    },
    ServiceDeleted {
        entry: Entry,
    },
    /// Every service that there was, in the kernel's order.
    Flushed {
        entries: Vec<Entry>,
    },
    ServerAdded {
        key: ServiceKey,
        at: ServerAddress,
    },
    ServerEdited {
        key: ServiceKey,
        before: Server,
    },
    ServerDeleted {
        key: ServiceKey,
        server: Server,
    },
    /// The counters of one service and its servers are to be zeroed, or all.
    Zeroed {
        key: Option<ServiceKey>,
    },
    /// The timeouts that are in force from here on.
    TimeoutsSet {
        timeouts: Timeouts,
    },
    /// A setting of the director is another.
    SettingSet,
    MarkAdded {
        rule: MarkRule,
    },
    MarkDeleted {
        rule: MarkRule,
    },
    /// The local addresses of this family are others.
    LocalsChanged {
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

    /// Does a change that [`Table::check`] has nothing against.
    pub fn take(&mut self, change: &Change) -> Result<Applied, Refusal> {
        match change {
            Change::AddService { service } => Ok(self.add_service(service)),
            Change::EditService { service } => self.edit_service(service),
            Change::DeleteService { key } => self.delete_service(key),
            Change::Flush => Ok(self.flush()),
            Change::AddServer { key, server } => self.add_server(key, server),
            Change::EditServer { key, server } => self.edit_server(key, server),
            Change::DeleteServer { key, at } => self.delete_server(key, *at),
            Change::Zero { key } => Ok(Applied::Zeroed { key: *key }),
            Change::SetTimeouts { timeouts } => Ok(self.set_timeouts(timeouts)),
            Change::Set { setting } => Ok(self.set(*setting)),
            Change::AddMark { rule } => Ok(self.add_mark(rule)),
            Change::DeleteMark { rule } => self.delete_mark(rule),
            Change::SetLocal { local } => Ok(self.set_local(local)),
            Change::DeleteLocal { address } => self.delete_local(*address),
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

    /// The next keys in their own order: from the first on, or after one of them, even if it is
    /// not there any more.
    #[must_use]
    pub fn keys_after(&self, last: Option<ServiceKey>, count: usize) -> Vec<ServiceKey> {
        let from = last.map_or(Bound::Unbounded, Bound::Excluded);
        let keys = self.entries.range((from, Bound::Unbounded));
        keys.map(|(key, _)| *key).take(count).collect()
    }

    #[must_use]
    pub fn service(&self, key: &ServiceKey) -> Option<&Entry> {
        self.entries.get(key)
    }

    /// How many services there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// How many servers all services have together.
    #[must_use]
    pub fn servers(&self) -> usize {
        self.servers
    }

    #[must_use]
    pub fn timeouts(&self) -> Timeouts {
        self.timeouts
    }

    #[must_use]
    pub fn settings(&self) -> Settings {
        self.settings
    }

    fn set(&mut self, setting: Setting) -> Applied {
        self.settings.set(setting);
        Applied::SettingSet
    }

    fn add_service(&mut self, service: &Service) -> Applied {
        let key = service.key;
        let place = Place::new(&key, self.added, self.namespace);
        self.added += 1;
        self.places.insert(place, key);
        let entry = Entry {
            service: service.clone(),
            servers: Vec::new(),
            place,
        };
        self.entries.insert(key, entry);
        Applied::ServiceAdded { key }
    }

    /// Everything of the service is replaced; its servers and its place stay.
    fn edit_service(&mut self, service: &Service) -> Result<Applied, Refusal> {
        let entry = self.entry(&service.key)?;
        let before = std::mem::replace(&mut entry.service, service.clone());
        Ok(Applied::ServiceEdited { before })
    }

    fn delete_service(&mut self, key: &ServiceKey) -> Result<Applied, Refusal> {
        let Some(entry) = self.entries.remove(key) else {
            return no_such_service(key);
        };
        self.places.remove(&entry.place);
        self.servers -= entry.servers.len();
        Ok(Applied::ServiceDeleted { entry })
    }

    fn flush(&mut self) -> Applied {
        self.servers = 0;
        let mut entries = std::mem::take(&mut self.entries);
        let entries = std::mem::take(&mut self.places)
            .into_values()
            .filter_map(|key| entries.remove(&key))
            .collect();
        Applied::Flushed { entries }
    }

    fn add_server(&mut self, key: &ServiceKey, server: &Server) -> Result<Applied, Refusal> {
        let at = server.at;
        self.entry(key)?.servers.insert(0, server.clone());
        self.servers += 1;
        Ok(Applied::ServerAdded { key: *key, at })
    }

    /// Everything of the server is replaced; its place stays.
    fn edit_server(&mut self, key: &ServiceKey, server: &Server) -> Result<Applied, Refusal> {
        let entry = self.entry(key)?;
        let index = entry.index(server.at)?;
        let before = std::mem::replace(&mut entry.servers[index], server.clone());
        Ok(Applied::ServerEdited { key: *key, before })
    }

    fn delete_server(&mut self, key: &ServiceKey, at: ServerAddress) -> Result<Applied, Refusal> {
        let entry = self.entry(key)?;
        let index = entry.index(at)?;
        let server = entry.servers.remove(index);
        self.servers -= 1;
        Ok(Applied::ServerDeleted { key: *key, server })
    }

    fn set_timeouts(&mut self, wanted: &Timeouts) -> Applied {
        let or = |wanted: u32, known: u32| if wanted == 0 { known } else { wanted };
        self.timeouts = Timeouts {
            tcp_s: or(wanted.tcp_s, self.timeouts.tcp_s),
            tcp_fin_s: or(wanted.tcp_fin_s, self.timeouts.tcp_fin_s),
            udp_s: or(wanted.udp_s, self.timeouts.udp_s),
        };
        Applied::TimeoutsSet {
            timeouts: self.timeouts,
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
