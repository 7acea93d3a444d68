//! What is known of a packet path that is loaded: its sizes, its seed, its clock.

use serde::{Deserialize, Serialize};
use shunt_control::director::Sizes;

/// What an operator chooses before the tables are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Capacity {
    /// IPv4 and IPv6 flows; a masqueraded connection takes two.
    pub flows4: u32,
    pub flows6: u32,
    /// Entries of the table of translations; a translated connection takes two.
    #[serde(default)]
    pub translations: u32,
    /// Calls of services with a persistence engine.
    #[serde(default)]
    pub calls: u32,
    pub sizes: Sizes,
}

impl Capacity {
    /// Flows of both families.
    #[must_use]
    pub fn flows(&self) -> u64 {
        u64::from(self.flows4) + u64::from(self.flows6)
    }
}

/// What is known of a packet path that is loaded: written down beside its pins.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Made {
    /// The build whose programs are pinned.
    pub build: u64,
    /// The namespace whose packet path this is (`place::cookie`).
    pub namespace_cookie: u64,
    pub capacity: Capacity,
    pub seed: u64,
    pub tick_shift: u32,
    pub jiffies_rate: u64,
    pub endpoint_buckets: u32,
    /// The layout of its tables, and of those that connections lie in. Notes without them are of
    /// the first layouts that were written down.
    #[serde(default = "first_layout")]
    pub layout: u32,
    #[serde(default = "first_connections")]
    pub connections: u32,
}

fn first_layout() -> u32 {
    3
}

fn first_connections() -> u32 {
    1
}

impl Made {
    #[must_use]
    pub fn flow4_mask(&self) -> u32 {
        buckets(self.capacity.flows4, 4) - 1
    }

    #[must_use]
    pub fn flow6_mask(&self) -> u32 {
        buckets(self.capacity.flows6, 2) - 1
    }

    #[must_use]
    pub fn endpoint_mask(&self) -> u32 {
        self.endpoint_buckets - 1
    }
}

/// Buckets for so many entries, a power of two.
fn buckets(entries: u32, slots: u32) -> u32 {
    entries.div_ceil(slots).next_power_of_two().max(2)
}
