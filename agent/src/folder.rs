//! The folders of this network namespace: the agent's memory in `/run`, its pins in bpffs.

use std::fs::{self, File};
use std::io;
use std::net::{Ipv4Addr, UdpSocket};
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::thread;

use anyhow::{Context, Result};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::statfs::{FsType, statfs};

/// From linux/magic.h.
const BPF_FS_MAGIC: FsType = FsType(0xcafe_4a11);
const RUN: &str = "/run/shunt";
/// The pins are in `shunt/NAMESPACE/agent/GENERATION`.
const TIDY_DEPTH: usize = 4;
const STANDARD_BPFFS: &str = "/sys/fs/bpf";
const OWN_BPFFS: &str = "/run/shunt/bpf";

/// The calling thread's namespace, by the kernel's inode number.
fn namespace() -> Result<u64> {
    let path = "/proc/thread-self/ns/net";
    Ok(fs::metadata(path)
        .with_context(|| format!("cannot read {path}"))?
        .ino())
}

/// The calling thread's namespace, by a number that is never reused (since Linux 5.14).
pub(crate) fn cookie() -> Result<u64> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).context("cannot open a socket")?;
    let mut cookie = 0u64;
    let mut length = size_of::<u64>() as libc::socklen_t;
    // SAFETY: the kernel writes at most the eight bytes whose address and size are passed.
    let done = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_NETNS_COOKIE,
            (&raw mut cookie).cast(),
            &raw mut length,
        )
    };
    if done < 0 {
        return Err(io::Error::last_os_error()).context("cannot ask for the namespace's cookie");
    }
    Ok(cookie)
}

/// The folder of this namespace in `/run`. It may not exist.
pub(crate) fn run() -> Result<PathBuf> {
    Ok(Path::new(RUN).join(namespace()?.to_string()))
}

/// Locks one file for the agents of all namespaces. They hold the lock for milliseconds, and a file
/// for each namespace would never be removed.
pub(crate) fn alone() -> Result<File> {
    let path = Path::new(RUN).join("agent.lock");
    let file = fs::create_dir_all(RUN)
        .and_then(|()| File::create(&path))
        .with_context(|| format!("cannot write {} (run as root)", path.display()))?;
    file.lock()
        .with_context(|| format!("cannot lock {}", path.display()))?;
    Ok(file)
}

/// Removes a folder and its parents, as long as they are empty.
pub(crate) fn tidy(folder: &Path) {
    for folder in folder.ancestors().take(TIDY_DEPTH) {
        if fs::remove_dir(folder).is_err() {
            return;
        }
    }
}

/// Makes a new folder for pins of this namespace.
pub(crate) fn fresh_pins() -> Result<PathBuf> {
    let all = bpffs()?
        .join("shunt")
        .join(namespace()?.to_string())
        .join("agent");
    for generation in 1.. {
        let folder = all.join(format!("{generation}"));
        if !folder.exists() {
            fs::create_dir_all(&folder)
                .with_context(|| format!("cannot make {}", folder.display()))?;
            return Ok(folder);
        }
    }
    unreachable!("the loop above has no end");
}

fn bpffs() -> Result<PathBuf> {
    for path in [STANDARD_BPFFS, OWN_BPFFS] {
        if is_bpffs(path) {
            return Ok(path.into());
        }
    }
    // `ip netns exec` gives its command a `/sys` without bpffs, in a mount namespace that ends with
    // the command. A mount in the first process's mount namespace is visible there too, and stays.
    let mounted = thread::spawn(|| enter_first().and_then(|()| mount_own())).join();
    if !matches!(mounted, Ok(Ok(()))) || !is_bpffs(OWN_BPFFS) {
        mount_own()?;
    }
    Ok(OWN_BPFFS.into())
}

fn is_bpffs(path: &str) -> bool {
    statfs(path).is_ok_and(|fs| fs.filesystem_type() == BPF_FS_MAGIC)
}

/// Moves the calling thread into the mount namespace of the first process.
fn enter_first() -> Result<()> {
    let first = File::open("/proc/1/ns/mnt")?;
    unshare(CloneFlags::CLONE_FS)?;
    Ok(setns(first, CloneFlags::CLONE_NEWNS)?)
}

fn mount_own() -> Result<()> {
    if is_bpffs(OWN_BPFFS) {
        return Ok(());
    }
    fs::create_dir_all(OWN_BPFFS).with_context(|| format!("cannot make {OWN_BPFFS}"))?;
    mount(
        Some("bpf"),
        OWN_BPFFS,
        Some("bpf"),
        MsFlags::empty(),
        Some("mode=0700"),
    )
    .with_context(|| format!("cannot mount bpffs at {OWN_BPFFS}; is {STANDARD_BPFFS} mounted?"))
}
