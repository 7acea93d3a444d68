//! The kernel's clock as the packet path reads it: jiffies, and how long one is.

use std::ops::Range;

use aya::programs::{ProgramError, TestRun, TestRunOptions, Xdp};
use nix::errno::Errno;
use nix::time::{ClockId, clock_getres};
use shunt_datapath::connection::TICK_MASK;

/// Why the kernel's clock cannot be read.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the text of each variant describes it")]
pub enum Error {
    #[error("cannot run the clock program")]
    Run(#[source] ProgramError),
    #[error("cannot read the resolution of the clock")]
    Resolution(#[source] Errno),
    #[error("cannot tell how many jiffies a second has: one has {jiffy_ns} ns")]
    Rate { jiffy_ns: u64 },
}

const SECOND_NS: u64 = 1_000_000_000;

/// Jiffies a second that a kernel can be built with (include/linux/jiffies.h).
const RATES: Range<u64> = 12..12_288;

/// The kernel's jiffies, read by the program `director_clock`.
pub fn jiffies(clock: &Xdp) -> Result<u64, Error> {
    let data_in = [0u8; 64];
    let mut data_out = [0u8; 64];
    let options = TestRunOptions {
        data_in: Some(&data_in),
        data_out: Some(&mut data_out),
        repeat: 1,
        ..TestRunOptions::default()
    };
    clock.test_run(options).map_err(Error::Run)?;
    let (first, _) = data_out.split_at(8);
    Ok(u64::from_ne_bytes(first.try_into().unwrap_or_default()))
}

/// How many jiffies a second has. The coarse clock advances by one jiffy (`KTIME_LOW_RES`,
/// kernel/time/posix-timers.c).
pub fn rate() -> Result<u64, Error> {
    let jiffy = clock_getres(ClockId::CLOCK_MONOTONIC_COARSE).map_err(Error::Resolution)?;
    let jiffy_ns = jiffy.tv_sec() as u64 * SECOND_NS + jiffy.tv_nsec() as u64;
    match rate_of(jiffy_ns) {
        Some(rate) => Ok(rate),
        None => Err(Error::Rate { jiffy_ns }),
    }
}

/// The rate of a jiffy, whose length the kernel rounds to nanoseconds.
fn rate_of(jiffy_ns: u64) -> Option<u64> {
    let rate = (SECOND_NS + jiffy_ns / 2).checked_div(jiffy_ns)?;
    RATES.contains(&rate).then_some(rate)
}

/// A tick is the power of two of jiffies that is nearest to a second and not shorter.
#[must_use]
pub fn tick_shift(rate: u64) -> u32 {
    rate.next_power_of_two().trailing_zeros()
}

/// The length of a tick in nanoseconds, for so many jiffies a second.
#[must_use]
pub fn tick_ns(rate: u64) -> u64 {
    (SECOND_NS << tick_shift(rate)) / rate
}

/// The tick of a number of jiffies.
#[must_use]
pub fn tick(jiffies: u64, shift: u32) -> u32 {
    (jiffies >> shift) as u32 & TICK_MASK
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_follows_from_a_jiffy_that_is_rounded_to_nanoseconds() {
        for rate in [100, 250, 300, 1000, 1024] {
            // `TICK_NSEC` (include/linux/jiffies.h).
            let jiffy_ns = (SECOND_NS + rate / 2) / rate;
            assert_eq!(rate_of(jiffy_ns), Some(rate));
        }
        assert_eq!(rate_of(0), None);
        assert_eq!(rate_of(1), None);
    }
}
