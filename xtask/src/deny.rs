//! Holds the dependencies to `deny.toml`: licences, sources, wildcards.
//!
//! Advisories need a database from the network and are asked for before a release.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};

use crate::{place, process};

/// The release of cargo-deny that is built when the machine has none.
const RELEASE: &str = "0.20.2";

/// Fails if a dependency breaks a rule.
pub(crate) fn check() -> Result<()> {
    let program = program()?;
    process::run(process::command(program).args([
        "--locked",
        "--log-level=warn",
        "check",
        "bans",
        "licenses",
        "sources",
    ]))
}

/// The machine's own cargo-deny, or one that is built once below `target`.
fn program() -> Result<PathBuf> {
    if process::is_installed("cargo-deny") {
        return Ok("cargo-deny".into());
    }
    let folder = place::target().join("deny");
    let program = folder.join("bin/cargo-deny");
    if program.exists() {
        return Ok(program);
    }
    println!("building cargo-deny {RELEASE}, once");
    let build = folder.join("build");
    let mut install = process::cargo();
    install
        .args(["install", &format!("cargo-deny@{RELEASE}")])
        .args(["--locked", "--quiet", "--debug"])
        .arg("--root")
        .arg(&folder)
        .arg("--target-dir")
        .arg(&build);
    process::run(&mut install).context("cannot build cargo-deny")?;
    fs::remove_dir_all(build)?;
    Ok(program)
}
