//! A packet path that replaces one of another layout, or one that lost a part.
//!
//! The one before goes on forwarding while its successor is made beside it and its tables are
//! filled. Its links are the successor's from then on: each device gets the other programs in one
//! step. What connections lie in is shared by both where both understand it. Last, the pins of the
//! one before go.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use aya::maps::{MapData, MapInfo};
use aya::programs::ProgramInfo;
use shunt_datapath::entry;
use tracing::{info, warn};

use super::made::{MAPS, Made, sizes};
use super::pins;
use super::place::Place;

/// What connections lie in. All of these are taken over, or none.
const CONNECTIONS: [&str; 6] = [
    "FLOWS4",
    "FLOWS6",
    "TRANSLATIONS",
    "CALLS",
    "COUNTS",
    "TRAFFIC",
];

/// Where a packet path of our own layout is put aside.
const ASIDE: &str = "before";

/// Puts pins of maps back that are missing, or others' under their names: the programs in the
/// kernel still use the maps.
pub fn find_pins(place: &Place, made: &Made) {
    let missing = pins::unfit(&place.pins, shunt_ebpf::DIRECTOR, &MAPS, &sizes(made));
    let missing = missing.unwrap_or_default();
    if missing.is_empty() || missing.len() == MAPS.len() {
        return;
    }
    let used = used_maps(place);
    for (name, why) in missing {
        let pin = place.pins.join(name);
        // The kernel keeps fifteen bytes of a name.
        let short = name.get(..15).unwrap_or(name);
        let found = used.get(short).map(|id| MapData::from_id(*id));
        let put_back = |map: MapData| -> Result<()> {
            if pin.exists() {
                fs::remove_file(&pin)?;
            }
            Ok(map.pin(&pin)?)
        };
        match found.map(|map| map.map_err(Into::into).and_then(put_back)) {
            Some(Ok(())) => info!(map = name, why, "missing pin of a map put back"),
            Some(Err(error)) => warn!(
                map = name,
                error = format!("{error:#}"),
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

/// Links of devices and of the control group, by the names of their pins.
fn is_link(name: &str) -> bool {
    ["link-", "group-", "former-group-"]
        .iter()
        .any(|prefix| name.starts_with(prefix))
}

/// Makes room in the folder of our layout, and brings over what stays. `keeps` says that the ids
/// that connections have are known.
pub fn prepare(place: &Place, made: Made, keeps: bool) -> Result<Made> {
    let pins = &place.pins;
    let others = place.others();
    if others.is_empty() {
        let aside = pins.with_file_name(ASIDE);
        fs::rename(pins, &aside).context("cannot put the packet path before aside")?;
    } else {
        // What an end in the middle of this left. Links may have been brought over already.
        for file in fs::read_dir(pins)
            .context("cannot read the pins")?
            .flatten()
        {
            if !name(&file.path()).is_some_and(is_link) {
                fs::remove_file(file.path()).context("cannot take half a packet path away")?;
            }
        }
    }
    fs::create_dir_all(pins).with_context(|| format!("cannot make {}", pins.display()))?;
    let before = place.others();
    for folder in &before {
        bring_links(folder, pins);
    }
    let same = made.connections == entry::CONNECTIONS;
    let shared = keeps && same && before.iter().any(|folder| share(folder, pins, &made));
    if !shared {
        warn!(
            action = "their packets are scheduled anew",
            "connections of the packet path before not taken over"
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

/// Pins what connections lie in once more, if all of it is there and as we make it.
fn share(from: &Path, to: &Path, made: &Made) -> bool {
    let unfit = pins::unfit(from, shunt_ebpf::DIRECTOR, &CONNECTIONS, &sizes(made));
    unfit.is_ok_and(|unfit| unfit.is_empty())
        && CONNECTIONS.iter().all(|name| {
            let pinned = MapData::from_pin(from.join(name)).map(|map| map.pin(to.join(name)));
            matches!(pinned, Ok(Ok(())))
        })
}

/// Takes away what a successor has taken over; true if there is anything. To be called when every
/// device has its programs.
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
