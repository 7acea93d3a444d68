//! The node: all machines of control as one.
//!
//! An [`Input`] goes in and [`Output`]s come out, both plain data: reading these two enums is
//! reading what control can hear and do. The node hands each input to the machines that it
//! concerns, and orders their outputs. Each machine owns its fields. `forward` computes the tables
//! of the packet path, `turn.rs` makes changes one after the other, and the small machines are
//! beside them: `programs`, `answers`, `retired`, `unclaimed`, `unwritten`, `dropping`, `samples`.
//! None of them reads a clock. What they read from the live packet path, they read by [`Running`],
//! so that a [`recording::Recording`] can note it and replay it.

mod reads;
pub mod recording;
#[cfg(test)]
mod tests;
mod turn;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;
use std::time::Instant;

use serde::{Deserialize, Serialize};
use shunt_datapath::entry::Settings;
use shunt_datapath::sweep::{Found, Stretch};
use shunt_model::api::{Done, Refusal};
use shunt_model::batch::{self, Batch};
use shunt_model::change::Change;
use shunt_model::event::Fact;
use shunt_model::program::Program;
use shunt_model::{Counters, ServiceKey};

use crate::answers::Answers;
use crate::director::effects::Fullness;
use crate::director::{self, Director, Remembered, Running, Step, Write};
use crate::dropping::Dropping;
use crate::network;
use crate::programs::{Loading, needed};
use crate::retired::Retired;
use crate::samples::Samples;
use crate::unclaimed::Unclaimed;
use crate::unwritten::Unwritten;
use turn::{Asked, Turn};

/// What the node can hear.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Input {
    /// Somebody asks for a change. [`Output::Answer`] has the same ticket.
    Change {
        /// A number that no other change or batch in hand has.
        ticket: u64,
        /// The change.
        change: Box<Change>,
    },
    /// Somebody asks for several changes.
    Batch {
        /// A number that no other change or batch in hand has.
        ticket: u64,
        /// The changes and their mode.
        batch: Batch,
    },
    /// Answers [`Output::Reserve`] and [`Output::WriteDown`]: whether the journal has the room.
    Reserved(Result<(), Refusal>),
    /// Answers [`Output::LetPacketsPass`]: whether every packet that was under way is through.
    PacketsPassed(bool),
    /// Answers [`Output::Confirm`]. The error is why a change that is in force cannot be kept.
    Confirmed(Result<(), Refusal>),
    /// A table refused the write that was put out last.
    Refused {
        /// The error of the table, for the operator.
        why: String,
    },
    /// Answers [`Output::Compile`].
    Compile(ServiceKey),
    /// The network changed, or time passed.
    Network(network::Input),
    /// A program of the packet path was loaded, or the kernel refused it.
    Loaded {
        /// What the program is for.
        program: Program,
        /// The kernel's reason if it was refused.
        result: Result<(), String>,
    },
    /// The devices have their programs for the first time, and all tables are written.
    DevicesAttached,
    /// A sweep can begin. `random` is a random number.
    SweepDue {
        /// Where the part of the table begins that `drop_entry` looks at.
        random: u32,
    },
    /// A sweep ended.
    Swept(Box<Swept>),
    /// The counters of all server ids are read. Samples make rates, which no output depends on, so
    /// a recording leaves them out.
    Sampled(Vec<Counters>),
    /// There is time for a piece of the sample.
    TakeSample,
}

impl Input {
    /// Whether the input only concerns rates.
    #[must_use]
    pub fn is_sample(&self) -> bool {
        matches!(self, Input::Sampled(_) | Input::TakeSample)
    }
}

/// What the caller must do.
#[derive(Clone, Debug, PartialEq)]
pub enum Output {
    /// Make this write, after all earlier ones.
    Write(Write),
    /// Make the kernel resolve this neighbour.
    Probe {
        /// The kernel's index of the link.
        interface: u32,
        /// The neighbour's address on that link.
        neighbour: IpAddr,
    },
    /// Attach programs to the devices again ([`Director::devices`]).
    Devices,
    /// Answer with [`Input::Compile`], after the outputs before this one.
    Compile(ServiceKey),
    /// Write this to the journal. It comes before the writes that it belongs to.
    Remember {
        /// The changes, and the ids that they altered.
        step: Step,
        /// Services whose counters of deleted servers changed.
        retired: Vec<(ServiceKey, Option<Counters>)>,
    },
    /// Reserve room in the journal for these changes: [`Input::Reserved`].
    Reserve {
        /// The changes that are about to be made.
        changes: Vec<Change>,
    },
    /// Write a whole batch to the journal, before it is made: [`Input::Reserved`].
    WriteDown {
        /// All changes of the batch.
        changes: Vec<Change>,
    },
    /// Wait for the packets that are under way: [`Input::PacketsPassed`].
    LetPacketsPass,
    /// Everything that belongs to what is made is put out: [`Input::Confirmed`].
    Confirm(Made),
    /// What happened, for people and programs.
    Event(Fact),
    /// Answer who asked with this ticket.
    Answer {
        /// The ticket of the change or batch.
        ticket: u64,
        /// What became of it.
        reply: Reply,
    },
    /// Begin a sweep; [`Input::Swept`] has what it found.
    Sweep(Sweep),
}

/// What was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Made {
    /// A change that stands alone.
    Change(Change),
    /// A change of a whole batch, which is confirmed with the others.
    Part,
    /// All changes of a whole batch.
    Whole(Vec<Change>),
    /// A whole batch that the journal has was undone: write the whole state into a fresh journal.
    Undone,
}

/// The answer to who asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// To one change.
    Change(Result<Done, Refusal>),
    /// To a batch. The error is a reason that is not that of one change.
    Batch(Result<batch::Answer, Refusal>),
}

/// What a sweep must know.
#[derive(Clone, Debug, PartialEq)]
pub struct Sweep {
    /// The settings of the packet path, with the timeouts of the states.
    pub settings: Settings,
    /// Servers whose connections end.
    pub ended: BTreeSet<u32>,
    /// The part of the table whose half-open connections are removed before their time.
    pub stretch: Option<Stretch>,
}

/// What a sweep found, as far as the node needs it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Swept {
    /// Entries of both families.
    pub used: u64,
    /// Entries of IPv6.
    pub used6: u64,
    /// Services that entries name, by their ids or endpoints.
    pub services: BTreeSet<u32>,
    /// Servers that entries name, by their ids.
    pub servers: BTreeSet<u32>,
    /// Hops to clients that way-back entries name, a bit each.
    pub hops: Remembered,
}

impl Swept {
    /// Takes the ids out of what a sweep found, since there may be many.
    #[must_use]
    pub fn take(found: &mut Found) -> Self {
        Self {
            used: found.used,
            used6: found.used6,
            services: std::mem::take(&mut found.services),
            servers: std::mem::take(&mut found.servers),
            hops: found.hops,
        }
    }
}

/// What a node starts from, besides the tables of `forward`.
#[derive(Clone, Debug, Default)]
pub struct Start {
    /// The counters of servers that earlier daemons deleted.
    pub retired: BTreeMap<ServiceKey, Counters>,
    /// Endpoints of the packet path that belong to no service yet.
    pub unclaimed: Unclaimed,
    /// Programs that are not loaded yet.
    pub missing: BTreeSet<Program>,
    /// The places in the connection tables of IPv4 and IPv6.
    pub flows: [u32; 2],
}

/// The composed machines.
#[derive(Clone, Debug)]
pub struct Node {
    forward: Director,
    retired: Retired,
    unclaimed: Unclaimed,
    unwritten: Unwritten,
    dropping: Dropping,
    samples: Samples,
    /// Programs that are not there yet, and the changes that wait for them.
    programs: Loading<(u64, Asked)>,
    /// The changes in hand.
    turn: Option<Turn>,
    /// Answers that wait for a next hop.
    answers: Answers<(u64, Reply)>,
    /// The places in the connection tables of IPv4 and IPv6.
    flows: [u32; 2],
    /// The first full account of the network is in.
    is_known: bool,
    is_attached: bool,
    /// Outputs that come before the outputs of `forward`, and after them.
    first: VecDeque<Output>,
    last: VecDeque<Output>,
    /// When the last input came in.
    now: Instant,
}

impl Node {
    /// A node without a network, until the first account of it is in.
    #[must_use]
    pub fn new(forward: Director, start: Start, now: Instant) -> Self {
        Self {
            forward,
            retired: Retired::new(start.retired),
            unclaimed: start.unclaimed,
            unwritten: Unwritten::default(),
            dropping: Dropping::new(now),
            samples: Samples::default(),
            programs: Loading::new(start.missing),
            turn: None,
            answers: Answers::default(),
            flows: start.flows,
            is_known: false,
            is_attached: false,
            first: VecDeque::new(),
            last: VecDeque::new(),
            now,
        }
    }

    /// Takes in one input.
    pub fn handle(&mut self, input: Input, now: Instant, running: &dyn Running) {
        if !input.is_sample() {
            self.now = now;
        }
        match input {
            Input::Change { ticket, change } => {
                let (needed, asked) = (needed([&*change]), (ticket, Asked::Change(change)));
                self.programs.ask(needed, asked);
            }
            Input::Batch { ticket, batch } => {
                let needed = needed(&batch.changes);
                self.programs.ask(needed, (ticket, Asked::Batch(batch)));
            }
            Input::Reserved(result) => self.reserved(result, running),
            Input::PacketsPassed(is_through) => self.packets_passed(is_through, running),
            Input::Confirmed(result) => self.confirmed(result, running),
            Input::Refused { why } => self.write_refused(why),
            Input::Compile(service) => self.forward.renew(&service, running),
            Input::Network(input) => self.network(input),
            Input::Loaded { program, result } => self.programs.loaded(program, result),
            Input::DevicesAttached => self.is_attached = true,
            Input::SweepDue { random } => self.sweep(random),
            Input::Swept(swept) => self.swept(&swept),
            Input::Sampled(counters) => self.samples.begin(counters),
            Input::TakeSample => self.samples.take(&self.forward, &self.retired),
        }
        self.begin_turns(running);
    }

    /// What the caller must do; call it until it returns `None`.
    pub fn poll(&mut self) -> Option<Output> {
        let output = self.next()?;
        if let Output::Write(write) = &output {
            self.unwritten.put_out(write);
        }
        Some(output)
    }

    fn next(&mut self) -> Option<Output> {
        if let Some(output) = self.first.pop_front() {
            return Some(output);
        }
        if let Some(output) = self.forward.poll() {
            return Some(self.pass_on(output));
        }
        if self.retired.has_news() {
            let (step, retired) = (Step::default(), self.retired.take_news());
            return Some(Output::Remember { step, retired });
        }
        if let Some(output) = self.last.pop_front() {
            return Some(output);
        }
        if let Some(question) = self.question() {
            return Some(question);
        }
        let forward = &self.forward;
        let is_awaited = |key: &ServiceKey, at| forward.is_awaited(key, at);
        let due = self.answers.due(is_awaited, self.now).into_iter();
        self.last
            .extend(due.map(|(ticket, reply)| Output::Answer { ticket, reply }));
        self.last.pop_front()
    }

    /// When to call [`Node::handle`] at the latest, with [`network::Input::Tick`] if there is no
    /// other input.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        let deadlines = [self.forward.deadline(), self.answers.deadline()];
        deadlines.into_iter().flatten().min()
    }

    /// The machine that computes the tables of the packet path, for questions.
    #[must_use]
    pub fn forward(&self) -> &Director {
        &self.forward
    }

    /// The counters of deleted servers, for questions.
    #[must_use]
    pub fn retired(&self) -> &Retired {
        &self.retired
    }

    /// The endpoints without a service, for questions.
    #[must_use]
    pub fn unclaimed(&self) -> &Unclaimed {
        &self.unclaimed
    }

    /// The rates, for questions.
    #[must_use]
    pub fn samples(&self) -> &Samples {
        &self.samples
    }

    /// The programs that are missing, for questions.
    #[must_use]
    pub fn programs(&self) -> &Loading<(u64, Asked)> {
        &self.programs
    }

    /// Whether the first full account of the network is in.
    #[must_use]
    pub fn is_known(&self) -> bool {
        self.is_known
    }

    fn network(&mut self, input: network::Input) {
        let is_complete = input == network::Input::ResyncEnd;
        self.forward.network_event(input, self.now);
        if is_complete && !self.is_known {
            self.is_known = true;
            self.forward.network_known();
        }
    }

    fn sweep(&mut self, random: u32) {
        let is_active = self.forward.defences().drop_entry;
        let sweep = Sweep {
            settings: self.forward.settings(),
            ended: self.forward.ended(),
            stretch: self.dropping.stretch(is_active, random, self.now),
        };
        self.last.push_back(Output::Sweep(sweep));
    }

    fn swept(&mut self, swept: &Swept) {
        self.forward.unused(&swept.services, &swept.servers);
        self.forward.unused_hops(&swept.hops);
        self.forward.pools_settled();
        let used = [swept.used.saturating_sub(swept.used6), swept.used6];
        self.forward.filled(Fullness::of_fuller(used, self.flows));
        if self.is_attached {
            let leftovers = self.unclaimed.take_leftovers().into_iter();
            let remove = |(address, word)| Write::EndpointRemove { address, word };
            self.first.extend(leftovers.map(remove).map(Output::Write));
        }
        let (writes, fact) = self.unwritten.due();
        self.last.extend(writes.into_iter().map(Output::Write));
        self.last.extend(fact.map(Output::Event));
    }

    /// An output of `forward`, with what the machines beside it add.
    fn pass_on(&mut self, output: director::Output) -> Output {
        match output {
            director::Output::Write(write) => {
                self.unclaimed.follow(&write);
                Output::Write(self.unclaimed.with_theirs(write))
            }
            director::Output::Probe {
                interface,
                neighbour,
            } => Output::Probe {
                interface,
                neighbour,
            },
            director::Output::Devices => Output::Devices,
            director::Output::Pool(service) => Output::Compile(service),
            director::Output::Remember(step) => Output::Remember {
                step,
                retired: self.retired.take_news(),
            },
            director::Output::Event(fact) => Output::Event(fact),
        }
    }
}
