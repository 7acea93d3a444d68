//! The traffic of servers in plain memory, counted from many threads.

use std::sync::atomic::{AtomicU64, Ordering};
use std::vec::Vec;

use crate::table::entry::Traffic;

/// The traffic of all servers.
#[derive(Debug)]
pub struct Tally(Vec<Row>);

#[derive(Debug, Default)]
struct Row {
    connections: AtomicU64,
    in_packets: AtomicU64,
    out_packets: AtomicU64,
    in_bytes: AtomicU64,
    out_bytes: AtomicU64,
}

impl Tally {
    pub(super) fn new(servers: usize) -> Self {
        Self((0..servers).map(|_| Row::default()).collect())
    }

    /// How many servers there may be.
    #[must_use]
    pub fn servers(&self) -> usize {
        self.0.len()
    }

    /// The traffic of one server.
    #[must_use]
    pub fn of(&self, server: usize) -> Traffic {
        let row = &self.0[server];
        let read = |word: &AtomicU64| word.load(Ordering::SeqCst);
        Traffic {
            connections: read(&row.connections),
            in_packets: read(&row.in_packets),
            out_packets: read(&row.out_packets),
            in_bytes: read(&row.in_bytes),
            out_bytes: read(&row.out_bytes),
        }
    }

    /// Adds what `count` does to a traffic of zeros. In the kernel each CPU has its own row and
    /// adds without a lock; here the compiler leaves the additions of zero out.
    #[inline(always)]
    pub(super) fn add(&self, server: u32, count: impl FnOnce(&mut Traffic)) {
        let Some(row) = self.0.get(server as usize) else {
            return;
        };
        let mut more = Traffic::default();
        count(&mut more);
        let pairs = [
            (&row.connections, more.connections),
            (&row.in_packets, more.in_packets),
            (&row.out_packets, more.out_packets),
            (&row.in_bytes, more.in_bytes),
            (&row.out_bytes, more.out_bytes),
        ];
        for (word, more) in pairs {
            if more != 0 {
                word.fetch_add(more, Ordering::Relaxed);
            }
        }
    }
}
