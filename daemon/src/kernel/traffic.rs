//! The counters of all servers at once: one call of the kernel in place of one a server.

use std::os::fd::{AsRawFd, OwnedFd};

use anyhow::{Context, Result, bail};
use shunt_datapath::entry::Traffic;
use shunt_model::Counters;

/// `BPF_MAP_LOOKUP_BATCH` of `enum bpf_cmd` in `linux/bpf.h`.
const LOOKUP_BATCH: libc::c_long = 24;
/// Servers of one call, so that the kernel's side of it is short.
const BATCH: usize = 4096;
/// Words of a server's counters on one CPU.
const WORDS: usize = size_of::<Traffic>() / 8;

/// The `batch` of `union bpf_attr`.
#[repr(C)]
#[derive(Default)]
struct Question {
    from: u64,
    to: u64,
    keys: u64,
    values: u64,
    count: u32,
    map: u32,
    element_flags: u64,
    flags: u64,
}

/// The counters of the servers with ids below `end`, over all CPUs.
pub fn read(map: &OwnedFd, end: u32) -> Result<Vec<Counters>> {
    let cpus = aya::util::nr_cpus().map_err(|(what, error)| anyhow::anyhow!("{what}: {error}"))?;
    let end = end as usize;
    let mut all = Vec::with_capacity(end);
    let mut keys = vec![0u32; BATCH];
    let mut values = vec![0u64; BATCH * cpus * WORDS];
    let (mut from, mut to) = (0u32, 0u32);
    while all.len() < end {
        let mut question = Question {
            // The first call begins at the first server.
            from: match all.is_empty() {
                true => 0,
                false => (&raw const from) as u64,
            },
            to: (&raw mut to) as u64,
            keys: keys.as_mut_ptr() as u64,
            values: values.as_mut_ptr() as u64,
            count: BATCH.min(end - all.len()) as u32,
            map: map.as_raw_fd() as u32,
            ..Question::default()
        };
        // SAFETY: the question is as long as we say, and what it points to lives through the call
        // and has room for `count` keys and values.
        let done = unsafe {
            let size = size_of::<Question>();
            libc::syscall(libc::SYS_bpf, LOOKUP_BATCH, &raw mut question, size)
        };
        if done != 0 {
            let error = std::io::Error::last_os_error();
            // The table ends here.
            if error.raw_os_error() != Some(libc::ENOENT) {
                return Err(error).context("cannot read the counters of servers");
            }
        }
        let count = question.count as usize;
        let told = values.chunks(cpus * WORDS).take(count).map(sum);
        all.extend(told);
        if done != 0 {
            break;
        }
        if count == 0 {
            bail!("the kernel gives no counters and no end of them");
        }
        from = to;
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
