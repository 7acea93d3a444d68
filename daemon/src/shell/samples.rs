//! The rates of services and servers. Another thread reads all counters every two seconds, and the
//! daemon's task processes this sample piece by piece, so that no request waits for it.

use std::collections::BTreeMap;

use shunt_control::rates::Estimator;
use shunt_model::change::{Change, server, service};
use shunt_model::{Counters, Rates, ServerAddress, ServiceKey};
use tracing::error;

use super::Shell;
use crate::chain::chain;
use crate::kernel::traffic;

/// The number of services in one piece, which takes about a millisecond.
const PIECE: usize = 512;

/// The estimators of a service.
#[derive(Default)]
struct OfService {
    whole: Estimator,
    servers: BTreeMap<ServerAddress, Estimator>,
}

/// All estimators, and the progress of the current sample.
#[derive(Default)]
pub struct Samples {
    services: BTreeMap<ServiceKey, OfService>,
    total: Estimator,
    taking: Option<Taking>,
}

struct Taking {
    counters: Vec<Counters>,
    last: Option<ServiceKey>,
    total: Counters,
}

impl Samples {
    pub fn of_server(&self, key: &ServiceKey, at: ServerAddress) -> Rates {
        let service = self.services.get(key);
        let estimator = service.and_then(|service| service.servers.get(&at));
        estimator.map(Estimator::rates).unwrap_or_default()
    }

    pub fn of_service(&self, key: &ServiceKey) -> Rates {
        let service = self.services.get(key);
        service
            .map(|service| service.whole.rates())
            .unwrap_or_default()
    }

    pub fn total(&self) -> Rates {
        self.total.rates()
    }

    /// Resets the estimators that a change concerns.
    pub fn follow(&mut self, change: &Change) {
        match change {
            Change::Service(change) => self.follow_service(change),
            Change::Server(change) => self.follow_server(change),
            Change::Mark(_) | Change::Local(_) | Change::Setting(_) => {}
        }
    }

    fn follow_service(&mut self, change: &service::Change) {
        match change {
            service::Change::Delete { key } | service::Change::Zero { key: Some(key) } => {
                self.services.remove(key);
            }
            service::Change::Flush => self.services.clear(),
            service::Change::Zero { key: None } => *self = Self::default(),
            service::Change::Add { .. } | service::Change::Edit { .. } => {}
        }
    }

    fn follow_server(&mut self, change: &server::Change) {
        match change {
            server::Change::Delete { key, at } => {
                if let Some(service) = self.services.get_mut(key) {
                    service.servers.remove(at);
                }
            }
            server::Change::Add { .. } | server::Change::Edit { .. } => {}
        }
    }

    /// Whether a sample is being processed.
    pub fn is_taking(&self) -> bool {
        self.taking.is_some()
    }
}

impl Shell {
    /// Starts reading all counters on another thread. The caller gives them to [`Self::sampled`].
    pub fn sample(&self) -> tokio::task::JoinHandle<Vec<Counters>> {
        let (shared, end) = (
            self.tables.shared.clone(),
            self.node.forward().server_ids_end(),
        );
        tokio::task::spawn_blocking(move || {
            traffic::read(&shared.traffic, end).unwrap_or_else(|error| {
                error!(error = chain(&error), "rates not measured");
                Vec::new()
            })
        })
    }

    pub fn sampled(&mut self, counters: Vec<Counters>) {
        self.samples.taking = Some(Taking {
            counters,
            last: None,
            total: Counters::default(),
        });
    }

    pub fn is_taking_samples(&self) -> bool {
        self.samples.is_taking()
    }

    /// Processes a piece of the sample.
    pub fn take_samples(&mut self) {
        let Some(mut taking) = self.samples.taking.take() else {
            return;
        };
        let keys = self.node.forward().table().keys_after(taking.last, PIECE);
        for key in &keys {
            taking.total += self.take_service(key, &taking.counters);
        }
        taking.last = keys.last().copied();
        if keys.len() == PIECE {
            self.samples.taking = Some(taking);
        } else {
            self.samples.total.sample(taking.total);
        }
    }

    fn take_service(&mut self, key: &ServiceKey, counters: &[Counters]) -> Counters {
        let mut sum = self.node.retired().of(key);
        let Some(entry) = self.node.forward().table().service(key) else {
            return sum;
        };
        let service = self.samples.services.entry(*key).or_default();
        for server in &entry.servers {
            let ids = self.node.forward().server_ids(key, server.at).into_iter();
            let of = |id: u32| counters.get(id as usize).copied().unwrap_or_default();
            let counted = ids
                .map(of)
                .fold(Counters::default(), |sum, more| sum + more);
            sum += counted;
            service
                .servers
                .entry(server.at)
                .or_default()
                .sample(counted);
        }
        service.whole.sample(sum);
        sum
    }
}
