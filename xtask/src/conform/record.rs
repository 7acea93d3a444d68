//! The record of one side at one step of a scenario.

use serde::{Deserialize, Serialize};

use super::bed::Out;

/// The IP identification of a scenario's first packet. Each later packet has the next number.
pub(super) const FIRST: u16 = 0x4000;

/// The result of one step.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Record {
    pub status: Option<i32>,
    pub output: String,
    pub error: String,
    pub frames: Vec<Out>,
    /// The time since the beginning of the scenario.
    pub elapsed_ms: u64,
}
