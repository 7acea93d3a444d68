//! Changes in turn: each is reserved room in the journal, made, confirmed and answered before the
//! next one begins.
//!
//! A change that stands alone is refused alone. A whole batch is rehearsed, written down and then
//! performed change by change, so that a batch that was begun is ended, if need be by the next
//! daemon. What only the caller knows is a question ([`Output::Reserve`] and its neighbours). The
//! turn waits for its answer, and puts it only when everything before is put out.
//!
//! If a table refuses a write of a change, the change is undone: the inverse changes are performed
//! as a whole batch, and then the change is refused. Of a whole batch, all changes so far are
//! undone.

use shunt_model::Counters;
use shunt_model::api::{Done, Reason, Refusal};
use shunt_model::batch::{Answer, Batch, Mode, Refused};
use shunt_model::change::Change;
use shunt_model::event::Fact;

use super::{Made, Node, Output, Reply};
use crate::director::{Running, Write};
use crate::programs::Ready;
use crate::retired::{self, Zeroed};

/// What somebody asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Asked {
    Change(Box<Change>),
    Batch(Batch),
}

/// How the changes of a turn depend on each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Change,
    Batch(Mode),
}

/// The question that a turn puts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Has the journal room for the change?
    Reserve,
    /// The change found no room. Are the packets through that use what is given up?
    Refill,
    /// Is the change kept?
    Confirm,
    /// Is the whole batch written down?
    WriteDown,
    /// A change of the batch is made. If a pool has no room: are the packets through?
    Performed,
    /// A change of the batch is made, with all its pools as far as there is room.
    ConfirmPart,
    /// Is the whole batch kept?
    ConfirmWhole,
}

/// The changes in hand.
#[derive(Clone, Debug)]
pub(super) struct Turn {
    ticket: u64,
    kind: Kind,
    changes: Vec<Change>,
    /// The place of the change in hand.
    index: usize,
    refused: Vec<Refused>,
    stage: Stage,
    /// The question is put, and its answer is not in.
    is_asked: bool,
    /// For each change that is made and must be undone with the others: what undoes it.
    inverses: Vec<Vec<Change>>,
    /// Why a table refused a write of the change in hand.
    failed: Option<String>,
    /// This turn undoes another one.
    undoes: Option<Box<Turn>>,
}

impl Asked {
    fn reply(&self, refusal: Refusal) -> Reply {
        match self {
            Asked::Change(_) => Reply::Change(Err(refusal)),
            Asked::Batch(_) => Reply::Batch(Err(refusal)),
        }
    }
}

impl Turn {
    fn new(ticket: u64, asked: Asked) -> Self {
        let (kind, changes) = match asked {
            Asked::Change(change) => (Kind::Change, vec![*change]),
            Asked::Batch(Batch { mode, changes }) => (Kind::Batch(mode), changes),
        };
        Self {
            ticket,
            kind,
            changes,
            index: 0,
            refused: Vec::new(),
            stage: Stage::Reserve,
            is_asked: false,
            inverses: Vec::new(),
            failed: None,
            undoes: None,
        }
    }

    fn at(self, stage: Stage) -> Self {
        Self {
            stage,
            is_asked: false,
            ..self
        }
    }

    fn change(&self) -> Option<&Change> {
        self.changes.get(self.index)
    }

    fn undoes_whole_batch(&self) -> bool {
        let undone = self.undoes.as_deref();
        undone.is_some_and(|undone| undone.kind == Kind::Batch(Mode::Whole))
    }

    /// Whether each change of a whole batch is an event. A change that stands alone is one when it
    /// is confirmed; until then nobody knows of it.
    fn is_aloud(&self) -> bool {
        self.undoes.is_none() || self.undoes_whole_batch()
    }
}

impl Node {
    /// Begins the turn of the next changes, if none is in hand.
    pub(super) fn begin_turns(&mut self, running: &dyn Running) {
        while self.turn.is_none() {
            match self.programs.poll() {
                None => return,
                Some(Ready::Make((ticket, asked))) => self.begin(Turn::new(ticket, asked), running),
                Some(Ready::Refuse((ticket, asked), refusal)) => {
                    let reply = asked.reply(refusal);
                    self.last.push_back(Output::Answer { ticket, reply });
                }
            }
        }
    }

    fn begin(&mut self, mut turn: Turn, running: &dyn Running) {
        match turn.kind {
            Kind::Change | Kind::Batch(Mode::Each) => self.go_on(turn),
            Kind::Batch(Mode::Whole) => {
                turn.refused = self.forward.rehearse(&turn.changes, running, self.now);
                match turn.refused.is_empty() {
                    true => self.turn = Some(turn.at(Stage::WriteDown)),
                    false => self.end(turn, Ok(())),
                }
            }
        }
    }

    /// The question of the turn in hand, unless it is put already.
    pub(super) fn question(&mut self) -> Option<Output> {
        let is_crowded = self.forward.is_crowded();
        let turn = self.turn.as_mut().filter(|turn| !turn.is_asked)?;
        turn.is_asked = true;
        if turn.stage == Stage::Performed && !is_crowded {
            turn.stage = Stage::ConfirmPart;
        }
        let change = turn.change().cloned();
        let made = match turn.stage {
            Stage::Reserve => {
                let changes = change.into_iter().collect();
                return Some(Output::Reserve { changes });
            }
            Stage::WriteDown => {
                let changes = turn.changes.clone();
                return Some(Output::WriteDown { changes });
            }
            Stage::Refill | Stage::Performed => return Some(Output::LetPacketsPass),
            Stage::Confirm => Made::Change(change?),
            Stage::ConfirmPart => Made::Part,
            Stage::ConfirmWhole => match turn.undoes_whole_batch() {
                true => Made::Undone,
                false => Made::Whole(turn.changes.clone()),
            },
        };
        Some(Output::Confirm(made))
    }

    /// The turn whose question this answer fits. Any other answer is none.
    fn answered(&mut self, fits: impl Fn(Stage) -> bool) -> Option<Turn> {
        self.turn.take_if(|turn| turn.is_asked && fits(turn.stage))
    }

    pub(super) fn reserved(&mut self, result: Result<(), Refusal>, running: &dyn Running) {
        let fits = |stage| matches!(stage, Stage::Reserve | Stage::WriteDown);
        let Some(turn) = self.answered(fits) else {
            return;
        };
        match (result, turn.stage == Stage::WriteDown) {
            (Ok(()), true) => self.perform(turn, running),
            (Ok(()), false) => self.make(turn, running),
            // What is refused is undone even if that cannot be written down.
            (Err(_), true) if turn.undoes.is_some() => self.perform(turn, running),
            (Err(refusal), true) => self.end(turn, Err(refusal)),
            (Err(refusal), false) => self.refuse(turn, refusal),
        }
    }

    pub(super) fn packets_passed(&mut self, is_through: bool, running: &dyn Running) {
        let fits = |stage| matches!(stage, Stage::Refill | Stage::Performed);
        let Some(turn) = self.answered(fits) else {
            return;
        };
        if is_through {
            // No packet uses the pools that were replaced before: their room is free.
            self.forward.pools_settled();
            self.forward.pools_settled();
        }
        match turn.stage == Stage::Refill {
            true => self.make(turn, running),
            false => self.turn = Some(turn.at(Stage::ConfirmPart)),
        }
    }

    pub(super) fn confirmed(&mut self, result: Result<(), Refusal>, running: &dyn Running) {
        let fits = |stage| {
            matches!(
                stage,
                Stage::Confirm | Stage::ConfirmPart | Stage::ConfirmWhole
            )
        };
        let Some(mut turn) = self.answered(fits) else {
            return;
        };
        match (turn.stage, result) {
            (Stage::ConfirmWhole, result) => match turn.undoes.take() {
                Some(undone) => self.undone(*undone),
                None => self.end(turn, result),
            },
            (Stage::Confirm | Stage::ConfirmPart, _) if turn.failed.is_some() => {
                self.undo(turn, running);
            }
            (Stage::ConfirmPart, _) => {
                turn.index += 1;
                self.perform(turn, running);
            }
            (_, Err(refusal)) => self.refuse_aloud(turn, refusal),
            (_, Ok(())) => {
                self.tell_changed(&turn);
                turn.inverses.clear();
                turn.index += 1;
                self.go_on(turn);
            }
        }
    }

    /// Goes on with the next change that stands alone.
    fn go_on(&mut self, turn: Turn) {
        match turn.change() {
            Some(_) => self.turn = Some(turn.at(Stage::Reserve)),
            None => self.end(turn, Ok(())),
        }
    }

    /// Makes a change that stands alone, once more if there was no room for it.
    fn make(&mut self, mut turn: Turn, running: &dyn Running) {
        let Some(change) = turn.change().cloned() else {
            return;
        };
        let is_first = turn.stage == Stage::Reserve;
        let inverse = self.forward.table().inverse(&change);
        let make = |node: &mut Self| node.forward.change(&change, running, node.now).map(drop);
        match self.follow(&change, running, make) {
            Ok(()) => {
                turn.inverses.push(inverse);
                self.turn = Some(turn.at(Stage::Confirm));
            }
            Err(refusal) if refusal.reason == Reason::NoRoom && is_first => {
                self.turn = Some(turn.at(Stage::Refill));
            }
            Err(refusal) => self.refuse_aloud(turn, refusal),
        }
    }

    /// Makes the next change of a whole batch.
    fn perform(&mut self, mut turn: Turn, running: &dyn Running) {
        let Some(change) = turn.change().cloned() else {
            self.turn = Some(turn.at(Stage::ConfirmWhole));
            return;
        };
        let inverse = self.forward.table().inverse(&change);
        let make = |node: &mut Self| node.forward.perform(&change, running, node.now);
        match self.follow(&change, running, make) {
            Ok(()) => {
                turn.inverses.push(inverse);
                if turn.is_aloud() {
                    self.tell_changed(&turn);
                }
            }
            // A rehearsed change is never refused: this is a bug, and the event shows it.
            Err(refusal) => self.tell_refused(&turn, &refusal),
        }
        self.turn = Some(turn.at(Stage::Performed));
    }

    /// Lets `forward` make a change, and keeps the machines beside it in step.
    fn follow(
        &mut self,
        change: &Change,
        running: &dyn Running,
        make: impl Fn(&mut Self) -> Result<(), Refusal>,
    ) -> Result<(), Refusal> {
        let turn = retired::turn(change, self.forward.table());
        let turn = turn.map(|turn| {
            let ids = self.forward.server_ids(&turn.key, turn.at).into_iter();
            let counted = ids.map(|id| running.counters(id));
            (
                turn,
                counted.fold(Counters::default(), |sum, more| sum + more),
            )
        });
        make(self)?;
        if let Some((turn, counted)) = turn {
            self.retired.follow(turn, counted);
        }
        let zeroed = retired::zeroed(change);
        let servers = match zeroed {
            Zeroed::Nothing => Vec::new(),
            Zeroed::Service(key) => self.forward.server_ids_of(&key),
            Zeroed::All => self.forward.names().servers.into_keys().collect(),
        };
        let forget = |server| Output::Write(Write::Forget { server });
        self.first.extend(servers.into_iter().map(forget));
        self.retired.zero(zeroed);
        self.unclaimed.changed(change);
        self.samples.follow(change);
        let owed = self.unwritten.of(change).into_iter();
        self.last.extend(owed.map(Output::Write));
        Ok(())
    }

    /// A table refused the write that was put out last.
    pub(super) fn write_refused(&mut self, why: String) {
        let turn = self.turn.as_mut().filter(|turn| turn.undoes.is_none());
        self.unwritten.refused(why.clone(), turn.is_some());
        if let Some(turn) = turn {
            turn.failed.get_or_insert(why);
        }
    }

    /// Undoes the change in hand, or all changes so far of a whole batch. The journal has all of
    /// the batch, and is begun anew behind it.
    fn undo(&mut self, mut turn: Turn, running: &dyn Running) {
        let ticket = turn.ticket;
        let inverses = std::mem::take(&mut turn.inverses).into_iter().rev();
        let changes = inverses.flatten().collect();
        let batch = Batch {
            mode: Mode::Whole,
            changes,
        };
        let undoing = Turn {
            undoes: Some(Box::new(turn)),
            ..Turn::new(ticket, Asked::Batch(batch))
        };
        match undoing.undoes_whole_batch() {
            true => self.perform(undoing, running),
            false => self.turn = Some(undoing.at(Stage::WriteDown)),
        }
    }

    /// Refuses the change in hand after it was undone.
    fn undone(&mut self, mut turn: Turn) {
        let why = turn.failed.take().unwrap_or_default();
        let refusal = Refusal {
            reason: Reason::NoRoom,
            text: format!("{why}; the packet path is as before"),
        };
        if turn.kind == Kind::Batch(Mode::Whole) {
            self.tell_refused(&turn, &refusal);
            let index = turn.index;
            turn.refused = vec![Refused { index, refusal }];
            return self.end(turn, Ok(()));
        }
        self.refuse_aloud(turn, refusal);
    }

    fn tell_changed(&mut self, turn: &Turn) {
        let change = turn.change().cloned();
        let fact = change.map(|change| Fact::TableChanged { change });
        self.last.extend(fact.map(Output::Event));
    }

    fn tell_refused(&mut self, turn: &Turn, refusal: &Refusal) {
        let change = turn.change().cloned();
        let fact = change.map(|change| Fact::ChangeRefused {
            change,
            reason: refusal.reason,
            why: refusal.text.clone(),
        });
        self.last.extend(fact.map(Output::Event));
    }

    /// Refuses the change in hand, with an event.
    fn refuse_aloud(&mut self, turn: Turn, refusal: Refusal) {
        self.tell_refused(&turn, &refusal);
        self.refuse(turn, refusal);
    }

    /// Refuses the change in hand. The others of a batch do not depend on it.
    fn refuse(&mut self, mut turn: Turn, refusal: Refusal) {
        match turn.kind {
            Kind::Change => self.end(turn, Err(refusal)),
            Kind::Batch(_) => {
                let index = turn.index;
                turn.refused.push(Refused { index, refusal });
                turn.index += 1;
                self.go_on(turn);
            }
        }
    }

    /// Answers, as soon as the next hops of the servers are known.
    fn end(&mut self, turn: Turn, result: Result<(), Refusal>) {
        let changes = turn.changes.iter().filter(|_| result.is_ok());
        let servers = changes.filter_map(Change::put_server);
        let servers = servers.filter(|(key, at)| self.forward.is_awaited(key, *at));
        let servers = servers.collect();
        let reply = match turn.kind {
            Kind::Change => Reply::Change(result.map(|()| Done {})),
            Kind::Batch(mode) => {
                let answer = Answer::new(mode, turn.changes.len(), turn.refused);
                Reply::Batch(result.map(|()| answer))
            }
        };
        let at_once = self.answers.hold(servers, (turn.ticket, reply), self.now);
        let answer = at_once.map(|(ticket, reply)| Output::Answer { ticket, reply });
        self.last.extend(answer);
    }
}
