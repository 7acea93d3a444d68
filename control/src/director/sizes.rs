//! The sizes of the packet path's tables, and the limits that follow from them.

use serde::{Deserialize, Serialize};

/// The sizes of the packet path's tables, in entries and words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sizes {
    /// Ids of services, those of marks' places included.
    pub services: u32,
    /// Ids of servers.
    pub servers: u32,
    /// Words of 64 bits for the pools of all services together.
    pub pool_words: u32,
}

impl Sizes {
    /// Buckets of each endpoint table. With one endpoint for each service and server, half of the
    /// IPv6 slots are free, so a bucket is seldom full.
    #[must_use]
    pub fn endpoint_buckets(&self) -> u32 {
        let endpoints = self.services.saturating_add(self.servers).min(1 << 24);
        endpoints.next_power_of_two().max(1024)
    }

    /// The most endpoints of IPv4 and of IPv6: three fifths of the slots. Up to that fill an
    /// endpoint always finds a slot (`shunt_datapath::endpoint`).
    #[must_use]
    pub fn endpoints(&self) -> [usize; 2] {
        [4, 2].map(|slots| self.endpoint_buckets() as usize * slots * 3 / 5)
    }

    /// Ids for endpoints that masqueraded servers answer from. A deleted server keeps its own for a
    /// while, so there are twice as many as servers.
    #[must_use]
    pub fn answers(&self) -> u32 {
        self.servers.saturating_mul(2)
    }
}
