//! What all processors of the machine spent, as `/proc/stat` counts it.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result};
use nix::unistd::{SysconfVar, sysconf};

/// Time of all processors together, for whatever ran, since the machine started.
pub(super) fn spent() -> Result<Duration> {
    let text = fs::read_to_string("/proc/stat").context("cannot read /proc/stat")?;
    let ticks = busy(&text).context("/proc/stat has no line of all processors")?;
    let a_second = sysconf(SysconfVar::CLK_TCK)?.context("the clock's tick is unknown")?;
    Ok(Duration::from_secs_f64(ticks as f64 / a_second as f64))
}

/// Ticks that were neither idle nor stolen by the hypervisor.
fn busy(text: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix("cpu "))?;
    let counts: Vec<u64> = line
        .split_whitespace()
        .map(|word| word.parse().ok())
        .collect::<Option<_>>()?;
    // user, nice, system, idle, iowait, irq, softirq, ...; a guest's time is user's already.
    let busy = [0, 1, 2, 5, 6].map(|at| counts.get(at).copied());
    busy.into_iter().sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn idle_and_stolen_time_is_not_spent() {
        let text = "cpu  100 20 30 4000 500 6 7 8 90 0\ncpu0 1 1 1 1 1 1 1 1 1 1\nintr 5\n";

        assert_eq!(busy(text), Some(100 + 20 + 30 + 6 + 7));
    }

    #[test]
    fn what_is_no_such_file_has_no_figure() {
        assert_eq!(busy("cpu0 1 2 3\n"), None);
        assert_eq!(busy("cpu  1 2 3\n"), None);
        assert_eq!(busy("cpu  1 2 three 4 5 6 7\n"), None);
    }
}
