//! The director's journal records: its state in pieces that stand alone.
//!
//! A record's name includes its version. A changed format gets another name and is read beside this
//! one. An unknown name costs that record and no other.

use std::collections::BTreeSet;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use shunt_datapath::entry::{self, BACK, HOPS, ID_LIMIT};
use shunt_model::api::Reason;
use shunt_model::change::{Change, local, mark, server, service};
use shunt_model::{ServerAddress, ServiceKey};

use super::hops::Numbered;
use super::ids::{NatKey, Place, ServerSlot, ServiceIds, ServiceSlot, Sizes};
use super::snapshot::{Snapshot, Step, changes};
use crate::network::routes::Gateway;
use crate::table::Table;

/// One fact in the journal. A later record about the same thing replaces an earlier one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Record {
    /// A change of the table.
    #[serde(rename = "change/1")]
    Change(Change),
    /// The ids of a service; `None` if they were freed.
    #[serde(rename = "service/1")]
    Service(ServiceKey, Option<ServiceIds>),
    /// All places of a mark's service.
    #[serde(rename = "places/1")]
    Places(ServiceKey, Vec<(Place, u32)>),
    /// The ids of a server; `None` if they were freed.
    #[serde(rename = "server/1")]
    Server(ServiceKey, ServerAddress, Option<ServerSlot>),
    /// The id of an endpoint that masqueraded servers answer from.
    #[serde(rename = "endpoint/1")]
    Endpoint(NatKey, Option<u32>),
    /// The hop number of a gateway on a link. Connections may hold it.
    #[serde(rename = "hop/1")]
    Hop(Gateway, Option<Numbered>),
    /// The hop number of a client on a link.
    #[serde(rename = "client/1")]
    Client(IpAddr, Option<u32>),
    /// All orphans (endpoints of deleted rules that have connections): address, word and id.
    #[serde(rename = "left/1")]
    Orphans(Vec<(IpAddr, u32, u32)>),
}

impl Snapshot {
    /// The records that rebuild this snapshot, in order. A journal begins with them.
    #[must_use]
    pub fn records(&self) -> Vec<Record> {
        self.lines().into_iter().flatten().collect()
    }

    /// The records of the snapshot, in lines. Records of one line depend on each other.
    #[must_use]
    pub fn lines(&self) -> Vec<Vec<Record>> {
        let mut lines = Vec::new();
        let (mut services, mut servers) = (BTreeSet::new(), BTreeSet::new());
        for change in &self.changes {
            let mut line = vec![Record::Change(change.clone())];
            match change {
                Change::Service(change) => {
                    if let Some(key) = added_service(change) {
                        services.insert(key);
                        let slot = self.services.get(&key);
                        line.extend(slot.into_iter().flat_map(|slot| of_service(key, slot)));
                    }
                }
                Change::Server(change) => {
                    if let Some((key, at)) = added_server(change) {
                        servers.insert((key, at));
                        let slot = self.services.get(&key);
                        let slot = slot.and_then(|slot| slot.servers.get(&at)).cloned();
                        line.push(Record::Server(key, at, slot));
                    }
                }
                // These have no ids.
                Change::Mark(_) | Change::Local(_) | Change::Setting(_) => {}
            }
            lines.push(line);
        }
        lines.extend(self.absent(&services, &servers));
        let endpoints = self.endpoints.iter();
        lines.extend(endpoints.map(|(key, id)| vec![Record::Endpoint(*key, Some(*id))]));
        let hops = self.hops.iter();
        lines.extend(hops.map(|(gateway, at)| vec![Record::Hop(*gateway, Some(*at))]));
        let clients = self.clients.iter();
        lines.extend(clients.map(|(client, number)| vec![Record::Client(*client, Some(*number))]));
        lines.push(vec![Record::Orphans(self.orphans.clone())]);
        lines
    }

    /// Deleted services and servers whose ids flows still use.
    fn absent(
        &self,
        services: &BTreeSet<ServiceKey>,
        servers: &BTreeSet<(ServiceKey, ServerAddress)>,
    ) -> Vec<Vec<Record>> {
        let line = |(key, slot): (&ServiceKey, &ServiceSlot)| {
            let mut line = Vec::new();
            if !services.contains(key) {
                line.extend(of_service(*key, slot));
            }
            let absent = slot.servers.iter();
            let absent = absent.filter(|(at, _)| !servers.contains(&(*key, **at)));
            line.extend(absent.map(|(at, slot)| Record::Server(*key, *at, Some(slot.clone()))));
            line
        };
        let lines = self.services.iter().map(line);
        lines.filter(|line| !line.is_empty()).collect()
    }

    /// Drops ids that do not fit tables of these sizes, and ids that occur twice: flows with a
    /// shared id cannot be told apart.
    pub(super) fn fit(&mut self, sizes: Sizes) {
        let mut services = BTreeSet::from([0]);
        let mut servers = BTreeSet::from([0]);
        let fits = |taken: &mut BTreeSet<u32>, id: u32, size: u32| {
            id < size.min(ID_LIMIT) && taken.insert(id)
        };
        let mut slots: Vec<_> = std::mem::take(&mut self.services).into_iter().collect();
        // A present service keeps an id before a deleted one.
        slots.sort_by_key(|(_, slot)| !slot.present);
        for (key, mut slot) in slots {
            if !fits(&mut services, slot.ids.id, sizes.services) {
                continue;
            }
            if slot.ids.template != 0 && !fits(&mut services, slot.ids.template, sizes.services) {
                slot.ids.template = 0;
            }
            slot.servers.retain(|_, server| {
                server
                    .former
                    .retain(|id| fits(&mut servers, *id, sizes.servers));
                fits(&mut servers, server.id, sizes.servers)
            });
            self.services.insert(key, slot);
        }
        let mut taken = BTreeSet::new();
        let most = sizes.servers.saturating_mul(4).min(ID_LIMIT);
        self.endpoints.retain(|_, id| {
            let number = *id & !BACK;
            let is_wide = number & entry::WIDE != 0;
            *id == BACK || (is_wide || number < most) && taken.insert(number)
        });
        let mut numbers = BTreeSet::from([0]);
        let mut fits = |number: u32| number < HOPS && numbers.insert(number);
        self.hops.retain(|_, numbered| fits(numbered.number));
        self.clients.retain(|_, number| fits(*number));
    }
}

impl Step {
    /// The journal's records of this step.
    #[must_use]
    pub fn records(self) -> Vec<Record> {
        let mut records: Vec<Record> = self.change.map(Record::Change).into_iter().collect();
        let services = self.services.into_iter();
        records.extend(services.map(|(key, ids)| Record::Service(key, ids)));
        let places = self.places.into_iter();
        records.extend(places.map(|(key, places)| Record::Places(key, places)));
        let servers = self.servers.into_iter();
        records.extend(servers.map(|(key, at, slot)| Record::Server(key, at, slot)));
        let endpoints = self.endpoints.into_iter();
        records.extend(endpoints.map(|(key, id)| Record::Endpoint(key, id)));
        let hops = self.hops.into_iter();
        records.extend(hops.map(|(gateway, numbered)| Record::Hop(gateway, numbered)));
        let clients = self.clients.into_iter();
        records.extend(clients.map(|(client, number)| Record::Client(client, number)));
        records.extend(self.orphans.map(Record::Orphans));
        records
    }
}

fn added_service(change: &service::Change) -> Option<ServiceKey> {
    match change {
        service::Change::Add { service } => Some(service.key),
        service::Change::Edit { .. }
        | service::Change::Delete { .. }
        | service::Change::Flush
        | service::Change::Zero { .. } => None,
    }
}

fn added_server(change: &server::Change) -> Option<(ServiceKey, ServerAddress)> {
    match change {
        server::Change::Add { key, server } => Some((*key, server.at)),
        server::Change::Edit { .. } | server::Change::Delete { .. } => None,
    }
}

fn of_service(key: ServiceKey, slot: &ServiceSlot) -> Vec<Record> {
    let mut records = vec![Record::Service(key, Some(slot.ids))];
    if !slot.places.is_empty() {
        let places = slot.places.iter().map(|(place, base)| (*place, *base));
        records.push(Record::Places(key, places.collect()));
    }
    records
}

/// What a refused change means where a record before it was lost.
enum Again {
    /// The object exists already; this change gives it what the record has.
    Edited(Change),
    /// The object to delete does not exist.
    Gone,
    Refused,
}

fn server_again(change: &server::Change, reason: Reason) -> Again {
    match (change, reason) {
        (server::Change::Add { key, server }, Reason::ServerExists) => {
            let (key, server) = (*key, server.clone());
            Again::Edited(Change::Server(server::Change::Edit { key, server }))
        }
        (server::Change::Delete { .. }, Reason::NoSuchService | Reason::NoSuchServer) => {
            Again::Gone
        }
        (
            server::Change::Add { .. }
            | server::Change::Edit { .. }
            | server::Change::Delete { .. },
            _,
        ) => Again::Refused,
    }
}

fn mark_again(change: &mark::Change, reason: Reason) -> Again {
    match (change, reason) {
        (mark::Change::Delete { .. }, Reason::NoSuchMark) => Again::Gone,
        (mark::Change::Add { .. } | mark::Change::Delete { .. }, _) => Again::Refused,
    }
}

fn local_again(change: &local::Change, reason: Reason) -> Again {
    match (change, reason) {
        (local::Change::Delete { .. }, Reason::NoSuchLocal) => Again::Gone,
        (local::Change::Set { .. } | local::Change::Delete { .. }, _) => Again::Refused,
    }
}

/// A snapshot in the making: it takes in record after record.
#[derive(Debug)]
pub struct Recollection {
    table: Table,
    snapshot: Snapshot,
}

impl Recollection {
    /// `table` must be empty.
    #[must_use]
    pub fn new(table: Table) -> Self {
        Self {
            table,
            snapshot: Snapshot::default(),
        }
    }

    /// Takes in a record. The error is the reason of a refused one, which changes nothing.
    pub fn take(&mut self, record: Record) -> Result<(), String> {
        let snapshot = &mut self.snapshot;
        match record {
            Record::Change(change) => return self.change(&change),
            Record::Service(key, Some(ids)) => {
                let slot = snapshot.services.entry(key);
                slot.or_insert_with(|| ServiceSlot::new(ids)).ids = ids;
            }
            Record::Service(key, None) => drop(snapshot.services.remove(&key)),
            Record::Places(key, places) => {
                if let Some(slot) = snapshot.services.get_mut(&key) {
                    slot.places = places.into_iter().collect();
                }
            }
            Record::Server(key, at, slot) => {
                if let Some(service) = snapshot.services.get_mut(&key) {
                    match slot {
                        Some(slot) => drop(service.servers.insert(at, slot)),
                        None => drop(service.servers.remove(&at)),
                    }
                }
            }
            Record::Endpoint(key, Some(id)) => drop(snapshot.endpoints.insert(key, id)),
            Record::Endpoint(key, None) => drop(snapshot.endpoints.remove(&key)),
            Record::Hop(gateway, Some(at)) => drop(snapshot.hops.insert(gateway, at)),
            Record::Hop(gateway, None) => drop(snapshot.hops.remove(&gateway)),
            Record::Client(client, Some(number)) => drop(snapshot.clients.insert(client, number)),
            Record::Client(client, None) => drop(snapshot.clients.remove(&client)),
            Record::Orphans(orphans) => snapshot.orphans = orphans,
        }
        Ok(())
    }

    /// Applies a change. If an earlier record was lost, this change may add what exists or delete
    /// what does not exist: then it edits or does nothing.
    fn change(&mut self, change: &Change) -> Result<(), String> {
        let Err(refusal) = self.table.apply(change) else {
            return Ok(());
        };
        let again = match change {
            Change::Service(change) => self.service_again(change, refusal.reason),
            Change::Server(change) => server_again(change, refusal.reason),
            Change::Mark(change) => mark_again(change, refusal.reason),
            Change::Local(change) => local_again(change, refusal.reason),
            Change::Setting(_) => Again::Refused,
        };
        let again = match again {
            Again::Edited(change) => change,
            Again::Gone => return Ok(()),
            Again::Refused => return Err(refusal.text),
        };
        let applied = self.table.apply(&again);
        applied.map(drop).map_err(|refusal| refusal.text)
    }

    fn service_again(&self, change: &service::Change, reason: Reason) -> Again {
        match (change, reason) {
            (service::Change::Add { service }, Reason::ServiceExists)
                if self.table.service(&service.key).is_some() =>
            {
                let service = service.clone();
                Again::Edited(Change::Service(service::Change::Edit { service }))
            }
            (service::Change::Delete { .. }, Reason::NoSuchService) => Again::Gone,
            (
                service::Change::Add { .. }
                | service::Change::Edit { .. }
                | service::Change::Delete { .. }
                | service::Change::Flush
                | service::Change::Zero { .. },
                _,
            ) => Again::Refused,
        }
    }

    /// The snapshot of all records, in its shortest form.
    #[must_use]
    pub fn snapshot(self) -> Snapshot {
        let Self {
            table,
            mut snapshot,
        } = self;
        snapshot.changes = changes(&table);
        for (key, slot) in &mut snapshot.services {
            let entry = table.service(key);
            slot.present = entry.is_some();
            let servers: BTreeSet<ServerAddress> = entry
                .into_iter()
                .flat_map(|entry| entry.servers.iter().map(|server| server.at))
                .collect();
            for (at, server) in &mut slot.servers {
                server.present = servers.contains(at);
            }
        }
        snapshot
    }
}
