//! The same commands and the same packets through the IPVS of a kernel and through Shunt.
//!
//! Scenarios are made of seeds by `grammar`, out of the words in `vocabulary`. Both play on the
//! same `bed`: the kernel in a `machine` that runs as a process, Shunt in namespaces of this one.
//! `compare` looks at each step, and `known` has the differences that we stand by.

mod bed;
mod compare;
mod director;
mod grammar;
mod inside;
mod known;
mod machine;
mod packet;
mod play;
mod random;
mod scenario;
mod vocabulary;

use std::collections::BTreeMap;
use std::thread;
use std::time::Instant;

use anyhow::{Result, anyhow, bail, ensure};
use clap::Args;
use nix::unistd::geteuid;

use compare::first_difference;
use machine::Machine;
use scenario::{SLOTS, Scenario, Slot};

pub use inside::{is_here, run as run_inside};

/// What is compared, and how.
#[derive(Args)]
pub struct Options {
    /// The seed of the first scenario; each has one more.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How many.
    #[arg(long, default_value_t = 500)]
    scenarios: u64,
    /// Only scenarios with a step that has this text in it, such as "-s wrr".
    #[arg(long)]
    only: Option<String>,
    /// How Shunt is attached: tc, xdp-generic or xdp-native.
    #[arg(long, default_value = "tc")]
    hook: String,
    /// Take what IPVS did from the last run, if it was of the same scenarios.
    #[arg(long)]
    again: bool,
    /// Show every step of scenarios that differ, not only the first difference.
    #[arg(long)]
    verbose: bool,
}

/// Plays and compares; an error if there is a difference that is not known.
pub fn run(options: &Options) -> Result<()> {
    ensure!(geteuid().is_root(), "network namespaces need root");
    let scenarios = scenarios(options);
    ensure!(!scenarios.is_empty(), "no scenario has that text");
    let program = director::build()?;
    let machine = Machine::prepare()?;
    println!("playing {} scenarios twice", scenarios.len());
    let begun = Instant::now();
    let (kernel, shunt) = thread::scope(|scope| {
        let kernel = scope.spawn(|| machine.play(&scenarios, options.again));
        let shunt = director::play_all(&program, &options.hook, &scenarios);
        println!(
            "Shunt has played after {:.1} s",
            begun.elapsed().as_secs_f64()
        );
        (kernel.join(), shunt)
    });
    let kernel = kernel.map_err(|_| anyhow!("the thread of the machine died"))??;
    let shunt = shunt?;
    println!(
        "IPVS has played after {:.1} s",
        begun.elapsed().as_secs_f64()
    );
    let mut names = BTreeMap::new();
    let mut different = 0;
    let mut steps = 0;
    for ((scenario, kernel), shunt) in scenarios.iter().zip(&kernel).zip(&shunt) {
        steps += scenario.steps.len();
        let Some(found) = first_difference(scenario, kernel, shunt, &mut names) else {
            continue;
        };
        different += 1;
        println!(
            "\nscenario {} differs in step {}:",
            scenario.seed, found.step
        );
        let shown = if options.verbose { 0 } else { found.step };
        for step in &scenario.steps[shown..=found.step] {
            println!("  {}", scenario.describe(step));
        }
        print!("  IPVS\n{}  Shunt\n{}", found.kernel, found.shunt);
        println!(
            "  again: cargo xtask conform --verbose --scenarios 1 --seed {}",
            scenario.seed
        );
    }
    for (name, count) in names {
        println!("known difference \"{name}\" in {count} scenarios");
    }
    if different != 0 {
        bail!("{different} of {} scenarios differ", scenarios.len());
    }
    println!(
        "{} scenarios, {steps} steps: no difference that is not known",
        scenarios.len()
    );
    Ok(())
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
