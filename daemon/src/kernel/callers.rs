//! Gives processes of the director itself a server when they use a virtual address. The programs
//! are attached to the machine's root control group, and act only on sockets of the director's
//! namespace.
//!
//! Programs and links are pinned, like those of devices. If they cannot be attached, everything
//! else works.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use aya::programs::links::{FdLink, LinkError};
use aya::programs::{CgroupAttachMode, CgroupSockAddr, ProgramError};
use aya_obj::programs::CgroupSockAddrAttachType as Moment;

use super::place::Place;
use super::refusal::Refusal;
use crate::file::{self, cannot};

/// Why processes of the director itself get no servers.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the text of each variant describes it")]
pub enum Error {
    #[error("no cgroup2 file system is mounted; try: mount -t cgroup2 cgroup2 /sys/fs/cgroup")]
    NoGroup,
    #[error(transparent)]
    File(#[from] file::Error),
    #[error(transparent)]
    Refused(#[from] Refusal),
    #[error("cannot hold the link of an attached program")]
    Take(#[source] ProgramError),
    #[error("cannot hold the link of an attached program")]
    Hold(#[source] LinkError),
}

/// The programs, and the system call at which each runs.
pub(super) const PROGRAMS: [(&str, Moment); 6] = [
    ("caller_connect4", Moment::Connect4),
    ("caller_connect6", Moment::Connect6),
    ("caller_sendmsg4", Moment::UDPSendMsg4),
    ("caller_sendmsg6", Moment::UDPSendMsg6),
    ("caller_recvmsg4", Moment::UDPRecvMsg4),
    ("caller_recvmsg6", Moment::UDPRecvMsg6),
];

/// Puts the link of an earlier build's program aside: [`settle`] finds no link and makes one. Until
/// then the link in the kernel stays in force under its other pin.
pub fn put_link_aside(place: &Place, name: &str) -> Result<(), file::Error> {
    let link = link(place, name);
    if link.exists() {
        fs::rename(&link, former(place, name)).map_err(cannot("put aside", &link))?;
    }
    Ok(())
}

/// Attaches the programs to the group, or detaches them.
pub fn settle(place: &Place, wanted: bool) -> Result<(), Error> {
    if !wanted {
        for (name, _) in PROGRAMS {
            let _ = fs::remove_file(former(place, name));
            let _ = fs::remove_file(link(place, name));
        }
        return Ok(());
    }
    let group = group().ok_or(Error::NoGroup)?;
    for (name, moment) in PROGRAMS {
        hang(place, &group, name, moment)?;
    }
    Ok(())
}

fn hang(place: &Place, group: &Path, name: &str, moment: Moment) -> Result<(), Error> {
    let path = link(place, name);
    if !path.exists() {
        let group = File::open(group).map_err(cannot("open", group))?;
        let pin = place.pins.join(name);
        let mut program = CgroupSockAddr::from_pin(&pin, moment)
            .map_err(cannot("open the pinned program", &pin))?;
        // Links allow other programs on the group in every mode.
        let id = program
            .attach(group, CgroupAttachMode::Single)
            .map_err(Refusal::of)?;
        let taken = program.take_link(id).map_err(Error::Take)?;
        let held = FdLink::try_from(taken).map_err(Error::Hold)?;
        held.pin(&path).map_err(cannot("pin", &path))?;
    }
    // For a moment both programs were attached. Once one has rewritten an address, it is no virtual
    // address, and the other leaves it.
    let _ = fs::remove_file(former(place, name));
    Ok(())
}

fn link(place: &Place, name: &str) -> PathBuf {
    place.pins.join(format!("group-{name}"))
}

/// The pin of the link of an earlier build, until this build's link exists.
fn former(place: &Place, name: &str) -> PathBuf {
    place.pins.join(format!("former-group-{name}"))
}

/// The root control group in this mount namespace. If it is hidden there (`ip netns exec`), the one
/// in the mount namespace of the first process.
fn group() -> Option<PathBuf> {
    let mounted = |mounts: &str, root: &str| {
        let text = fs::read_to_string(mounts).ok()?;
        let mut paths = text.lines().filter_map(|line| {
            let mut words = line.split(' ');
            let (_, path, kind) = (words.next()?, words.next()?, words.next()?);
            (kind == "cgroup2").then(|| PathBuf::from(format!("{root}{path}")))
        });
        paths.find(|path| path.is_dir())
    };
    mounted("/proc/self/mounts", "").or_else(|| mounted("/proc/1/mounts", "/proc/1/root"))
}
