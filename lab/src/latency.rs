//! Latencies in a histogram of fixed size, with a relative error of one part in thirty-two.

use std::time::Duration;

/// Steps between two powers of two.
const STEPS: u64 = 32;
/// The histogram reaches 2^36 microseconds, about nineteen hours. Longer latencies count as that.
const BUCKETS: usize = 32 * 32;

/// Latencies, counted in buckets whose bounds differ by at most three percent.
#[derive(Clone, Debug)]
pub struct Latency {
    counts: Vec<u64>,
    total: u64,
    longest: Duration,
}

impl Default for Latency {
    fn default() -> Latency {
        Latency {
            counts: vec![0; BUCKETS],
            total: 0,
            longest: Duration::ZERO,
        }
    }
}

impl Latency {
    pub(crate) fn add(&mut self, latency: Duration) {
        let micros = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX);
        if let Some(count) = self.counts.get_mut(bucket(micros)) {
            *count += 1;
        }
        self.total += 1;
        self.longest = self.longest.max(latency);
    }

    /// The latency that `percent` of all latencies do not exceed; zero if there are none.
    pub fn percentile(&self, percent: f64) -> Duration {
        let wanted = (self.total as f64 * percent / 100.0).ceil() as u64;
        let mut seen = 0;
        for (bucket, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= wanted && *count > 0 {
                return Duration::from_micros(highest(bucket)).min(self.longest);
            }
        }
        self.longest
    }

    /// The longest latency; zero if there are none.
    pub fn longest(&self) -> Duration {
        self.longest
    }

    /// The number of latencies.
    pub fn count(&self) -> u64 {
        self.total
    }
}

fn bucket(micros: u64) -> usize {
    if micros < STEPS {
        return micros as usize;
    }
    let shift = micros.ilog2() - STEPS.ilog2();
    let bucket = u64::from(shift) * STEPS + (micros >> shift);
    (bucket as usize).min(BUCKETS - 1)
}

/// The longest latency that falls into a bucket.
fn highest(bucket: usize) -> u64 {
    let bucket = bucket as u64;
    if bucket < 2 * STEPS {
        return bucket;
    }
    let shift = bucket / STEPS - 1;
    ((bucket % STEPS + STEPS + 1) << shift) - 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_holds_what_lies_between_its_neighbours_limits() {
        for micros in (0..100_000).chain([1 << 30, (1 << 33) + 12345]) {
            let bucket = bucket(micros);
            assert!(highest(bucket) >= micros, "{micros}");
            assert!(highest(bucket) <= micros + micros / STEPS + 1, "{micros}");
            assert!(bucket == 0 || highest(bucket - 1) < micros, "{micros}");
        }
    }

    #[test]
    fn percentiles_are_of_all_that_was_counted() {
        let mut latency = Latency::default();
        assert_eq!(latency.percentile(99.0), Duration::ZERO);
        for micros in 1..=1000 {
            latency.add(Duration::from_micros(micros));
        }
        let median = latency.percentile(50.0).as_micros();
        assert!((500..=516).contains(&median), "{median}");
        assert_eq!(latency.percentile(100.0), Duration::from_micros(1000));
    }
}
