//! Shunt on a bed: a running `shuntd`, and `ipvsadm`.

use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use shunt_daemon::kernel::place::Place;
use shunt_lab::{Host, Process, until};

use super::bed::Bed;
use super::play::play_group;
use super::record::Record;
use super::scenario::{Scenario, groups};
use crate::{place, process};

const START_LIMIT: Duration = Duration::from_secs(60);
const STOP_LIMIT: Duration = Duration::from_secs(20);
/// Small tables: a scenario has few flows.
const SIZES: [&str; 6] = ["--flows", "65536", "--services", "256", "--servers", "256"];

/// A running daemon. Dropping it removes the packet path, whatever happened before.
struct Director {
    host: Host,
    process: Option<Process>,
}

/// Builds the binary that contains the daemon and the faces.
pub(super) fn build() -> Result<PathBuf> {
    process::run(process::cargo().args([
        "build",
        "--locked",
        "--quiet",
        "--package=shunt-cli",
        "--bin=shunt",
    ]))?;
    // Cargo puts the binaries that it builds into one folder.
    let program = std::env::current_exe()?.with_file_name("shunt");
    ensure!(program.is_file(), "cargo built no {}", program.display());
    Ok(program)
}

/// Plays scenarios one after the other, each with its own bed and daemon.
pub(super) fn play_all(
    program: &Path,
    hook: &str,
    scenarios: &[Scenario],
) -> Result<Vec<Vec<Record>>> {
    let ipvsadm = || -> Command {
        let mut command = Command::new(program);
        command.arg0("ipvsadm");
        command
    };
    let mut played = Vec::new();
    for group in groups(scenarios) {
        let mut bed = Bed::new(false)?;
        if hook == "xdp-native" {
            bed.pass_xdp()?;
        }
        let _director = Director::start(program, hook, &bed.director)?;
        played.extend(play_group(&mut bed, &ipvsadm, false, group)?);
    }
    Ok(played)
}

impl Director {
    fn start(program: &Path, hook: &str, host: &Host) -> Result<Director> {
        let log = place::target().join("conform/shuntd.log");
        let file = File::create(&log).context("cannot make the daemon's log")?;
        let mut command = host.command(program);
        command
            .arg0("shuntd")
            .args(SIZES)
            .args(["--stop", "remove", "--attach", hook])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(file);
        let mut process = Process::start(command)?;
        let read = || fs::read_to_string(&log).unwrap_or_default();
        until("shuntd to be ready", START_LIMIT, || {
            ensure!(process.is_running()?, "shuntd ended early:\n{}", read());
            Ok(read().lines().any(|line| line.ends_with(" ready")))
        })?;
        Ok(Director {
            host: host.clone(),
            process: Some(process),
        })
    }
}

impl Drop for Director {
    fn drop(&mut self) {
        if let Some(process) = self.process.take() {
            let _ = process.stop(STOP_LIMIT);
        }
        if let Ok(place) = self.host.run(|| Ok(Place::make()?)) {
            let _ = place.clear();
            let _ = fs::remove_dir_all(&place.runtime);
        }
    }
}
