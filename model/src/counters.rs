//! The counters of a service and of a server, and the rates computed from them.

use std::ops::{Add, AddAssign, Sub};

use serde::{Deserialize, Serialize};

/// Totals since the last zeroing. Bytes count whole IP packets, headers included, as in IPVS.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counters {
    /// Connections that were opened.
    pub connections: u64,
    /// Packets from clients.
    pub in_packets: u64,
    /// Packets to clients that passed the director: masquerade and full NAT.
    pub out_packets: u64,
    /// Bytes of the packets from clients.
    pub in_bytes: u64,
    /// Bytes of the packets to clients.
    pub out_bytes: u64,
}

impl Add for Counters {
    type Output = Counters;

    fn add(self, other: Counters) -> Counters {
        Counters {
            connections: self.connections.wrapping_add(other.connections),
            in_packets: self.in_packets.wrapping_add(other.in_packets),
            out_packets: self.out_packets.wrapping_add(other.out_packets),
            in_bytes: self.in_bytes.wrapping_add(other.in_bytes),
            out_bytes: self.out_bytes.wrapping_add(other.out_bytes),
        }
    }
}

impl AddAssign for Counters {
    fn add_assign(&mut self, other: Counters) {
        *self = *self + other;
    }
}

impl Sub for Counters {
    type Output = Counters;

    /// The difference. A counter that is lower than before counts as zero.
    fn sub(self, base: Counters) -> Counters {
        Counters {
            connections: self.connections.saturating_sub(base.connections),
            in_packets: self.in_packets.saturating_sub(base.in_packets),
            out_packets: self.out_packets.saturating_sub(base.out_packets),
            in_bytes: self.in_bytes.saturating_sub(base.in_bytes),
            out_bytes: self.out_bytes.saturating_sub(base.out_bytes),
        }
    }
}

/// Rates per second, rounded as the kernel's estimator rounds them (`ip_vs_est.c`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rates {
    /// Connections opened a second.
    pub connections: u64,
    /// Packets from clients a second.
    pub in_packets: u64,
    /// Packets to clients a second.
    pub out_packets: u64,
    /// Bytes from clients a second.
    pub in_bytes: u64,
    /// Bytes to clients a second.
    pub out_bytes: u64,
}
