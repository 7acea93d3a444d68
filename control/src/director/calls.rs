//! Services with a persistence engine: the packet path must know which of their masqueraded servers
//! answers from where, since a server may begin a call by itself (`ip_vs_new_conn_out`).

use std::collections::{BTreeMap, BTreeSet};

use shunt_datapath::entry::{BACK, WIDE, method};
use shunt_model::{Service, ServiceKey};

use super::{Director, Write};
use crate::table::Applied;

/// Which services these are, and what was written of them.
#[derive(Debug, Default)]
pub struct Calls {
    services: BTreeSet<ServiceKey>,
    /// Servers by the endpoints that they answer from.
    written: BTreeMap<u32, u32>,
}

impl Calls {
    /// Whether answers of any server may begin a call.
    pub fn are_begun(&self) -> bool {
        !self.written.is_empty()
    }

    fn hear(&mut self, service: &Service) {
        let engine = service.persistence.as_ref().and_then(|p| p.engine.as_ref());
        if engine.is_some() {
            self.services.insert(service.key);
        } else {
            self.services.remove(&service.key);
        }
    }
}

impl Director {
    /// Takes in what a change did to the table's services.
    pub(super) fn follow_calls(&mut self, applied: &Applied) {
        match applied {
            Applied::ServiceAdded { key } => self.hear_calls(key),
            Applied::ServiceEdited { before } => self.hear_calls(&before.key),
            Applied::ServiceDeleted { entry } => {
                self.calls.services.remove(&entry.service.key);
            }
            Applied::Flushed { .. } => self.calls.services.clear(),
            Applied::ServerAdded { .. }
            | Applied::ServerDeleted { .. }
            | Applied::ServerEdited { .. }
            | Applied::Zeroed { .. }
            | Applied::SettingSet
            | Applied::TimeoutsSet { .. }
            | Applied::MarkAdded { .. }
            | Applied::MarkDeleted { .. }
            | Applied::LocalsChanged { .. } => {}
        }
    }

    fn hear_calls(&mut self, key: &ServiceKey) {
        if let Some(entry) = self.table.service(key) {
            self.calls.hear(&entry.service);
        }
    }

    /// Finds the services with an engine anew.
    pub(super) fn find_calls(&mut self) {
        for entry in self.table.services() {
            self.calls.hear(&entry.service);
        }
    }

    /// Writes which server answers from where, as far as that is different. Of several the first
    /// service counts.
    pub(super) fn renew_answerers(&mut self) {
        let mut wanted = BTreeMap::new();
        for key in &self.calls.services {
            let (Some(slot), Some(entry)) = (self.ids.services.get(key), self.table.service(key))
            else {
                continue;
            };
            let servers = entry.servers.iter();
            for server in servers.filter_map(|server| slot.servers.get(&server.at)) {
                let Some(written) = self.written.get(&server.id) else {
                    continue;
                };
                if written.method == method::MASQUERADE && written.endpoint & WIDE == 0 {
                    let endpoint = written.endpoint & !BACK;
                    wanted.entry(endpoint).or_insert(server.id);
                }
            }
        }
        if wanted == self.calls.written {
            return;
        }
        let before = std::mem::replace(&mut self.calls.written, wanted.clone());
        for endpoint in before.keys().filter(|at| !wanted.contains_key(at)) {
            let (endpoint, server) = (*endpoint, 0);
            self.write(Write::Answerer { endpoint, server });
        }
        for (endpoint, server) in wanted {
            if before.get(&endpoint) != Some(&server) {
                self.write(Write::Answerer { endpoint, server });
            }
        }
    }
}
