//! Waiting for a condition, with a limit.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// How often the condition is checked.
const PERIOD: Duration = Duration::from_millis(1);

/// Returns as soon as `condition` holds. Fails if `condition` fails or does not hold within
/// `limit`.
pub fn until(
    what: &str,
    limit: Duration,
    mut condition: impl FnMut() -> Result<bool>,
) -> Result<()> {
    let end = Instant::now() + limit;
    while !condition()? {
        if Instant::now() >= end {
            bail!("waited {:.1} s in vain for {what}", limit.as_secs_f64());
        }
        thread::sleep(PERIOD);
    }
    Ok(())
}
