//! What the daemon's task holds and does: it carries the director's wishes to the kernel and the
//! kernel's news to the director.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result};
use axum::body::Bytes;
use shunt_control::carried::Gate;
use shunt_control::director::{Clock, Director, Memory, Names, Output};
use shunt_control::network;
use shunt_control::rates::Estimator;
use shunt_control::table::{Limits, Table};
use shunt_datapath::entry::Settings;
use shunt_model::api::{
    Change, ConnectionCount, Device, Done, Refusal, ServerStatus, ServiceStatus, Statistics, Status,
};
use shunt_model::{Counters, ServerAddress, ServiceKey};
use tokio::sync::{mpsc, oneshot};
use tracing::{debug, error, info, warn};

use crate::api::Ask;
use crate::kernel::attach::Attachments;
use crate::kernel::clock;
use crate::kernel::object::{self, Object};
use crate::kernel::place::Place;
use crate::kernel::scan::{Found, Look, Sweeper};
use crate::kernel::tables::{Shared, Tables};
use crate::netlink::Prober;
use crate::options::Options;

/// Everything.
pub struct Shell {
    pub options: Options,
    pub place: Place,
    object: Object,
    tables: Tables,
    director: Director,
    attachments: Attachments,
    prober: Prober,
    begun: Instant,
    estimators: BTreeMap<(ServiceKey, ServerAddress), Estimator>,
    /// Counters of servers that were deleted, which their service still counts.
    retired: BTreeMap<ServiceKey, Counters>,
    service_estimators: BTreeMap<ServiceKey, Estimator>,
    total: Estimator,
    found: Found,
    sweeper: Sweeper,
    known: bool,
}

/// What a thread beside the task needs to look at the flows.
struct Glance {
    shared: Arc<Shared>,
    settings: Settings,
    now: u32,
}

impl Glance {
    fn look(&self) -> Look<'_> {
        Look {
            tables: &self.shared,
            settings: &self.settings,
            now: self.now,
        }
    }
}

impl Shell {
    /// Takes up the packet path, with what an earlier daemon wrote down.
    pub fn new(
        options: Options,
        place: Place,
        object: Object,
        memory: Option<Memory>,
        prober: Prober,
    ) -> Result<Self> {
        let tables = Tables::open(&place, object.made.clone())?;
        let now = Instant::now();
        let sizes = object.made.capacity.sizes;
        let clock = Clock {
            tick_ns: clock::tick_ns(object.made.jiffies_rate),
        };
        let table = Table::new(Gate::Carried, Limits::default());
        let mut director = match memory {
            Some(memory) => {
                let pool = |service| tables.pool_of(service);
                Director::resume(memory, table, sizes, clock, &tables, pool, now)
                    .context("cannot take up the table of the daemon before")?
            }
            None => Director::new(table, sizes, clock, now),
        };
        for id in director.all_server_ids() {
            if let Some(entry) = tables.server(id) {
                director.found(id, entry);
            }
        }
        let attachments = Attachments::new(place.clone());
        Ok(Self {
            options,
            place,
            object,
            tables,
            director,
            attachments,
            prober,
            begun: now,
            estimators: BTreeMap::new(),
            retired: BTreeMap::new(),
            service_estimators: BTreeMap::new(),
            total: Estimator::default(),
            found: Found::default(),
            sweeper: Sweeper::default(),
            known: false,
        })
    }

    /// When the director wants to be called at the latest.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        self.director.deadline()
    }

    /// News from the network.
    pub fn network(&mut self, input: network::Input) {
        let complete = input == network::Input::ResyncEnd;
        self.director.network_event(input, Instant::now());
        if complete && !self.known {
            self.known = true;
            self.director.network_known();
        }
    }

    /// Does what the director wants done. Endpoints that nobody claimed are left to [`Self::scan`].
    pub fn carry_out(&mut self) {
        let mut look = false;
        while let Some(output) = self.director.poll() {
            match output {
                Output::Write(write) => {
                    debug!(?write, "table written");
                    if let Err(error) = self.tables.write(&write) {
                        error!(%error, "packet path not as it should be");
                    }
                }
                Output::Probe {
                    interface,
                    neighbour,
                } => self.prober.probe(interface, neighbour),
                Output::Devices => look = true,
                Output::Remember => self.remember(),
            }
        }
        if look && self.known {
            self.attach();
        }
    }

    fn remember(&self) {
        if let Err(error) = object::write(&self.place.memory(), &self.director.memory()) {
            error!(%error, "table not written down; a restart would not know of the last change");
        }
    }

    fn attach(&mut self) {
        let options = &self.options;
        let wanted = self.director.devices(|link| options.setting(&link.name));
        for changed in self.attachments.settle(&mut self.object, &wanted) {
            if changed.works {
                info!(
                    device = changed.name,
                    hook = changed.hook,
                    "device attached"
                );
            } else {
                warn!(
                    device = changed.name,
                    why = changed.hook,
                    "device not attached"
                );
            }
        }
    }

    /// Whether the first full account of the network is in and carried out.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.known
    }

    fn tick(&self) -> u32 {
        match clock::jiffies(&self.object.clock) {
            Ok(jiffies) => clock::tick(jiffies, self.object.made.tick_shift),
            Err(error) => {
                error!(%error, "clock not read");
                0
            }
        }
    }

    fn settings(&self) -> Settings {
        self.director.settings()
    }

    fn glance(&self) -> Glance {
        Glance {
            shared: self.tables.shared.clone(),
            settings: self.settings(),
            now: self.tick(),
        }
    }

    /// Begins a scan beside the task; the answer goes to [`Self::scanned`].
    pub fn scan(&mut self) -> tokio::task::JoinHandle<(Found, Sweeper)> {
        let glance = self.glance();
        let mut sweeper = std::mem::take(&mut self.sweeper);
        tokio::task::spawn_blocking(move || {
            let found = glance.look().scan(&mut sweeper);
            (found, sweeper)
        })
    }

    pub fn scanned(&mut self, found: Found, sweeper: Sweeper) {
        self.sweeper = sweeper;
        self.director.unused(&found.services, &found.servers);
        self.director.pools_settled();
        self.found = found;
    }

    fn counted(&self, key: &ServiceKey, at: ServerAddress) -> Counters {
        let ids = self.director.server_ids(key, at);
        ids.into_iter().fold(Counters::default(), |sum, id| {
            sum + self.tables.counters(id)
        })
    }

    /// Takes a sample of every rate.
    pub fn estimate(&mut self) {
        let mut total = Counters::default();
        let mut alive = BTreeSet::new();
        for (key, addresses) in self.addresses() {
            let mut sum = self.retired.get(&key).copied().unwrap_or_default();
            for at in addresses {
                let counters = self.counted(&key, at);
                sum += counters;
                self.estimators
                    .entry((key, at))
                    .or_default()
                    .sample(counters);
                alive.insert((key, at));
            }
            self.service_estimators.entry(key).or_default().sample(sum);
            total += sum;
        }
        self.estimators.retain(|name, _| alive.contains(name));
        self.service_estimators
            .retain(|key, _| alive.iter().any(|(other, _)| other == key));
        self.total.sample(total);
    }

    fn addresses(&self) -> Vec<(ServiceKey, Vec<ServerAddress>)> {
        let addresses = |entry: &shunt_control::table::Entry| {
            let servers = entry.servers.iter().map(|server| server.at).collect();
            (entry.service.key, servers)
        };
        self.director.table().services().map(addresses).collect()
    }

    /// Answers a question of the API.
    pub fn answer(&mut self, ask: Ask) {
        match ask {
            Ask::Change(change, answer) => {
                let _ = answer.send(self.change(&change));
            }
            Ask::Services(answer) => {
                let _ = answer.send(self.services());
            }
            Ask::Connections(lines) => self.connections(lines),
            Ask::Count(answer) => self.count(answer),
            Ask::Timeouts(answer) => {
                let _ = answer.send(self.director.table().timeouts());
            }
            Ask::Statistics(answer) => {
                let _ = answer.send(self.statistics());
            }
            Ask::Status(answer) => {
                let _ = answer.send(self.status());
            }
        }
    }

    fn change(&mut self, change: &Change) -> Result<Done, Refusal> {
        self.retire(change);
        let result = self.director.change(change, &self.tables, Instant::now());
        if let (Ok(_), Change::Zero { key }) = (&result, change) {
            self.zero(*key);
        }
        self.carry_out();
        match &result {
            Ok(_) => info!(%change, "table changed"),
            Err(refusal) => info!(why = refusal.text, "change refused"),
        }
        result
    }

    /// A service goes on counting what its deleted servers carried, as IPVS does.
    fn retire(&mut self, change: &Change) {
        match change {
            Change::DeleteServer { key, at } => {
                let known = self.director.table().service(key);
                if known.is_some_and(|entry| entry.server(*at).is_some()) {
                    let counters = self.counted(key, *at);
                    *self.retired.entry(*key).or_default() += counters;
                }
            }
            Change::AddServer { key, server } => {
                // The same server again finds its old counters: they are no longer retired.
                let counters = self.counted(key, server.at);
                let known = self.director.table().service(key);
                if known.is_some_and(|entry| entry.server(server.at).is_none()) {
                    let retired = self.retired.entry(*key).or_default();
                    *retired = *retired - counters;
                }
            }
            // A service that is made again finds its connections, and counts from zero.
            Change::DeleteService { key } => self.zero(Some(*key)),
            Change::Flush => {
                for (key, _) in self.addresses() {
                    self.zero(Some(key));
                }
            }
            _ => {}
        }
    }

    fn zero(&mut self, key: Option<ServiceKey>) {
        let chosen = |other: &ServiceKey| key.is_none_or(|key| key == *other);
        let names = self.director.names();
        for (id, (service, _)) in names.servers {
            if chosen(&service)
                && let Err(error) = self.tables.forget(id)
            {
                error!(%error, "counters not zeroed");
            }
        }
        self.retired.retain(|service, _| !chosen(service));
        self.estimators.retain(|(service, _), _| !chosen(service));
        self.service_estimators
            .retain(|service, _| !chosen(service));
        if key.is_none() {
            self.total = Estimator::default();
        }
    }

    fn services(&self) -> Vec<ServiceStatus> {
        self.director
            .table()
            .services()
            .map(|entry| self.service(entry))
            .collect()
    }

    fn service(&self, entry: &shunt_control::table::Entry) -> ServiceStatus {
        let key = entry.service.key;
        let mut counters = self.retired.get(&key).copied().unwrap_or_default();
        let mut servers = Vec::with_capacity(entry.servers.len());
        for server in &entry.servers {
            let ids = self.director.server_ids(&key, server.at);
            let (mut active, mut inactive, mut sum) = (0, 0, Counters::default());
            for id in ids {
                let live = self.tables.live(id);
                active += live.0;
                inactive += live.1;
                sum += self.tables.counters(id);
            }
            counters += sum;
            let estimator = self.estimators.get(&(key, server.at));
            servers.push(ServerStatus {
                server: server.clone(),
                active_connections: active,
                inactive_connections: inactive,
                persistent_connections: 0,
                counters: sum,
                rates: estimator.map(Estimator::rates).unwrap_or_default(),
                next_hop: self.director.way_text(server),
            });
        }
        let estimator = self.service_estimators.get(&key);
        ServiceStatus {
            service: entry.service.clone(),
            counters,
            rates: estimator.map(Estimator::rates).unwrap_or_default(),
            servers,
        }
    }

    /// Lists beside the task, a few hundred lines at a time, as fast as the asker reads.
    fn connections(&self, lines: mpsc::Sender<Bytes>) {
        let glance = self.glance();
        let names: Names = self.director.names();
        let tick_ns = clock::tick_ns(self.object.made.jiffies_rate);
        tokio::task::spawn_blocking(move || {
            let mut text = Vec::with_capacity(1 << 17);
            glance.look().list(&names, tick_ns, &mut |connection| {
                if serde_json::to_writer(&mut text, &connection).is_err() {
                    return false;
                }
                text.push(b'\n');
                if text.len() < 1 << 16 {
                    return true;
                }
                let full = std::mem::replace(&mut text, Vec::with_capacity(1 << 17));
                lines.blocking_send(Bytes::from(full)).is_ok()
            });
            if !text.is_empty() {
                let _ = lines.blocking_send(Bytes::from(text));
            }
        });
    }

    fn count(&self, answer: oneshot::Sender<ConnectionCount>) {
        let glance = self.glance();
        tokio::task::spawn_blocking(move || {
            let mut count = ConnectionCount::default();
            for (state, number) in glance.look().states() {
                if number != 0 {
                    count.by_state.insert(state.to_string(), number);
                    count.total += number;
                }
            }
            let _ = answer.send(count);
        });
    }

    fn statistics(&self) -> Statistics {
        let mut statistics = self.tables.statistics();
        for service in self.services() {
            statistics.counters += service.counters;
        }
        statistics.rates = self.total.rates();
        statistics
    }

    fn status(&self) -> Status {
        let capacity = self.object.made.capacity;
        Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            uptime_s: self.begun.elapsed().as_secs(),
            adopted: self.object.adopted,
            devices: self
                .attachments
                .present()
                .map(|device| Device {
                    name: device.name.clone(),
                    index: device.index,
                    hook: device.hook.clone(),
                })
                .collect(),
            flows_capacity: u64::from(capacity.flows4) + u64::from(capacity.flows6),
            flows_used: self.found.used,
            services: self.director.table().len() as u32,
            servers: self.director.table().servers() as u32,
        }
    }
}
