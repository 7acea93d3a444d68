//! Tells the packet paths of living network namespaces from those of namespaces that are gone.
//!
//! Pins outlive a namespace, and with them some 85 MB of tables and the programs on the machine's
//! root control group. An inode says nothing, since the kernel gives it again, and neither does a
//! list of processes: a namespace lives on as a mount or as a file, and others may not be seen. So
//! beside the pins of a namespace is a map of devices in which its loopback device stands. The
//! kernel takes a device out of such maps when it goes, and a loopback device goes with its
//! namespace and not before. A map that is there and empty is the proof. It is filled before it is
//! pinned, so that it is never empty otherwise.

use std::fs::{self, File};
use std::path::Path;

use anyhow::{Context, Result};
use aya::maps::xdp::DevMap;
use aya::maps::{Map, MapData};
use aya_obj::generated::bpf_map_type;
use nix::fcntl::{Flock, FlockArg};
use nix::net::if_::if_nametoindex;
use tracing::{debug, info, warn};

use super::place::{self, Place};

/// The name of the map among the pins of a packet path.
pub const NAME: &str = "NAMESPACE";
/// Bytes of a key, and of `struct bpf_devmap_val` (Linux 5.8).
const KEY: u32 = 4;
const VALUE: u32 = 8;

/// Notes that the namespace of this thread has a packet path here.
pub fn mark(place: &Place) -> Result<()> {
    let path = place.pins.join(NAME);
    if matches!(is_gone(&place.pins), Some(false)) {
        return Ok(());
    }
    let kind = bpf_map_type::BPF_MAP_TYPE_DEVMAP as u32;
    let map = aya_obj::Map::new_from_params(kind, KEY, VALUE, 1, 0);
    let map = MapData::create(map, NAME, None).context("cannot make the map NAMESPACE")?;
    let mut devices = DevMap::try_from(Map::DevMap(map)).context("the map NAMESPACE")?;
    let loopback = if_nametoindex("lo").context("there is no device lo")?;
    devices
        .set(0, loopback, None, 0)
        .context("cannot enter lo in the map NAMESPACE")?;
    let _ = fs::remove_file(&path);
    devices
        .pin(&path)
        .with_context(|| format!("cannot pin {}", path.display()))
}

/// Whether the namespace of these pins is gone; `None` where nothing says so for certain.
fn is_gone(pins: &Path) -> Option<bool> {
    let map = MapData::from_pin(pins.join(NAME)).ok()?;
    let devices = DevMap::try_from(Map::DevMap(map)).ok()?;
    match devices.get(0, 0) {
        Ok(_) => Some(false),
        Err(aya::maps::MapError::KeyNotFound) => Some(true),
        Err(_) => None,
    }
}

/// Takes away what packet paths of namespaces that are gone have left.
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
            Ok(true) => info!(namespace = inode, "what a namespace left is taken away"),
            Ok(false) => debug!(namespace = inode, "namespace taken up meanwhile"),
            Err(error) => warn!(
                namespace = inode,
                error = format!("{error:#}"),
                "what a namespace left cannot be taken away"
            ),
        }
    }
}

/// Whether all packet paths in a folder, one a layout, are those of a namespace that is gone. What
/// else is pinned beside them says nothing.
fn are_gone(folder: &Path) -> bool {
    let layouts = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut layouts = layouts
        .map(|layout| layout.path())
        .filter(|path| path.is_dir())
        .map(|layout| is_gone(&layout))
        .peekable();
    layouts.peek().is_some() && layouts.all(|gone| gone == Some(true))
}

/// Puts a folder aside before it is emptied: a namespace that got the inode meanwhile may have
/// begun to fill it. False if one has.
fn take_away(folder: &Path, root: &Path, inode: &str) -> Result<bool> {
    // A daemon holds the folder that it works in.
    let held = File::open(folder).context("cannot open the pins")?;
    let Ok(_held) = Flock::lock(held, FlockArg::LockExclusiveNonblock) else {
        return Ok(false);
    };
    // Names with a dot are not for us on this file system.
    let aside = root.join(format!("shunt-{inode}-gone"));
    if folder != aside {
        fs::rename(folder, &aside).context("cannot put the pins aside")?;
    }
    if !are_gone(&aside) {
        fs::rename(&aside, folder).context("cannot put the pins back")?;
        return Ok(false);
    }
    fs::remove_dir_all(&aside).context("cannot remove the pins")?;
    place::forget(inode);
    Ok(true)
}
