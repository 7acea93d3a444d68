//! The rates of services and servers. Every two seconds all counters are sampled. A sample is
//! processed piece by piece, so that no request waits for it.

use std::collections::BTreeMap;

use shunt_model::change::{Change, server, service};
use shunt_model::{Counters, Rates, ServerAddress, ServiceKey};

use crate::director::Director;
use crate::rates::Estimator;
use crate::retired::Retired;

/// The number of services in one piece, which takes about a millisecond.
const PIECE: usize = 512;

/// The estimators of a service.
#[derive(Clone, Debug, Default)]
struct OfService {
    whole: Estimator,
    servers: BTreeMap<ServerAddress, Estimator>,
}

/// All estimators, and the progress of the current sample.
#[derive(Clone, Debug, Default)]
pub struct Samples {
    services: BTreeMap<ServiceKey, OfService>,
    total: Estimator,
    taking: Option<Taking>,
}

#[derive(Clone, Debug)]
struct Taking {
    counters: Vec<Counters>,
    last: Option<ServiceKey>,
    total: Counters,
}

impl Samples {
    /// The rates of a server; zero until its second sample.
    #[must_use]
    pub fn of_server(&self, key: &ServiceKey, at: ServerAddress) -> Rates {
        let service = self.services.get(key);
        let estimator = service.and_then(|service| service.servers.get(&at));
        estimator.map(Estimator::rates).unwrap_or_default()
    }

    /// The rates of a service, its deleted servers included.
    #[must_use]
    pub fn of_service(&self, key: &ServiceKey) -> Rates {
        let service = self.services.get(key);
        service
            .map(|service| service.whole.rates())
            .unwrap_or_default()
    }

    /// The rates of all services.
    #[must_use]
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
    #[must_use]
    pub fn is_taking(&self) -> bool {
        self.taking.is_some()
    }

    /// Takes in the counters of all server ids. [`Self::take`] processes them.
    pub fn begin(&mut self, counters: Vec<Counters>) {
        self.taking = Some(Taking {
            counters,
            last: None,
            total: Counters::default(),
        });
    }

    /// Processes a piece of the sample.
    pub fn take(&mut self, forward: &Director, retired: &Retired) {
        let Some(mut taking) = self.taking.take() else {
            return;
        };
        let keys = forward.table().keys_after(taking.last, PIECE);
        for key in &keys {
            let counted = retired.of(key);
            taking.total += self.take_service(key, counted, &taking.counters, forward);
        }
        taking.last = keys.last().copied();
        if keys.len() == PIECE {
            self.taking = Some(taking);
        } else {
            self.total.sample(taking.total);
        }
    }

    /// Samples a service, whose deleted servers counted `sum`. Returns the sum of all its servers.
    fn take_service(
        &mut self,
        key: &ServiceKey,
        mut sum: Counters,
        counters: &[Counters],
        forward: &Director,
    ) -> Counters {
        let Some(entry) = forward.table().service(key) else {
            return sum;
        };
        let service = self.services.entry(*key).or_default();
        for server in &entry.servers {
            let ids = forward.server_ids(key, server.at).into_iter();
            let of = |id: u32| counters.get(id as usize).copied().unwrap_or_default();
            let counted = ids
                .map(of)
                .fold(Counters::default(), |sum, more| sum + more);
            sum += counted;
            let server = service.servers.entry(server.at).or_default();
            server.sample(counted);
        }
        service.whole.sample(sum);
        sum
    }
}
