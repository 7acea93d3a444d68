//! Machine instructions of the walk, on the host, for a packet of an established connection.
//!
//! No clock is asked, so the figures are the same on a busy machine: what a change adds to the walk
//! of a service that does not use it is the difference of two runs. They are those of the host's
//! compiler and tables, not of the kernel's.

use std::process::Command;

use anyhow::{Context, Result};
use serde::Serialize;

use crate::{place, process, tools};

/// Packets that a count is divided by; the example makes as many frames.
const PACKETS: u64 = 1000;
const FAMILIES: [&str; 2] = ["ipv4", "ipv6"];
const METHODS: [&str; 3] = ["route", "masquerade", "tunnel"];

/// What a packet takes.
#[derive(Serialize)]
pub(super) struct Row {
    family: &'static str,
    method: &'static str,
    instructions: u64,
}

/// Counts and prints.
pub(super) fn count() -> Result<Vec<Row>> {
    tools::install(&tools::FOR_COUNTING)?;
    process::run(process::cargo().args([
        "build",
        "--locked",
        "--quiet",
        "--release",
        "--package=shunt-datapath",
        "--features=host",
        "--example=walk",
    ]))?;
    println!("{:<8}{:<12}{:>12}", "family", "method", "instructions");
    let mut rows = Vec::new();
    for family in FAMILIES {
        for method in METHODS {
            let [none, all] = [0, PACKETS].map(|packets| executed(family, method, packets));
            let instructions = all?.saturating_sub(none?) / PACKETS;
            println!("{family:<8}{method:<12}{instructions:>12}");
            rows.push(Row {
                family,
                method,
                instructions,
            });
        }
    }
    Ok(rows)
}

/// The instructions of a whole run.
fn executed(family: &str, method: &str, packets: u64) -> Result<u64> {
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(place::target().join("release/examples/walk"))
        .args([family, method, &packets.to_string()])
        .output()
        .context("cannot start valgrind")?;
    let said = String::from_utf8_lossy(&output.stderr);
    let count = said.split("Collected : ").nth(1);
    count
        .and_then(|rest| rest.split_whitespace().next()?.parse().ok())
        .with_context(|| format!("valgrind says no count:\n{said}"))
}
