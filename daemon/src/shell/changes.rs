//! What a change needs from the daemon's task: the journal, and the way back to the client.

use shunt_control::director::records;
use shunt_control::node::{Input, Made, Reply};
use shunt_model::api::{Done, Reason, Refusal};
use shunt_model::batch;
use shunt_model::change::Change;
use shunt_model::program::Program;
use tokio::sync::oneshot;
use tracing::{info, warn};

use super::Shell;
use crate::journal::Record;

/// Where a client waits for its answer.
pub(super) enum Waiting {
    Change(oneshot::Sender<Result<Done, Refusal>>),
    Batch(oneshot::Sender<Result<batch::Answer, Refusal>>),
}

impl Shell {
    /// A program was loaded behind, or the kernel refused it.
    pub(crate) fn loaded(&mut self, (program, result): (Program, Result<(), String>)) {
        match &result {
            Ok(()) => info!(%program, "program loaded"),
            Err(why) => warn!(%program, why, "program refused by the kernel"),
        }
        if program == Program::Callers && result.is_ok() && self.settled {
            self.give_servers_to_callers();
        }
        self.handle(Input::Loaded { program, result });
    }

    /// The ticket of a client that waits.
    pub(super) fn wait(&mut self, waiting: Waiting) -> u64 {
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        self.waiting.insert(ticket, waiting);
        ticket
    }

    /// Answers the client with this ticket, if it still waits.
    pub(super) fn reply(&mut self, ticket: u64, reply: Reply) {
        match (self.waiting.remove(&ticket), reply) {
            (Some(Waiting::Change(answer)), Reply::Change(result)) => drop(answer.send(result)),
            (Some(Waiting::Batch(answer)), Reply::Batch(result)) => {
                if let Ok(batch::Answer {
                    text: Some(why), ..
                }) = &result
                {
                    info!(why, "batch refused");
                }
                drop(answer.send(result));
            }
            (Some(Waiting::Change(_)), Reply::Batch(_))
            | (Some(Waiting::Batch(_)), Reply::Change(_))
            | (None, _) => {}
        }
    }

    /// Refuses changes that the journal would have no room for.
    pub(super) fn keep_room(&mut self, changes: &[Change]) -> Result<(), Refusal> {
        let orphans = self.node.forward().count_orphans();
        if self.keeper.has_room(changes, orphans) {
            return Ok(());
        }
        self.remember_all();
        self.keeper.refusal(changes, orphans).map_or(Ok(()), Err)
    }

    /// Writes all changes of a batch into the journal, in one line.
    pub(super) fn write_down(&mut self, changes: &[Change]) -> Result<(), Refusal> {
        self.keep_room(changes)?;
        let records = records(changes).into_iter().map(Record::Director);
        let records: Vec<Record> = records.collect();
        if !records.is_empty() && !self.keeper.add(&records) {
            self.remember_all();
            if !self.keeper.add(&records) {
                let orphans = self.node.forward().count_orphans();
                return Err(self.keeper.refusal(changes, orphans).unwrap_or(Refusal {
                    reason: Reason::NotKept,
                    text: "the batch cannot be written down; try again".to_owned(),
                }));
            }
        }
        self.begun_anew = false;
        Ok(())
    }

    /// Whether what is made and carried out is kept. The error is why it cannot be.
    pub(super) fn confirm(&mut self, made: &Made) -> Result<(), Refusal> {
        let changes = match made {
            Made::Change(change) => std::slice::from_ref(change),
            Made::Part => return Ok(()),
            Made::Whole(changes) => {
                // A journal that was begun anew meanwhile has a part of the batch.
                if self.begun_anew {
                    self.remember_all();
                }
                changes
            }
            Made::Undone => {
                self.remember_all();
                return Ok(());
            }
        };
        self.keeper.unkept(changes).map_or(Ok(()), Err)
    }
}
