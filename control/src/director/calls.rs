//! Services with a persistence engine: the packet path must know which of their masqueraded servers
//! answers from which endpoint, because a server may open a call itself (`ip_vs_new_conn_out`).

use std::collections::{BTreeMap, BTreeSet};

use shunt_datapath::entry::{BACK, WIDE, method};
use shunt_model::{Service, ServiceKey};

use super::{Director, Write};
use crate::table::Applied;

/// The services with an engine, and what was written for them.
#[derive(Clone, Debug, Default)]
pub(super) struct Calls {
    services: BTreeSet<ServiceKey>,
    /// Server ids by the endpoint that they answer from.
    written: BTreeMap<u32, u32>,
}

impl Calls {
    /// Whether any server may open a call.
    pub(super) fn are_begun(&self) -> bool {
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
    /// Follows the services that a change added, edited or removed.
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

    /// Collects the services with an engine from the table.
    pub(super) fn find_calls(&mut self) {
        for entry in self.table.services() {
            self.calls.hear(&entry.service);
        }
    }

    /// Writes the server of each endpoint, where it differs. If several services share an endpoint,
    /// the first service's server holds it.
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
