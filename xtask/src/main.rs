//! Chores of the project, run as `cargo xtask CHORE`.
//!
//! Each chore is one file. `place` knows where things lie and `process` runs other programs; nothing
//! here is part of the product.

use std::process::ExitCode;

use clap::{Parser, Subcommand};

mod object;
mod place;
mod process;
mod strip;
mod sysroot;

/// Chores of the project.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    chore: Chore,
}

#[derive(Subcommand)]
enum Chore {
    /// Build the eBPF objects and put them, without debug sections, into ebpf/object.
    Bpf {
        /// Build them, but only compare with those that are checked in.
        #[arg(long)]
        check: bool,
    },
}

fn main() -> ExitCode {
    let result = match Arguments::parse().chore {
        Chore::Bpf { check: false } => object::build(),
        Chore::Bpf { check: true } => object::check(),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}
