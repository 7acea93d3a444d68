//! Programs of the packet path that only some tables need.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A program that only some tables need, at each hook that has it. In the order in which they are
/// loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Program {
    /// Servers for processes of the director itself.
    Callers,
    /// Full NAT, and all else that is translated flow by flow.
    Translate,
    /// ICMP errors that open a connection.
    Quoted,
    /// Services with a persistence engine.
    Call,
}

impl Program {
    /// Every program, in the order in which they are loaded.
    pub const ALL: [Program; 4] = [
        Program::Callers,
        Program::Translate,
        Program::Quoted,
        Program::Call,
    ];
}

impl fmt::Display for Program {
    /// Writes what the program is for.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Program::Callers => "processes on this machine",
            Program::Translate => "translated flows",
            Program::Quoted => "schedule_icmp",
            Program::Call => "persistence engines",
        })
    }
}
