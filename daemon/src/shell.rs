//! What the daemon's task holds and does: it carries the director's wishes to the kernel and the
//! kernel's news to the director.

mod answers;
mod samples;

use std::collections::hash_map::RandomState;
use std::collections::{BTreeMap, BTreeSet};
use std::hash::{BuildHasher, Hasher};
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result};
use shunt_control::director::fate::Fullness;
use shunt_control::director::{Clock, Director, Memory, Output, Step};
use shunt_control::network;
use shunt_control::table::{Limits, Table};
use shunt_datapath::entry::Settings;
use shunt_datapath::sweep::{Found, Memory as Swept, Stretch};
use shunt_model::api::{Change, Done, Reason, Refusal};
use shunt_model::{Counters, ServerAddress, ServiceKey};
use tracing::{debug, error, info, warn};

use crate::api::Ask;
use crate::journal::Journal;
use crate::kernel::attach::Attachments;
use crate::kernel::callers;
use crate::kernel::clock;
use crate::kernel::object::{Capacity, Object};
use crate::kernel::place::Place;
use crate::kernel::ports::Ports;
use crate::kernel::rcu;
use crate::kernel::sweep::{self, Look};
use crate::kernel::tables::{Shared, Tables};
use crate::netlink::Prober;
use crate::options::{Callers, Options};
use crate::waiting::{self, Waiting};
use samples::Samples;

/// Everything.
pub struct Shell {
    pub options: Options,
    pub place: Place,
    object: Object,
    tables: Tables,
    director: Director,
    attachments: Attachments,
    ports: Ports,
    prober: Prober,
    begun: Instant,
    /// Counters of servers that were deleted, which their service still counts.
    retired: BTreeMap<ServiceKey, Counters>,
    samples: Samples,
    found: Found,
    swept: Swept,
    known: bool,
    /// None after it could not be written, until it can.
    journal: Option<Journal>,
    waiting: Waiting,
    /// When half-open connections were last taken out before their time, and how many were.
    dropping: Instant,
    dropped: u64,
    /// Why processes on this machine are given no servers, though they shall be.
    callers: Option<String>,
}

/// What a thread beside the task needs to look at the flows.
struct Glance {
    shared: Arc<Shared>,
    settings: Settings,
    now: u32,
    tick_ns: u64,
    ended: BTreeSet<u32>,
    stretch: Option<Stretch>,
}

impl Glance {
    fn look(&self) -> Look<'_> {
        Look {
            tables: &self.shared,
            settings: &self.settings,
            now: self.now,
            tick_ns: self.tick_ns,
            ended: &self.ended,
            stretch: self.stretch,
        }
    }
}

/// How full the fuller one of both families' tables is.
fn fullness(found: &Found, capacity: &Capacity) -> Fullness {
    let of = |used, room: u32| Fullness {
        used,
        room: room.into(),
    };
    let narrow = of(found.used - found.used6, capacity.flows4);
    let wide = of(found.used6, capacity.flows6);
    if narrow.used * wide.room < wide.used * narrow.room {
        wide
    } else {
        narrow
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
        let table = Table::new(Limits::default());
        let director = match memory {
            Some(memory) => {
                let pool = |service| tables.pool_of(service);
                Director::resume(memory, table, sizes, clock, &tables, pool, now)
                    .context("cannot take up the table of the daemon before")?
            }
            None => Director::new(table, sizes, clock, now),
        };
        let attachments = Attachments::new(place.clone());
        let ports = Ports::open(&place)?;
        let callers = callers::settle(&place, options.callers == Callers::On).err();
        if let Some(error) = &callers {
            warn!(
                why = format!("{error:#}"),
                "processes on this machine are given no servers"
            );
        }
        let mut shell = Self {
            options,
            place,
            object,
            tables,
            director,
            attachments,
            ports,
            prober,
            begun: now,
            retired: BTreeMap::new(),
            samples: Samples::default(),
            found: Found::default(),
            swept: Swept::default(),
            known: false,
            journal: None,
            waiting: Waiting::default(),
            dropping: now,
            dropped: 0,
            callers: callers.map(|error| format!("{error:#}")),
        };
        shell.remember_all();
        Ok(shell)
    }

    /// When the director wants to be called at the latest.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        let deadlines = [self.director.deadline(), self.waiting.deadline()];
        deadlines.into_iter().flatten().min()
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

    /// Does what the director wants done. Endpoints that nobody claimed wait for a sweep.
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
                Output::Pool(service) => self.director.renew(&service, &self.tables),
                Output::Remember(step) => self.remember(&step),
            }
        }
        if look && self.known {
            self.attach();
        }
        let director = &self.director;
        self.waiting.review(|key, at| director.is_awaited(key, at));
    }

    fn remember(&mut self, step: &Step) {
        let added = self.journal.as_mut().map(|journal| journal.add(step));
        if !matches!(added, Some(Ok(()))) {
            self.remember_all();
        }
    }

    /// Writes down everything at once: at the start, and after a step could not be added.
    fn remember_all(&mut self) {
        if let Some(journal) = &mut self.journal {
            journal.settle();
        }
        self.journal = match Journal::begin(&self.place.memory(), &self.director.memory()) {
            Ok(journal) => Some(journal),
            Err(error) => {
                error!(%error, action = "trying again", "table not written down");
                None
            }
        };
    }

    /// Looks whether the devices are as they shall be: nobody tells of a program that somebody took
    /// off, or of the other end of a pair that stopped to poll.
    pub fn look_at_devices(&mut self) {
        if self.known {
            self.attach();
        }
    }

    fn attach(&mut self) {
        let options = &self.options;
        let wanted = self.director.devices(|link| options.setting(&link.name));
        // Before the first frame comes: of a device that is not known any address is ours.
        self.ports.settle(&wanted);
        let leaves = self.director.looks_at_what_leaves();
        for changed in self.attachments.settle(&mut self.object, &wanted, leaves) {
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

    /// Whether there are large pools.
    #[must_use]
    pub fn has_short_lists(&self) -> bool {
        self.director.has_short_lists()
    }

    /// Lays the servers of large pools with the least load in front.
    pub fn compile_short_lists(&mut self) {
        let tick = self.tick();
        self.director.compile_short_lists(&self.tables, tick);
    }

    fn settings(&self) -> Settings {
        self.director.settings()
    }

    fn glance(&self) -> Glance {
        Glance {
            shared: self.tables.shared.clone(),
            settings: self.settings(),
            now: self.tick(),
            tick_ns: clock::tick_ns(self.object.made.jiffies_rate),
            ended: self.director.ended(),
            stretch: None,
        }
    }

    /// Where half-open connections are to be taken out, if they are.
    fn stretch(&mut self) -> Option<Stretch> {
        let seconds = self.dropping.elapsed().as_secs();
        if !self.director.defences().drop_entry || seconds == 0 {
            return None;
        }
        self.dropping = Instant::now();
        let anywhere = RandomState::new().build_hasher().finish();
        let seconds = u32::try_from(seconds).unwrap_or(u32::MAX);
        Some(Stretch::new(anywhere as u32, seconds.min(32)))
    }

    /// Begins a sweep beside the task; the answer goes to [`Self::swept`].
    pub fn sweep(&mut self) -> tokio::task::JoinHandle<(Found, Swept)> {
        let glance = Glance {
            stretch: self.stretch(),
            ..self.glance()
        };
        let mut swept = std::mem::take(&mut self.swept);
        tokio::task::spawn_blocking(move || {
            let found = sweep::sweep(glance.look(), &mut swept);
            (found, swept)
        })
    }

    pub fn swept(&mut self, found: Found, swept: Swept) {
        self.swept = swept;
        self.director.unused(&found.services, &found.servers);
        self.director.unused_hops(&found.hops);
        self.director.pools_settled();
        self.director
            .filled(fullness(&found, &self.object.made.capacity));
        self.dropped += found.dropped;
        self.found = found;
        match &mut self.journal {
            Some(journal) => journal.tend(),
            None => self.remember_all(),
        }
    }

    fn counted(&self, key: &ServiceKey, at: ServerAddress) -> Counters {
        let ids = self.director.server_ids(key, at);
        ids.into_iter().fold(Counters::default(), |sum, id| {
            sum + self.tables.counters(id)
        })
    }

    /// Answers a question of the API.
    pub fn answer(&mut self, ask: Ask) {
        match ask {
            Ask::Change(change, answer) => {
                let result = self.change(&change);
                let awaited =
                    waiting::server(&change).filter(|(key, at)| self.director.is_awaited(key, *at));
                match (result, awaited) {
                    (Ok(done), Some(server)) => self.waiting.hold(server, answer, done),
                    (result, _) => drop(answer.send(result)),
                }
            }
            Ask::Services(key, answer) => {
                let _ = answer.send(self.services(key));
            }
            Ask::Connections(lines) => self.connections(lines),
            Ask::Count(answer) => self.count(answer),
            Ask::Timeouts(answer) => {
                let _ = answer.send(self.director.table().timeouts());
            }
            Ask::Settings(answer) => {
                let _ = answer.send(self.director.table().settings());
            }
            Ask::Marks(answer) => {
                let _ = answer.send(self.director.table().marks().copied().collect());
            }
            Ask::Locals(answer) => {
                let _ = answer.send(self.director.table().locals().collect());
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
        let mut result = self.director.change(change, &self.tables, Instant::now());
        let is_full = matches!(&result, Err(refusal) if refusal.reason == Reason::NoRoom);
        if is_full && rcu::wait() {
            // Pools that were left a moment ago are nobody's any more.
            self.director.pools_settled();
            self.director.pools_settled();
            result = self.director.change(change, &self.tables, Instant::now());
        }
        if let (Ok(_), Change::Zero { key }) = (&result, change) {
            self.zero(*key);
        }
        if result.is_ok() {
            self.samples.follow(change);
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
            Change::Flush => self.zero(None),
            _ => {}
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
        match key {
            Some(key) => drop(self.retired.remove(&key)),
            None => self.retired.clear(),
        }
    }
}
