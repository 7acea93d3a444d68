//! What a process took of processors and memory, as the kernel says.

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

/// The share of a processor that a process takes in this time, in percent.
pub(super) fn share(process: u32, time: Duration) -> Result<f64> {
    let (begun, before) = (Instant::now(), ran(process)?);
    thread::sleep(time);
    let spent = ran(process)?.saturating_sub(before);
    Ok(100.0 * spent.as_secs_f64() / begun.elapsed().as_secs_f64())
}

/// How long all threads of a process ran.
pub(super) fn ran(process: u32) -> Result<Duration> {
    let mut sum = 0;
    for thread in fs::read_dir(format!("/proc/{process}/task")).context("no such process")? {
        // One that ended meanwhile is not counted, and the daemon's wait for ten seconds.
        let Ok(text) = fs::read_to_string(thread?.path().join("schedstat")) else {
            continue;
        };
        let first = text
            .split_whitespace()
            .next()
            .context("an empty schedstat")?;
        sum += first
            .parse::<u64>()
            .context("a schedstat without a number")?;
    }
    Ok(Duration::from_nanos(sum))
}

/// Processor time of the processes that were waited for.
pub(super) fn children() -> Result<Duration> {
    let stat = fs::read_to_string("/proc/self/stat")?;
    // Fields 16 and 17 of proc(5), in hundredths of a second; the second is a name in brackets.
    let (_, behind) = stat.rsplit_once(')').context("a stat without a name")?;
    let times = behind.split_whitespace().skip(13).take(2);
    let sum: u64 = times.filter_map(|time| time.parse::<u64>().ok()).sum();
    Ok(Duration::from_millis(10 * sum))
}

/// Memory of a process's own.
pub(super) fn own_mb(process: u32) -> Result<f64> {
    let status = fs::read_to_string(format!("/proc/{process}/status"))?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("RssAnon:"));
    let number = line.and_then(|line| line.split_whitespace().next());
    let kib: f64 = number.context("no RssAnon")?.parse()?;
    Ok(kib / 1024.0)
}
