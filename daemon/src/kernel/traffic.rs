//! The counters of all servers, read in batches instead of one system call a server.

use std::io;

use aya::maps::MapData;
use shunt_datapath::entry::Traffic;
use shunt_model::Counters;

use super::batch::{self, Held};

/// The most servers that one system call reads, so that it stays short.
const BATCH: usize = 4096;
/// Words of a server's counters on one CPU.
const WORDS: usize = size_of::<Traffic>() / 8;

/// Why counters cannot be read.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the text of each variant describes it")]
pub enum Error {
    #[error("cannot tell how many CPUs there are from {0}")]
    Cpus(&'static str, #[source] io::Error),
    #[error(transparent)]
    Hold(#[from] batch::Error),
    #[error("cannot read the counters of servers")]
    Read(#[source] batch::Error),
}

/// The map of counters.
pub type Traffics = Held<u32, u64>;

/// Holds the map of counters.
pub fn hold(map: &MapData) -> Result<Traffics, Error> {
    let cpus = aya::util::nr_cpus().map_err(|(what, error)| Error::Cpus(what, error))?;
    Ok(Held::per_cpu(map, WORDS, cpus)?)
}

/// The counters of the servers with ids below `end`, over all CPUs.
pub fn read(map: &Traffics, end: u32) -> Result<Vec<Counters>, Error> {
    let width = map.width();
    let end = end as usize;
    let mut all = Vec::with_capacity(end);
    let mut keys = vec![0u32; BATCH];
    let mut values = vec![0u64; BATCH * width];
    let mut batches = map.batches();
    while all.len() < end {
        let most = BATCH.min(end - all.len());
        let keys = keys.get_mut(..most).unwrap_or_default();
        let read = batches.read(keys, &mut values);
        let count = read.map_err(Error::Read)?;
        if count == 0 {
            break;
        }
        let told = values.chunks(width).take(count).map(sum);
        all.extend(told);
    }
    Ok(all)
}

/// The sums of a server's counters over all CPUs.
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
