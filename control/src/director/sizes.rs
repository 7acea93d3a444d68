//! How large the packet path's tables are, and what follows from it.

use serde::{Deserialize, Serialize};

/// How large the packet path's tables are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sizes {
    pub services: u32,
    pub servers: u32,
    pub pool_words: u32,
}

impl Sizes {
    /// Buckets of each table of endpoints: half of the slots for IPv6 are free if each service and
    /// server has one, so that a bucket is seldom full.
    #[must_use]
    pub fn endpoint_buckets(&self) -> u32 {
        let endpoints = self.services.saturating_add(self.servers).min(1 << 24);
        endpoints.next_power_of_two().max(1024)
    }

    /// How many endpoints of IPv4 and of IPv6 are admitted: three fifths of the slots, up to
    /// which one always finds a place (`shunt_datapath::endpoint`).
    #[must_use]
    pub fn endpoints(&self) -> [usize; 2] {
        [4, 2].map(|slots| self.endpoint_buckets() as usize * slots * 3 / 5)
    }

    /// Ids of endpoints that masqueraded servers answer from. One that is gone keeps its own for a
    /// while, and another may come.
    #[must_use]
    pub fn answers(&self) -> u32 {
        self.servers.saturating_mul(2)
    }
}
