//! Traffic counters of a server.

use crate::table::Tables;
use crate::table::entry::{Server, server_flag};
use crate::verdict::Note;

/// Counts a packet to a server, and its bytes from the network header on.
#[inline(always)]
pub fn count_in<T: Tables>(tables: &T, server: u32, bytes: u32) {
    tables.traffic(server, |traffic| {
        traffic.in_packets = traffic.in_packets.wrapping_add(1);
        traffic.in_bytes = traffic.in_bytes.wrapping_add(bytes as u64);
    });
}

/// Counts a new connection of a server.
#[inline(always)]
pub fn count_connection<T: Tables>(tables: &T, server: u32) {
    tables.traffic(server, |traffic| {
        traffic.connections = traffic.connections.wrapping_add(1)
    });
    tables.count(Note::Opened.counter());
}

/// Counts a packet from a server, and its bytes from the network header on.
#[inline(always)]
pub fn count_out<T: Tables>(tables: &T, server: &Server, id: u32, bytes: u32) {
    // `ip_vs_out_stats`: packets of a deleted server are forwarded and not counted.
    if server.flags & server_flag::PRESENT != 0 {
        tables.traffic(id, |traffic| {
            traffic.out_packets = traffic.out_packets.wrapping_add(1);
            traffic.out_bytes = traffic.out_bytes.wrapping_add(bytes as u64);
        });
    }
}
