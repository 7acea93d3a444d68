//! Every check and every test. Those that fail early come first.
//!
//! A failed step does not stop the next one. The last line is the sum over all test programs. The
//! exit code is 0 only if every step and every test passed.

use std::io::{self, BufRead, BufReader, Write, stdout};
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context, Result};
use nix::unistd::geteuid;

use crate::tally::Tally;
use crate::{conform, deny, object, place, process, tools, verify, walls};

struct Step {
    name: &'static str,
    run: fn() -> Result<()>,
}

const STEPS: [Step; 11] = [
    Step {
        name: "packages",
        run: || tools::install(&tools::FOR_TESTS),
    },
    Step {
        name: "format",
        run: format,
    },
    Step {
        name: "walls",
        run: walls::run,
    },
    Step {
        name: "eBPF objects come from these sources",
        run: object::check,
    },
    Step {
        name: "eBPF programs load, and none has grown",
        run: verified,
    },
    Step {
        name: "the unit exposes little",
        run: exposure,
    },
    Step {
        name: "clippy",
        run: clippy,
    },
    Step {
        name: "clippy of the eBPF programs",
        run: object::clippy,
    },
    Step {
        name: "documentation builds without a warning",
        run: documentation,
    },
    Step {
        name: "dependencies keep to deny.toml",
        run: deny::check,
    },
    Step {
        name: "a kernel's IPVS and Shunt do the same",
        run: conform::check,
    },
];

/// Runs all steps.
pub(crate) fn run() -> ExitCode {
    let mut failed = Vec::new();
    for step in STEPS {
        heading(step.name);
        let start = Instant::now();
        let result = (step.run)();
        let seconds = start.elapsed().as_secs_f64();
        match result {
            Ok(()) => println!("passed in {seconds:.1} s"),
            Err(error) => {
                println!("FAILED in {seconds:.1} s: {error:#}");
                failed.push(step.name);
            }
        }
    }
    heading("tests");
    let tally = tests().unwrap_or_else(|error| {
        println!("FAILED: {error:#}");
        Tally {
            passed: 0,
            failed: 1,
        }
    });
    if !failed.is_empty() {
        println!("\nfailed before the tests: {}", failed.join(", "));
    }
    println!("{tally}");
    if failed.is_empty() && tally.failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn heading(name: &str) {
    println!("\n== {name}");
    // Other programs write to the same stream.
    let _ = stdout().flush();
}

fn format() -> Result<()> {
    tools::component("rustfmt", "fmt")?;
    process::run(process::cargo().args(["fmt", "--all", "--check"]))
}

fn verified() -> Result<()> {
    if !geteuid().is_root() {
        println!("SKIPPED: loading eBPF programs needs root");
        return Ok(());
    }
    verify::run(&verify::Options::default())
}

/// Holds the daemon's unit to what `systemd-analyze security` calls OK: 2.5 of 10.
fn exposure() -> Result<()> {
    if !process::is_installed("systemd-analyze") {
        println!("SKIPPED: systemd-analyze is not installed");
        return Ok(());
    }
    let unit = place::root().join("packaging/systemd/shuntd.service");
    let mut analyze = process::command("systemd-analyze");
    analyze.args(["security", "--no-pager", "--offline=true", "--threshold=25"]);
    process::output(analyze.arg(unit)).map(drop)
}

fn clippy() -> Result<()> {
    tools::component("clippy", "clippy")?;
    process::run(process::cargo().args([
        "clippy",
        "--locked",
        "--quiet",
        "--workspace",
        "--all-targets",
        "--",
        "-Dwarnings",
    ]))
}

fn documentation() -> Result<()> {
    process::run(
        process::cargo()
            .args(["doc", "--locked", "--quiet", "--no-deps", "--workspace"])
            .env("RUSTDOCFLAGS", "-Dwarnings"),
    )
}

fn tests() -> Result<Tally> {
    // One pipe for both outputs keeps each program's name above its results.
    let (output, writer) = io::pipe()?;
    let mut cargo = process::cargo();
    cargo.args(["test", "--locked", "--workspace", "--no-fail-fast"]);
    cargo.stdout(writer.try_clone()?).stderr(writer);
    let mut child = cargo.spawn().context("cannot start cargo test")?;
    // This process's ends of the pipe must be closed, or the reader would never see the end.
    drop(cargo);
    let mut tally = Tally::default();
    for line in BufReader::new(output).split(b'\n') {
        let line = line?;
        let text = String::from_utf8_lossy(&line);
        println!("{text}");
        tally.read(&text);
    }
    let status = child.wait()?;
    // A program that does not build, or crashes, prints no result line.
    if !status.success() && tally.failed == 0 {
        println!("cargo test ended with {status}, but no test reported a failure");
        tally.failed = 1;
    }
    Ok(tally)
}
