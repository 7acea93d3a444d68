//! What goes wrong at the start is said in a line, and nothing is harmed by it.

use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::process::Stdio;

use anyhow::{Context, Result, ensure};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use shunt_daemon::kernel::place::Place;
use shunt_lab::{Host, Process, skipped, until};

use crate::bed::LIMIT;
use crate::director::{Director, called};

const NOBODY: u32 = 65534;

#[test]
fn without_rights_the_daemon_says_which_are_missing() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let host = Host::new("director")?;
    let mut command = called(&host, "shuntd", &[]);
    // SAFETY: setgid and setuid are async-signal-safe; they come after the namespace was entered.
    unsafe {
        command.pre_exec(|| {
            nix::unistd::setgid(NOBODY.into())?;
            Ok(nix::unistd::setuid(NOBODY.into())?)
        });
    }
    let output = command.output()?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(output.status.code() == Some(1), "{}: {said}", output.status);
    ensure!(
        said.lines().count() == 1 && said.contains("CAP_BPF"),
        "{said}"
    );
    Ok(())
}

/// As in a container that shares its network's host, or under a hardened kernel.
#[test]
fn where_the_first_process_is_out_of_reach_the_daemon_mounts_for_itself() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let host = Host::new("director")?;
    let mut command = called(&host, "shuntd", &["--flows", "65536"]);
    // SAFETY: system calls alone, with what needs no memory.
    unsafe {
        command.pre_exec(|| Ok(alone()?));
    }
    let log = std::env::temp_dir().join(format!("shuntd-alone-{}.log", std::process::id()));
    let process = Process::start({
        command.stdout(Stdio::null()).stderr(File::create(&log)?);
        command
    })?;
    let said = || fs::read_to_string(&log).context("the log");
    let ready = until("shuntd to be ready", LIMIT, || {
        Ok(said()?.lines().any(|line| line.ends_with(" ready")))
    });
    ready.with_context(|| said().unwrap_or_default())?;
    ensure!(said()?.contains("mounts are out of reach"), "{}", said()?);
    let output = called(&host, "ipvsadm", &["-Ln"]).output()?;
    ensure!(output.status.success(), "{output:?}");
    ensure!(process.stop(LIMIT)?.success(), "{}", said()?);
    fs::remove_file(&log)?;
    host.run(|| Ok(fs::remove_dir_all(Place::make()?.runtime)?))
}

/// Puts this process into a mount namespace without a BPF file system and without process 1.
fn alone() -> nix::Result<()> {
    let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    unshare(CloneFlags::CLONE_NEWNS)?;
    mount(None::<&str>, "/", None::<&str>, private, None::<&str>)?;
    for folder in ["/sys/fs/bpf", "/run/shunt/bpf"] {
        // Mounted never, once, or one over the other.
        for _ in 0..4 {
            let _ = umount2(folder, MntFlags::MNT_DETACH);
        }
    }
    let nothing = Some("tmpfs");
    mount(nothing, "/proc/1", nothing, MsFlags::empty(), None::<&str>)
}

#[test]
fn a_second_daemon_of_a_namespace_is_refused() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let host = Host::new("director")?;
    let director = Director::start(&host)?;
    let output = called(&host, "shuntd", &[]).output()?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(output.status.code() == Some(1), "{}: {said}", output.status);
    ensure!(
        said.lines().count() == 1 && said.contains("running in this"),
        "{said}"
    );
    director.ipvsadm("-Ln")?;
    Ok(())
}

#[test]
fn a_client_without_a_daemon_is_told_where_it_looked() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let host = Host::new("director")?;
    let output = called(&host, "shunt", &["status"]).output()?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(output.status.code() == Some(3), "{}: {said}", output.status);
    ensure!(
        said.contains("shuntd does not answer at /run/shunt/"),
        "{said}"
    );
    Ok(())
}
