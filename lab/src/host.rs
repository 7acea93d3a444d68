//! A host: an anonymous network namespace, at first with its loopback device only.
//!
//! The namespace has no name and no file. Only open descriptors of this process hold it, so the
//! kernel removes it and all devices in it when the process ends, however it ends.

use std::fmt;
use std::fs::File;
use std::future::Future;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use anyhow::{Context, Result, bail};
use netlink_packet_route::RouteNetlinkMessage;
use nix::sched::{CloneFlags, setns, unshare};

use crate::netlink::{Mode, Netlink};

/// The settings that every host starts with. Duplicate address detection, router solicitations and
/// the rate limits of ICMP are meant for real networks. In a lab they only cost time or hide an
/// error.
const SETTINGS: [(&str, &str); 14] = [
    ("net.ipv4.conf.all.rp_filter", "0"),
    ("net.ipv4.conf.default.rp_filter", "0"),
    ("net.ipv4.conf.all.send_redirects", "0"),
    ("net.ipv4.conf.default.send_redirects", "0"),
    ("net.ipv4.conf.all.accept_redirects", "0"),
    ("net.ipv4.icmp_ratelimit", "0"),
    ("net.ipv4.ip_local_port_range", "10000 65000"),
    ("net.ipv6.icmp.ratelimit", "0"),
    ("net.ipv6.conf.all.accept_dad", "0"),
    ("net.ipv6.conf.default.accept_dad", "0"),
    ("net.ipv6.conf.default.accept_ra", "0"),
    ("net.ipv6.conf.default.router_solicitations", "0"),
    ("net.ipv6.conf.default.accept_redirects", "0"),
    (
        "net.ipv6.conf.default.mldv2_unsolicited_report_interval",
        "0",
    ),
];

/// A network namespace. Clones are the same host.
#[derive(Clone)]
pub struct Host(Arc<Namespace>);

struct Namespace {
    name: String,
    file: File,
    inode: u64,
    netlink: Mutex<Netlink>,
    kept: Mutex<Vec<OwnedFd>>,
}

impl Host {
    /// Makes a new namespace, with its loopback device up.
    pub fn new(name: impl Into<String>) -> Result<Host> {
        let name = name.into();
        let made = thread::scope(|scope| {
            let thread = thread::Builder::new()
                .name(name.clone())
                .spawn_scoped(scope, || -> Result<(File, Netlink)> {
                    unshare(CloneFlags::CLONE_NEWNET).context(
                        "cannot make a network namespace (needs CAP_SYS_ADMIN; run as root)",
                    )?;
                    let file = File::open("/proc/thread-self/ns/net")
                        .context("cannot open /proc/thread-self/ns/net")?;
                    Ok((file, Netlink::open()?))
                })
                .context("cannot start a thread")?;
            thread
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        });
        let (file, netlink) = made.with_context(|| format!("host {name}"))?;
        let inode = file
            .metadata()
            .context("cannot read the namespace's inode")?
            .ino();
        let netlink = Mutex::new(netlink);
        let kept = Mutex::default();
        let host = Host(Arc::new(Namespace {
            name,
            file,
            inode,
            netlink,
            kept,
        }));
        host.up("lo")?;
        host.sysctls(&SETTINGS)?;
        Ok(host)
    }

    /// The name in error messages.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// Returns a path to the namespace for setns and `nsenter --net=`. It is valid while the host
    /// lives.
    pub fn path(&self) -> PathBuf {
        PathBuf::from(format!("/proc/{}/fd/{}", std::process::id(), self.fd()))
    }

    /// Returns the kernel's name of the namespace, such as `net:[4026532008]`.
    pub fn inode(&self) -> u64 {
        self.0.inode
    }

    /// Runs `work` on a thread inside the namespace and waits for it.
    pub fn run<R: Send>(&self, work: impl FnOnce() -> Result<R> + Send) -> Result<R> {
        let done = thread::scope(|scope| {
            let thread = thread::Builder::new()
                .name(self.0.name.clone())
                .spawn_scoped(scope, || {
                    self.enter()?;
                    work()
                })
                .context("cannot start a thread")?;
            thread
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        });
        done.with_context(|| format!("host {}", self.0.name))
    }

    /// Runs a future inside the namespace, on its own runtime, and waits for it.
    pub fn run_async<R, F>(&self, work: impl FnOnce() -> F + Send) -> Result<R>
    where
        R: Send,
        F: Future<Output = Result<R>>,
    {
        self.run(|| {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .context("cannot start a runtime")?;
            runtime.block_on(work())
        })
    }

    /// Starts a thread inside the namespace that may outlive this call.
    pub fn spawn<R: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<R> + Send + 'static,
    ) -> Result<thread::JoinHandle<Result<R>>> {
        let host = self.clone();
        thread::Builder::new()
            .name(self.0.name.clone())
            .spawn(move || {
                host.enter()?;
                work()
            })
            .with_context(|| format!("host {}: cannot start a thread", self.0.name))
    }

    /// Returns a command that runs inside the namespace. Start it with [`crate::Process::start`] if
    /// it must not outlive the lab.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new(program);
        let host = self.clone();
        // SAFETY: between fork and exec only the system call setns is made, which is
        // async-signal-safe; the closure owns a host, so its descriptor is open.
        unsafe {
            command.pre_exec(move || Ok(setns(&host.0.file, CloneFlags::CLONE_NEWNET)?));
        }
        command
    }

    /// Writes a sysctl of this namespace: `host.sysctl("net.ipv4.ip_forward", "1")`.
    pub fn sysctl(&self, name: &str, value: &str) -> Result<()> {
        self.sysctls(&[(name, value)])
    }

    /// Writes several sysctls.
    pub fn sysctls(&self, settings: &[(&str, &str)]) -> Result<()> {
        self.run(|| {
            for (name, value) in settings {
                let path = sysctl_path(name)?;
                std::fs::write(&path, value)
                    .with_context(|| format!("cannot write {value:?} to {}", path.display()))?;
            }
            Ok(())
        })
    }

    /// Reads a sysctl, without the line end.
    pub fn read_sysctl(&self, name: &str) -> Result<String> {
        self.run(|| {
            let path = sysctl_path(name)?;
            let text = std::fs::read_to_string(&path)
                .with_context(|| format!("cannot read {}", path.display()))?;
            Ok(text.trim_end().to_owned())
        })
    }

    pub(crate) fn fd(&self) -> RawFd {
        self.0.file.as_raw_fd()
    }

    /// Keeps a descriptor open for as long as the host lives.
    pub(crate) fn keep(&self, descriptor: OwnedFd) {
        self.0
            .kept
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(descriptor);
    }

    pub(crate) fn ask(
        &self,
        request: RouteNetlinkMessage,
        mode: Mode,
    ) -> std::io::Result<Vec<RouteNetlinkMessage>> {
        self.0
            .netlink
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .ask(request, mode)
    }

    fn enter(&self) -> Result<()> {
        setns(&self.0.file, CloneFlags::CLONE_NEWNET)
            .context("cannot enter the network namespace (needs CAP_SYS_ADMIN)")
    }
}

impl fmt::Debug for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Host({}, net:[{}])", self.0.name, self.0.inode)
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.name)
    }
}

/// Only sysctls below `net` belong to a namespace. Any other would change the whole machine.
fn sysctl_path(name: &str) -> Result<PathBuf> {
    if !name.starts_with("net.") || name.contains("..") {
        bail!("{name} is not a setting of a network namespace; its name must begin with \"net.\"");
    }
    Ok(PathBuf::from("/proc/sys").join(name.replace('.', "/")))
}

/// The capability that the lab needs and does not have, if any.
pub fn missing_capability() -> Option<&'static str> {
    const NEEDED: [(u32, &str); 3] = [
        (12, "CAP_NET_ADMIN"),
        (13, "CAP_NET_RAW"),
        (21, "CAP_SYS_ADMIN"),
    ];
    let status = std::fs::read_to_string("/proc/thread-self/status").unwrap_or_default();
    let effective = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .unwrap_or(0);
    NEEDED
        .iter()
        .find(|(bit, _)| effective & (1 << bit) == 0)
        .map(|(_, name)| *name)
}

/// For the first line of a test. Without the capability it prints that the test is skipped, and
/// returns true.
pub fn skipped() -> bool {
    match missing_capability() {
        None => false,
        Some(capability) => {
            // One write for the whole line, because tests run in parallel.
            let line = format!("skipped: needs {capability}\n");
            eprint!("{line}");
            true
        }
    }
}
