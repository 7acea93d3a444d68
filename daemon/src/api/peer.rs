//! Which processes may use the API: those that may administer this network, and those of the group.
//!
//! Being user 0 is not enough, since the root of a container has that number too. The process needs
//! CAP_NET_ADMIN in the daemon's own user namespace, as the kernel demands of `ipvsadm`.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};

/// linux/capability.h.
const NET_ADMIN: u32 = 12;
const VERSION_3: u32 = 0x2008_0522;
/// The most groups of a process that are read: all that a process may have (`NGROUPS_MAX`).
const GROUPS: usize = 65_536;

/// Whether the process at the other end of a socket may use the API. Members of `group` may.
pub(super) fn may_ask(socket: &impl AsFd, group: Option<u32>) -> bool {
    let socket = socket.as_fd();
    let Ok(peer) = getsockopt(&socket, PeerCredentials) else {
        return false;
    };
    let in_group = group.is_some_and(|group| {
        peer.gid() == group || groups(socket).is_ok_and(|groups| groups.contains(&group))
    });
    in_group || administers(peer.pid())
}

/// Whether a process has CAP_NET_ADMIN in this user namespace.
pub fn administers(process: i32) -> bool {
    process > 0
        && is_here(process)
        && effective(process).is_ok_and(|mask| mask & 1 << NET_ADMIN != 0)
}

/// Whether a process is in the daemon's user namespace. A daemon without root may not read the
/// process's link. Then its user map is compared, which differs in every namespace below.
fn is_here(process: i32) -> bool {
    let compare = |name: &str, read: &dyn Fn(&str) -> Option<Vec<u8>>| {
        let theirs = read(&format!("/proc/{process}/{name}"))?;
        Some(read(&format!("/proc/self/{name}"))? == theirs)
    };
    let link = |path: &str| {
        let target = std::fs::read_link(path).ok()?;
        Some(target.into_os_string().into_encoded_bytes())
    };
    let text = |path: &str| std::fs::read(path).ok();
    compare("ns/user", &link)
        .or_else(|| compare("uid_map", &text))
        .unwrap_or(false)
}

/// The effective capabilities of a process (capget(2)). Reading them needs no privilege.
fn effective(process: i32) -> io::Result<u64> {
    let mut header = [VERSION_3, process as u32];
    // The low halves of the effective, permitted and inheritable sets, then the high halves.
    let mut data = [0u32; 6];
    // SAFETY: version 3 of the call reads two words of the header and writes six of data.
    let done = unsafe { libc::syscall(libc::SYS_capget, header.as_mut_ptr(), data.as_mut_ptr()) };
    if done != 0 {
        return Err(io::Error::last_os_error());
    }
    let [low, _, _, high, ..] = data;
    Ok(u64::from(low) | u64::from(high) << 32)
}

/// The supplementary groups of the process at the other end (`SO_PEERGROUPS`).
fn groups(socket: BorrowedFd<'_>) -> io::Result<Vec<u32>> {
    let mut groups = vec![MaybeUninit::<u32>::uninit(); 64];
    loop {
        let mut length = (groups.len() * size_of::<u32>()) as libc::socklen_t;
        // SAFETY: the kernel writes at most `length` bytes to `groups`, and gives their number.
        let done = unsafe {
            libc::getsockopt(
                socket.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_PEERGROUPS,
                groups.as_mut_ptr().cast(),
                &raw mut length,
            )
        };
        let count = length as usize / size_of::<u32>();
        if done == 0 {
            let known = groups.into_iter().take(count);
            // SAFETY: the call succeeded, so the kernel has written the first `length` bytes.
            return Ok(known.map(|group| unsafe { group.assume_init() }).collect());
        }
        let error = io::Error::last_os_error();
        if error.raw_os_error() != Some(libc::ERANGE) || groups.len() >= GROUPS {
            return Err(error);
        }
        groups.resize(GROUPS, MaybeUninit::uninit());
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn a_process_may_ask_by_its_group_or_by_its_capability() {
        let (ours, _theirs) = UnixStream::pair().unwrap();
        let own = nix::unistd::getgid().as_raw();
        assert!(may_ask(&ours, Some(own)));

        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
        let mask = u64::from_str_radix(line.unwrap().trim(), 16).unwrap();
        let may = mask & 1 << NET_ADMIN != 0;
        assert_eq!(effective(std::process::id() as i32).unwrap(), mask);
        assert_eq!(may_ask(&ours, None), may);
        assert!(!administers(0));
    }

    #[test]
    fn the_first_process_is_asked_for_its_capability_and_not_for_its_number() {
        // A process that does not exist has no capabilities.
        assert!(!administers(i32::MAX));
    }
}
