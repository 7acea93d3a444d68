//! The folders in which the director of a network namespace keeps its pins, its socket and its
//! notes.
//!
//! Their names contain the namespace's inode, so that a command in the namespace finds its
//! director. Every later daemon must see the pins. But `ip netns exec` gives each program its own
//! mount namespace with its own `/sys`. So the daemon searches for a BPF file system. If there is
//! none, it mounts one in the mount namespace of the first process, or, if that is out of reach as
//! in some containers, in its own.

use std::fs;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use nix::mount::{MsFlags, mount};
use nix::sys::statfs::{BPF_FS_MAGIC, statfs};
use nix::unistd::{AccessFlags, eaccess};
use shunt_datapath::entry::LAYOUT;
use tracing::warn;

use crate::chain::chain;
use crate::file::{self, cannot};

/// The folder on which a BPF file system is mounted if there is none.
const OWN: &str = "/run/shunt/bpf";

/// Why a director has no folders.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the text of each variant describes it")]
pub enum Error {
    #[error(transparent)]
    File(#[from] file::Error),
    #[error("cannot ask for the cookie of the network namespace")]
    Cookie(#[source] io::Error),
    #[error(
        "no BPF file system is mounted, and mounting one failed; try: mount -t bpf bpf /sys/fs/bpf"
    )]
    Unmounted(#[source] file::Error),
    #[error("a BPF file system was mounted but cannot be seen")]
    Unseen,
    #[error("cannot enter the mount namespace of the first process")]
    Enter(#[source] Errno),
    #[error("the thread that mounts died")]
    Died,
}

/// The folders of one director.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The folder of the socket and the notes.
    pub runtime: PathBuf,
    /// The folder of pinned maps, programs and links.
    pub pins: PathBuf,
    /// The inode of the network namespace.
    pub namespace: u64,
}

/// The cookie of this thread's network namespace. The kernel reuses inodes, but never a cookie.
pub fn cookie() -> Result<u64, Error> {
    let socket = UnixDatagram::unbound().map_err(Error::Cookie)?;
    let mut cookie = 0u64;
    let mut length = size_of::<u64>() as libc::socklen_t;
    // SAFETY: the kernel writes at most `length` bytes to `cookie`, and both outlive the call.
    let done = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_NETNS_COOKIE,
            (&raw mut cookie).cast(),
            &raw mut length,
        )
    };
    if done != 0 {
        return Err(Error::Cookie(io::Error::last_os_error()));
    }
    Ok(cookie)
}

/// The inode of the network namespace of this thread.
pub fn namespace() -> Result<u64, file::Error> {
    let path = Path::new("/proc/thread-self/ns/net");
    let found = fs::metadata(path).map_err(cannot("look at", path))?;
    Ok(found.ino())
}

impl Place {
    /// The folders of this thread's network namespace, made if they are missing.
    pub fn make() -> Result<Self, Error> {
        let namespace = namespace()?;
        let runtime = PathBuf::from(format!("/run/shunt/{namespace}"));
        fs::create_dir_all(&runtime).map_err(cannot("make", &runtime))?;
        close(&runtime)?;
        let root = bpf_folder()?;
        let pins = root
            .join(format!("shunt-{namespace}"))
            .join(format!("v{LAYOUT}"));
        fs::create_dir_all(&pins).map_err(cannot("make", &pins))?;
        let parent = pins.parent().unwrap_or(&pins);
        for folder in [parent, &pins] {
            fs::set_permissions(folder, fs::Permissions::from_mode(0o700))
                .map_err(cannot("set the mode of", folder))?;
        }
        Ok(Self {
            runtime,
            pins,
            namespace,
        })
    }

    /// The socket of the API.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.runtime.join("api.sock")
    }

    /// The journal's file, which the next daemon reads (`memory.rs`).
    #[must_use]
    pub fn memory(&self) -> PathBuf {
        self.runtime.join("state.journal")
    }

    /// The pin of the journal's second copy. It lies beside the folders of the layouts because it
    /// belongs to none of them.
    #[must_use]
    pub fn duplicate(&self) -> PathBuf {
        self.pins.with_file_name("journal")
    }

    /// The folders of other packet paths of this namespace: of other layouts, or put aside.
    #[must_use]
    pub fn others(&self) -> Vec<PathBuf> {
        let parent = self
            .pins
            .parent()
            .and_then(|parent| fs::read_dir(parent).ok());
        let paths = parent.into_iter().flatten().flatten();
        let paths = paths.map(|entry| entry.path());
        let mut others: Vec<PathBuf> = paths
            .filter(|path| *path != self.pins && path.is_dir())
            .collect();
        others.sort();
        others
    }

    /// Whether any packet path of this namespace is pinned.
    #[must_use]
    pub fn has_pins(&self) -> bool {
        let is_full =
            |path: &Path| fs::read_dir(path).is_ok_and(|mut entries| entries.next().is_some());
        is_full(&self.pins) || self.others().iter().any(|path| is_full(path))
    }

    /// Removes all pins.
    pub fn clear(&self) -> io::Result<()> {
        for other in self.others() {
            fs::remove_dir_all(other)?;
        }
        let _ = fs::remove_file(self.duplicate());
        for file in fs::read_dir(&self.pins)? {
            fs::remove_file(file?.path())?;
        }
        fs::remove_dir(&self.pins)?;
        if let Some(parent) = self.pins.parent() {
            let _ = fs::remove_dir(parent);
        }
        let _ = fs::remove_file(self.memory());
        let _ = fs::remove_file(self.runtime.join("path.json"));
        Ok(())
    }
}

/// Removes the socket and the notes of a namespace that is gone, unless a daemon holds them or
/// answers there. Another namespace may have got the inode, and have its pins on another file
/// system.
pub fn forget(inode: &str) {
    let folder = PathBuf::from(format!("/run/shunt/{inode}"));
    let lock = fs::File::open(folder.join("lock")).ok();
    let lock = lock.map(|file| Flock::lock(file, FlockArg::LockExclusiveNonblock));
    let is_held = matches!(lock, Some(Err(_)));
    if !is_held && UnixStream::connect(folder.join("api.sock")).is_err() {
        let _ = fs::remove_dir_all(folder);
    }
}

/// Closes a folder to everybody but its owner, and a group that may reach the socket.
fn close(folder: &Path) -> Result<(), file::Error> {
    let found = fs::metadata(folder)
        .map_err(cannot("look at", folder))?
        .permissions();
    let mode = found.mode() & 0o710 | 0o700;
    fs::set_permissions(folder, fs::Permissions::from_mode(mode))
        .map_err(cannot("set the mode of", folder))
}

/// Whether `path` is a BPF file system that the daemon may use.
fn is_bpf(path: &Path) -> bool {
    let may = AccessFlags::W_OK | AccessFlags::X_OK;
    statfs(path).is_ok_and(|found| found.filesystem_type() == BPF_FS_MAGIC)
        && eaccess(path, may).is_ok()
}

/// The folder of a mounted BPF file system that later daemons see too.
fn bpf_folder() -> Result<PathBuf, Error> {
    const USUAL: [&str; 4] = [
        "/sys/fs/bpf",
        OWN,
        "/proc/1/root/sys/fs/bpf",
        "/proc/1/root/run/shunt/bpf",
    ];
    if let Some(found) = USUAL.iter().map(Path::new).find(|path| is_bpf(path)) {
        return Ok(found.to_owned());
    }
    if let Err(error) = mount_for_all() {
        mount_here().map_err(Error::Unmounted)?;
        warn!(
            error = chain(&error),
            folder = OWN,
            action = "forwarding goes on without a daemon only while this mount namespace stays",
            "no BPF file system is mounted, and the first process's mounts are out of reach"
        );
    }
    let found = USUAL.iter().map(Path::new).find(|path| is_bpf(path));
    found.map(Path::to_owned).ok_or(Error::Unseen)
}

/// Mounts a BPF file system in the mount namespace of the first process, from a thread that enters
/// it.
fn mount_for_all() -> Result<(), Error> {
    let worker = std::thread::spawn(|| -> Result<(), Error> {
        let path = Path::new("/proc/1/ns/mnt");
        let first = fs::File::open(path).map_err(cannot("open", path))?;
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_FS).map_err(Error::Enter)?;
        nix::sched::setns(first, nix::sched::CloneFlags::CLONE_NEWNS).map_err(Error::Enter)?;
        Ok(mount_here()?)
    });
    worker.join().unwrap_or(Err(Error::Died))
}

/// Mounts a BPF file system in the mount namespace of this thread.
fn mount_here() -> Result<(), file::Error> {
    let own = Path::new(OWN);
    fs::create_dir_all(own).map_err(cannot("make", own))?;
    let mode = Some("mode=0700");
    mount(Some("bpf"), OWN, Some("bpf"), MsFlags::empty(), mode).map_err(cannot("mount at", own))
}
