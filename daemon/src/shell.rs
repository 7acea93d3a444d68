//! The daemon's task: it carries out the director's writes in the kernel, and gives the kernel's
//! events to the director.

mod answers;
mod changes;
mod keeper;
mod retired;
mod samples;

use std::collections::BTreeSet;
use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::sync::Arc;
use std::time::Instant;

use shunt_control::answers::Answers;
use shunt_control::director::effects::Fullness;
use shunt_control::director::{Clock, Director, Output, Step, Write};
use shunt_control::dropping::Dropping;
use shunt_control::network;
use shunt_control::programs::{Loading, needed};
use shunt_control::retired::Retired;
use shunt_control::table::{Limits, Table};
use shunt_control::unclaimed::Unclaimed;
use shunt_datapath::entry::Settings;
use shunt_datapath::sweep::{Found, Memory as Swept, Stretch};
use shunt_model::api::Refusal;
use shunt_model::event::Fact;
use shunt_model::program::Program;
use shunt_model::{Counters, ServerAddress, ServiceKey};
use tracing::{debug, error};

use crate::api::Ask;
use crate::chain::chain;
use crate::events::Events;
use crate::journal::{Record, Saved};
use crate::kernel::attach::Attachments;
use crate::kernel::callers;
use crate::kernel::clock;
use crate::kernel::object::{Capacity, Object};
use crate::kernel::place::Place;
use crate::kernel::ports::{self, Ports};
use crate::kernel::succession;
use crate::kernel::sweep::{self, Look};
use crate::kernel::tables::{self, Shared, Tables};
use crate::memory::Recalled;
use crate::netlink::Prober;
use crate::options::{Callers, Options};
use changes::Asked;
use keeper::Keeper;
use samples::Samples;

/// Why the daemon's task cannot begin.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Tables(#[from] tables::Error),
    #[error(transparent)]
    Ports(#[from] ports::Error),
    #[error("cannot take up the table of the daemon before")]
    Resume(#[source] Refusal),
}

/// Sends an answer to a client of the API.
type Answer = Box<dyn FnOnce() + Send>;

/// The state of the daemon's task.
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
    /// The counters of deleted servers, which their services still include.
    retired: Retired,
    samples: Samples,
    found: Found,
    swept: Swept,
    known: bool,
    /// The devices were checked at least once.
    settled: bool,
    keeper: Keeper,
    unclaimed: Unclaimed,
    answers: Answers<Answer>,
    events: Events,
    /// Programs that are not there yet, and the changes that wait for them.
    loading: Loading<Asked>,
    /// When half-open connections were last removed early, and how many were.
    dropping: Dropping,
    dropped: u64,
    /// Why processes on this machine get no servers, although the options ask for it.
    callers: Option<String>,
    /// The journal was begun anew since the last batch was written down.
    begun_anew: bool,
}

/// The data with which another thread reads the flows.
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

/// The fullness of the fuller flow table: IPv4 or IPv6.
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
    /// Takes over the packet path, with the state that an earlier daemon saved.
    pub fn new(
        options: Options,
        place: Place,
        object: Object,
        missing: BTreeSet<Program>,
        recalled: Recalled,
        prober: Prober,
    ) -> Result<Self, Error> {
        let tables = Tables::open(&place, object.made.clone())?;
        let now = Instant::now();
        let sizes = object.made.capacity.sizes;
        let clock = Clock {
            tick_ns: clock::tick_ns(object.made.jiffies_rate),
        };
        let table = Table::new(Limits::default());
        let saved = recalled.saved.unwrap_or_default();
        let mut memory = saved.memory;
        let has_orphans = recalled.is_lossy || !saved.unclaimed.is_empty();
        if has_orphans {
            memory.nobodys = tables.ids();
        }
        let is_known = !memory.changes.is_empty() || has_orphans;
        let director = match is_known {
            true => {
                let pool = |service| tables.pool_of(service);
                Director::resume(memory, table, sizes, clock, &tables, pool, now)
                    .map_err(Error::Resume)?
            }
            false => Director::new(table, sizes, clock, now),
        };
        let attachments = Attachments::new(place.clone());
        let ports = Ports::open(&place)?;
        let keeper = Keeper::new(&place, recalled.losses);
        let unclaimed = Unclaimed::new(tables.endpoints(), &tables.settings(), has_orphans);
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
            retired: Retired::new(saved.retired),
            samples: Samples::default(),
            found: Found::default(),
            swept: Swept::default(),
            known: false,
            settled: false,
            keeper,
            unclaimed,
            answers: Answers::default(),
            events: Events::default(),
            loading: Loading::new(missing),
            dropping: Dropping::new(now),
            dropped: 0,
            callers: None,
            begun_anew: false,
        };
        shell.remember_all();
        // The programs for callers can be detached without tables or devices.
        if shell.options.callers == Callers::Off {
            shell.give_servers_to_callers();
        }
        Ok(shell)
    }

    /// The latest time at which the director must be called.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        let deadlines = [self.director.deadline(), self.answers.deadline()];
        deadlines.into_iter().flatten().min()
    }

    /// Gives an event of the network to the director.
    pub fn network(&mut self, input: network::Input) {
        let complete = input == network::Input::ResyncEnd;
        self.director.network_event(input, Instant::now());
        if complete && !self.known {
            self.known = true;
            self.director.network_known();
        }
    }

    /// Carries out the director's outputs. Endpoints without a service stay until a sweep.
    pub fn carry_out(&mut self) {
        let mut look = false;
        while let Some(output) = self.director.poll() {
            match output {
                Output::Write(write) => {
                    self.unclaimed.follow(&write);
                    let write = self.unclaimed.with_theirs(write);
                    debug!(?write, "table written");
                    if let Err(error) = self.tables.write(&write) {
                        error!(error = chain(&error), "packet path not as it should be");
                    }
                }
                Output::Probe {
                    interface,
                    neighbour,
                } => self.prober.probe(interface, neighbour),
                Output::Devices => look = true,
                Output::Pool(service) => self.director.renew(&service, &self.tables),
                Output::Remember(step) => self.remember(step),
                Output::Event(fact) => self.events.add(fact),
            }
        }
        if look && self.known {
            self.attach();
        }
        let director = &self.director;
        let is_awaited = |key: &ServiceKey, at| director.is_awaited(key, at);
        for answer in self.answers.due(is_awaited, Instant::now()) {
            answer();
        }
    }

    fn remember(&mut self, step: Step) {
        let records = step.records().into_iter().map(Record::Director);
        let retired = self.retired.take_news().into_iter();
        let retired = retired.map(|(key, counters)| Record::Retired(key, counters));
        let records: Vec<Record> = records.chain(retired).collect();
        if !self.keeper.add(&records) {
            self.remember_all();
        }
    }

    /// Writes the whole state into a fresh journal: at the start, and after a record could not be
    /// added.
    fn remember_all(&mut self) {
        let saved = Saved {
            memory: self.director.snapshot(),
            retired: self.retired.all().clone(),
            unclaimed: self.unclaimed.kept(),
            path: Some(self.object.made.clone()),
        };
        self.keeper.begin(&saved);
        self.begun_anew = true;
    }

    /// Checks the programs of all devices. The kernel sends no event when somebody detaches a
    /// program, when a foreign program that was in the way goes, or when the peer of a veth stops
    /// polling.
    pub fn look_at_devices(&mut self) {
        if self.known {
            self.attach();
        }
    }

    fn attach(&mut self) {
        let options = &self.options;
        let wanted = self.director.devices(|link| options.setting(&link.name));
        // This comes before the programs: for an unknown device, the packet path takes every MAC
        // address as its own.
        self.ports.settle(&wanted);
        let leaves = self.director.looks_at_what_leaves();
        for changed in self.attachments.settle(&mut self.object, &wanted, leaves) {
            let (name, text) = (changed.device.name.clone(), changed.device.hook_text());
            self.events.add(match changed.device.hook {
                Some(_) => Fact::DeviceAttached {
                    device: name,
                    hook: text,
                },
                None => Fact::DeviceNotAttached {
                    device: name,
                    why: text,
                },
            });
        }
        if !self.settled {
            self.settled = true;
            if !self.loading.is_loading(Program::Callers) {
                self.give_servers_to_callers();
            }
            // All tables are written, and every device has our programs.
            if succession::finish(&self.place) {
                self.tables.occupy_all();
            }
        }
    }

    fn give_servers_to_callers(&mut self) {
        let wanted = self.options.callers == Callers::On;
        let error = callers::settle(&self.place, wanted).err();
        self.callers = error.map(|error| chain(&error));
        if let Some(why) = &self.callers {
            self.events
                .add(Fact::CallersWithoutServers { why: why.clone() });
        }
    }

    /// The service manager hears that the director is ready.
    pub fn announce_ready(&mut self) {
        self.events.add(Fact::DirectorReady);
    }

    /// Whether the first full account of the network has arrived and is carried out.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.known
    }

    fn tick(&self) -> u32 {
        match clock::jiffies(&self.object.clock) {
            Ok(jiffies) => clock::tick(jiffies, self.object.made.tick_shift),
            Err(error) => {
                error!(error = chain(&error), "clock not read");
                0
            }
        }
    }

    /// Whether there are large pools.
    #[must_use]
    pub fn has_short_lists(&self) -> bool {
        self.director.has_short_lists()
    }

    /// Moves the servers with the least load to the front of large pools.
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

    /// The part of the table whose half-open connections the next sweep removes, if any.
    fn stretch(&mut self) -> Option<Stretch> {
        let is_active = self.director.defences().drop_entry;
        let random = RandomState::new().build_hasher().finish() as u32;
        self.dropping.stretch(is_active, random, Instant::now())
    }

    /// Starts a sweep on another thread. The caller gives its result to [`Self::swept`].
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
        if self.settled {
            self.take_out_unclaimed();
        }
        if !self.keeper.tend() {
            self.remember_all();
        }
    }

    /// Removes endpoints without a service from the packet path, unless the record of their service
    /// may be lost.
    fn take_out_unclaimed(&mut self) {
        for (address, word) in self.unclaimed.take_leftovers() {
            let write = Write::EndpointRemove { address, word };
            if let Err(error) = self.tables.write(&write) {
                error!(error = chain(&error), "packet path not as it should be");
            }
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
                self.loading
                    .ask(needed([&*change]), Asked::Change(change, answer));
                self.make_changes();
            }
            Ask::Batch(batch, answer) => {
                self.loading
                    .ask(needed(&batch.changes), Asked::Batch(batch, answer));
                self.make_changes();
            }
            Ask::Services(key, answer) => {
                let _ = answer.send(self.services(key));
            }
            Ask::Connections(lines, place) => self.connections(lines, place),
            Ask::Count(answer, place) => self.count(answer, place),
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
            Ask::Events(answer) => {
                let _ = answer.send(self.events.listen());
            }
        }
    }
}
