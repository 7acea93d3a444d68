//! A ring of the last inputs, each with its time and with what the node read from the live packet
//! path. The same inputs and answers make the same outputs, so a recording shows how the node came
//! to what it did: [`Recording::replay`].

use std::collections::VecDeque;
use std::mem::size_of;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use shunt_model::change::Change;

use super::reads::{Noted, Noting};
use super::{Input, Node, Output};
use crate::director::Running;
use crate::network::{self, objects::Kind};

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

/// The last inputs.
#[derive(Clone, Debug)]
pub struct Recording {
    begun: Instant,
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
    #[error("at input {0}, the node reads other things from the packet path")]
    Diverged(usize),
}

impl Recording {
    /// Begins to record a node. A replay needs the node as it is at this moment.
    #[must_use]
    pub fn new(now: Instant) -> Self {
        Self {
            begun: now,
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
        if let Some(last) = self.inputs.back_mut().filter(|_| !self.is_drained) {
            last.polls = last.polls.saturating_add(1);
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
        match self.lost {
            0 => replay(&self.inputs, node, begun),
            lost => Err(Unfaithful::Incomplete(lost)),
        }
    }
}

/// Hands recorded inputs to a node. Returns its outputs.
pub fn replay<'a>(
    inputs: impl IntoIterator<Item = &'a Recorded>,
    node: &mut Node,
    begun: Instant,
) -> Result<Vec<Output>, Unfaithful> {
    let mut outputs = Vec::new();
    for (number, recorded) in inputs.into_iter().enumerate() {
        let noted = Noted::new(&recorded.reads);
        node.handle(recorded.input.clone(), begun + recorded.after, &noted);
        if !noted.is_faithful() {
            return Err(Unfaithful::Diverged(number));
        }
        for _ in 0..recorded.polls {
            outputs.extend(node.poll());
        }
    }
    Ok(outputs)
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
