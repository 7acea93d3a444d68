//! Keeps the journal. A change that cannot be written to it is not acknowledged.

use std::io;

use nix::errno::Errno;
use shunt_model::api::{Change, Reason, Refusal};
use tracing::error;

use crate::journal::{Journal, Record, Saved};
use crate::kernel::place::Place;

/// The bytes that any step may need besides the length of its change.
const STEP: u64 = 8192;

/// The journal, or the reason why there is none.
#[derive(Debug)]
pub struct Keeper {
    place: Place,
    /// `None` from a failed write until a journal can be written again.
    journal: Option<Journal>,
    why: String,
    /// The losses and damages found in the earlier state.
    losses: Vec<String>,
}

impl Keeper {
    pub fn new(place: &Place, losses: Vec<String>) -> Self {
        Self {
            place: place.clone(),
            journal: None,
            why: String::new(),
            losses,
        }
    }

    /// Begins a fresh journal with this state.
    pub fn begin(&mut self, saved: &Saved) {
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
    pub fn add(&mut self, records: &[Record]) -> bool {
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
    pub fn tend(&mut self) -> bool {
        let journal = self.journal.as_mut();
        journal.map(Journal::tend).is_some()
    }

    /// Reserves room for a change while there are `left` endpoints of deleted rules.
    fn set_aside(&self, change: &Change, left: usize) -> Result<(), String> {
        let Some(journal) = &self.journal else {
            return Err(self.why.clone());
        };
        let text = serde_json::to_vec(change).map_or(0, |text| text.len());
        let bytes = STEP + 2 * text as u64 + 128 * left as u64;
        journal.make_room(bytes).map_err(|error| named(&error))
    }

    /// Whether a change can be written down.
    pub fn has_room(&self, change: &Change, left: usize) -> bool {
        self.set_aside(change, left).is_ok()
    }

    /// Why a change must be refused, if it must.
    pub fn refusal(&self, change: &Change, left: usize) -> Option<Refusal> {
        let why = self.set_aside(change, left).err()?;
        let path = self.place.memory();
        Some(Refusal {
            reason: Reason::NotKept,
            text: format!(
                "not kept: {change}; {} cannot be written: {why}; make room there and try again",
                path.display()
            ),
        })
    }

    /// The answer to a change that is in force but could not be written to the journal.
    pub fn unkept(&self, change: &Change) -> Option<Refusal> {
        let lost = self.journal.is_none();
        let path = self.place.memory();
        lost.then(|| Refusal {
            reason: Reason::NotKept,
            text: format!(
                "in force, but not kept: {change}; {} cannot be written: {}; make room there, or a \
                 restart loses it",
                path.display(),
                self.why
            ),
        })
    }

    /// The warnings for the operator.
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        let path = self.place.memory();
        if self.journal.is_none() {
            warnings.push(format!(
                "changes are refused: {} cannot be written: {}; make room there",
                path.display(),
                self.why
            ));
        }
        let losses = self.losses.iter();
        warnings.extend(losses.map(|loss| format!("{}: {loss}", path.display())));
        warnings
    }
}

/// An error with the name that the manual pages use.
fn named(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(number) => Errno::from_raw(number).to_string(),
        None => error.to_string(),
    }
}
