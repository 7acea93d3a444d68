//! The walk of a frame over the tables, as the kernel's shell runs it.

use super::{HostFrame, HostTables};
use crate::table::Tables;
use crate::verdict::{Pass, Verdict, Word};
use crate::{here, walk};

/// The longest frame that the kernel's shell holds back (`ebpf/src/shell/maps.rs`), in bytes.
pub const HELD_BYTES: usize = 2040;

impl HostTables {
    /// The final verdict for a frame, which is counted, as in the kernel's shell.
    pub fn run(&self, frame: &mut HostFrame) -> Verdict {
        let mut word = walk::run(frame, &self);
        if word == Word::HOLD && frame.bytes().len() > HELD_BYTES {
            word = Word::pass(Pass::LostFragment);
        }
        (&self).count(word.counter());
        word.verdict()
    }

    /// The verdict for a frame that leaves the machine, as in the kernel's shell.
    pub fn leave(&self, frame: &mut HostFrame) -> Verdict {
        here::run(frame, &self).verdict()
    }
}
