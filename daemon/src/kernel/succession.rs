//! Replaces a packet path of another layout, or one that lost a part, by a successor.
//!
//! The predecessor goes on forwarding while its successor is made beside it and its tables are
//! filled. Then the successor takes over the predecessor's links, and each device changes to the
//! successor's programs in one step. Both share the maps of connections if their layouts agree, and
//! the totals in any case. At last the predecessor's pins are removed.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use aya::maps::{MapData, MapInfo};
use aya::programs::ProgramInfo;
use shunt_datapath::entry;
use tracing::{info, warn};

use super::made::{MAPS, Made, sizes};
use super::pins;
use super::place::Place;
use crate::chain::chain;
use crate::file::{self, cannot};

/// The maps of connections. The successor takes over all of them, or none.
const CONNECTIONS: [&str; 5] = ["FLOWS4", "FLOWS6", "TRANSLATIONS", "CALLS", "COUNTS"];

/// The map of the totals of servers. Its entries have an id of the journal and a size, and no other
/// layout.
const TOTALS: [&str; 1] = ["TRAFFIC"];

/// The folder to which a predecessor of the same layout is moved.
const ASIDE: &str = "before";

/// Restores pins of maps that are missing or replaced by foreign maps. The programs in the kernel
/// still use the right maps.
pub fn find_pins(place: &Place, made: &Made) {
    let missing = pins::unfit(&place.pins, shunt_ebpf::DIRECTOR, &MAPS, &sizes(made));
    let missing = missing.unwrap_or_default();
    if missing.is_empty() || missing.len() == MAPS.len() {
        return;
    }
    let used = used_maps(place);
    for (name, why) in missing {
        let pin = place.pins.join(name);
        // The kernel stores fifteen bytes of a name.
        let short = name.get(..15).unwrap_or(name);
        let found = used.get(short).map(|id| MapData::from_id(*id));
        let put_back = |map: MapData| {
            if pin.exists() {
                fs::remove_file(&pin).map_err(cannot("remove", &pin))?;
            }
            map.pin(&pin).map_err(cannot("pin", &pin))
        };
        match found.map(|map| {
            map.map_err(cannot("open the map of", &pin))
                .and_then(put_back)
        }) {
            Some(Ok(())) => info!(map = name, why, "missing pin of a map put back"),
            Some(Err(error)) => warn!(
                map = name,
                error = chain(&error),
                "pin of a map not put back"
            ),
            None => warn!(
                map = name,
                why, "pin of a map missing, and no program has the map"
            ),
        }
    }
}

/// The maps of the pinned programs, by name.
fn used_maps(place: &Place) -> BTreeMap<String, u32> {
    let mut used = BTreeMap::new();
    let files = fs::read_dir(&place.pins).into_iter().flatten().flatten();
    for path in files.map(|file| file.path()) {
        let is_program = name(&path).is_some_and(|name| !MAPS.contains(&name) && !is_link(name));
        let program = is_program
            .then(|| ProgramInfo::from_pin(&path).ok())
            .flatten();
        let ids = program.and_then(|program| program.map_ids().ok()).flatten();
        for id in ids.into_iter().flatten() {
            let map = MapInfo::from_id(id).ok();
            if let Some(name) = map.as_ref().and_then(MapInfo::name_as_str) {
                used.insert(name.to_owned(), id);
            }
        }
    }
    used
}

fn name(path: &Path) -> Option<&str> {
    path.file_name()?.to_str()
}

/// Whether a pin's name is that of a link of a device or of the control group.
fn is_link(name: &str) -> bool {
    ["link-", "group-", "former-group-"]
        .iter()
        .any(|prefix| name.starts_with(prefix))
}

/// Clears the folder of this layout, and brings over the maps and links that stay. `keeps` is true
/// if the ids in connections are known.
pub fn prepare(place: &Place, made: Made, keeps: bool) -> Result<Made, file::Error> {
    let pins = &place.pins;
    let others = place.others();
    if others.is_empty() {
        let aside = pins.with_file_name(ASIDE);
        fs::rename(pins, &aside).map_err(cannot("put aside", pins))?;
    } else {
        // An interrupted run left this. It may have brought links over already.
        for file in fs::read_dir(pins).map_err(cannot("read", pins))?.flatten() {
            let path = file.path();
            if !name(&path).is_some_and(is_link) {
                fs::remove_file(&path).map_err(cannot("remove", &path))?;
            }
        }
    }
    fs::create_dir_all(pins).map_err(cannot("make", pins))?;
    let before = place.others();
    for folder in &before {
        bring_links(folder, pins);
    }
    let same = made.connections == entry::CONNECTIONS;
    let shares = |maps: &[&str]| before.iter().any(|folder| share(folder, pins, &made, maps));
    if !(keeps && same && shares(&CONNECTIONS)) {
        warn!(
            action = "TCP and SCTP connections end, datagrams are scheduled anew",
            "connections of the packet path before not taken over"
        );
    }
    if !(keeps && shares(&TOTALS)) {
        warn!(
            action = "they begin at zero",
            "totals of the packet path before not taken over"
        );
    }
    Ok(Made {
        layout: entry::LAYOUT,
        connections: entry::CONNECTIONS,
        ..made
    })
}

fn bring_links(from: &Path, to: &Path) {
    let files = fs::read_dir(from).into_iter().flatten().flatten();
    for path in files.map(|file| file.path()) {
        let Some(name) = name(&path).filter(|name| is_link(name)) else {
            continue;
        };
        if let Err(error) = fs::rename(&path, to.join(name)) {
            warn!(%error, link = name, "link not taken over");
        }
    }
}

/// Pins maps a second time, if all are present and as this build makes them.
fn share(from: &Path, to: &Path, made: &Made, maps: &[&str]) -> bool {
    let unfit = pins::unfit(from, shunt_ebpf::DIRECTOR, maps, &sizes(made));
    unfit.is_ok_and(|unfit| unfit.is_empty())
        && maps.iter().all(|name| {
            let pinned = MapData::from_pin(from.join(name)).map(|map| map.pin(to.join(name)));
            matches!(pinned, Ok(Ok(())))
        })
}

/// Removes the predecessor; true if there was one. The caller has attached every device first.
pub fn finish(place: &Place) -> bool {
    let others = place.others();
    let has_predecessor = !others.is_empty();
    for folder in others {
        let removed = fs::remove_dir_all(&folder);
        match removed {
            Ok(()) => info!(folder = %folder.display(), "packet path before taken away"),
            Err(error) => {
                warn!(%error, folder = %folder.display(), "packet path before not taken away");
            }
        }
    }
    has_predecessor
}
