//! A running `shuntd` in a host of the lab, and the operator who talks to it.

use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use shunt_daemon::kernel::place::Place;
use shunt_lab::{Host, Process, until};

/// Loading takes a second where nothing else runs; tests run beside others.
const START_LIMIT: Duration = Duration::from_secs(60);
const STOP_LIMIT: Duration = Duration::from_secs(20);
/// Small tables: a test has a few flows, and several directors run at the same time.
const SIZES: [&str; 6] = ["--flows", "65536", "--services", "256", "--servers", "512"];

/// The binary under another name: the name decides what it is.
pub(crate) fn called(host: &Host, name: &str, arguments: &[&str]) -> Command {
    let mut command = host.command(env!("CARGO_BIN_EXE_shunt"));
    command.arg0(name).args(arguments).stdin(Stdio::null());
    command
}

/// Dropping it stops the daemon and takes the packet path away, whatever happened before.
pub(crate) struct Director {
    host: Host,
    options: Vec<String>,
    process: Option<Process>,
    /// What the daemon says, over all its lives.
    log: PathBuf,
}

impl Director {
    pub(crate) fn start(host: &Host) -> Result<Director> {
        Director::start_with(host, &[])
    }

    pub(crate) fn start_with(host: &Host, options: &[&str]) -> Result<Director> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let log = format!("shuntd-{}-{number}.log", std::process::id());
        let usual = SIZES.chunks(2).filter(|size| !options.contains(&size[0]));
        let options = usual.flatten().chain(options);
        let options = options.map(|&option| option.to_owned());
        let mut director = Director {
            host: host.clone(),
            options: options.collect(),
            process: None,
            log: std::env::temp_dir().join(log),
        };
        File::create(&director.log).context("cannot make the daemon's log")?;
        director.restart()?;
        Ok(director)
    }

    /// Starts the daemon that was killed or stopped, and waits until it answers.
    pub(crate) fn restart(&mut self) -> Result<()> {
        let before = self.log()?.len();
        self.launch()?;
        until("shuntd to be ready", START_LIMIT, || {
            ensure!(self.is_running()?, "shuntd ended early:\n{}", self.log()?);
            let log = self.log()?;
            Ok(log[before..].lines().any(|line| line.ends_with(" ready")))
        })
        .with_context(|| self.log().unwrap_or_default())
    }

    /// More options for the daemon's next life.
    pub(crate) fn options(&mut self, options: &[&str]) {
        self.options
            .extend(options.iter().map(|&option| option.to_owned()));
    }

    /// Starts the daemon without waiting for it.
    pub(crate) fn launch(&mut self) -> Result<()> {
        let mut command = called(&self.host, "shuntd", &[]);
        let log = File::options()
            .append(true)
            .open(&self.log)
            .context("cannot open the log")?;
        command
            .args(&self.options)
            .stdout(Stdio::null())
            .stderr(log);
        self.process = Some(Process::start(command)?);
        Ok(())
    }

    pub(crate) fn is_running(&mut self) -> Result<bool> {
        match &mut self.process {
            Some(process) => process.is_running(),
            None => Ok(false),
        }
    }

    /// `kill -9`.
    pub(crate) fn kill(&mut self) -> Result<()> {
        let mut process = self.process.take().context("the daemon does not run")?;
        process.kill().map(drop)
    }

    /// SIGTERM, and an end with status 0.
    pub(crate) fn stop(&mut self) -> Result<()> {
        let process = self.process.take().context("the daemon does not run")?;
        let status = process.stop(STOP_LIMIT)?;
        ensure!(
            status.success(),
            "shuntd ended with {status}:\n{}",
            self.log()?
        );
        Ok(())
    }

    pub(crate) fn log(&self) -> Result<String> {
        fs::read_to_string(&self.log).context("cannot read the daemon's log")
    }

    /// What the command prints, if it was done.
    pub(crate) fn ipvsadm(&self, line: &str) -> Result<String> {
        self.done("ipvsadm", line)
    }

    pub(crate) fn shunt(&self, line: &str) -> Result<String> {
        self.done("shunt", line)
    }

    fn done(&self, name: &str, line: &str) -> Result<String> {
        let output = self.ask(name, line)?;
        let out = String::from_utf8_lossy(&output.stdout).into_owned();
        let error = String::from_utf8_lossy(&output.stderr);
        if !output.status.success() || !error.is_empty() {
            bail!(
                "{name} {line}: {}, said {out:?} and {error:?}",
                output.status
            );
        }
        Ok(out)
    }

    pub(crate) fn ask(&self, name: &str, line: &str) -> Result<Output> {
        let words: Vec<&str> = line.split_whitespace().collect();
        called(&self.host, name, &words)
            .output()
            .with_context(|| format!("cannot run {name}"))
    }

    /// The folders of this director.
    pub(crate) fn place(&self) -> Result<Place> {
        self.host.run(|| Ok(Place::make()?))
    }
}

impl Drop for Director {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.log().unwrap_or_default());
        }
        self.process = None;
        if let Ok(place) = self.place() {
            let _ = place.clear();
            let _ = fs::remove_dir_all(&place.runtime);
        }
        let _ = fs::remove_file(&self.log);
    }
}
