//! The questions that the director asks the live packet path.

use shunt_datapath::entry;
use shunt_model::Counters;

/// What the director reads from the packet path while it carries out a change.
pub trait Running {
    /// The word at this place of the pools, as the packet path left it.
    fn pool_word(&self, at: u32) -> u64;
    /// Whether the packet path treats a server with thresholds as overloaded.
    fn is_overloaded(&self, server: u32) -> bool;
    /// The live connection counts of a server, packed as [`entry::counts`].
    fn counts(&self, server: u32) -> u64;
    /// The entry of a server; `None` if there is none.
    fn server(&self, id: u32) -> Option<entry::Server>;
    /// What a server's connections carried, over all CPUs.
    fn counters(&self, server: u32) -> Counters;
}
