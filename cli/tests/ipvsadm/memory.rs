//! A daemon in memory: the real table, and numbers that a transcript says.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

use shunt_cli::client::{Client, Connections, Events, Failure, Inputs};
use shunt_control::table::{Limits, Table};
use shunt_model::api::{ConnectionCount, Done, ServerStatus, ServiceStatus, Statistics, Status};
use shunt_model::batch::{Batch, Mode, Refused};
use shunt_model::change::Change;
use shunt_model::event::Event;
use shunt_model::{
    Connection, Counters, LocalAddress, MarkRule, Rates, ServerAddress, ServiceKey, Settings,
    Timeouts,
};

/// What traffic made of a service or a server.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Numbers {
    pub counters: Counters,
    pub rates: Rates,
    pub active: u32,
    pub inactive: u32,
    pub persistent: u32,
}

/// The numbers of a service, and of each of its servers.
pub(crate) type Traffic = HashMap<(ServiceKey, Option<ServerAddress>), Numbers>;

#[derive(Debug)]
pub(crate) struct Memory {
    pub table: Table,
    pub traffic: Traffic,
    pub connections: Vec<Connection>,
    pub statistics: Statistics,
    pub status: Status,
    /// How many batches the daemon takes before it ends; `None` if it does not end.
    pub batches: Option<usize>,
    pub events: Vec<Event>,
}

/// A memory that outlives each run of the face.
#[derive(Clone, Debug)]
pub(crate) struct Handle(pub Rc<RefCell<Memory>>);

impl Handle {
    pub(crate) fn new(namespace: u8) -> Self {
        Self(Rc::new(RefCell::new(Memory {
            table: Table::new(Limits::default()).in_namespace(namespace),
            traffic: Traffic::new(),
            connections: Vec::new(),
            statistics: Statistics::default(),
            status: Status::default(),
            batches: None,
            events: Vec::new(),
        })))
    }
}

impl Client for Handle {
    fn change(&mut self, change: &Change) -> Result<Done, Failure> {
        self.0.borrow_mut().table.apply(change)?;
        Ok(Done {})
    }

    fn batch(&mut self, batch: &Batch) -> Result<Vec<Refused>, Failure> {
        let memory = &mut *self.0.borrow_mut();
        if let Some(left) = &mut memory.batches {
            *left = left
                .checked_sub(1)
                .ok_or_else(|| Failure::Broken("the daemon ended".to_owned()))?;
        }
        let table = &mut memory.table;
        if batch.mode == Mode::Whole {
            return Ok(table.apply_all(&batch.changes).err().unwrap_or_default());
        }
        let changes = batch.changes.iter().enumerate();
        let refused = changes.filter_map(|(index, change)| {
            let refusal = table.apply(change).err()?;
            Some(Refused { index, refusal })
        });
        Ok(refused.collect())
    }

    fn services(&mut self) -> Result<Vec<ServiceStatus>, Failure> {
        let memory = self.0.borrow();
        let numbers = |key, at| memory.traffic.get(&(key, at)).copied().unwrap_or_default();
        let services = memory.table.services().map(|entry| {
            let key = entry.service.key;
            let servers = entry.servers.iter().map(|server| {
                let numbers = numbers(key, Some(server.at));
                ServerStatus {
                    server: server.clone(),
                    active_connections: numbers.active,
                    inactive_connections: numbers.inactive,
                    persistent_connections: numbers.persistent,
                    counters: numbers.counters,
                    rates: numbers.rates,
                    next_hop: None,
                    out_of_reach: None,
                    eligibility: Default::default(),
                }
            });
            ServiceStatus {
                service: entry.service.clone(),
                counters: numbers(key, None).counters,
                rates: numbers(key, None).rates,
                short_list: None,
                servers: servers.collect(),
            }
        });
        Ok(services.collect())
    }

    fn connections(&mut self) -> Result<Connections<'_>, Failure> {
        let connections = self.0.borrow().connections.clone();
        Ok(Box::new(connections.into_iter().map(Ok)))
    }

    fn connection_count(&mut self) -> Result<ConnectionCount, Failure> {
        let mut count = ConnectionCount::default();
        for connection in &self.0.borrow().connections {
            let state = connection.state.to_string();
            *count.by_state.entry(state).or_default() += 1;
            count.total += 1;
        }
        Ok(count)
    }

    fn timeouts(&mut self) -> Result<Timeouts, Failure> {
        Ok(self.0.borrow().table.timeouts())
    }

    fn locals(&mut self) -> Result<Vec<LocalAddress>, Failure> {
        Ok(self.0.borrow().table.locals().collect())
    }

    fn settings(&mut self) -> Result<Settings, Failure> {
        Ok(self.0.borrow().table.settings())
    }

    fn marks(&mut self) -> Result<Vec<MarkRule>, Failure> {
        Ok(self.0.borrow().table.marks().copied().collect())
    }

    fn statistics(&mut self) -> Result<Statistics, Failure> {
        Ok(self.0.borrow().statistics.clone())
    }

    fn status(&mut self) -> Result<Status, Failure> {
        Ok(self.0.borrow().status.clone())
    }

    fn inputs(&mut self) -> Result<Inputs<'_>, Failure> {
        Ok(Box::new(std::iter::empty()))
    }

    fn events(&mut self, _follow: bool) -> Result<Events<'_>, Failure> {
        let events = self.0.borrow().events.clone();
        Ok(Box::new(events.into_iter().map(Ok)))
    }
}
