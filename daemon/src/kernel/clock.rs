//! The kernel's clock as the packet path reads it: jiffies, and how long one is.

use anyhow::{Context, Result, bail};
use aya::programs::{TestRun, TestRunOptions, Xdp};
use nix::time::{ClockId, clock_gettime};
use shunt_datapath::connection::TICK_MASK;

/// Where the 64-bit count begins: `INITIAL_JIFFIES` wraps the low half five minutes after boot.
const BEGIN: u64 = 1 << 32;

/// Jiffies a second that kernels are built with (kernel/Kconfig.hz).
const RATES: [u64; 4] = [100, 250, 300, 1000];

/// Jiffies now, told by a program of our own.
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

/// How many jiffies a second has: they are as old as the monotonic clock.
pub fn rate(jiffies: u64) -> Result<u64> {
    let up = clock_gettime(ClockId::CLOCK_MONOTONIC).context("cannot read the clock")?;
    let up_ms = up.tv_sec() as u64 * 1000 + up.tv_nsec() as u64 / 1_000_000;
    let fits = |rate: &u64| {
        let age = jiffies.wrapping_sub(BEGIN - 300 * rate);
        let age_ms = age.saturating_mul(1000) / rate;
        age_ms.abs_diff(up_ms) < 3000 + up_ms / 100
    };
    match RATES.into_iter().find(fits) {
        Some(rate) => Ok(rate),
        None => bail!("cannot tell how many jiffies a second has (now {jiffies}, up {up_ms} ms)"),
    }
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
