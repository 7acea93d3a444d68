//! Several changes at once: all are made, or none.
//!
//! A batch is rehearsed on a copy of the director. If no change is refused, the caller writes the
//! whole batch down ([`records`]) and then performs change after change, each with its writes. So
//! a batch that was begun is ended, if need be by the next daemon.

use std::time::Instant;

use shunt_model::api::Refusal;
use shunt_model::batch::{MOST_REFUSED, Refused};
use shunt_model::change::{Change, service};

use super::{Director, Output, Record, Running, Step};
use crate::network::Network;

impl Director {
    /// Finds the changes of a batch that cannot be made, if each comes after the ones before it.
    /// Everything stays as it was.
    pub fn rehearse(
        &mut self,
        changes: &[Change],
        running: &dyn Running,
        now: Instant,
    ) -> Vec<Refused> {
        // A change only reads the network, which may have a million routes.
        let network = std::mem::replace(&mut self.network, Network::new(now));
        let before = self.clone();
        self.network = network;
        let mut refused = Vec::new();
        for (index, change) in changes.iter().enumerate() {
            if let Err(refusal) = self.rehearse_one(change, running) {
                refused.push(Refused { index, refusal });
            }
            if refused.len() == MOST_REFUSED {
                break;
            }
        }
        let network = std::mem::replace(&mut self.network, Network::new(now));
        *self = before;
        self.network = network;
        refused
    }

    fn rehearse_one(&mut self, change: &Change, running: &dyn Running) -> Result<(), Refusal> {
        self.table.check(change)?;
        self.admit(change)?;
        let outputs = self.outputs.len();
        self.make(change, running)?;
        self.outputs.truncate(outputs);
        // No packet has seen a rehearsed pool.
        self.pools_settled();
        self.pools_settled();
        Ok(())
    }

    /// Makes a change of a batch that was rehearsed and written down.
    pub fn perform(
        &mut self,
        change: &Change,
        running: &dyn Running,
        now: Instant,
    ) -> Result<(), Refusal> {
        self.table.check(change)?;
        let place = self.outputs.len();
        let (_, step) = self.make(change, running)?;
        let step = step.map(Step::without_change);
        if let Some(step) = step.filter(|step| !step.is_empty()) {
            self.outputs.insert(place, Output::Remember(step));
        }
        self.watch(now);
        Ok(())
    }

    /// Whether a pool waits for room that packets may still look at.
    #[must_use]
    pub fn is_crowded(&self) -> bool {
        !self.crowded.is_empty()
    }
}

/// A batch as a line of the journal.
#[must_use]
pub fn records(changes: &[Change]) -> Vec<Record> {
    let kept = changes.iter().filter(|change| is_kept(change));
    kept.map(|change| Record::Change(change.clone())).collect()
}

/// Whether a change has to survive the daemon. Counters live in the packet path.
fn is_kept(change: &Change) -> bool {
    match change {
        Change::Service(change) => match change {
            service::Change::Add { .. }
            | service::Change::Edit { .. }
            | service::Change::Delete { .. }
            | service::Change::Flush => true,
            service::Change::Zero { .. } => false,
        },
        Change::Server(_) | Change::Mark(_) | Change::Local(_) | Change::Setting(_) => true,
    }
}

#[cfg(test)]
mod tests;
