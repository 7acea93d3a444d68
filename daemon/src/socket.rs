//! The local socket: one daemon a namespace, root and a group may speak to it.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;

use anyhow::{Context, Result, bail};
use nix::fcntl::{Flock, FlockArg};
use nix::unistd::{Group, chown};

use crate::kernel::place::Place;

/// Members of this group may use the socket, if the group exists.
const GROUP: &str = "shunt";

/// Held as long as the daemon lives: the kernel lets go of it whatever happens.
#[derive(Debug)]
pub struct Only(#[allow(dead_code)] Flock<fs::File>);

/// Makes sure that this is the only daemon of the namespace.
pub fn only_one(place: &Place) -> Result<Only> {
    let path = place.runtime.join("lock");
    let file = fs::OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .with_context(|| format!("cannot open {}", path.display()))?;
    match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Ok(lock) => Ok(Only(lock)),
        Err((_, nix::errno::Errno::EWOULDBLOCK)) => {
            bail!(
                "a shuntd is running in this network namespace already ({})",
                path.display()
            )
        }
        Err((_, error)) => bail!("cannot lock {}: {error}", path.display()),
    }
}

/// Listens, in place of whatever an earlier daemon left.
pub fn listen(place: &Place) -> Result<UnixListener> {
    let path = place.socket();
    let _ = fs::remove_file(&path);
    let listener = UnixListener::bind(&path)
        .with_context(|| format!("cannot listen at {}", path.display()))?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o660))
        .with_context(|| format!("cannot set the mode of {}", path.display()))?;
    if let Ok(Some(group)) = Group::from_name(GROUP) {
        chown(&path, None, Some(group.gid))
            .with_context(|| format!("cannot give {} to group {GROUP}", path.display()))?;
    }
    listener
        .set_nonblocking(true)
        .context("cannot listen without waiting")?;
    Ok(listener)
}
