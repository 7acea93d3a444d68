//! Several changes in one request.

use serde::{Deserialize, Serialize};

use crate::api::{Reason, Refusal};
use crate::change::Change;

/// Changes that are made in their order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Batch {
    /// What becomes of the batch if a change is refused; by default nothing of it is made.
    #[serde(default)]
    pub mode: Mode,
    /// In the order in which they are made.
    pub changes: Vec<Change>,
}

/// What a refused change means for the others of its batch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// All changes are made, or none.
    #[default]
    Whole,
    /// Each change stands alone: the others are made.
    Each,
}

/// A change of a batch that was refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refused {
    /// The place of the change in its batch, from 0.
    pub index: usize,
    /// Why it was refused.
    #[serde(flatten)]
    pub refusal: Refusal,
}

/// The most refused changes that the answer to a whole batch names. The daemon stops looking for
/// more.
pub const MOST_REFUSED: usize = 100;

/// The answer to a batch: the changes that were refused, in their order.
///
/// If any change of a whole batch was refused, nothing of the batch is in force. Then the answer
/// has a reason and a text too, as each refusal has.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// The reason of the first refused change, if the whole batch was refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<Reason>,
    /// The sentence for it, which names the place of that change.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// At most [`MOST_REFUSED`] of a whole batch; all of a batch of single changes.
    #[serde(default)]
    pub refused: Vec<Refused>,
}

impl Answer {
    /// The answer to a batch of so many changes.
    #[must_use]
    pub fn new(mode: Mode, count: usize, refused: Vec<Refused>) -> Self {
        let first = match mode {
            Mode::Whole => refused.first().cloned(),
            Mode::Each => None,
        };
        let text = first.as_ref().map(|first| {
            format!(
                "change {} of {count} was refused, so none was made: {}",
                first.index + 1,
                first.refusal.text
            )
        });
        Self {
            reason: first.map(|first| first.refusal.reason),
            text,
            refused,
        }
    }

    /// Whether the whole batch was refused.
    #[must_use]
    pub fn is_refusal(&self) -> bool {
        self.reason.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(index: usize) -> Refused {
        let refusal = Refusal {
            reason: Reason::NoSuchService,
            text: "there is no service mark 7".to_owned(),
        };
        Refused { index, refusal }
    }

    #[test]
    fn a_refused_batch_reads_as_a_refusal_and_names_each_refused_change() {
        let answer = Answer::new(Mode::Whole, 9, vec![refused(1), refused(4)]);
        let text = serde_json::to_string(&answer).unwrap();

        let plain: Refusal = serde_json::from_str(&text).unwrap();
        assert_eq!(plain.reason, Reason::NoSuchService);
        assert_eq!(
            plain.text,
            "change 2 of 9 was refused, so none was made: there is no service mark 7"
        );
        assert_eq!(serde_json::from_str::<Answer>(&text).unwrap(), answer);
    }

    #[test]
    fn a_batch_of_single_changes_is_never_refused_as_a_whole() {
        let answer = Answer::new(Mode::Each, 9, vec![refused(1)]);
        assert!(!answer.is_refusal());
        assert_eq!(
            serde_json::to_string(&answer).unwrap(),
            r#"{"refused":[{"index":1,"reason":"no_such_service","text":"there is no service mark 7"}]}"#
        );
    }
}
