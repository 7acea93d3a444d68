//! Finds the first difference between the records of both sides.
//!
//! `known` has the intended differences, by name.

use std::collections::BTreeMap;

use super::known;
use super::record::Record;
use super::scenario::Scenario;
use super::view::View;

/// Two texts that should be equal and are not.
pub(super) struct Difference {
    pub step: usize,
    pub kernel: String,
    pub shunt: String,
    /// What only one of them has; nothing if only the order differs.
    pub only_kernel: String,
    pub only_shunt: String,
}

/// Finds the first difference that has no name. Differences with a name are counted.
pub(super) fn first_difference(
    scenario: &Scenario,
    kernel: &[Record],
    shunt: &[Record],
    names: &mut BTreeMap<&'static str, usize>,
) -> Option<Difference> {
    let mut known = known::Known::new(scenario);
    for (step, (kernel, shunt)) in kernel.iter().zip(shunt).enumerate() {
        let mut kernel = View::of(&scenario.steps[step], kernel, scenario.slot);
        let mut shunt = View::of(&scenario.steps[step], shunt, scenario.slot);
        known.settle(&scenario.steps[step], &mut kernel, &mut shunt);
        kernel.elapsed_s = shunt.elapsed_s;
        if kernel != shunt {
            return Some(Difference {
                step,
                only_kernel: kernel.without(&shunt).show(),
                only_shunt: shunt.without(&kernel).show(),
                kernel: kernel.show(),
                shunt: shunt.show(),
            });
        }
    }
    for name in known.names() {
        *names.entry(name).or_default() += 1;
    }
    None
}
