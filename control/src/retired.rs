//! The counters of deleted servers. Their service still includes them, as in IPVS.

use std::collections::{BTreeMap, BTreeSet};

use shunt_model::change::{Change, server, service};
use shunt_model::{Counters, ServerAddress, ServiceKey};

use crate::table::Table;

/// The counters of deleted servers by service, and the services whose entry is not in the journal
/// yet.
#[derive(Clone, Debug, Default)]
pub struct Retired {
    counters: BTreeMap<ServiceKey, Counters>,
    news: BTreeSet<ServiceKey>,
}

/// A server that a change deletes from its service, or adds to it again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Turn {
    /// The server's service.
    pub key: ServiceKey,
    /// The server, which the table has before the change or after it.
    pub at: ServerAddress,
    leaves: bool,
}

/// The counters that a change sets to zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Zeroed {
    /// The change zeroes no counter.
    Nothing,
    /// The counters of this service, of its servers and of its deleted servers.
    Service(ServiceKey),
    /// All counters.
    All,
}

/// The server whose counters a change moves, before the change is made to this table.
#[must_use]
pub fn turn(change: &Change, table: &Table) -> Option<Turn> {
    let Change::Server(change) = change else {
        return None;
    };
    let (key, at, leaves) = match change {
        server::Change::Delete { key, at } => (*key, *at, true),
        server::Change::Add { key, server } => (*key, server.at, false),
        server::Change::Edit { .. } => return None,
    };
    let is_there = table.service(&key)?.server(at).is_some();
    (is_there == leaves).then_some(Turn { key, at, leaves })
}

/// The counters that a change zeroes. A service that is added again keeps its connections, and
/// counts from zero.
#[must_use]
pub fn zeroed(change: &Change) -> Zeroed {
    let Change::Service(change) = change else {
        return Zeroed::Nothing;
    };
    match change {
        service::Change::Delete { key } | service::Change::Zero { key: Some(key) } => {
            Zeroed::Service(*key)
        }
        service::Change::Flush | service::Change::Zero { key: None } => Zeroed::All,
        service::Change::Add { .. } | service::Change::Edit { .. } => Zeroed::Nothing,
    }
}

impl Retired {
    /// The counters that an earlier daemon saved.
    #[must_use]
    pub fn new(counters: BTreeMap<ServiceKey, Counters>) -> Self {
        Self {
            counters,
            news: BTreeSet::new(),
        }
    }

    /// The counters of each service that has deleted servers.
    #[must_use]
    pub fn all(&self) -> &BTreeMap<ServiceKey, Counters> {
        &self.counters
    }

    /// The counters of the deleted servers of this service.
    #[must_use]
    pub fn of(&self, key: &ServiceKey) -> Counters {
        self.counters.get(key).copied().unwrap_or_default()
    }

    /// Takes the counters of a server that was deleted, or gives them back to a server that was
    /// added again. `counted` are the server's own.
    pub fn follow(&mut self, turn: Turn, counted: Counters) {
        let before = self.of(&turn.key);
        let after = match turn.leaves {
            true => before + counted,
            false => before - counted,
        };
        let old = match after == Counters::default() {
            true => self.counters.remove(&turn.key),
            false => self.counters.insert(turn.key, after),
        };
        if old.unwrap_or_default() != after {
            self.news.insert(turn.key);
        }
    }

    /// Starts again from zero.
    pub fn zero(&mut self, zeroed: Zeroed) {
        match zeroed {
            Zeroed::Nothing => {}
            Zeroed::Service(key) => {
                let forgotten = self.counters.remove(&key).map(|_| key);
                self.news.extend(forgotten);
            }
            Zeroed::All => {
                let forgotten = std::mem::take(&mut self.counters);
                self.news.extend(forgotten.into_keys());
            }
        }
    }

    /// Whether some entry is not in the journal yet.
    #[must_use]
    pub fn has_news(&self) -> bool {
        !self.news.is_empty()
    }

    /// The services whose entry is not in the journal yet, with the entry if there is one.
    pub fn take_news(&mut self) -> Vec<(ServiceKey, Option<Counters>)> {
        let news = std::mem::take(&mut self.news).into_iter();
        let entry = |key| (key, self.counters.get(&key).copied());
        news.map(entry).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> ServiceKey {
        "tcp/192.0.2.1:80".parse().unwrap()
    }

    fn turn(leaves: bool) -> Turn {
        Turn {
            key: key(),
            at: "10.1.0.1:80".parse().unwrap(),
            leaves,
        }
    }

    fn some(connections: u64) -> Counters {
        Counters {
            connections,
            ..Counters::default()
        }
    }

    #[test]
    fn what_is_counted_and_forgotten_is_written_down_once() {
        for zeroed in [Zeroed::Service(key()), Zeroed::All] {
            let mut retired = Retired::default();
            retired.follow(turn(true), some(7));
            assert_eq!(retired.take_news(), [(key(), Some(some(7)))]);
            assert!(!retired.has_news());
            retired.zero(Zeroed::Nothing);
            assert!(!retired.has_news());
            retired.zero(zeroed);
            assert_eq!(retired.take_news(), [(key(), None)]);
            retired.zero(zeroed);
            assert!(retired.take_news().is_empty());
        }
    }

    #[test]
    fn a_server_that_comes_back_takes_its_counters_with_it() {
        let mut retired = Retired::default();
        retired.follow(turn(true), some(7));
        retired.follow(turn(true), some(2));
        assert_eq!(retired.of(&key()), some(9));
        retired.follow(turn(false), some(7));
        assert_eq!(retired.of(&key()), some(2));
        retired.take_news();
        retired.follow(turn(false), some(2));
        assert_eq!(retired.take_news(), [(key(), None)]);
        // Nothing was counted, so there is nothing to write.
        retired.follow(turn(true), some(0));
        assert!(!retired.has_news());
    }

    #[test]
    fn each_change_zeroes_what_it_names() {
        let all = service::Change::Zero { key: None };
        let one = service::Change::Zero { key: Some(key()) };
        let gone = service::Change::Delete { key: key() };
        let less = server::Change::Delete {
            key: key(),
            at: turn(true).at,
        };
        let cases = [
            (Change::Service(all), Zeroed::All),
            (Change::Service(service::Change::Flush), Zeroed::All),
            (Change::Service(one), Zeroed::Service(key())),
            (Change::Service(gone), Zeroed::Service(key())),
            (Change::Server(less), Zeroed::Nothing),
        ];
        for (change, zeroes) in cases {
            assert_eq!(zeroed(&change), zeroes, "{change}");
        }
    }
}
