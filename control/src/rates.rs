//! Rates as the kernel's estimator computes them (net/netfilter/ipvs/ip_vs_est.c). Every two
//! seconds the estimate moves a quarter of the way to the rate just measured, in fixed point.

use shunt_model::{Counters, Rates};

/// The interval between calls of [`Estimator::sample`], in seconds.
pub const INTERVAL_S: u64 = 2;

/// The estimator of one service or server.
#[derive(Clone, Copy, Debug, Default)]
pub struct Estimator {
    last: Counters,
    connections: u64,
    in_packets: u64,
    out_packets: u64,
    in_bytes: u64,
    out_bytes: u64,
}

/// Fixed point over an interval of two seconds: packets and connections have ten fraction bits,
/// bytes have five. Dividing by two takes one bit from each shift.
const FINE: u32 = 9;
const COARSE: u32 = 4;

fn step(estimate: &mut u64, seen: u64, shift: u32) {
    let rate = i128::from(seen) << shift;
    let old = i128::from(*estimate);
    let new = old + ((rate - old) >> 2);
    *estimate = u64::try_from(new.max(0)).unwrap_or(u64::MAX);
}

impl Estimator {
    /// Starts from `counters`, so that what they already hold makes no rate.
    #[must_use]
    pub fn new(counters: Counters) -> Self {
        Self {
            last: counters,
            ..Self::default()
        }
    }

    /// Takes in the counters as they are at the end of an interval.
    pub fn sample(&mut self, counters: Counters) {
        let seen = counters - self.last;
        self.last = counters;
        step(&mut self.connections, seen.connections, FINE);
        step(&mut self.in_packets, seen.in_packets, FINE);
        step(&mut self.out_packets, seen.out_packets, FINE);
        step(&mut self.in_bytes, seen.in_bytes, COARSE);
        step(&mut self.out_bytes, seen.out_bytes, COARSE);
    }

    /// Rates a second, rounded as `ip_vs_read_estimator` rounds them.
    #[must_use]
    pub fn rates(&self) -> Rates {
        let fine = |estimate: u64| (estimate + 0x1ff) >> 10;
        let coarse = |estimate: u64| (estimate + 0xf) >> 5;
        Rates {
            connections: fine(self.connections),
            in_packets: fine(self.in_packets),
            out_packets: fine(self.out_packets),
            in_bytes: coarse(self.in_bytes),
            out_bytes: coarse(self.out_bytes),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counted(connections: u64, in_packets: u64, in_bytes: u64) -> Counters {
        Counters {
            connections,
            in_packets,
            in_bytes,
            ..Counters::default()
        }
    }

    // oracle, ipvsadm-counters: 10 connections, 50 packets, 2,680 bytes, one sample later.
    #[test]
    fn a_burst_shows_as_the_kernel_shows_it() {
        let mut estimator = Estimator::default();
        estimator.sample(counted(10, 50, 2680));
        let rates = estimator.rates();
        assert_eq!((rates.connections, rates.in_packets), (1, 6));
        estimator.sample(counted(10, 50, 2680));
        assert_eq!(estimator.rates().in_packets, 5);
        assert_eq!(estimator.rates().in_bytes, 251);
    }

    #[test]
    fn an_even_rate_is_found_in_time() {
        let mut estimator = Estimator::default();
        for turn in 1..=60 {
            estimator.sample(counted(200 * turn, 2000 * turn, 0));
        }
        assert_eq!(estimator.rates().connections, 100);
        assert_eq!(estimator.rates().in_packets, 1000);
    }

    #[test]
    fn counters_that_went_back_are_no_rate() {
        let mut estimator = Estimator::new(counted(100, 100, 100));
        estimator.sample(counted(0, 0, 0));
        assert_eq!(estimator.rates(), Rates::default());
    }
}
