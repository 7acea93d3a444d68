//! The servers at each address, so that an event about one address costs as much as the servers
//! there, however large the table is.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use shunt_model::{Server, ServerAddress, ServiceKey};

use super::Director;
use crate::table::Applied;

/// The servers of all services, by address.
#[derive(Clone, Debug, Default)]
pub(super) struct ServersByAddress {
    servers: BTreeMap<IpAddr, BTreeSet<(ServiceKey, ServerAddress)>>,
    /// Addresses that gained their first server or lost their last one: [`Director::watch`] has not
    /// seen them yet.
    different: BTreeSet<IpAddr>,
}

impl ServersByAddress {
    pub(super) fn add(&mut self, key: &ServiceKey, at: ServerAddress) {
        let there = self.servers.entry(at.address).or_default();
        if there.is_empty() {
            self.different.insert(at.address);
        }
        there.insert((*key, at));
    }

    pub(super) fn remove(&mut self, key: &ServiceKey, at: ServerAddress) {
        let Some(there) = self.servers.get_mut(&at.address) else {
            return;
        };
        there.remove(&(*key, at));
        if there.is_empty() {
            self.servers.remove(&at.address);
            self.different.insert(at.address);
        }
    }

    pub(super) fn has(&self, address: IpAddr) -> bool {
        self.servers.contains_key(&address)
    }

    /// The servers at an address.
    pub(super) fn at(&self, address: IpAddr) -> Vec<(ServiceKey, ServerAddress)> {
        let there = self.servers.get(&address).into_iter().flatten();
        there.copied().collect()
    }
}

impl Director {
    /// Follows the servers that a change added or removed.
    pub(super) fn follow_servers(&mut self, applied: &Applied) {
        match applied {
            Applied::ServerAdded { key, at } => self.by_address.add(key, *at),
            Applied::ServerDeleted { key, server } => self.by_address.remove(key, server.at),
            Applied::ServiceDeleted { entry } => self.forget_servers(entry),
            Applied::Flushed { entries } => {
                for entry in entries {
                    self.forget_servers(entry);
                }
            }
            Applied::ServiceAdded { .. }
            | Applied::ServiceEdited { .. }
            | Applied::ServerEdited { .. }
            | Applied::Zeroed { .. }
            | Applied::SettingSet
            | Applied::TimeoutsSet { .. }
            | Applied::MarkAdded { .. }
            | Applied::MarkDeleted { .. }
            | Applied::LocalsChanged { .. } => {}
        }
    }

    fn forget_servers(&mut self, entry: &crate::table::Entry) {
        for server in &entry.servers {
            self.by_address.remove(&entry.service.key, server.at);
        }
    }

    /// Watches the addresses that have servers, and stops watching those that have none.
    pub(super) fn watch(&mut self, now: std::time::Instant) {
        for address in std::mem::take(&mut self.by_address.different) {
            if self.by_address.has(address) {
                self.network.watch(address, now);
            } else {
                self.network.leave(address);
            }
        }
    }

    /// The servers at an address, from the table.
    pub(super) fn servers_at(&self, address: IpAddr) -> Vec<(ServiceKey, Server)> {
        let there = self.by_address.at(address).into_iter();
        let server = |(key, at): (ServiceKey, ServerAddress)| {
            let server = self.table.service(&key)?.server(at)?;
            Some((key, server.clone()))
        };
        there.filter_map(server).collect()
    }
}
