//! Finds packet paths of network namespaces that are gone.
//!
//! Pins outlive a namespace, with some 85 MB of tables and the programs on the machine's root
//! control group. The inode proves nothing, since the kernel reuses it. A list of processes proves
//! nothing either: a mount or an open file keeps a namespace alive, and some processes may be
//! invisible. So a device map is pinned beside the pins of a namespace, with its loopback device as
//! the only entry. The kernel removes a device from such maps when the device goes, and the
//! loopback device goes only with its namespace. So an empty map proves that the namespace is gone.
//! The map is filled before it is pinned.

use std::fs::{self, File};
use std::path::Path;

use aya::maps::xdp::{DevMap, XdpMapError};
use aya::maps::{Map, MapData, MapError};
use aya_obj::generated::bpf_map_type;
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use nix::net::if_::if_nametoindex;
use tracing::{debug, info, warn};

use super::place::{self, Place};
use crate::chain::chain;
use crate::file::{self, cannot};

/// The name of the map among the pins of a packet path.
pub const NAME: &str = "NAMESPACE";
/// The size of a key in bytes, and of `struct bpf_devmap_val` (Linux 5.8).
const KEY: u32 = 4;
const VALUE: u32 = 8;

/// Why a packet path cannot be marked as one of a living namespace.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the text of each variant describes it")]
pub enum Error {
    #[error("cannot make the map NAMESPACE")]
    Make(#[source] MapError),
    #[error("there is no device lo")]
    NoLoopback(#[source] Errno),
    #[error("cannot enter lo in the map NAMESPACE")]
    Enter(#[source] XdpMapError),
    #[error(transparent)]
    File(#[from] file::Error),
}

/// Pins the map for the network namespace of this thread.
pub fn mark(place: &Place) -> Result<(), Error> {
    let path = place.pins.join(NAME);
    if matches!(is_gone(&place.pins), Some(false)) {
        return Ok(());
    }
    let kind = bpf_map_type::BPF_MAP_TYPE_DEVMAP as u32;
    let map = aya_obj::Map::new_from_params(kind, KEY, VALUE, 1, 0);
    let map = MapData::create(map, NAME, None).map_err(Error::Make)?;
    let mut devices = DevMap::try_from(Map::DevMap(map)).map_err(Error::Make)?;
    let loopback = if_nametoindex("lo").map_err(Error::NoLoopback)?;
    devices.set(0, loopback, None, 0).map_err(Error::Enter)?;
    let _ = fs::remove_file(&path);
    devices.pin(&path).map_err(cannot("pin", &path))?;
    Ok(())
}

/// Whether the namespace of these pins is gone; `None` if nothing proves either.
fn is_gone(pins: &Path) -> Option<bool> {
    let map = MapData::from_pin(pins.join(NAME)).ok()?;
    let devices = DevMap::try_from(Map::DevMap(map)).ok()?;
    match devices.get(0, 0) {
        Ok(_) => Some(false),
        Err(MapError::KeyNotFound) => Some(true),
        Err(_) => None,
    }
}

/// Removes the packet paths of namespaces that are gone.
pub fn sweep(place: &Place) {
    let Some((own, root)) = place
        .pins
        .parent()
        .and_then(|own| Some((own, own.parent()?)))
    else {
        return;
    };
    for folder in fs::read_dir(root).into_iter().flatten().flatten() {
        let path = folder.path();
        let name = folder.file_name();
        let inode = name.to_str().and_then(|name| name.strip_prefix("shunt-"));
        let Some(inode) = inode.and_then(|inode| inode.split('-').next()) else {
            continue;
        };
        if path == own || !are_gone(&path) {
            continue;
        }
        match take_away(&path, root, inode) {
            Ok(true) => info!(namespace = inode, "packet path of a gone namespace removed"),
            Ok(false) => debug!(namespace = inode, "inode belongs to another namespace"),
            Err(error) => warn!(
                namespace = inode,
                error = chain(&error),
                "cannot remove the packet path of a gone namespace"
            ),
        }
    }
}

/// Whether every packet path in a folder (one a layout) belongs to a namespace that is gone. Other
/// pins in the folder do not count.
fn are_gone(folder: &Path) -> bool {
    let layouts = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut layouts = layouts
        .map(|layout| layout.path())
        .filter(|path| path.is_dir())
        .map(|layout| is_gone(&layout))
        .peekable();
    layouts.peek().is_some() && layouts.all(|gone| gone == Some(true))
}

/// Renames a folder, then empties it. False if another namespace has got the inode meanwhile and
/// begun to fill the folder.
fn take_away(folder: &Path, root: &Path, inode: &str) -> Result<bool, file::Error> {
    // A daemon holds a lock on the folder of its pins.
    let held = File::open(folder).map_err(cannot("open", folder))?;
    let Ok(_held) = Flock::lock(held, FlockArg::LockExclusiveNonblock) else {
        return Ok(false);
    };
    // The BPF file system refuses names with a dot.
    let aside = root.join(format!("shunt-{inode}-gone"));
    if folder != aside {
        fs::rename(folder, &aside).map_err(cannot("put aside", folder))?;
    }
    if !are_gone(&aside) {
        fs::rename(&aside, folder).map_err(cannot("put back", folder))?;
        return Ok(false);
    }
    fs::remove_dir_all(&aside).map_err(cannot("remove", &aside))?;
    place::forget(inode);
    Ok(true)
}
