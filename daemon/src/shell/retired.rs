//! The counters of deleted servers. As in IPVS, their service still includes them.

use std::collections::{BTreeMap, BTreeSet};

use shunt_model::change::{Change, server, service};
use shunt_model::{Counters, ServiceKey};
use tracing::error;

use super::Shell;
use crate::journal::Record;

/// The counters of deleted servers by service, and the services whose counters are not in the
/// journal yet.
#[derive(Debug, Default)]
pub struct Retired {
    counters: BTreeMap<ServiceKey, Counters>,
    news: BTreeSet<ServiceKey>,
}

impl Retired {
    pub fn new(counters: BTreeMap<ServiceKey, Counters>) -> Self {
        Self {
            counters,
            news: BTreeSet::new(),
        }
    }

    pub fn all(&self) -> &BTreeMap<ServiceKey, Counters> {
        &self.counters
    }

    pub fn of(&self, key: &ServiceKey) -> Counters {
        self.counters.get(key).copied().unwrap_or_default()
    }

    pub fn set(&mut self, key: ServiceKey, counters: Counters) {
        if counters == Counters::default() {
            return self.forget(Some(key));
        }
        self.counters.insert(key, counters);
        self.news.insert(key);
    }

    /// Sets the counters of one service or all services to zero.
    pub fn forget(&mut self, key: Option<ServiceKey>) {
        match key {
            Some(key) if self.counters.remove(&key).is_some() => drop(self.news.insert(key)),
            Some(_) => {}
            None => {
                let forgotten = std::mem::take(&mut self.counters);
                self.news.extend(forgotten.into_keys());
            }
        }
    }

    pub fn has_news(&self) -> bool {
        !self.news.is_empty()
    }

    /// The records that are not in the journal yet.
    pub fn records(&mut self) -> Vec<Record> {
        let news = std::mem::take(&mut self.news).into_iter();
        let record = |key| Record::Retired(key, self.counters.get(&key).copied());
        news.map(record).collect()
    }
}

impl Shell {
    /// The counters of deleted servers that a service has after this change.
    pub(super) fn retiring(&self, change: &Change) -> Option<(ServiceKey, Counters)> {
        let Change::Server(change) = change else {
            return None;
        };
        let (key, at, leaves) = match change {
            server::Change::Delete { key, at } => (key, *at, true),
            server::Change::Add { key, server } => (key, server.at, false),
            server::Change::Edit { .. } => return None,
        };
        let entry = self.director.table().service(key)?;
        if entry.server(at).is_some() != leaves {
            return None;
        }
        let (before, counters) = (self.retired.of(key), self.counted(key, at));
        // A server that is added again takes its counters back.
        let after = match leaves {
            true => before + counters,
            false => before - counters,
        };
        Some((*key, after))
    }

    /// Adds the counters of deleted servers to their service, as IPVS does.
    pub(super) fn retire(&mut self, change: &Change, retiring: Option<(ServiceKey, Counters)>) {
        if let Some((key, counters)) = retiring {
            self.retired.set(key, counters);
        }
        let Change::Service(change) = change else {
            return;
        };
        match change {
            // A service that is added again keeps its connections, and counts from zero.
            service::Change::Delete { key } => self.zero(Some(*key)),
            service::Change::Zero { key } => self.zero(*key),
            service::Change::Flush => {
                self.zero(None);
                self.unclaimed.let_go();
            }
            service::Change::Add { .. } | service::Change::Edit { .. } => {}
        }
    }

    fn zero(&mut self, key: Option<ServiceKey>) {
        let servers = match key {
            Some(key) => self.director.server_ids_of(&key),
            None => self.director.names().servers.into_keys().collect(),
        };
        for id in servers {
            if let Err(error) = self.tables.forget(id) {
                error!(%error, "counters not zeroed");
            }
        }
        self.retired.forget(key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_counted_and_forgotten_is_written_down_once() {
        let key: ServiceKey = "tcp/192.0.2.1:80".parse().unwrap();
        let some = Counters {
            connections: 7,
            ..Counters::default()
        };
        let mut retired = Retired::default();
        retired.set(key, some);
        assert_eq!(retired.records(), [Record::Retired(key, Some(some))]);
        assert!(!retired.has_news());
        retired.forget(None);
        assert_eq!(retired.records(), [Record::Retired(key, None)]);
        retired.forget(Some(key));
        assert!(retired.records().is_empty());
    }
}
