//! The description of a packet path: its maps, the operator's choices, and the values drawn and
//! measured when it was made.

use serde::{Deserialize, Serialize};
use shunt_control::director::Sizes;
use shunt_datapath::region;

/// The maps in which each hook's programs find the programs that they jump to.
pub(super) const PROGRAMS_XDP: &str = "PROGRAMS_XDP";
pub(super) const PROGRAMS_TC: &str = "PROGRAMS_TC";

/// Every map of the object, by name.
pub const MAPS: [&str; 37] = [
    "ENDPOINTS4",
    "ENDPOINTS6",
    "SERVICES",
    "WIDE_SERVICES",
    "SERVERS",
    "POOLS",
    "COUNTS",
    "STANDINGS",
    "LOCALITIES",
    "FLOWS4",
    "FLOWS6",
    "OCCUPIED4",
    "OCCUPIED6",
    "OCCUPIED",
    "HOPS_TO_CLIENTS",
    "ROUTES4",
    "ROUTES6",
    "ORIGINS",
    "LEARNED",
    "FRAGMENTS",
    "SETTINGS",
    "TRAFFIC",
    "COUNTERS_OF_OUTCOMES",
    "ALLOWANCE",
    "HELD",
    "CALLERS",
    "PEERS",
    PROGRAMS_XDP,
    PROGRAMS_TC,
    "TRANSLATIONS",
    "LOCALS",
    "HANDED",
    "CALLS",
    "ANSWERERS",
    "DESKS",
    "DEVICES",
    "PORTS",
];

/// The sizes that an operator chooses before the tables are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Capacity {
    /// The number of IPv4 flows. A masqueraded connection takes two.
    pub flows4: u32,
    /// The number of IPv6 flows.
    pub flows6: u32,
    /// The size of the table of translations. A translated connection takes two entries.
    #[serde(default)]
    pub translations: u32,
    /// The number of calls of services with a persistence engine.
    #[serde(default)]
    pub calls: u32,
    /// The sizes of the tables that the director fills.
    pub sizes: Sizes,
}

impl Capacity {
    /// The number of flows of both families.
    #[must_use]
    pub fn flows(&self) -> u64 {
        u64::from(self.flows4) + u64::from(self.flows6)
    }
}

/// The description of a loaded packet path, which is stored beside its pins.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Made {
    /// The build whose programs are pinned.
    pub build: u64,
    /// The cookie of the network namespace (`place::cookie`).
    pub namespace_cookie: u64,
    /// The sizes that the operator chose when the tables were made.
    pub capacity: Capacity,
    /// The random number that all hashes of keys begin with.
    pub seed: u64,
    /// A tick has two to this power of jiffies.
    pub tick_shift: u32,
    /// Jiffies a second (`CONFIG_HZ`).
    pub jiffies_rate: u64,
    /// Buckets of each endpoint table, a power of two.
    pub endpoint_buckets: u32,
    /// The layout of the tables, and the layout of the maps of connections. A description without
    /// them has the first layouts.
    #[serde(default = "first_layout")]
    pub layout: u32,
    /// The layout of the maps of connections (`shunt_datapath::entry::CONNECTIONS`).
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
    /// The number of IPv4 buckets less one.
    #[must_use]
    pub fn flow4_mask(&self) -> u32 {
        buckets(self.capacity.flows4, 4) - 1
    }

    /// The number of IPv6 buckets less one.
    #[must_use]
    pub fn flow6_mask(&self) -> u32 {
        buckets(self.capacity.flows6, 2) - 1
    }

    /// The number of buckets of each endpoint table less one.
    #[must_use]
    pub fn endpoint_mask(&self) -> u32 {
        self.endpoint_buckets - 1
    }
}

/// The number of buckets for so many entries, a power of two.
fn buckets(entries: u32, slots: u32) -> u32 {
    entries.div_ceil(slots).next_power_of_two().max(2)
}

/// The maps whose number of entries is chosen when they are made.
pub(super) fn sizes(made: &Made) -> [(&'static str, u32); 15] {
    let capacity = made.capacity;
    [
        ("ENDPOINTS4", made.endpoint_buckets),
        ("ENDPOINTS6", made.endpoint_buckets),
        ("FLOWS4", made.flow4_mask() + 1),
        ("FLOWS6", made.flow6_mask() + 1),
        ("OCCUPIED4", region::count(made.flow4_mask())),
        ("OCCUPIED6", region::count(made.flow6_mask())),
        ("SERVICES", capacity.sizes.services),
        ("SERVERS", capacity.sizes.servers),
        ("COUNTS", capacity.sizes.servers),
        ("STANDINGS", capacity.sizes.servers),
        ("TRAFFIC", capacity.sizes.servers),
        ("POOLS", capacity.sizes.pool_words),
        ("TRANSLATIONS", capacity.translations),
        ("CALLS", capacity.calls),
        ("ANSWERERS", capacity.sizes.answers()),
    ]
}
