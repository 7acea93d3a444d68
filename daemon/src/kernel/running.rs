//! The tables as the director reads them.

use std::sync::atomic::Ordering;

use shunt_control::director::Running;
use shunt_datapath::entry;
use shunt_model::Counters;

use super::tables::Tables;

impl Running for Tables {
    fn is_overloaded(&self, server: u32) -> bool {
        let Some([bounds, overloaded, ..]) = self.standings.value(server as usize) else {
            return false;
        };
        let (active, inactive) = self.live(server);
        let below = bounds.load(Ordering::Relaxed) >> 32;
        overloaded.load(Ordering::Relaxed) != 0 && u64::from(active) + u64::from(inactive) >= below
    }

    fn counts(&self, server: u32) -> u64 {
        match self.shared.counts.value(server as usize) {
            Some([word]) => word.load(Ordering::Acquire),
            _ => 0,
        }
    }

    fn server(&self, id: u32) -> Option<entry::Server> {
        self.shared.server(id)
    }

    fn counters(&self, server: u32) -> Counters {
        Tables::counters(self, server)
    }

    fn pool_word(&self, at: u32) -> u64 {
        match self.pools.value(at as usize) {
            Some([word]) => word.load(Ordering::Acquire),
            _ => 0,
        }
    }
}
