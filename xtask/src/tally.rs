//! Adds up the results that `cargo test` prints: one line for each test program.

use std::fmt;

/// The number of tests that ran.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Tally {
    pub passed: u64,
    pub failed: u64,
}

impl Tally {
    /// Reads one line of output. Lines that are not a result are ignored.
    pub(crate) fn read(&mut self, line: &str) {
        let Some(result) = line.strip_prefix("test result: ") else {
            return;
        };
        for part in result.split(['.', ';']) {
            match part.trim().split_once(' ') {
                Some((count, "passed")) => self.passed += count.parse().unwrap_or(0),
                Some((count, "failed")) => self.failed += count.parse().unwrap_or(0),
                _ => {}
            }
        }
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} passed, {} failed", self.passed, self.failed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_of_all_programs_are_added() {
        let output = "\
running 4 tests
test a ... ok
test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.10s
test result: FAILED. 17 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out; finished in 2.00s
a line about 5 passed; 6 failed; things
";
        let mut tally = Tally::default();

        output.lines().for_each(|line| tally.read(line));

        assert_eq!(
            tally,
            Tally {
                passed: 20,
                failed: 2
            }
        );
        assert_eq!(tally.to_string(), "20 passed, 2 failed");
    }
}
