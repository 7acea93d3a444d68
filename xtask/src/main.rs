//! The project's chores, run as `cargo xtask CHORE`.
//!
//! Each chore is one file. `place` knows the paths of the checkout and `process` runs other
//! programs. Nothing here is part of the product.

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
mod replay;
mod source;
mod stack;
mod strip;
mod sysroot;
mod tally;
mod test;
mod tools;
mod upgrade;
mod verify;
mod walls;

/// The project's chores.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    chore: Chore,
}

#[derive(Subcommand)]
enum Chore {
    /// Measure the cost of a packet against two floors and compare it with the goals, or measure
    /// rates.
    Bench(bench::Options),
    /// Build the eBPF objects and write them, without debug sections, into ebpf/object.
    Bpf {
        /// Only build the objects and compare them with the checked-in ones.
        #[arg(long)]
        check: bool,
    },
    /// Run the same commands and packets through the kernel's IPVS and through Shunt, and compare.
    Conform(conform::Options),
    /// Pass random requests to the API, and random journals to the code that reads them.
    Fuzz(fuzz::Options),
    /// Replay what `shunt inputs` printed, and show each input with its outputs.
    Replay(replay::Options),
    /// Run every check and every test. This is what CI runs.
    Test,
    /// Play an upgrade from an earlier revision, with services and live connections.
    Upgrade(upgrade::Options),
    /// Load every eBPF program and compare its size with the budget.
    Verify(verify::Options),
    /// Check the walls between the crates and the rules of style that a program can check.
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
        Chore::Replay(options) => replay::run(&options),
        Chore::Test => return test::run(),
        Chore::Upgrade(options) => upgrade::run(&options),
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
