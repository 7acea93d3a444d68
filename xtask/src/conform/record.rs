//! What one side did at one step of a scenario.

use serde::{Deserialize, Serialize};

use super::bed::Out;

/// The identification of the first packet that a scenario sends; each has one more.
pub const FIRST: u16 = 0x4000;

/// What came of one step.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Record {
    pub status: Option<i32>,
    pub output: String,
    pub error: String,
    pub frames: Vec<Out>,
    /// Since the beginning of the scenario.
    pub elapsed_ms: u64,
}
