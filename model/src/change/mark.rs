//! Changes of the rules that mark packets.

use std::fmt;

use serde::Serialize;

use crate::MarkRule;

/// A change of one rule.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "change")]
pub enum Change {
    /// Adds a rule that gives packets to a target a mark.
    #[serde(rename = "add_mark")]
    /// Adds a rule. Rules for the same packets are refused.
    Add {
        /// The whole rule.
        rule: MarkRule,
    },
    #[serde(rename = "delete_mark")]
    /// Deletes a rule.
    Delete {
        /// The whole rule, as it was added.
        rule: MarkRule,
    },
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Change::Add { rule } => write!(f, "{rule} added"),
            Change::Delete { rule } => write!(f, "{rule} deleted"),
        }
    }
}
