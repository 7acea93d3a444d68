//! `shuntd` as users run it, in a host of the lab, and servers that its agent has set up.

use std::ffi::OsStr;
use std::fs;
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use shunt_daemon::kernel::place::Place;
use shunt_lab::{Host, Process, until};

use super::target::Method;

/// Loading takes a second where nothing else runs.
const START_LIMIT: Duration = Duration::from_secs(60);
const STOP_LIMIT: Duration = Duration::from_secs(20);

/// Dropping it kills the daemon and takes the packet path away.
pub(crate) struct Shuntd {
    host: Host,
    program: PathBuf,
    options: Vec<String>,
    process: Option<Process>,
}

impl Shuntd {
    /// Starts it and waits until it listens.
    pub(crate) fn start(host: &Host, program: &Path) -> Result<Shuntd> {
        Shuntd::start_with(host, program, &[])
    }

    pub(crate) fn start_with(host: &Host, program: &Path, options: &[&str]) -> Result<Shuntd> {
        let mut shuntd = Shuntd {
            host: host.clone(),
            program: program.to_owned(),
            options: options.iter().map(|&option| option.to_owned()).collect(),
            process: None,
        };
        shuntd.restart()?;
        Ok(shuntd)
    }

    /// `kill -9`.
    pub(crate) fn kill(&mut self) -> Result<()> {
        let mut process = self.process.take().context("shuntd does not run")?;
        process.kill().map(drop)
    }

    /// Starts another program in place of the one that was killed, and waits until it answers.
    pub(crate) fn upgrade(&mut self, program: &Path) -> Result<()> {
        program.clone_into(&mut self.program);
        self.restart()
    }

    /// Starts it again and waits until it answers.
    pub(crate) fn restart(&mut self) -> Result<()> {
        let mut command = called(&self.host, &self.program, "shuntd");
        command.args(["--stop", "remove", "--log", "error"]);
        command.args(&self.options);
        let socket = self.place()?.socket();
        let process = self.process.insert(Process::start(command)?);
        until("shuntd to answer", START_LIMIT, || {
            ensure!(process.is_running()?, "shuntd ended at once");
            Ok(answers(&socket).is_some())
        })
    }

    /// Adds the service with its servers, in turn by rr.
    pub(crate) fn serve(
        &self,
        service: SocketAddr,
        servers: &[SocketAddr],
        method: Method,
    ) -> Result<()> {
        self.ipvsadm(&format!("-A -t {service} -s rr"))?;
        for server in servers {
            let option = method.option();
            self.ipvsadm(&format!("-a -t {service} -r {server} {option}"))?;
        }
        Ok(())
    }

    /// Stops it as a service manager does.
    pub(crate) fn end(mut self) -> Result<()> {
        let process = self.process.take().context("shuntd does not run")?;
        let status = process.stop(STOP_LIMIT)?;
        ensure!(status.success(), "shuntd ended with {status}");
        Ok(())
    }

    /// The process.
    pub(crate) fn id(&self) -> Result<u32> {
        let process = self.process.as_ref().context("shuntd does not run")?;
        Ok(process.id())
    }

    /// The program under one of its names, with its arguments.
    pub(crate) fn command(&self, name: &str, line: &str) -> Command {
        let mut command = called(&self.host, &self.program, name);
        command.args(line.split(' '));
        command
    }

    pub(crate) fn ipvsadm(&self, line: &str) -> Result<()> {
        let mut command = self.command("ipvsadm", line);
        done(&mut command).with_context(|| format!("ipvsadm {line}"))
    }

    pub(crate) fn place(&self) -> Result<Place> {
        self.host.run(|| Ok(Place::make()?))
    }
}

impl Drop for Shuntd {
    fn drop(&mut self) {
        self.process = None;
        if let Ok(place) = self.place() {
            let _ = place.clear();
            let _ = fs::remove_dir_all(&place.runtime);
        }
    }
}

/// Servers that take tunnels off; dropping it undoes that.
pub(crate) struct Members {
    hosts: Vec<Host>,
    program: PathBuf,
}

impl Members {
    pub(crate) fn join(hosts: &[Host], service: IpAddr, program: &Path) -> Result<Members> {
        let members = Members {
            hosts: hosts.to_vec(),
            program: program.to_owned(),
        };
        let service = service.to_string();
        for host in hosts {
            members.agent(host, &["join", "--tunnel", "--from", "any", &service])?;
        }
        Ok(members)
    }

    fn agent(&self, host: &Host, words: &[&str]) -> Result<()> {
        let mut command = called(host, &self.program, "shunt");
        command.arg("agent").args(words);
        done(&mut command).with_context(|| format!("shunt agent {} on {host}", words.join(" ")))
    }
}

impl Drop for Members {
    fn drop(&mut self) {
        for host in &self.hosts {
            let _ = self.agent(host, &["leave"]);
        }
    }
}

/// The first byte of an answer, if a daemon listens.
fn answers(socket: &Path) -> Option<u8> {
    let mut stream = UnixStream::connect(socket).ok()?;
    stream
        .write_all(b"GET /v1/timeouts HTTP/1.1\r\nHost: shuntd\r\nConnection: close\r\n\r\n")
        .ok()?;
    let mut first = [0];
    stream.read_exact(&mut first).ok()?;
    Some(first[0])
}

/// The binary under one of its names: the name decides what it is.
fn called(host: &Host, program: &Path, name: impl AsRef<OsStr>) -> Command {
    let mut command = host.command(program);
    command
        .arg0(name)
        .stdin(Stdio::null())
        .stdout(Stdio::null());
    command
}

fn done(command: &mut Command) -> Result<()> {
    let output = command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let output = output.output().context("cannot start")?;
    if !output.status.success() {
        let said = [output.stdout, output.stderr].concat();
        bail!(
            "ended with {}: {}",
            output.status,
            String::from_utf8_lossy(&said).trim()
        );
    }
    Ok(())
}
