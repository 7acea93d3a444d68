//! Keeps the journal. A change that cannot be written to it is not acknowledged.

use std::io;

use nix::errno::Errno;
use shunt_model::api::{Reason, Refusal};
use shunt_model::change::Change;
use shunt_model::warning::Warning;
use tracing::error;

use crate::journal::{Journal, Record, Saved};
use crate::kernel::place::Place;

/// The bytes that any step may need besides the length of its change.
const STEP: u64 = 8192;
/// Bytes that the ids of each change of a batch may need, besides what the batch itself has.
const IDS: u64 = 512;

/// The journal, or the reason why there is none.
#[derive(Debug)]
pub(super) struct Keeper {
    place: Place,
    /// `None` from a failed write until a journal can be written again.
    journal: Option<Journal>,
    why: String,
    /// The losses and damages found in the earlier state.
    losses: Vec<String>,
}

impl Keeper {
    pub(super) fn new(place: &Place, losses: Vec<String>) -> Self {
        Self {
            place: place.clone(),
            journal: None,
            why: String::new(),
            losses,
        }
    }

    /// Begins a fresh journal with this state.
    pub(super) fn begin(&mut self, saved: &Saved) {
        if let Some(journal) = &mut self.journal {
            journal.settle();
        }
        let copy = self.place.duplicate();
        let begun = Journal::begin(&self.place.memory(), saved, Some(&copy));
        self.journal = match begun {
            Ok(journal) => {
                self.why.clear();
                Some(journal)
            }
            Err(error) => {
                self.fail(&error);
                None
            }
        };
    }

    fn fail(&mut self, error: &io::Error) {
        let why = named(error);
        if std::mem::replace(&mut self.why, why.clone()) == why {
            return;
        }
        error!(
            file = %self.place.memory().display(),
            why,
            action = "refusing changes, and trying again",
            "table not written down"
        );
    }

    /// Adds the records of one step; false if the whole state must be written instead.
    pub(super) fn add(&mut self, records: &[Record]) -> bool {
        let Some(journal) = &mut self.journal else {
            return false;
        };
        match journal.add(records) {
            Ok(()) => true,
            Err(error) => {
                self.journal = None;
                self.fail(&error);
                false
            }
        }
    }

    /// Keeps the journal short; false if there is no journal.
    pub(super) fn tend(&mut self) -> bool {
        let journal = self.journal.as_mut();
        journal.map(Journal::tend).is_some()
    }

    /// Reserves room for changes while there are `left` endpoints of deleted rules.
    fn set_aside(&self, changes: &[Change], left: usize) -> Result<(), String> {
        let Some(journal) = &self.journal else {
            return Err(self.why.clone());
        };
        let of_change = |change: &Change| {
            let text = serde_json::to_vec(change).map_or(0, |text| text.len());
            IDS + 2 * text as u64
        };
        let bytes: u64 = changes.iter().map(of_change).sum();
        let bytes = STEP + bytes + 128 * left as u64;
        journal.make_room(bytes).map_err(|error| named(&error))
    }

    /// Whether changes can be written down.
    pub(super) fn has_room(&self, changes: &[Change], left: usize) -> bool {
        self.set_aside(changes, left).is_ok()
    }

    /// Why changes must be refused, if they must.
    pub(super) fn refusal(&self, changes: &[Change], left: usize) -> Option<Refusal> {
        let why = self.set_aside(changes, left).err()?;
        let path = self.place.memory();
        let what = text(changes);
        Some(Refusal {
            reason: Reason::NotKept,
            text: format!(
                "not kept: {what}; {} cannot be written: {why}; make room there and try again",
                path.display()
            ),
        })
    }

    /// The answer to changes that are in force but could not be written to the journal.
    pub(super) fn unkept(&self, changes: &[Change]) -> Option<Refusal> {
        let lost = self.journal.is_none();
        let path = self.place.memory();
        let what = text(changes);
        lost.then(|| Refusal {
            reason: Reason::NotKept,
            text: format!(
                "in force, but not kept: {what}; {} cannot be written: {}; make room there, or a \
                 restart loses it",
                path.display(),
                self.why
            ),
        })
    }

    /// The warnings for the operator.
    pub(super) fn warnings(&self) -> Vec<Warning> {
        let mut warnings = Vec::new();
        let file = self.place.memory().display().to_string();
        if self.journal.is_none() {
            let (file, why) = (file.clone(), self.why.clone());
            warnings.push(Warning::JournalNotWritten { file, why });
        }
        warnings.extend(self.losses.iter().map(|what| Warning::StateDamaged {
            file: file.clone(),
            what: what.clone(),
        }));
        warnings
    }
}

/// One change, or how many there are.
fn text(changes: &[Change]) -> String {
    match changes {
        [change] => change.to_string(),
        changes => format!("a batch of {} changes", changes.len()),
    }
}

/// An error with the name that the manual pages use.
fn named(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(number) => Errno::from_raw(number).to_string(),
        None => error.to_string(),
    }
}
