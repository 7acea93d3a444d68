//! Chores of the project, run as `cargo xtask CHORE`.
//!
//! Each chore is one file. `place` knows where things lie and `process` runs other programs;
//! nothing here is part of the product.

use std::process::ExitCode;

use clap::{Parser, Subcommand};

mod bench;
mod btf;
mod budget;
mod circles;
mod conform;
mod deb;
mod deny;
mod fuzz;
mod guest;
mod initramfs;
mod kernels;
mod measure;
mod object;
mod place;
mod process;
mod source;
mod strip;
mod sysroot;
mod tally;
mod test;
mod tools;
mod verify;
mod walls;

/// Chores of the project.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    chore: Chore,
}

#[derive(Subcommand)]
enum Chore {
    /// Measure what a packet costs, against two floors, and compare with the goals; or rates.
    Bench(bench::Options),
    /// Build the eBPF objects and put them, without debug sections, into ebpf/object.
    Bpf {
        /// Build them, but only compare with those that are checked in.
        #[arg(long)]
        check: bool,
    },
    /// Compare with the kernel's IPVS: the same commands and packets through both.
    Conform(conform::Options),
    /// Try the API and saved states with what is made at random.
    Fuzz(fuzz::Options),
    /// Run every check and every test. This is what CI runs.
    Test,
    /// Load every eBPF program and compare its size with the budget.
    Verify(verify::Options),
    /// Check the walls between the crates and the rules that a machine can read.
    Walls,
}

fn main() -> ExitCode {
    if conform::is_here() {
        conform::run_inside();
    }
    if guest::is_here() {
        guest::run();
    }
    let result = match Arguments::parse().chore {
        Chore::Bench(options) => bench::run(&options),
        Chore::Bpf { check: false } => object::build(),
        Chore::Bpf { check: true } => object::check(),
        Chore::Conform(options) => conform::run(&options),
        Chore::Fuzz(options) => fuzz::run(&options),
        Chore::Test => return test::run(),
        Chore::Verify(options) => verify::run(&options),
        Chore::Walls => walls::run(),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}
