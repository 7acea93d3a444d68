//! Runs the same commands and the same packets through a kernel's IPVS and through Shunt.
//!
//! `grammar` makes scenarios from seeds and the words in `vocabulary`. Both sides play them on the
//! same `bed`: the kernel in a `machine` that runs as a process, Shunt in namespaces of this
//! machine. `compare` compares each step, and `known` has the intended differences.

mod additions;
mod bed;
mod compare;
mod director;
mod grammar;
mod inside;
mod known;
mod machine;
mod packet;
mod play;
pub(crate) mod random;
mod record;
mod scenario;
mod traffic;
mod view;
mod vocabulary;

use std::collections::BTreeMap;
use std::path::Path;
use std::thread;
use std::time::Instant;

use anyhow::{Result, anyhow, bail, ensure};
use clap::Args;
use shunt_lab::missing_capability;

use compare::{Difference, first_difference};
use machine::Machine;
use scenario::{SLOTS, Scenario, Slot};

pub(crate) use inside::{is_here, run as run_inside};

/// The options of the comparison.
#[derive(Args)]
pub(crate) struct Options {
    /// The seed of the first scenario. Each later one has the next seed.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// The number of scenarios.
    #[arg(long, default_value_t = 500)]
    scenarios: u64,
    /// Only scenarios with a step that contains this text, such as "-s wrr".
    #[arg(long)]
    only: Option<String>,
    /// The hook to which Shunt is attached.
    #[arg(long, default_value = "tc", value_parser = ["tc", "xdp-generic", "xdp-native"])]
    hook: String,
    /// Use the results of IPVS from the last run, if it had the same scenarios.
    #[arg(long)]
    again: bool,
    /// Show all steps before a difference.
    #[arg(long)]
    verbose: bool,
}

/// The number of scenarios in the tests.
const CHECKED: u64 = 60;

/// One scenario in this many may differ when all are played and be equal when it is played alone.
const UNSTEADY: usize = 25;

/// Plays and compares. Fails if there is an unknown difference.
pub(crate) fn run(options: &Options) -> Result<()> {
    if let Some(capability) = missing_capability() {
        bail!("network namespaces need {capability}; run as root");
    }
    compare(options, &Machine::prepare()?)
}

/// Plays and compares for the tests, as far as this machine can.
pub(crate) fn check() -> Result<()> {
    if let Some(capability) = missing_capability() {
        println!("SKIPPED: network namespaces need {capability}");
        return Ok(());
    }
    let machine = match Machine::prepare() {
        Ok(machine) => machine,
        Err(error) => {
            println!("SKIPPED: needs Debian's user-mode-linux and ipvsadm: {error:#}");
            return Ok(());
        }
    };
    if let Err(error) = machine.play(&[], false) {
        println!("SKIPPED: needs a machine that user-mode-linux runs on: {error:#}");
        return Ok(());
    }
    let options = Options {
        seed: 1,
        scenarios: CHECKED,
        only: None,
        hook: "tc".to_owned(),
        again: false,
        verbose: false,
    };
    compare(&options, &machine)
}

fn compare(options: &Options, machine: &Machine) -> Result<()> {
    let scenarios = scenarios(options);
    ensure!(!scenarios.is_empty(), "no scenario has that text");
    let program = director::build()?;
    println!("playing {} scenarios twice", scenarios.len());
    let begun = Instant::now();
    let mut names = BTreeMap::new();
    let both = Both {
        machine,
        program: &program,
        options,
    };
    let found = both.differences(&scenarios, options.again, &mut names)?;
    println!(
        "both have played after {:.1} s",
        begun.elapsed().as_secs_f64()
    );
    for (name, count) in names {
        println!("known difference \"{name}\" in {count} scenarios");
    }
    let mut steady = Vec::new();
    let mut unsteady = Vec::new();
    for (scenario, difference) in &found {
        show(scenario, difference, options);
        if both.differ_always(scenario)? {
            steady.push((*scenario, difference));
        } else {
            unsteady.push((*scenario, difference));
        }
    }
    // The end of a long output is read first.
    for (what, list) in [("always", &steady), ("once", &unsteady)] {
        for (scenario, difference) in list {
            let (seed, step) = (scenario.seed, difference.step);
            println!("scenario {seed} differs {what}, in step {step}");
            print!("  only IPVS\n{}", difference.only_kernel);
            print!("  only Shunt\n{}", difference.only_shunt);
        }
    }
    let all = scenarios.len();
    if !steady.is_empty() {
        bail!("{} of {all} scenarios differ", steady.len());
    }
    ensure!(
        unsteady.len() * UNSTEADY <= all.max(UNSTEADY),
        "{} of {all} scenarios differ, but not when they are repeated",
        unsteady.len()
    );
    let steps: usize = scenarios.iter().map(|scenario| scenario.steps.len()).sum();
    println!("{all} scenarios, {steps} steps: no unknown difference");
    Ok(())
}

/// The two sides that play.
struct Both<'a> {
    machine: &'a Machine,
    program: &'a Path,
    options: &'a Options,
}

impl Both<'_> {
    fn differences<'s>(
        &self,
        scenarios: &'s [Scenario],
        again: bool,
        names: &mut BTreeMap<&'static str, usize>,
    ) -> Result<Vec<(&'s Scenario, Difference)>> {
        let (kernel, shunt) = thread::scope(|scope| {
            let kernel = scope.spawn(|| self.machine.play(scenarios, again));
            let shunt = director::play_all(self.program, &self.options.hook, scenarios);
            (kernel.join(), shunt)
        });
        let kernel = kernel.map_err(|_| anyhow!("the thread of the machine panicked"))??;
        let shunt = shunt?;
        let mut found = Vec::new();
        for ((scenario, kernel), shunt) in scenarios.iter().zip(&kernel).zip(&shunt) {
            if let Some(difference) = first_difference(scenario, kernel, shunt, names) {
                found.push((scenario, difference));
            }
        }
        Ok(found)
    }

    /// Whether a scenario that differed does so whenever it is played. Both sides follow the clock,
    /// and the machine may be busy with other work.
    fn differ_always(&self, scenario: &Scenario) -> Result<bool> {
        for _ in 0..2 {
            let alone = std::slice::from_ref(scenario);
            if self
                .differences(alone, false, &mut BTreeMap::new())?
                .is_empty()
            {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

fn show(scenario: &Scenario, found: &Difference, options: &Options) {
    let seed = scenario.seed;
    println!("\nscenario {seed} differs in step {}:", found.step);
    let shown = if options.verbose { 0 } else { found.step };
    for step in &scenario.steps[shown..=found.step] {
        println!("  {}", scenario.describe(step));
    }
    print!("  IPVS\n{}  Shunt\n{}", found.kernel, found.shunt);
    let hook = &options.hook;
    println!("  again: cargo xtask conform --verbose --scenarios 1 --hook {hook} --seed {seed}");
}

fn scenarios(options: &Options) -> Vec<Scenario> {
    let mut scenarios = Vec::new();
    for seed in options.seed..options.seed + options.scenarios {
        // The same seed has the same addresses, whatever else is played.
        let slot = Slot((seed % u64::from(SLOTS)) as u8);
        let scenario = grammar::scenario(seed, slot);
        let fits = |text: &String| {
            let has = |step| scenario.describe(step).contains(text);
            scenario.steps.iter().any(has)
        };
        if options.only.as_ref().is_none_or(fits) {
            scenarios.push(scenario);
        }
    }
    scenarios
}
