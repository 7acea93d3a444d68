//! Whether a change can be done, in the order in which IPVS looks: of several mistakes, the first
//! is the one that is named (`ip_vs_genl_set_cmd`, `ip_vs_add_dest`).
//!
//! Nothing is changed here, so that limits of the packet path can be looked at in between.

use shunt_model::api::{Change, Reason, Refusal};
use shunt_model::{Server, Service, ServiceKey};

use super::rules::{self, refuse};
use super::{Entry, Table, no_such_service};

impl Table {
    /// Refuses what [`Table::apply`] refuses.
    pub fn check(&self, change: &Change) -> Result<(), Refusal> {
        match change {
            Change::AddService { service } => self.may_add_service(service),
            Change::EditService { service } => {
                self.known(&service.key)?;
                rules::of_service(service)
            }
            Change::DeleteService { key } | Change::Zero { key: Some(key) } => {
                self.known(key).map(|_| ())
            }
            Change::AddServer { key, server } => self.may_add_server(key, server),
            Change::EditServer { key, server } => {
                let entry = self.known(key)?;
                rules::of_server(key, server)?;
                entry.index(server.at).map(|_| ())
            }
            Change::DeleteServer { key, at } => self.known(key)?.index(*at).map(|_| ()),
            Change::SetTimeouts { timeouts } => rules::of_timeouts(timeouts),
            Change::AddMark { rule } => self.of_mark(rule),
            Change::SetLocal { local } => self.of_local(local),
            // What there is to refuse in these shows when they are done.
            Change::DeleteMark { .. } | Change::DeleteLocal { .. } => Ok(()),
            Change::Flush | Change::Zero { key: None } | Change::Set { .. } => Ok(()),
        }
    }

    fn may_add_service(&self, service: &Service) -> Result<(), Refusal> {
        let key = service.key;
        if self.entries.contains_key(&key) {
            return refuse(
                Reason::ServiceExists,
                format!("service {key} exists already"),
            );
        }
        rules::of_service(service)?;
        self.unmarked(service)?;
        if self.entries.len() >= self.limits.services {
            let most = self.limits.services;
            return refuse(Reason::NoRoom, format!("there are {most} services already"));
        }
        Ok(())
    }

    fn may_add_server(&self, key: &ServiceKey, server: &Server) -> Result<(), Refusal> {
        let at = server.at;
        let entry = self.known(key)?;
        rules::of_server(key, server)?;
        if entry.server(at).is_some() {
            return refuse(
                Reason::ServerExists,
                format!("server {at} of service {key} exists already"),
            );
        }
        rules::of_server_address(at.address)?;
        if self.servers >= self.limits.servers {
            let most = self.limits.servers;
            return refuse(Reason::NoRoom, format!("there are {most} servers already"));
        }
        Ok(())
    }

    fn known(&self, key: &ServiceKey) -> Result<&Entry, Refusal> {
        match self.entries.get(key) {
            Some(entry) => Ok(entry),
            None => no_such_service(key),
        }
    }
}
