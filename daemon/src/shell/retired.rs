//! Zeroes and moves the counters of servers that are deleted and added again.

use shunt_control::retired::{Turn, Zeroed, zeroed};
use shunt_model::Counters;
use shunt_model::change::Change;
use tracing::error;

use super::Shell;
use crate::chain::chain;

impl Shell {
    /// Follows a change that was made. `turn` is the server that it moved, with the server's
    /// counters before the change.
    pub(super) fn retire(&mut self, change: &Change, turn: Option<(Turn, Counters)>) {
        if let Some((turn, counted)) = turn {
            self.retired.follow(turn, counted);
        }
        let zeroed = zeroed(change);
        self.zero(zeroed);
        self.retired.zero(zeroed);
        self.unclaimed.changed(change);
    }

    fn zero(&mut self, zeroed: Zeroed) {
        let servers = match zeroed {
            Zeroed::Nothing => Vec::new(),
            Zeroed::Service(key) => self.director.server_ids_of(&key),
            Zeroed::All => self.director.names().servers.into_keys().collect(),
        };
        for id in servers {
            if let Err(error) = self.tables.forget(id) {
                error!(error = chain(&error), "counters not zeroed");
            }
        }
    }
}
