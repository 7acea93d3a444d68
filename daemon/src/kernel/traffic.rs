//! The counters of all servers at once: one call of the kernel in place of one a server.

use std::os::fd::OwnedFd;

use anyhow::{Context, Result};
use shunt_datapath::entry::Traffic;
use shunt_model::Counters;

use super::batch::Batches;

/// Servers of one call, so that the kernel's side of it is short.
const BATCH: usize = 4096;
/// Words of a server's counters on one CPU.
const WORDS: usize = size_of::<Traffic>() / 8;

/// The counters of the servers with ids below `end`, over all CPUs.
pub fn read(map: &OwnedFd, end: u32) -> Result<Vec<Counters>> {
    let cpus = aya::util::nr_cpus().map_err(|(what, error)| anyhow::anyhow!("{what}: {error}"))?;
    let end = end as usize;
    let mut all = Vec::with_capacity(end);
    let mut keys = vec![0u32; BATCH];
    let mut values = vec![0u64; BATCH * cpus * WORDS];
    let mut batches = Batches::new(map);
    while all.len() < end {
        let most = BATCH.min(end - all.len());
        let keys = keys.get_mut(..most).unwrap_or_default();
        let read = batches.read(keys, &mut values, cpus * WORDS);
        let count = read.context("cannot read the counters of servers")?;
        if count == 0 {
            break;
        }
        let told = values.chunks(cpus * WORDS).take(count).map(sum);
        all.extend(told);
    }
    Ok(all)
}

/// What all CPUs counted for a server.
fn sum(cpus: &[u64]) -> Counters {
    let mut total = Counters::default();
    for cpu in cpus.chunks_exact(WORDS) {
        let [connections, in_packets, out_packets, in_bytes, out_bytes] = cpu else {
            continue;
        };
        total += Counters {
            connections: *connections,
            in_packets: *in_packets,
            out_packets: *out_packets,
            in_bytes: *in_bytes,
            out_bytes: *out_bytes,
        };
    }
    total
}
