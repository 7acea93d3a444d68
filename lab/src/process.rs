//! Programs that run in a host and end when the lab ends.

use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus};
use std::sync::{OnceLock, mpsc};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::sys::prctl;
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, getppid};

use crate::wait::until;

const KILL_LIMIT: Duration = Duration::from_secs(5);

/// A running program. Dropping it kills and reaps it.
#[derive(Debug)]
pub struct Process {
    program: String,
    child: Child,
}

impl Process {
    /// Starts a command, usually one of [`crate::Host::command`]. The kernel kills it when this
    /// process ends, even by SIGKILL.
    pub fn start(command: Command) -> Result<Process> {
        let program = command.get_program().to_string_lossy().into_owned();
        let child = spawn(command).with_context(|| format!("cannot start {program}"))?;
        Ok(Process { program, child })
    }

    /// The process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Returns the child's pipes, if the command asked for them.
    pub fn child(&mut self) -> &mut Child {
        &mut self.child
    }

    /// Sends a signal to the process.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        kill(self.pid(), signal)
            .with_context(|| format!("cannot send {signal} to {}", self.program))
    }

    /// Whether the process has not ended.
    pub fn is_running(&mut self) -> Result<bool> {
        let ended = self.child.try_wait();
        Ok(ended
            .with_context(|| format!("cannot ask for {}", self.program))?
            .is_none())
    }

    /// Waits for the program to end by itself.
    pub fn wait(&mut self, limit: Duration) -> Result<ExitStatus> {
        let what = format!("{} to end", self.program);
        let mut status = None;
        until(&what, limit, || {
            status = self.child.try_wait()?;
            Ok(status.is_some())
        })?;
        status.with_context(|| format!("{} ended without a status", self.program))
    }

    /// Asks the program to end, and kills it if it is still running after `limit`.
    pub fn stop(mut self, limit: Duration) -> Result<ExitStatus> {
        if self.is_running()? {
            self.signal(Signal::SIGTERM)?;
        }
        if let Ok(status) = self.wait(limit) {
            return Ok(status);
        }
        self.kill()?;
        bail!(
            "{} did not end within {:.1} s of SIGTERM and was killed",
            self.program,
            limit.as_secs_f64()
        )
    }

    /// Kills the program and reaps it.
    pub fn kill(&mut self) -> Result<ExitStatus> {
        if self.is_running()? {
            self.signal(Signal::SIGKILL)?;
        }
        self.wait(KILL_LIMIT)
    }

    fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id() as i32)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // A child that was reaped must not be killed: another process may have its id.
        if let Ok(None) = self.child.try_wait() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

type Order = (Command, mpsc::Sender<io::Result<Child>>);

/// Starts a child from a thread that lives as long as the process. PR_SET_PDEATHSIG takes effect
/// when the thread that started the child ends, and callers are often short-lived threads.
fn spawn(mut command: Command) -> io::Result<Child> {
    static PARENT: OnceLock<mpsc::Sender<Order>> = OnceLock::new();
    let us = Pid::this();
    // SAFETY: between fork and exec only the system calls prctl and getppid are made, which are
    // async-signal-safe.
    unsafe {
        command.pre_exec(move || {
            prctl::set_pdeathsig(Signal::SIGKILL)?;
            // The parent may have ended before prctl was called.
            if getppid() == us {
                Ok(())
            } else {
                Err(io::ErrorKind::NotFound.into())
            }
        });
    }
    let parent = PARENT.get_or_init(|| {
        let (orders, queue) = mpsc::channel::<Order>();
        thread::spawn(move || {
            for (mut command, answer) in queue {
                let _ = answer.send(command.spawn());
            }
        });
        orders
    });
    let (answer, child) = mpsc::channel();
    let gone = |_| io::Error::other("the thread that starts programs is gone");
    parent
        .send((command, answer))
        .map_err(|_| gone(mpsc::RecvError))?;
    child.recv().map_err(gone)?
}
