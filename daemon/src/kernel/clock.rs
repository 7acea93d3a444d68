//! The kernel's clock as the packet path reads it: jiffies, and how long one is.

use anyhow::{Context, Result, bail};
use aya::programs::{TestRun, TestRunOptions, Xdp};
use nix::time::{ClockId, clock_gettime};
use shunt_datapath::connection::TICK_MASK;

/// Jiffies begin 300 seconds below this value (`INITIAL_JIFFIES`), so that their low half wraps
/// five minutes after boot.
const BEGIN: u64 = 1 << 32;

/// The rates (jiffies a second) with which kernels are built (kernel/Kconfig.hz).
const RATES: [u64; 4] = [100, 250, 300, 1000];

/// The kernel's jiffies, read by the program `director_clock`.
pub fn jiffies(clock: &Xdp) -> Result<u64> {
    let data_in = [0u8; 64];
    let mut data_out = [0u8; 64];
    let options = TestRunOptions {
        data_in: Some(&data_in),
        data_out: Some(&mut data_out),
        repeat: 1,
        ..TestRunOptions::default()
    };
    clock
        .test_run(options)
        .context("cannot run the clock program")?;
    let (first, _) = data_out.split_at(8);
    Ok(u64::from_ne_bytes(first.try_into().unwrap_or_default()))
}

/// The number of jiffies a second. Jiffies are as old as the monotonic clock, so their quotient is
/// the rate. If no rate fits, as in some time namespaces, jiffies are counted for a while.
pub fn rate(clock: &Xdp) -> Result<u64> {
    let (now, up_ms) = (jiffies(clock)?, up_ms()?);
    let begun_ms = offset_ms(&std::fs::read_to_string(OFFSETS).unwrap_or_default());
    if let Some(rate) = rate_of_age(now, up_ms.saturating_add_signed(-begun_ms)) {
        return Ok(rate);
    }
    while up_ms_since(up_ms)? < COUNTED_MS {
        std::thread::yield_now();
    }
    let (then, counted_ms) = (jiffies(clock)?, up_ms_since(up_ms)?);
    match rate_of_pace(then.wrapping_sub(now), counted_ms) {
        Some(rate) => Ok(rate),
        None => bail!(
            "cannot tell how many jiffies a second has ({now}, and {then} after {counted_ms} ms)"
        ),
    }
}

/// The offsets of the clocks of this time namespace (time_namespaces(7)).
const OFFSETS: &str = "/proc/self/timens_offsets";
/// How long jiffies are counted if their age gives no rate.
const COUNTED_MS: u64 = 300;

fn up_ms() -> Result<u64> {
    let up = clock_gettime(ClockId::CLOCK_MONOTONIC).context("cannot read the clock")?;
    Ok(up.tv_sec() as u64 * 1000 + up.tv_nsec() as u64 / 1_000_000)
}

fn up_ms_since(before: u64) -> Result<u64> {
    Ok(up_ms()?.saturating_sub(before))
}

/// How many milliseconds the monotonic clock of a time namespace is ahead of the machine's.
fn offset_ms(offsets: &str) -> i64 {
    let mut lines = offsets.lines().map(str::split_whitespace);
    let seconds = lines.find_map(|mut words| match words.next() {
        Some("monotonic" | "1") => words.next()?.parse::<i64>().ok(),
        _ => None,
    });
    seconds.unwrap_or(0).saturating_mul(1000)
}

/// The rate for which the jiffies fit the machine's uptime.
fn rate_of_age(jiffies: u64, up_ms: u64) -> Option<u64> {
    let fits = |rate: &u64| {
        let age = jiffies.wrapping_sub(BEGIN - 300 * rate);
        let age_ms = age.saturating_mul(1000) / rate;
        age_ms.abs_diff(up_ms) < 3000 + up_ms / 100
    };
    RATES.into_iter().find(fits)
}

/// The rate that is nearest to this number of jiffies in this number of milliseconds.
fn rate_of_pace(jiffies: u64, ms: u64) -> Option<u64> {
    let pace = jiffies.checked_mul(1000)?.checked_div(ms)?;
    let nearest = RATES.into_iter().min_by_key(|rate| rate.abs_diff(pace))?;
    // The closest rates are 250 and 300. A twelfth keeps their ranges apart.
    (nearest.abs_diff(pace) * 12 < nearest).then_some(nearest)
}

/// A tick is the power of two of jiffies that is nearest to a second and not shorter.
#[must_use]
pub fn tick_shift(rate: u64) -> u32 {
    rate.next_power_of_two().trailing_zeros()
}

#[must_use]
pub fn tick_ns(rate: u64) -> u64 {
    (1_000_000_000u64 << tick_shift(rate)) / rate
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
    fn the_rate_follows_from_the_age_of_the_machine_or_from_the_pace() {
        for rate in RATES {
            let up_ms = 86_400_000;
            let jiffies = BEGIN - 300 * rate + rate * up_ms / 1000;
            assert_eq!(rate_of_age(jiffies, up_ms), Some(rate));
            assert_eq!(rate_of_age(jiffies, 40 * up_ms), None);
            assert_eq!(rate_of_pace(rate * 303 / 1000, 303), Some(rate));
        }
        assert_eq!(rate_of_pace(150, 300), None);
        assert_eq!(rate_of_pace(0, 0), None);
    }

    #[test]
    fn a_time_namespace_is_ahead_by_what_the_kernel_says() {
        let offsets = "monotonic      864000         0\nboottime        7         0\n";
        assert_eq!(offset_ms(offsets), 864_000_000);
        assert_eq!(offset_ms("monotonic -5 0\n"), -5000);
        assert_eq!(offset_ms(""), 0);
    }
}
