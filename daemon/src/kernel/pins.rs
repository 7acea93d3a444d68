//! Checks that a pinned map has the type, the sizes and the number of entries that the object and
//! the notes beside the pins demand. Otherwise the daemon would read and write a foreign map beyond
//! its end.

use std::collections::BTreeMap;
use std::path::Path;

use aya::maps::{MapError, MapInfo};
use aya_obj::{Object, ParseError};

use crate::chain::chain;

/// The properties of a map that are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Shape {
    kind: u32,
    key: u32,
    value: u32,
    entries: u32,
    /// Whether it can be mapped into memory.
    mapped: bool,
}

/// Why the maps of an object are not known.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the text of each variant describes it")]
pub enum Error {
    #[error("cannot read the packet path's object")]
    Object(#[source] ParseError),
    #[error("no map {0} in the object")]
    NoMap(String),
}

/// `BPF_F_MMAPABLE`.
const MAPPED: u32 = 1 << 10;

/// The maps of an object whose pins are missing or wrong, each with the reason. `entries` gives the
/// number of entries of maps whose size is chosen when they are made.
pub fn unfit<'a>(
    pins: &Path,
    object: &[u8],
    names: &[&'a str],
    entries: &[(&str, u32)],
) -> Result<BTreeMap<&'a str, String>, Error> {
    let object = Object::parse(object).map_err(Error::Object)?;
    let mut unfit = BTreeMap::new();
    for name in names {
        let map = object
            .maps
            .get(*name)
            .ok_or_else(|| Error::NoMap((*name).to_owned()))?;
        let given = entries.iter().find(|(other, _)| other == name);
        let wanted = Shape {
            kind: map.map_type(),
            key: map.key_size(),
            value: map.value_size(),
            entries: given.map_or(map.max_entries(), |(_, entries)| *entries),
            mapped: map.map_flags() & MAPPED != 0,
        };
        match pinned(&pins.join(name)) {
            Ok(found) if found == wanted => {}
            Ok(found) => {
                unfit.insert(*name, format!("{name} is {found:?}, not {wanted:?}"));
            }
            Err(error) => {
                unfit.insert(*name, format!("{name}: {}", chain(&error)));
            }
        }
    }
    Ok(unfit)
}

fn pinned(path: &Path) -> Result<Shape, MapError> {
    let info = MapInfo::from_pin(path)?;
    Ok(Shape {
        kind: info.map_type()? as u32,
        key: info.key_size(),
        value: info.value_size(),
        entries: info.max_entries(),
        mapped: info.map_flags() & MAPPED != 0,
    })
}
