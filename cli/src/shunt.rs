//! The `shunt` command: nouns, then verbs.

use clap::Parser;

/// A load balancer of the fourth layer.
#[derive(Debug, Parser)]
#[command(name = "shunt", version)]
pub struct Shunt {}

/// Does what the command line says and gives the exit status.
#[must_use]
pub fn run(arguments: &[String]) -> u8 {
    match Shunt::try_parse_from(arguments) {
        Ok(Shunt {}) => 0,
        Err(error) => {
            // Nobody is left to tell when printing fails.
            let _ = error.print();
            u8::try_from(error.exit_code()).unwrap_or(2)
        }
    }
}
