//! Differences between Shunt and IPVS that we stand by, each by a name that stands in
//! `docs/standards.md` with the reason.
//!
//! A difference is made equal only where exactly this difference is seen.

use std::collections::BTreeSet;

use super::compare::{View, connection};
use super::scenario::{Scenario, Step};

/// Seconds by which a clock that counts ticks may be off.
const TICK: u64 = 2;

pub struct Known<'a> {
    _scenario: &'a Scenario,
    names: BTreeSet<&'static str>,
}

impl<'a> Known<'a> {
    pub fn new(scenario: &'a Scenario) -> Self {
        Self {
            _scenario: scenario,
            names: BTreeSet::new(),
        }
    }

    /// Makes both views equal in what is known.
    pub fn settle(&mut self, step: &Step, kernel: &mut View, shunt: &mut View) {
        if let Step::Command { line, .. } = step
            && line.contains("-Lnc")
        {
            self.timers(kernel, shunt);
        }
    }

    pub fn names(&self) -> impl Iterator<Item = &'static str> {
        self.names.iter().copied()
    }

    /// Time left may differ by the time that the playing took, and by a tick.
    fn timers(&mut self, kernel: &View, shunt: &mut View) {
        let allowed = kernel.elapsed_s.max(shunt.elapsed_s) + TICK;
        for (theirs, ours) in kernel.said.iter().zip(&mut shunt.said) {
            if let (Some(one), Some(other)) = (connection(theirs), connection(ours))
                && one.0 == other.0
                && one.1.abs_diff(other.1) <= allowed
            {
                ours.clone_from(theirs);
                self.names.insert("timers");
            }
        }
    }
}
