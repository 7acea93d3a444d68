//! Makes a change and prints what changed.

use serde::Serialize;
use shunt_model::batch::{Batch, Mode, Refused};
use shunt_model::change::Change;

use super::{Form, Halt, Outside, write_json};
use crate::client::{Client, Failure};

/// The result of a change, as `--json` prints it.
#[derive(Debug, Serialize)]
struct Outcome<'a> {
    /// False if nothing had to change.
    changed: bool,
    /// The sentence that is printed without `--json`.
    text: &'a str,
    /// The change that was sent to the daemon, if there was one.
    change: Option<&'a Change>,
}

/// A change to make, or none, and the sentence that describes it.
#[derive(Debug)]
pub(super) struct Wanted {
    change: Option<Change>,
    text: String,
}

impl Wanted {
    pub(super) fn change(change: Change, text: String) -> Self {
        Self {
            change: Some(change),
            text,
        }
    }

    pub(super) fn nothing(text: &str) -> Self {
        Self {
            change: None,
            text: format!("nothing to do: {text}"),
        }
    }
}

/// Reads the present state, makes the change that follows from it, and prints the result.
pub(super) fn make(
    outside: &mut Outside<'_>,
    want: impl FnOnce(&mut dyn Client) -> Result<Wanted, Halt>,
) -> Result<(), Halt> {
    let mut client = (outside.open)()?;
    let wanted = want(client.as_mut())?;
    if let Some(change) = &wanted.change {
        client.change(change)?;
    }
    print(outside, &wanted)
}

/// Reads the present state, makes the changes that follow from it, all or none, and prints the
/// result of each.
pub(super) fn make_all(
    outside: &mut Outside<'_>,
    want: impl FnOnce(&mut dyn Client) -> Result<Vec<Wanted>, Halt>,
) -> Result<(), Halt> {
    let mut client = (outside.open)()?;
    let wanted = want(client.as_mut())?;
    let changes = wanted.iter().filter_map(|wanted| wanted.change.clone());
    let batch = Batch {
        mode: Mode::Whole,
        changes: changes.collect(),
    };
    if !batch.changes.is_empty() {
        let refused = client.batch(&batch)?.into_iter().next();
        if let Some(Refused { refusal, .. }) = refused {
            return Err(Failure::Refused(refusal).into());
        }
    }
    let mut wanted = wanted.iter();
    wanted.try_for_each(|wanted| print(outside, wanted))
}

fn print(outside: &mut Outside<'_>, wanted: &Wanted) -> Result<(), Halt> {
    if outside.json {
        let outcome = Outcome {
            changed: wanted.change.is_some(),
            text: &wanted.text,
            change: wanted.change.as_ref(),
        };
        return write_json(outside.out, &outcome, Form::Json);
    }
    writeln!(outside.out, "{}", wanted.text)?;
    Ok(())
}

/// One text such as `weight 1 -> 0` for each value that differs.
#[derive(Debug, Default)]
pub(super) struct Differences(Vec<String>);

impl Differences {
    pub(super) fn add<T: PartialEq + ToString>(&mut self, name: &str, before: &T, after: &T) {
        if before != after {
            let (before, after) = (before.to_string(), after.to_string());
            self.0.push(format!("{name} {before} -> {after}"));
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn text(&self) -> String {
        self.0.join(", ")
    }
}
