//! Loads every program into one or more kernels, prints its size, and compares it with the budget.
//! The stack of each program's deepest chain of calls is computed from the object.

use std::fs;

use anyhow::{Result, bail, ensure};
use clap::Args;
use nix::unistd::geteuid;

use crate::budget::Budget;
use crate::measure::{self, Measurement};
use crate::{kernels, place, stack};

#[derive(Args, Default)]
pub(crate) struct Options {
    /// Use the oldest supported kernels, in emulated machines, instead of this one.
    #[arg(long)]
    kernels: bool,
    /// Write the measured sizes as the budget.
    #[arg(long)]
    bless: bool,
}

pub(crate) fn run(options: &Options) -> Result<()> {
    let measurements = if options.kernels {
        kernels::measure()?
    } else {
        ensure!(geteuid().is_root(), "loading eBPF programs needs root");
        vec![measure::this_kernel()?]
    };
    measurements.iter().for_each(print);

    let mut budget = Budget::read(&fs::read_to_string(place::budget()).unwrap_or_default())?;
    let mut faults = Vec::new();
    for name in place::OBJECTS {
        let chains = stack::deepest(&fs::read(place::object(name))?)?;
        faults.extend(stack::faults(&chains));
    }
    ensure!(faults.is_empty(), "{}", faults.join("\n"));
    for measurement in &measurements {
        let kernel = measurement.kernel();
        if options.bless {
            budget.bless(measurement);
        } else if budget.has(&kernel) {
            faults.extend(budget.compare(measurement));
        } else {
            println!("kernel {kernel} has no budget; `cargo xtask verify --bless` writes one");
        }
    }
    let refused: usize = measurements.iter().map(|m| m.refused.len()).sum();
    ensure!(
        refused == 0,
        "{refused} programs were rejected; the reasons are above"
    );
    if !faults.is_empty() {
        bail!(
            "{}\nif this is intended, run `cargo xtask verify --bless` and commit the budget",
            faults.join("\n")
        );
    }
    if options.bless {
        fs::write(place::budget(), budget.write())?;
        println!("wrote ebpf/object/budget.txt");
    }
    Ok(())
}

fn print(measurement: &Measurement) {
    let widest = measurement
        .programs
        .iter()
        .map(|sizes| sizes.name.len())
        .max()
        .unwrap_or(0);
    let width = widest.max("program".len());
    println!("\nkernel {}", measurement.release);
    println!("{:<width$}  translated  verified  machine code", "program");
    for sizes in &measurement.programs {
        let measure::Sizes {
            name,
            translated,
            verified,
            jitted,
        } = sizes;
        println!("{name:<width$}  {translated:>10}  {verified:>8}  {jitted:>6} bytes");
    }
    for (program, reason) in &measurement.refused {
        println!("{program:<width$}  REFUSED: {reason}");
    }
    if measurement.programs.is_empty() && measurement.refused.is_empty() {
        println!("the objects have no programs");
    }
}
