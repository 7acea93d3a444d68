//! `shuntd`: the director's daemon.

use std::process::ExitCode;

fn main() -> ExitCode {
    shunt_daemon::run::main(std::env::args_os())
}
