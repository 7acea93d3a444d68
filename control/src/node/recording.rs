//! A ring of the last inputs, each with its time and with what the node read from the live packet
//! path. The same inputs and answers make the same outputs, so a recording shows how the node came
//! to what it did: [`Recording::replay`].

use std::collections::{BTreeSet, VecDeque};
use std::mem::size_of;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use shunt_model::change::Change;
use shunt_model::program::Program;

use super::reads::{Noted, Noting};
use super::{Input, Node, Output, Start};
use crate::director::{Clock, Director, Running, Sizes};
use crate::network::{self, objects::Kind};
use crate::table::{Limits, Table};

pub use super::reads::Read;

/// The most inputs that are kept, and the most bytes that they take. The oldest go first. An input
/// that alone takes more is not kept, and with it go all before it.
pub const MOST: usize = 4096;
/// See [`MOST`]. The bytes are estimated from what each input has.
pub const MOST_BYTES: usize = 1 << 20;

/// One input.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Recorded {
    /// The time since the recording began.
    pub after: Duration,
    /// What the node heard.
    pub input: Input,
    /// What the node read from the live packet path, in order.
    pub reads: Vec<Read>,
    /// How often the node was polled before the next input.
    pub polls: u32,
}

/// What a node without the state of an earlier daemon begins with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fresh {
    /// The sizes of the packet path's tables.
    pub sizes: Sizes,
    /// The length of a tick of the packet path's clock.
    pub tick_ns: u64,
    /// Programs that are not loaded yet.
    pub missing: BTreeSet<Program>,
    /// The places in the connection tables of IPv4 and IPv6.
    pub flows: [u32; 2],
}

/// What a recording as text begins with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// When the recording began, in milliseconds since 1970 (UTC).
    pub begun_ms: u64,
    /// The number of inputs before the first one that is kept.
    pub lost: u64,
    /// How often the node was polled before the first input.
    pub polls: u32,
    /// What the node began with; `None` if it took up the state of an earlier daemon.
    pub fresh: Option<Fresh>,
}

/// The last inputs.
#[derive(Clone, Debug)]
pub struct Recording {
    begun: Instant,
    fresh: Option<Fresh>,
    /// How often the node was polled before the first input.
    polls: u32,
    inputs: VecDeque<Recorded>,
    bytes: usize,
    /// The number of inputs that went.
    lost: u64,
    /// The last poll found nothing, so that more of them change nothing.
    is_drained: bool,
}

/// Why a recording does not replay.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "the text of each variant describes it")]
pub enum Unfaithful {
    #[error("the first {0} inputs are lost")]
    Incomplete(u64),
    #[error(
        "the node began with the state of an earlier daemon, which the recording does not have"
    )]
    NotFresh,
    #[error("at input {0}, the node reads other things from the packet path")]
    Diverged(usize),
}

impl Recording {
    /// Begins to record a node. A replay needs the node as it is at this moment, or what a fresh
    /// one began with.
    #[must_use]
    pub fn new(fresh: Option<Fresh>, now: Instant) -> Self {
        Self {
            begun: now,
            fresh,
            polls: 0,
            inputs: VecDeque::new(),
            bytes: 0,
            lost: 0,
            is_drained: false,
        }
    }

    /// Hands an input to the node, and records it unless it only concerns rates.
    pub fn handle(&mut self, node: &mut Node, input: Input, now: Instant, running: &dyn Running) {
        if input.is_sample() {
            return node.handle(input, now, running);
        }
        self.is_drained = false;
        let bytes = bytes(&input);
        let Some(left) = MOST_BYTES.checked_sub(bytes) else {
            node.handle(input, now, running);
            return self.lose_all();
        };
        let noting = Noting::new(running, left / size_of::<Read>());
        let copy = input.clone();
        node.handle(input, now, &noting);
        let Some(reads) = noting.reads() else {
            return self.lose_all();
        };
        self.keep(Recorded {
            after: now.saturating_duration_since(self.begun),
            input: copy,
            reads,
            polls: 0,
        });
    }

    /// Polls the node, and records that.
    pub fn poll(&mut self, node: &mut Node) -> Option<Output> {
        let output = node.poll();
        if !self.is_drained {
            let last = self.inputs.back_mut();
            let polls = last.map_or(&mut self.polls, |last| &mut last.polls);
            *polls = polls.saturating_add(1);
        }
        self.is_drained = output.is_none();
        output
    }

    fn keep(&mut self, recorded: Recorded) {
        self.bytes += all_bytes(&recorded);
        self.inputs.push_back(recorded);
        while self.inputs.len() > MOST || self.bytes > MOST_BYTES {
            let Some(oldest) = self.inputs.pop_front() else {
                break;
            };
            self.bytes -= all_bytes(&oldest);
            self.lost += 1;
        }
    }

    /// Loses the input in hand, and those before it.
    fn lose_all(&mut self) {
        self.lost += self.inputs.len() as u64 + 1;
        self.inputs.clear();
        self.bytes = 0;
    }

    /// When the recording began.
    #[must_use]
    pub fn begun(&self) -> Instant {
        self.begun
    }

    /// The first line of the recording as text.
    #[must_use]
    pub fn head(&self, begun_ms: u64) -> Head {
        Head {
            begun_ms,
            lost: self.lost,
            polls: self.polls,
            fresh: self.fresh.clone(),
        }
    }

    /// The inputs that are kept, the oldest first.
    pub fn inputs(&self) -> impl Iterator<Item = &Recorded> {
        self.inputs.iter()
    }

    /// The number of inputs that went.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.lost
    }

    /// Hands all inputs to a node that is as the recorded one was when the recording began, at
    /// `begun`. Returns its outputs.
    pub fn replay(&self, node: &mut Node, begun: Instant) -> Result<Vec<Output>, Unfaithful> {
        if self.lost > 0 {
            return Err(Unfaithful::Incomplete(self.lost));
        }
        let mut outputs = polled(node, self.polls);
        for (number, recorded) in self.inputs.iter().enumerate() {
            outputs.extend(recorded.replay(number, node, begun)?);
        }
        Ok(outputs)
    }
}

impl Fresh {
    /// The node, before its first input.
    #[must_use]
    pub fn node(&self, now: Instant) -> Node {
        let clock = Clock {
            tick_ns: self.tick_ns,
        };
        let table = Table::new(Limits::default());
        let start = Start {
            missing: self.missing.clone(),
            flows: self.flows,
            ..Start::default()
        };
        Node::new(Director::new(table, self.sizes, clock, now), start, now)
    }
}

impl Head {
    /// The node before the first input, if the recording has all that it depends on, and the
    /// outputs that were polled before that input.
    pub fn node(&self, now: Instant) -> Result<(Node, Vec<Output>), Unfaithful> {
        if self.lost > 0 {
            return Err(Unfaithful::Incomplete(self.lost));
        }
        let fresh = self.fresh.as_ref().ok_or(Unfaithful::NotFresh)?;
        let mut node = fresh.node(now);
        let outputs = polled(&mut node, self.polls);
        Ok((node, outputs))
    }
}

impl Recorded {
    /// Hands this input, which has this number in its recording, to a node. Returns the outputs
    /// that the recorded node made before the next input.
    pub fn replay(
        &self,
        number: usize,
        node: &mut Node,
        begun: Instant,
    ) -> Result<Vec<Output>, Unfaithful> {
        let noted = Noted::new(&self.reads);
        node.handle(self.input.clone(), begun + self.after, &noted);
        match noted.is_faithful() {
            true => Ok(polled(node, self.polls)),
            false => Err(Unfaithful::Diverged(number)),
        }
    }
}

fn polled(node: &mut Node, polls: u32) -> Vec<Output> {
    (0..polls).filter_map(|_| node.poll()).collect()
}

fn all_bytes(recorded: &Recorded) -> usize {
    bytes(&recorded.input) + recorded.reads.len() * size_of::<Read>()
}

/// The memory of a recorded input, about.
fn bytes(input: &Input) -> usize {
    let beside = match input {
        Input::Change { .. } => size_of::<Change>(),
        Input::Batch { batch, .. } => batch.changes.len() * size_of::<Change>(),
        Input::Network(input) => of_network(input),
        Input::Swept(swept) => {
            let ids = swept.services.len() + swept.servers.len();
            size_of_val(swept.as_ref()) + 2 * ids * size_of::<u32>()
        }
        Input::Reserved(Err(refusal)) | Input::Confirmed(Err(refusal)) => refusal.text.len(),
        Input::Loaded {
            result: Err(why), ..
        }
        | Input::Refused { why } => why.len(),
        Input::Reserved(Ok(()))
        | Input::Confirmed(Ok(()))
        | Input::Loaded { result: Ok(()), .. }
        | Input::PacketsPassed(_)
        | Input::Compile(_)
        | Input::DevicesAttached
        | Input::SweepDue { .. }
        | Input::TakeSample => 0,
        Input::Sampled(counters) => size_of_val(counters.as_slice()),
    };
    size_of::<Recorded>() + beside
}

fn of_network(input: &network::Input) -> usize {
    match input {
        network::Input::LinkChanged(link) => link.name.len(),
        network::Input::RouteAdded { route, .. } | network::Input::RouteRemoved(route) => {
            size_of_val(route.paths.as_slice())
        }
        network::Input::ObjectChanged(object) => match &object.kind {
            Kind::Group(members) => size_of_val(members.as_slice()),
            Kind::Path(_) | Kind::Blackhole => 0,
        },
        network::Input::LinkRemoved { .. }
        | network::Input::AddressAdded(_)
        | network::Input::AddressRemoved { .. }
        | network::Input::RuleAdded(_)
        | network::Input::RuleRemoved(_)
        | network::Input::ObjectRemoved { .. }
        | network::Input::NeighbourChanged(_)
        | network::Input::NeighbourRemoved { .. }
        | network::Input::ResyncBegin
        | network::Input::ResyncEnd
        | network::Input::Tick => 0,
    }
}
