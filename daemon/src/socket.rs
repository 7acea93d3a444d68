//! The local socket: only one daemon a namespace, and the permissions of its clients.

use std::fs::{self, File};
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use nix::unistd::{Gid, Group, chown};
use tracing::warn;

use crate::api;
use crate::file::{self, cannot};
use crate::kernel::place::Place;

/// An abstract name. It belongs to the network namespace, whatever file systems its processes see.
const NAME: &str = "shunt-director";

/// Why the daemon cannot be the only one, or cannot listen.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error(transparent)]
    File(#[from] file::Error),
    #[error(
        "a shuntd is running in this network namespace already ({} is locked)",
        .0.display()
    )]
    Locked(PathBuf),
    #[error(
        "a shuntd is running in this network namespace already (process {0} has the socket @{NAME})"
    )]
    Named(i32),
    #[error("cannot take the name @{NAME}")]
    Name(#[source] io::Error),
    #[error("cannot listen without waiting")]
    Listen(#[source] io::Error),
}

/// The locks of the only daemon. The kernel frees them when the daemon ends in any way.
#[derive(Debug)]
pub(crate) struct Only {
    _notes: Flock<File>,
    _pins: Flock<File>,
    _name: Option<UnixListener>,
}

/// Ensures that this is the only daemon of the namespace, of the notes and of the pins. Another
/// daemon may have the same pins and other notes, or the reverse.
pub(crate) fn only_one(place: &Place) -> Result<Only, Error> {
    let notes = place.runtime.join("lock");
    let mut options = File::options();
    let options = options.create(true).truncate(false).write(true).mode(0o600);
    let file = options.open(&notes);
    let file = file.map_err(cannot("open", &notes))?;
    // An earlier version made this file readable by all, and a process that can read it can lock
    // it.
    let _ = file.set_permissions(fs::Permissions::from_mode(0o600));
    let notes = lock(file, &notes)?;
    let pins = place.pins.parent().unwrap_or(&place.pins);
    let folder = File::open(pins).map_err(cannot("open", pins))?;
    Ok(Only {
        _notes: notes,
        _pins: lock(folder, pins)?,
        _name: take_name()?,
    })
}

fn lock(file: File, path: &Path) -> Result<Flock<File>, Error> {
    match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Ok(lock) => Ok(lock),
        Err((_, Errno::EWOULDBLOCK)) => Err(Error::Locked(path.to_owned())),
        Err((_, error)) => Err(cannot("lock", path)(error).into()),
    }
}

/// Takes the name of the namespace's director. Any process may take a name, but only a process that
/// administers the network is believed to be a director.
fn take_name() -> Result<Option<UnixListener>, Error> {
    let name = SocketAddr::from_abstract_name(NAME).map_err(Error::Name)?;
    match UnixListener::bind_addr(&name) {
        Ok(listener) => Ok(Some(listener)),
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
            let holder = UnixStream::connect_addr(&name).ok();
            let holder = holder.and_then(|held| getsockopt(&held, PeerCredentials).ok());
            let process = holder.map_or(0, |holder| holder.pid());
            if api::administers(process) {
                return Err(Error::Named(process));
            }
            warn!(
                socket = format!("@{NAME}"),
                process,
                action = "going on",
                "a process that may not administer this network has the director's name"
            );
            Ok(None)
        }
        Err(error) => Err(Error::Name(error)),
    }
}

/// The group whose members may use the API, if it exists.
pub(crate) fn group(name: &str) -> Option<Gid> {
    Some(Group::from_name(name).ok()??.gid)
}

/// Listens, in place of the socket of an earlier daemon. The group may reach the socket, but cannot
/// list or read the folder.
pub(crate) fn listen(place: &Place, group: Option<Gid>) -> Result<UnixListener, Error> {
    let path = place.socket();
    let _ = fs::remove_file(&path);
    let listener = UnixListener::bind(&path).map_err(cannot("listen at", &path))?;
    open_to(&path, 0o600, 0o660, group)?;
    open_to(&place.runtime, 0o700, 0o710, group)?;
    listener.set_nonblocking(true).map_err(Error::Listen)?;
    Ok(listener)
}

/// Gives a path the mode `alone`, or the mode `shared` and the group.
fn open_to(path: &Path, alone: u32, shared: u32, group: Option<Gid>) -> Result<(), file::Error> {
    let set = |mode| {
        fs::set_permissions(path, fs::Permissions::from_mode(mode))
            .map_err(cannot("set the mode of", path))
    };
    set(alone)?;
    if let Some(group) = group {
        chown(path, None, Some(group)).map_err(cannot("set the group of", path))?;
        set(shared)?;
    }
    Ok(())
}
