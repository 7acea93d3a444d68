//! The snapshot: what must survive the daemon besides the packet path's own tables. It holds the
//! operator's table and the owner of each id.
//!
//! The journal is written before the packet path is changed. A daemon that starts reads the last
//! wanted state from it and writes what the packet path lacks.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Instant;

use serde::{Deserialize, Serialize};
use shunt_datapath::entry::{self, PoolWord};
use shunt_model::api::Refusal;
use shunt_model::change::{Change, setting};
use shunt_model::{Family, Server, ServerAddress, ServiceKey, Wanted};

use super::hops::Numbered;
use super::ids::{self, Freed, NatKey, Nobodys, Place, ServerSlot, ServiceIds, ServiceSlot, Sizes};
use super::{Clock, Director, Output, Running, Write, addresses};
use crate::network::routes::Gateway;
use crate::table::{Applied, Table};

/// The whole state, as plain data.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    /// The changes that build the table from an empty one, in order.
    pub changes: Vec<Change>,
    /// The ids of each service and of its servers.
    #[serde(with = "ids::pairs")]
    pub services: BTreeMap<ServiceKey, ServiceSlot>,
    /// The id of each endpoint that masqueraded servers answer from.
    #[serde(with = "ids::pairs")]
    pub endpoints: BTreeMap<NatKey, u32>,
    /// The hop numbers of gateways that connections may hold.
    #[serde(default, with = "ids::pairs")]
    pub hops: BTreeMap<Gateway, Numbered>,
    /// The hop numbers of clients on links.
    #[serde(default)]
    pub clients: BTreeMap<IpAddr, u32>,
    /// Orphans (endpoints of deleted rules that have connections): address, word and id.
    #[serde(default, rename = "left")]
    pub orphans: Vec<(IpAddr, u32, u32)>,
    /// Ids in the packet path whose owner is unknown.
    #[serde(skip)]
    pub nobodys: Nobodys,
}

/// One journal record: a change and the ids it altered. Ids also change without one, after a scan
/// of the flows or a network event. An id of `None` is free.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Step {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) change: Option<Change>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) services: Vec<(ServiceKey, Option<ServiceIds>)>,
    /// All places of a mark's service.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) places: Vec<(ServiceKey, Vec<(Place, u32)>)>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) servers: Vec<(ServiceKey, ServerAddress, Option<ServerSlot>)>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) endpoints: Vec<(NatKey, Option<u32>)>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) hops: Vec<(Gateway, Option<Numbered>)>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) clients: Vec<(IpAddr, Option<u32>)>,
    /// All orphans, once there was one.
    #[serde(rename = "left", skip_serializing_if = "Option::is_none")]
    pub(super) orphans: Option<Vec<(IpAddr, u32, u32)>>,
}

impl Step {
    /// Records the hop number of a gateway; `None` if it gave the number up.
    pub(super) fn gateway(&mut self, gateway: Gateway, numbered: Option<Numbered>) {
        self.hops.push((gateway, numbered));
    }

    /// The step of a change that was written down before, with its batch.
    pub(super) fn without_change(self) -> Self {
        Self {
            change: None,
            ..self
        }
    }

    /// Whether there is nothing to record.
    pub(super) fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Adds all orphans, if there were any since the start.
    pub(super) fn with_orphans(mut self, director: &Director) -> Self {
        let is_new = director.records_orphans;
        self.orphans = is_new.then(|| director.orphaned_endpoints());
        self
    }

    pub(super) fn client(client: IpAddr, number: Option<u32>) -> Self {
        Self {
            clients: vec![(client, number)],
            ..Self::default()
        }
    }
}

/// The changes that build a table from an empty one. The first one sets the timeouts, so that an
/// empty table has a change too.
pub(super) fn changes(table: &Table) -> Vec<Change> {
    let timeouts = table.timeouts();
    let nothing = Wanted {
        timeouts,
        ..Wanted::default()
    };
    let mut changes = vec![Change::Setting(setting::Change::Timeouts { timeouts })];
    changes.extend(table.wanted().changes(&nothing));
    changes
}

impl Director {
    /// The state that must survive the daemon.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        Snapshot {
            changes: changes(&self.table),
            services: self.ids.services.clone(),
            endpoints: self.ids.endpoints.clone(),
            hops: self.hops.numbered(),
            clients: self.hops.clients().clone(),
            orphans: self.orphaned_endpoints(),
            nobodys: Nobodys::default(),
        }
    }

    /// The journal record of a change; `None` if there is nothing to record.
    pub(super) fn step(&self, change: &Change, applied: &Applied) -> Option<Step> {
        let mut step = Step {
            change: Some(change.clone()),
            ..Step::default()
        };
        match applied {
            Applied::Zeroed { .. } => return None,
            Applied::ServiceAdded { key } => {
                step.services.push((*key, self.service_ids(key)));
            }
            // The service may have become persistent and so have an id for its templates.
            Applied::ServiceEdited { before } => {
                let ids = self.service_ids(&before.key);
                step.services.push((before.key, ids));
            }
            Applied::MarkAdded { rule } => self.record_places(&mut step, &rule.service()),
            Applied::ServerAdded { key, at } => self.record_server(&mut step, key, *at),
            Applied::ServerEdited { key, before } => self.record_server(&mut step, key, before.at),
            Applied::ServiceDeleted { .. }
            | Applied::Flushed { .. }
            | Applied::ServerDeleted { .. }
            | Applied::MarkDeleted { .. }
            | Applied::LocalsChanged { .. }
            | Applied::SettingSet
            | Applied::TimeoutsSet { .. } => {}
        }
        if let Applied::ServiceAdded { key } = applied {
            self.record_places(&mut step, key);
        }
        Some(step.with_orphans(self))
    }

    /// Adds the places of a mark's service to a step, if it has any.
    fn record_places(&self, step: &mut Step, key: &ServiceKey) {
        let places = self.ids.services.get(key).map(|slot| &slot.places);
        if let Some(places) = places.filter(|places| !places.is_empty()) {
            let places = places.iter().map(|(place, base)| (*place, *base));
            step.places.push((*key, places.collect()));
        }
    }

    fn service_ids(&self, key: &ServiceKey) -> Option<ServiceIds> {
        self.ids.services.get(key).map(|slot| slot.ids)
    }

    /// Adds a server's ids and endpoints to a step.
    fn record_server(&self, step: &mut Step, key: &ServiceKey, at: ServerAddress) {
        let service = self.ids.services.get(key);
        let slot = service.and_then(|slot| slot.servers.get(&at)).cloned();
        step.servers.push((*key, at, slot));
        for answers in NatKey::of(key, at) {
            if let Some(id) = self.ids.endpoints.get(&answers) {
                step.endpoints.push((answers, Some(*id)));
            }
        }
    }

    /// The journal record of freed ids.
    pub(super) fn freed_ids(&self, freed: &Freed) -> Step {
        let server = |(key, at): &(ServiceKey, ServerAddress)| {
            let service = self.ids.services.get(key);
            let slot = service.and_then(|slot| slot.servers.get(at)).cloned();
            (*key, *at, slot)
        };
        Step {
            services: freed.services.iter().map(|key| (*key, None)).collect(),
            servers: freed.slots.iter().map(server).collect(),
            endpoints: freed.nat.iter().map(|key| (*key, None)).collect(),
            ..Step::default()
        }
        .with_orphans(self)
    }

    /// Takes over from an earlier daemon. `pool` gives the pool that the packet path uses for a
    /// service id. Only what differs in the packet path is rewritten.
    ///
    /// Refuses a snapshot whose changes the table refuses.
    pub fn resume(
        mut snapshot: Snapshot,
        table: Table,
        sizes: Sizes,
        clock: Clock,
        running: &dyn Running,
        pool: impl Fn(u32) -> PoolWord,
        now: Instant,
    ) -> Result<Self, Refusal> {
        // The settings of an empty table would stop masquerading for a moment, so nothing is
        // written before the table is complete.
        let mut director = Self::silent(table, sizes, clock, now);
        for change in &snapshot.changes {
            let applied = director.table.apply(change)?;
            director.follow_servers(&applied);
        }
        snapshot.fit(sizes);
        director.reserve(&snapshot, &pool);
        director.ids.restore(snapshot.services, snapshot.endpoints);
        director.hops.restore(snapshot.hops, snapshot.clients);
        for id in director.names().servers.into_keys() {
            if let Some(entry) = running.server(id) {
                director.written.insert(id, entry);
                if entry.method == entry::method::HERE {
                    director.here.insert(id);
                }
            }
        }
        let keys: Vec<ServiceKey> = director
            .table
            .services()
            .map(|entry| entry.service.key)
            .collect();
        for key in &keys {
            director.resume_service(key, running, &pool);
        }
        director.resume_ghosts();
        director.resume_endpoints();
        let orphans = snapshot.orphans.into_iter();
        director.marked = orphans
            .map(|(address, word, id)| ((address, word), id))
            .collect();
        director.renew_marks();
        director.find_calls();
        director.renew_answerers();
        director.renew_locals(Family::Ipv4);
        director.renew_locals(Family::Ipv6);
        director.settle();
        director.watch(now);
        Ok(director)
    }

    /// Reserves the ids and pools in the packet path that have no known owner.
    fn reserve(&mut self, snapshot: &Snapshot, pool: &impl Fn(u32) -> PoolWord) {
        let known = snapshot.services.values().map(|slot| slot.ids.id);
        let known: BTreeSet<u32> = known.collect();
        let nobodys = snapshot.nobodys.services.iter();
        for id in nobodys.filter(|id| !known.contains(id)) {
            self.pools.reserve(pool(*id));
        }
        self.ids.reserve(&snapshot.nobodys);
    }

    fn resume_service(
        &mut self,
        key: &ServiceKey,
        running: &dyn Running,
        pool: &impl Fn(u32) -> PoolWord,
    ) {
        let (id, _) = self.ids.service(key);
        let Some(entry) = self.table.service(key).cloned() else {
            return;
        };
        for server in &entry.servers {
            let put = self.ids.server(key, server);
            let id = put.id;
            // The end of a daemon in the middle of a batch leaves servers without ids.
            if put.fresh {
                self.write(Write::Forget { server: id });
            }
            if let Some(found) = self.written.get(&id).copied() {
                self.note_reach(key, server.at, &found);
            }
        }
        let Some(slot) = self.ids.services.get(key) else {
            return;
        };
        let members = self.listed(slot.members(&entry));
        let ids = entry.servers.iter().filter_map(|server| {
            let id = slot.servers.get(&server.at)?.id;
            Some((id, server))
        });
        let ids: Vec<(u32, &Server)> = ids.collect();
        for (id, server) in ids {
            self.stand(id, server, false, running);
        }
        if !self
            .pools
            .adopt(id, pool(id), (&entry.service).into(), members, running)
        {
            self.renew_pool(key, running);
        }
        self.write_service(key);
        self.mixed.insert(*key);
    }

    /// Marks services and servers that are not in the table as deleted. Their entries are in the
    /// packet path, so only their ids must stay taken.
    fn resume_ghosts(&mut self) {
        let present: Vec<(ServiceKey, Vec<Server>)> = self
            .table
            .services()
            .map(|entry| (entry.service.key, entry.servers.clone()))
            .collect();
        for slot in self.ids.services.values_mut() {
            slot.present = false;
            for server in slot.servers.values_mut() {
                server.present = false;
            }
        }
        for (key, servers) in present {
            let Some(slot) = self.ids.services.get_mut(&key) else {
                continue;
            };
            slot.present = true;
            for server in servers {
                if let Some(slot) = slot.servers.get_mut(&server.at) {
                    slot.present = true;
                }
            }
        }
    }

    /// Writes every endpoint. The shell skips those that are already there.
    fn resume_endpoints(&mut self) {
        let services: Vec<(ServiceKey, u32)> = self
            .ids
            .services
            .iter()
            .map(|(key, slot)| (*key, slot.ids.id))
            .collect();
        for (key, id) in services {
            let Some((address, word)) = addresses::endpoint(&key) else {
                continue;
            };
            let id = self.name_wide(&key, id);
            self.add_endpoint((address, word), id, addresses::address_word(&key));
        }
        let endpoints: Vec<(NatKey, u32)> = self
            .ids
            .endpoints
            .iter()
            .map(|(key, id)| (*key, *id))
            .collect();
        for (key, id) in endpoints {
            let word =
                entry::endpoint_word(key.port.to_be(), key.protocol, entry::kind::MASQUERADED);
            let of_address = entry::endpoint_word(0, key.protocol, entry::kind::ADDRESS);
            self.add_endpoint((key.address, word), id, of_address);
        }
    }

    /// The network is known for the first time: writes every server's entry. Until then the next
    /// hops of an earlier daemon stay in force.
    pub fn network_known(&mut self) {
        self.local = self.network.addresses();
        let all: Vec<(ServiceKey, Server)> = self
            .table
            .services()
            .flat_map(|entry| {
                let key = entry.service.key;
                entry
                    .servers
                    .iter()
                    .map(move |server| (key, server.clone()))
            })
            .collect();
        for (key, server) in all {
            self.write_server(&key, &server);
        }
        self.outputs.push_back(Output::Devices);
    }
}

#[cfg(test)]
mod tests {
    use shunt_model::change::{server, service};

    use super::super::Write;
    use super::*;
    use crate::table::Limits;
    use shunt_model::{Method, Protocol, Scheduler, SchedulerFlags, Service, Timeouts};

    struct Empty;

    impl Running for Empty {
        fn counters(&self, _: u32) -> shunt_model::Counters {
            shunt_model::Counters::default()
        }

        fn counts(&self, _server: u32) -> u64 {
            0
        }

        fn is_overloaded(&self, _server: u32) -> bool {
            false
        }

        fn pool_word(&self, _at: u32) -> u64 {
            0
        }

        fn server(&self, _id: u32) -> Option<entry::Server> {
            None
        }
    }

    const SIZES: Sizes = Sizes {
        services: 16,
        servers: 16,
        pool_words: 1024,
    };
    const CLOCK: Clock = Clock {
        tick_ns: 1_000_000_000,
    };

    fn table() -> Table {
        Table::new(Limits::default())
    }

    /// The settings that a director writes, in order.
    fn settings(director: &mut Director) -> Vec<entry::Settings> {
        std::iter::from_fn(|| director.poll())
            .filter_map(|output| match output {
                Output::Write(Write::Settings(settings)) => Some(settings),
                _ => None,
            })
            .collect()
    }

    #[test]
    fn a_resumed_director_writes_only_the_settings_that_were_in_force() {
        let now = Instant::now();
        let mut first = Director::new(table(), SIZES, CLOCK, now);
        let address = "192.0.2.1".parse().unwrap();
        let key = ServiceKey::Address {
            protocol: Protocol::Tcp,
            address,
            port: 80,
        };
        let service = Service {
            key,
            scheduler: Scheduler::Rr,
            flags: SchedulerFlags::default(),
            persistence: None,
            one_packet: false,
            settings: Default::default(),
            idle_engine: None,
            announce: None,
        };
        let server = Server {
            at: "10.1.0.7:80".parse().unwrap(),
            method: Method::Masquerade,
            weight: 1,
            upper_threshold: 0,
            lower_threshold: 0,
        };
        let timeouts = Timeouts {
            tcp_s: 77,
            ..Timeouts::default()
        };
        for change in [
            Change::Service(service::Change::Add { service }),
            Change::Server(server::Change::Add { key, server }),
            Change::Setting(setting::Change::Timeouts { timeouts }),
        ] {
            first.change(&change, &Empty, now).unwrap();
        }
        let last = settings(&mut first).pop().unwrap();
        assert_eq!((last.masquerades, last.timeouts[1]), (1, 77));

        let pool = |_| PoolWord(0);
        let snapshot = first.snapshot();
        let mut second =
            Director::resume(snapshot, table(), SIZES, CLOCK, &Empty, pool, now).unwrap();

        assert_eq!(settings(&mut second), [last]);
    }
}
