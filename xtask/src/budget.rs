//! The budget of each program's size on each kernel, in `ebpf/object/budget.txt`.
//!
//! Instruction counts repeat exactly on a busy machine; times do not. They differ between kernels,
//! so each kernel has its own lines.

use std::collections::BTreeMap;
use std::fmt::Write;

use anyhow::{Context, Result};

use crate::measure::Measurement;

/// The growth of a program, in percent, that needs no blessing.
const GROWTH_PERCENT: u64 = 5;

const HEAD: &str = "\
# What the programs cost in instructions: after translation, and while being verified.
# `cargo xtask verify` refuses 5 % above it; `cargo xtask verify --bless` writes this file.
";

#[derive(Debug, Default, PartialEq)]
pub(crate) struct Budget {
    /// The sizes by kernel and program.
    lines: BTreeMap<(String, String), Cost>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
struct Cost {
    translated: u32,
    verified: u32,
}

impl Budget {
    pub(crate) fn read(text: &str) -> Result<Budget> {
        let mut lines = BTreeMap::new();
        for line in text
            .lines()
            .filter(|line| !line.starts_with('#') && !line.is_empty())
        {
            let words: Vec<_> = line.split_whitespace().collect();
            let [kernel, program, translated, verified] = words[..] else {
                anyhow::bail!("budget.txt: \"{line}\" is not kernel, program and two counts");
            };
            let count = |word: &str| {
                word.parse()
                    .with_context(|| format!("budget.txt: \"{word}\" is not a count"))
            };
            let cost = Cost {
                translated: count(translated)?,
                verified: count(verified)?,
            };
            lines.insert((kernel.to_owned(), program.to_owned()), cost);
        }
        Ok(Budget { lines })
    }

    pub(crate) fn write(&self) -> String {
        let mut text = HEAD.to_owned();
        for ((kernel, program), cost) in &self.lines {
            let Cost {
                translated,
                verified,
            } = cost;
            let _ = writeln!(
                text,
                "{kernel:<6} {program:<40} {translated:>7} {verified:>8}"
            );
        }
        text
    }

    /// Makes the measured sizes the budget of their kernel.
    pub(crate) fn bless(&mut self, measurement: &Measurement) {
        let kernel = measurement.kernel();
        self.lines.retain(|(of, _), _| *of != kernel);
        for sizes in &measurement.programs {
            let cost = Cost {
                translated: sizes.translated,
                verified: sizes.verified,
            };
            self.lines
                .insert((kernel.clone(), sizes.name.clone()), cost);
        }
    }

    /// Whether there is a budget for the kernel.
    pub(crate) fn has(&self, kernel: &str) -> bool {
        self.lines.keys().any(|(of, _)| of == kernel)
    }

    /// The programs that exceed the budget or are missing on one side, one sentence each.
    pub(crate) fn compare(&self, measurement: &Measurement) -> Vec<String> {
        let kernel = measurement.kernel();
        let mut faults = Vec::new();
        for sizes in &measurement.programs {
            let key = (kernel.clone(), sizes.name.clone());
            let Some(cost) = self.lines.get(&key) else {
                faults.push(format!("{} has no budget for kernel {kernel}", sizes.name));
                continue;
            };
            let kinds = [
                ("translated", sizes.translated, cost.translated),
                ("verified", sizes.verified, cost.verified),
            ];
            for (kind, measured, allowed) in kinds {
                if u64::from(measured) * 100 > u64::from(allowed) * (100 + GROWTH_PERCENT) {
                    faults.push(format!(
                        "{} has {measured} instructions {kind} on kernel {kernel}; its budget is \
                         {allowed}",
                        sizes.name
                    ));
                }
            }
        }
        for (of, program) in self.lines.keys() {
            if *of == kernel
                && !measurement
                    .programs
                    .iter()
                    .any(|sizes| sizes.name == *program)
            {
                faults.push(format!(
                    "{program} has a budget for kernel {kernel} but did not load"
                ));
            }
        }
        faults
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::Sizes;

    #[test]
    fn a_program_may_grow_by_a_twentieth_and_no_more() {
        let mut budget = Budget::default();
        budget.bless(&measurement(100, 1000));

        assert!(budget.compare(&measurement(105, 1050)).is_empty());
        assert_eq!(budget.compare(&measurement(106, 1050)).len(), 1);
        assert_eq!(budget.compare(&measurement(105, 1051)).len(), 1);
    }

    #[test]
    fn what_is_written_reads_the_same() {
        let mut budget = Budget::default();
        budget.bless(&measurement(100, 1000));

        assert_eq!(Budget::read(&budget.write()).unwrap(), budget);
    }

    #[test]
    fn blessing_one_kernel_leaves_the_others() {
        let mut budget = Budget::read("6.1 director/old 1 2\n6.12 director/xdp 3 4\n").unwrap();

        budget.bless(&measurement(100, 1000));

        assert!(budget.has("6.12"));
        assert!(budget.compare(&measurement(100, 1000)).is_empty());
    }

    #[test]
    fn a_program_without_budget_or_a_budget_without_program_is_named() {
        let budget = Budget::read("6.1 director/gone 1 2\n").unwrap();

        assert_eq!(budget.compare(&measurement(100, 1000)).len(), 2);
    }

    #[test]
    fn a_line_that_is_no_budget_is_refused() {
        assert!(Budget::read("6.1 director/xdp 1").is_err());
        assert!(Budget::read("6.1 director/xdp 1 many").is_err());
    }

    fn measurement(translated: u32, verified: u32) -> Measurement {
        let name = "director/xdp".to_owned();
        let programs = vec![Sizes {
            name,
            translated,
            verified,
            jitted: 0,
        }];
        Measurement {
            release: "6.1.0-cloud".to_owned(),
            programs,
            refused: Vec::new(),
        }
    }
}
