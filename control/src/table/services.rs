//! The services of the table.

use shunt_model::api::{Reason, Refusal};
use shunt_model::change::service::Change;
use shunt_model::{Service, ServiceKey};

use super::order::Place;
use super::rules::{self, refuse};
use super::{Applied, Entry, Table, no_such_service};

impl Table {
    pub(super) fn check_service(&self, change: &Change) -> Result<(), Refusal> {
        match change {
            Change::Add { service } => self.may_add_service(service),
            Change::Edit { service } => {
                self.known(&service.key)?;
                rules::of_service(service)
            }
            Change::Delete { key } | Change::Zero { key: Some(key) } => self.known(key).map(|_| ()),
            Change::Flush | Change::Zero { key: None } => Ok(()),
        }
    }

    pub(super) fn take_service(&mut self, change: &Change) -> Result<Applied, Refusal> {
        match change {
            Change::Add { service } => Ok(self.add_service(service)),
            Change::Edit { service } => self.edit_service(service),
            Change::Delete { key } => self.delete_service(key),
            Change::Flush => Ok(self.flush()),
            Change::Zero { key } => Ok(Applied::Zeroed { key: *key }),
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

    /// Replaces everything of the service; its servers and its place stay.
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
}
