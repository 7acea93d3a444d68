//! The answers of the daemon's task: services, connections, statistics, and its own state.

use std::collections::BTreeMap;
use std::time::{SystemTime, UNIX_EPOCH};

use axum::body::Bytes;
use serde::Serialize;
use shunt_control::director::Names;
use shunt_control::node::recording::Recorded;
use shunt_control::table::Entry;
use shunt_datapath::entry::SHORT_LENGTH;
use shunt_model::api::{ConnectionCount, ServerStatus, ServiceStatus, Statistics, Status};
use shunt_model::warning::{Table, Warning};
use shunt_model::{Counters, ServiceKey};
use tokio::sync::{mpsc, oneshot};
use tracing::error;

use super::Shell;
use crate::api::Place;
use crate::chain::chain;
use crate::ephemeral;
use crate::kernel::{listing, traffic};
use crate::log;

/// The fullness of the connection table, in percent, from which on the operator is warned.
const NEARLY_FULL: u64 = 90;
/// Bytes of a piece of a list of lines.
const PIECE: usize = 1 << 16;

/// Lines of JSON on their way to a client, many in one piece.
struct Lines {
    text: Vec<u8>,
    pieces: mpsc::Sender<Bytes>,
}

impl Lines {
    fn new(pieces: mpsc::Sender<Bytes>) -> Self {
        let text = Vec::with_capacity(2 * PIECE);
        Self { text, pieces }
    }

    /// Adds a line. Returns false if nobody reads it.
    fn add(&mut self, value: &impl Serialize) -> bool {
        if serde_json::to_writer(&mut self.text, value).is_err() {
            return false;
        }
        self.text.push(b'\n');
        if self.text.len() < PIECE {
            return true;
        }
        let full = std::mem::replace(&mut self.text, Vec::with_capacity(2 * PIECE));
        self.pieces.blocking_send(Bytes::from(full)).is_ok()
    }

    /// Sends the last piece.
    fn end(self) {
        if !self.text.is_empty() {
            let _ = self.pieces.blocking_send(Bytes::from(self.text));
        }
    }
}

impl Shell {
    /// All services, or the one with this key.
    pub(super) fn services(&self, key: Option<ServiceKey>) -> Vec<ServiceStatus> {
        let table = self.node.forward().table();
        if let Some(key) = key {
            let counters = |id| self.tables.counters(id);
            let entry = table.service(&key).into_iter();
            let templates = self.templates(entry.clone());
            let status = |entry| self.service(entry, &counters, &templates);
            return entry.map(status).collect();
        }
        let templates = self.templates(table.services());
        let end = self.node.forward().server_ids_end();
        let all = traffic::read(&self.tables.shared.traffic, end);
        let all = all.unwrap_or_else(|error| {
            error!(error = chain(&error), "counters not read at once");
            Vec::new()
        });
        let counters = |id: u32| match all.get(id as usize) {
            Some(counters) => *counters,
            None => self.tables.counters(id),
        };
        let services = table.services();
        services
            .map(|entry| self.service(entry, &counters, &templates))
            .collect()
    }

    /// The number of templates of each server, if any of these services is persistent.
    fn templates<'a>(&self, mut services: impl Iterator<Item = &'a Entry>) -> BTreeMap<u32, u32> {
        if services.any(|entry| entry.service.persistence.is_some()) {
            listing::templates(self.glance().look())
        } else {
            BTreeMap::new()
        }
    }

    fn service(
        &self,
        entry: &Entry,
        counted: &dyn Fn(u32) -> Counters,
        templates: &BTreeMap<u32, u32>,
    ) -> ServiceStatus {
        let key = entry.service.key;
        let mut counters = self.node.retired().of(&key);
        let mut servers = Vec::with_capacity(entry.servers.len());
        for server in &entry.servers {
            let (mut active, mut inactive, mut sum) = (0, 0, Counters::default());
            let mut persistent = 0;
            for id in self.node.forward().server_ids(&key, server.at) {
                let live = self.tables.live(id);
                active += live.0;
                inactive += live.1;
                persistent += templates.get(&id).copied().unwrap_or(0);
                sum += counted(id);
            }
            counters += sum;
            servers.push(ServerStatus {
                server: server.clone(),
                active_connections: active,
                inactive_connections: inactive,
                persistent_connections: persistent,
                counters: sum,
                rates: self.node.samples().of_server(&key, server.at),
                next_hop: Some(self.node.forward().next_hop(server)),
                out_of_reach: self.node.forward().out_of_reach(&key, server.at),
                eligibility: self
                    .node
                    .forward()
                    .eligibility(&key, server, &self.tables)
                    .into(),
            });
        }
        ServiceStatus {
            service: entry.service.clone(),
            counters,
            rates: self.node.samples().of_service(&key),
            short_list: self.node.forward().is_short(&key).then_some(SHORT_LENGTH),
            servers,
        }
    }

    /// Lists connections on another thread, a few hundred lines at a time, as fast as the client
    /// reads.
    pub(super) fn connections(&self, lines: mpsc::Sender<Bytes>, place: Option<Place>) {
        let glance = self.glance();
        let names: Names = self.node.forward().names();
        tokio::task::spawn_blocking(move || {
            let mut lines = Lines::new(lines);
            listing::list(glance.look(), &names, &mut |connection| {
                lines.add(&connection)
            });
            lines.end();
            drop(place);
        });
    }

    /// Lists the inputs that are kept on another thread, the oldest first, behind a line about the
    /// recording.
    pub(super) fn inputs(&self, lines: mpsc::Sender<Bytes>, place: Option<Place>) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let age = self.recording.begun().elapsed();
        let begun = now.unwrap_or_default().saturating_sub(age);
        let begun_ms = u64::try_from(begun.as_millis()).unwrap_or(u64::MAX);
        let head = self.recording.head(begun_ms);
        let inputs: Vec<Recorded> = self.recording.inputs().cloned().collect();
        tokio::task::spawn_blocking(move || {
            let mut lines = Lines::new(lines);
            let _ = lines.add(&head) && inputs.iter().all(|input| lines.add(input));
            lines.end();
            drop(place);
        });
    }

    pub(super) fn count(&self, answer: oneshot::Sender<ConnectionCount>, place: Option<Place>) {
        let glance = self.glance();
        tokio::task::spawn_blocking(move || {
            let mut count = ConnectionCount::default();
            for (state, number) in listing::states(glance.look()) {
                if number != 0 {
                    count.by_state.insert(state.to_string(), number);
                    count.total += number;
                }
            }
            let _ = answer.send(count);
            drop(place);
        });
    }

    pub(super) fn statistics(&self) -> Statistics {
        let mut statistics = self.tables.statistics();
        for service in self.services(None) {
            statistics.counters += service.counters;
        }
        statistics.rates = self.node.samples().total();
        statistics
    }

    pub(super) fn status(&self) -> Status {
        let capacity = self.object.made.capacity;
        Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            uptime_s: self.begun.elapsed().as_secs(),
            adopted: self.object.adopted,
            devices: self
                .attachments
                .present()
                .map(|attached| attached.device.clone())
                .collect(),
            settings: self.node.forward().table().settings(),
            defences: self.node.forward().defences().active(),
            dropped_entries: self.dropped,
            flows_capacity: capacity.flows(),
            flows_used: self.found.used,
            services: self.node.forward().table().len() as u32,
            servers: self.node.forward().table().servers() as u32,
            client_hops: self.node.forward().prepared_hops(),
            client_routes_asked: self.tables.note("route-asked"),
            local_pools: self.node.forward().local_pools(&self.tables),
            translations_capacity: u64::from(capacity.translations),
            translations_used: self.found.translations,
            calls_capacity: u64::from(capacity.calls),
            calls_used: self.found.calls,
            loading: self.node.programs().loading().collect(),
            warnings: self.warnings(),
        }
    }
    /// The warnings for the operator, most urgent first.
    fn warnings(&self) -> Vec<Warning> {
        let mut warnings = Vec::new();
        warnings.extend(self.keeper.warnings());
        warnings.extend(self.node.unclaimed().warning());
        let lines = log::lost();
        if lines > 0 {
            warnings.push(Warning::LogLost { lines });
        }
        warnings.extend(self.node.programs().warnings());
        warnings.extend(self.attachments.warnings());
        warnings.extend(self.node.forward().warnings());
        if let Some(why) = &self.callers {
            let why = why.clone();
            warnings.push(Warning::CallersNotServed { why });
        }
        warnings.extend(self.node.forward().local_warnings(&self.tables));
        warnings.extend(ephemeral::warnings(self.node.forward().table().locals()));
        let capacity = self.object.made.capacity;
        let (found, room) = (&self.found, u64::from);
        let tables = [
            (Table::Connections, found.used, capacity.flows()),
            (
                Table::Translations,
                found.translations,
                room(capacity.translations),
            ),
            (Table::Calls, found.calls, room(capacity.calls)),
        ];
        let is_full =
            |used: u64, room: u64| used.saturating_mul(100) > room.saturating_mul(NEARLY_FULL);
        let full = tables
            .into_iter()
            .filter(|(_, used, room)| is_full(*used, *room));
        warnings.extend(full.map(|(table, ..)| Warning::TableNearlyFull { table }));
        warnings
    }
}
