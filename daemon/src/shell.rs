//! The daemon's task: it carries out the node's outputs in the kernel, and gives the kernel's
//! events to the node.

mod answers;
mod changes;
mod keeper;
mod samples;

use std::collections::hash_map::RandomState;
use std::collections::{BTreeMap, BTreeSet};
use std::hash::{BuildHasher, Hasher};
use std::sync::Arc;
use std::time::Instant;

use shunt_control::director::{Clock, Director, Step, Write};
use shunt_control::network;
use shunt_control::node::recording::{Fresh, Recording};
use shunt_control::node::{Input, Node, Output, Start, Sweep, Swept};
use shunt_control::table::{Limits, Table};
use shunt_control::unclaimed::Unclaimed;
use shunt_datapath::entry::Settings;
use shunt_datapath::sweep::{Found, Memory, Stretch};
use shunt_model::api::Refusal;
use shunt_model::event::Fact;
use shunt_model::program::Program;
use shunt_model::{Counters, ServiceKey};
use tracing::{debug, error};

use crate::api::Ask;
use crate::chain::chain;
use crate::events::Events;
use crate::journal::{Record, Saved};
use crate::kernel::attach::Attachments;
use crate::kernel::callers;
use crate::kernel::clock;
use crate::kernel::object::Object;
use crate::kernel::place::Place;
use crate::kernel::ports::{self, Ports};
use crate::kernel::rcu;
use crate::kernel::succession;
use crate::kernel::sweep::{self, Look};
use crate::kernel::tables::{self, Shared, Tables};
use crate::memory::Recalled;
use crate::netlink::Prober;
use crate::options::{Callers, Options};
use changes::Waiting;
use keeper::Keeper;

/// Why the daemon's task cannot begin.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error(transparent)]
    Tables(#[from] tables::Error),
    #[error(transparent)]
    Ports(#[from] ports::Error),
    #[error("cannot take up the table of the daemon before")]
    Resume(#[source] Refusal),
}

/// The state of the daemon's task.
pub(crate) struct Shell {
    pub options: Options,
    pub place: Place,
    object: Object,
    tables: Tables,
    node: Node,
    recording: Recording,
    attachments: Attachments,
    ports: Ports,
    prober: Prober,
    begun: Instant,
    found: Found,
    /// What a sweep remembers for the next one.
    memory: Memory,
    /// The devices were checked at least once.
    settled: bool,
    keeper: Keeper,
    events: Events,
    /// Clients that wait for an answer, by ticket. Each waits for at most one, so the clients that
    /// the API admits are the limit.
    waiting: BTreeMap<u64, Waiting>,
    next_ticket: u64,
    /// The sweep that the node asked for.
    due: Option<Sweep>,
    /// The number of half-open connections that were removed early.
    dropped: u64,
    /// Why processes on this machine get no servers, although the options ask for it.
    callers: Option<String>,
    /// The journal was begun anew since the last batch was written down.
    begun_anew: bool,
}

/// What the node begins with if there is no state of an earlier daemon.
fn fresh(object: &Object, missing: BTreeSet<Program>) -> Fresh {
    let capacity = object.made.capacity;
    Fresh {
        sizes: capacity.sizes,
        tick_ns: clock::tick_ns(object.made.jiffies_rate),
        missing,
        flows: [capacity.flows4, capacity.flows6],
    }
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

impl Shell {
    /// Takes over the packet path, with the state that an earlier daemon saved.
    pub(crate) fn new(
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
        let capacity = object.made.capacity;
        let is_fresh = !is_known && tables.endpoints().is_empty();
        let fresh = is_fresh.then(|| fresh(&object, missing.clone()));
        let start = Start {
            retired: saved.retired,
            unclaimed: Unclaimed::new(tables.endpoints(), &tables.settings(), has_orphans),
            missing,
            flows: [capacity.flows4, capacity.flows6],
        };
        let mut shell = Self {
            options,
            object,
            tables,
            node: Node::new(director, start, now),
            recording: Recording::new(fresh, now),
            attachments: Attachments::new(place.clone()),
            ports: Ports::open(&place)?,
            prober,
            begun: now,
            found: Found::default(),
            memory: Memory::default(),
            settled: false,
            keeper: Keeper::new(&place, recalled.losses),
            events: Events::default(),
            waiting: BTreeMap::new(),
            next_ticket: 0,
            due: None,
            dropped: 0,
            callers: None,
            begun_anew: false,
            place,
        };
        shell.remember_all();
        // The programs for callers can be detached without tables or devices.
        if shell.options.callers == Callers::Off {
            shell.give_servers_to_callers();
        }
        Ok(shell)
    }

    /// The latest time at which [`Self::network`] must be called.
    #[must_use]
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.node.deadline()
    }

    /// Gives an event of the network to the node.
    pub(crate) fn network(&mut self, input: network::Input) {
        self.handle(Input::Network(input));
    }

    fn handle(&mut self, input: Input) {
        let (node, now) = (&mut self.node, Instant::now());
        self.recording.handle(node, input, now, &self.tables);
    }

    /// Carries out the node's outputs. Endpoints without a service stay until a sweep.
    pub(crate) fn carry_out(&mut self) {
        let mut look = false;
        while let Some(output) = self.recording.poll(&mut self.node) {
            match output {
                Output::Write(write) => {
                    if let Err(why) = self.write(&write) {
                        self.handle(Input::Refused { why });
                    }
                }
                Output::Probe {
                    interface,
                    neighbour,
                } => self.prober.probe(interface, neighbour),
                Output::Devices => look = true,
                Output::Compile(service) => self.handle(Input::Compile(service)),
                Output::Remember { step, retired } => self.remember(step, retired),
                Output::Reserve { changes } => {
                    let result = self.keep_room(&changes);
                    self.handle(Input::Reserved(result));
                }
                Output::WriteDown { changes } => {
                    let result = self.write_down(&changes);
                    self.handle(Input::Reserved(result));
                }
                Output::LetPacketsPass => self.handle(Input::PacketsPassed(rcu::wait())),
                Output::Confirm(made) => {
                    let result = self.confirm(&made);
                    self.handle(Input::Confirmed(result));
                }
                Output::Event(fact) => self.events.add(fact),
                Output::Answer { ticket, reply } => self.reply(ticket, reply),
                Output::Sweep(sweep) => self.due = Some(sweep),
            }
        }
        if look && self.node.is_known() {
            self.attach();
        }
    }

    /// Carries out a write. The error is why the table refuses it.
    fn write(&mut self, write: &Write) -> Result<(), String> {
        let done = self.tables.write(write).map_err(|error| chain(&error));
        debug!(?write, ?done, "table written");
        done
    }

    fn remember(&mut self, step: Step, retired: Vec<(ServiceKey, Option<Counters>)>) {
        let records = step.records().into_iter().map(Record::Director);
        let retired = retired.into_iter();
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
            memory: self.node.forward().snapshot(),
            retired: self.node.retired().all().clone(),
            unclaimed: self.node.unclaimed().kept(),
            path: Some(self.object.made.clone()),
        };
        self.keeper.begin(&saved);
        self.begun_anew = true;
    }

    /// Checks the programs of all devices. The kernel sends no event when somebody detaches a
    /// program, when a foreign program that was in the way goes, or when the peer of a veth stops
    /// polling.
    pub(crate) fn look_at_devices(&mut self) {
        if self.node.is_known() {
            self.attach();
        }
    }

    fn attach(&mut self) {
        let options = &self.options;
        let forward = self.node.forward();
        let wanted = forward.devices(|link| options.setting(&link.name));
        // This comes before the programs: for an unknown device, the packet path takes every MAC
        // address as its own.
        self.ports.settle(&wanted);
        let leaves = self.node.forward().looks_at_what_leaves();
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
            self.handle(Input::DevicesAttached);
            if !self.node.programs().is_loading(Program::Callers) {
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
    pub(crate) fn announce_ready(&mut self) {
        self.events.add(Fact::DirectorReady);
    }

    /// Whether the first full account of the network has arrived and is carried out.
    #[must_use]
    pub(crate) fn is_ready(&self) -> bool {
        self.node.is_known()
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
    pub(crate) fn has_short_lists(&self) -> bool {
        self.node.forward().has_short_lists()
    }

    /// Moves the servers with the least load to the front of large pools.
    pub(crate) fn compile_short_lists(&mut self) {
        let tick = self.tick();
        for write in self.node.forward().short_lists(&self.tables, tick) {
            if let Err(error) = self.write(&write) {
                error!(error, "short list not written");
            }
        }
    }

    fn glance(&self) -> Glance {
        let forward = self.node.forward();
        self.glance_for(Sweep {
            settings: forward.settings(),
            ended: forward.ended(),
            stretch: None,
        })
    }

    fn glance_for(&self, sweep: Sweep) -> Glance {
        Glance {
            shared: self.tables.shared.clone(),
            settings: sweep.settings,
            now: self.tick(),
            tick_ns: clock::tick_ns(self.object.made.jiffies_rate),
            ended: sweep.ended,
            stretch: sweep.stretch,
        }
    }

    /// Starts a sweep on another thread. The caller gives its result to [`Self::swept`].
    pub(crate) fn sweep(&mut self) -> Option<tokio::task::JoinHandle<(Found, Memory)>> {
        let random = RandomState::new().build_hasher().finish() as u32;
        self.handle(Input::SweepDue { random });
        self.carry_out();
        let due = self.due.take()?;
        let glance = self.glance_for(due);
        let mut memory = std::mem::take(&mut self.memory);
        Some(tokio::task::spawn_blocking(move || {
            let found = sweep::sweep(glance.look(), &mut memory);
            (found, memory)
        }))
    }

    pub(crate) fn swept(&mut self, mut found: Found, memory: Memory) {
        self.memory = memory;
        self.handle(Input::Swept(Box::new(Swept::take(&mut found))));
        self.dropped += found.dropped;
        self.found = found;
        self.ports.review(Instant::now());
        if !self.keeper.tend() {
            self.remember_all();
        }
    }

    /// Answers a question of the API.
    pub(crate) fn answer(&mut self, ask: Ask) {
        match ask {
            Ask::Change(change, answer) => {
                let ticket = self.wait(Waiting::Change(answer));
                self.handle(Input::Change { ticket, change });
            }
            Ask::Batch(batch, answer) => {
                let ticket = self.wait(Waiting::Batch(answer));
                let batch = *batch;
                self.handle(Input::Batch { ticket, batch });
            }
            Ask::Services(key, answer) => {
                let _ = answer.send(self.services(key));
            }
            Ask::Connections(lines, place) => self.connections(lines, place),
            Ask::Inputs(lines, place) => self.inputs(lines, place),
            Ask::Count(answer, place) => self.count(answer, place),
            Ask::Timeouts(answer) => {
                let _ = answer.send(self.node.forward().table().timeouts());
            }
            Ask::Settings(answer) => {
                let _ = answer.send(self.node.forward().table().settings());
            }
            Ask::Marks(answer) => {
                let _ = answer.send(self.node.forward().table().marks().copied().collect());
            }
            Ask::Locals(answer) => {
                let _ = answer.send(self.node.forward().table().locals().collect());
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
