//! `cargo xtask fuzz`: gives random requests to the API, and random damaged journals to the code
//! that reads them.
//!
//! Each run is one request or one damaged journal. A failure names the seed of its round, which
//! reproduces it.

mod api;
mod state;
mod words;

use std::time::Instant;

use anyhow::{Result, bail};
use clap::{Args, ValueEnum};

/// The targets, the number of runs, and the first seed.
#[derive(Args, Clone, Debug)]
pub(crate) struct Options {
    /// The targets; all if none is named.
    targets: Vec<Target>,
    /// The number of runs of each target.
    #[arg(long, default_value_t = 1_000_000)]
    runs: u64,
    /// The first seed. A failure names the seed of its round.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Target {
    /// Requests to the API, in any order, against a director.
    Api,
    /// Journals with damage.
    State,
}

/// The number of requests or journals in one round.
const ROUND: u64 = 1000;

/// Runs the targets.
pub(crate) fn run(options: &Options) -> Result<()> {
    let targets = match options.targets.as_slice() {
        [] => &[Target::Api, Target::State][..],
        named => named,
    };
    for target in targets {
        let begun = Instant::now();
        let mut runs = 0;
        let mut taken = 0;
        for seed in options.seed.. {
            if runs >= options.runs {
                break;
            }
            let count = ROUND.min(options.runs - runs);
            let round = std::panic::catch_unwind(|| match target {
                Target::Api => api::round(seed, count),
                Target::State => state::round(seed, count),
            });
            match round {
                Ok(done) => taken += done?,
                Err(_) => bail!("{target:?}: a panic; again by --seed {seed} --runs {count}"),
            }
            runs += count;
        }
        let seconds = begun.elapsed().as_secs_f64();
        println!(
            "{target:?}: {runs} runs in {seconds:.1} s, {:.0} a second; {taken} were taken",
            runs as f64 / seconds.max(0.001)
        );
    }
    Ok(())
}

/// A short run among the tests.
#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_at_random_end_nothing_and_some_are_taken() {
        let taken: u64 = (1..=4).map(|seed| api::round(seed, 500).unwrap()).sum();
        assert!(taken > 100, "{taken} of 2000");
    }

    #[test]
    fn damaged_journals_are_read_and_resumed() {
        let taken: u64 = (1..=4).map(|seed| state::round(seed, 100).unwrap()).sum();
        assert!(taken > 100, "{taken} records");
    }
}
