//! What undoes a change.
//!
//! The changes bring back what the table holds. They do not bring back counters that the change
//! set to zero, nor the place in the listing of what it deleted: that is listed as added last.

use shunt_model::LocalAddress;
use shunt_model::change::{Change, local, mark, server, service, setting};

use super::{Entry, Table};

impl Table {
    /// The changes that undo a change which this table will accept.
    #[must_use]
    pub fn inverse(&self, change: &Change) -> Vec<Change> {
        match change {
            Change::Service(change) => self.inverse_of_service(change),
            Change::Server(change) => self.inverse_of_server(change).into_iter().collect(),
            Change::Mark(change) => vec![Change::Mark(match *change {
                mark::Change::Add { rule } => mark::Change::Delete { rule },
                mark::Change::Delete { rule } => mark::Change::Add { rule },
            })],
            Change::Local(change) => {
                let (local::Change::Set {
                    local: LocalAddress { address, .. },
                }
                | local::Change::Delete { address }) = *change;
                let before = self.locals().find(|local| local.address == address);
                vec![Change::Local(match before {
                    Some(local) => local::Change::Set { local },
                    None => local::Change::Delete { address },
                })]
            }
            Change::Setting(change) => self.inverse_of_setting(change),
        }
    }

    fn inverse_of_service(&self, change: &service::Change) -> Vec<Change> {
        match change {
            service::Change::Add { service } => {
                let key = service.key;
                vec![Change::Service(service::Change::Delete { key })]
            }
            service::Change::Edit { service } => {
                let before = self.service(&service.key).into_iter();
                let before = before.map(|entry| entry.service.clone());
                let edit = |service| Change::Service(service::Change::Edit { service });
                before.map(edit).collect()
            }
            service::Change::Delete { key } => {
                self.service(key).into_iter().flat_map(added).collect()
            }
            service::Change::Flush => self.oldest_first().into_iter().flat_map(added).collect(),
            service::Change::Zero { .. } => Vec::new(),
        }
    }

    fn inverse_of_server(&self, change: &server::Change) -> Option<Change> {
        let before = |key, at| self.service(key)?.server(at).cloned();
        let inverse = match change {
            server::Change::Add { key, server } => server::Change::Delete {
                key: *key,
                at: server.at,
            },
            server::Change::Edit { key, server } => server::Change::Edit {
                key: *key,
                server: before(key, server.at)?,
            },
            server::Change::Delete { key, at } => server::Change::Add {
                key: *key,
                server: before(key, *at)?,
            },
        };
        Some(Change::Server(inverse))
    }

    fn inverse_of_setting(&self, change: &setting::Change) -> Vec<Change> {
        match change {
            setting::Change::Set { setting } => {
                let before = self.settings().all().into_iter();
                let before = before.filter(|before| before.name() == setting.name());
                let set = |setting| Change::Setting(setting::Change::Set { setting });
                before.map(set).collect()
            }
            setting::Change::Timeouts { .. } => {
                let timeouts = self.timeouts();
                vec![Change::Setting(setting::Change::Timeouts { timeouts })]
            }
        }
    }
}

/// The changes that add a service with its servers.
fn added(entry: &Entry) -> Vec<Change> {
    let (key, service) = (entry.service.key, entry.service.clone());
    let mut changes = vec![Change::Service(service::Change::Add { service })];
    let servers = entry.servers.iter().rev().cloned();
    changes.extend(servers.map(|server| Change::Server(server::Change::Add { key, server })));
    changes
}
