//! Opens pinned maps and programs.

use std::path::PathBuf;

use aya::maps::{MapData, MapError};
use aya::programs::{ProgramError, SchedClassifier, Xdp};
use aya_obj::programs::XdpAttachType;

use super::place::Place;

/// The pin of XDP's first program.
pub const XDP: &str = "director_xdp";
/// The pin of the program that reads the kernel's jiffies.
pub const CLOCK: &str = "director_clock";
/// The pin of the program that passes every frame to the kernel.
pub const PASS: &str = "director_pass";

/// The attach type of plain XDP programs.
pub const INTERFACE: XdpAttachType = XdpAttachType::Interface;

/// Why a pinned part of the packet path cannot be opened.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the text of each variant describes it")]
pub enum Error {
    #[error("cannot open the pinned program {}", path.display())]
    Program { path: PathBuf, source: ProgramError },
    #[error("cannot open the pinned map {}", path.display())]
    Map { path: PathBuf, source: MapError },
}

/// A program of XDP.
pub fn xdp(place: &Place, name: &str) -> Result<Xdp, Error> {
    let path = place.pins.join(name);
    Xdp::from_pin(&path, INTERFACE).map_err(|source| Error::Program { path, source })
}

/// A program of tc.
pub fn tc(place: &Place, name: &str) -> Result<SchedClassifier, Error> {
    let path = place.pins.join(name);
    SchedClassifier::from_pin(&path).map_err(|source| Error::Program { path, source })
}

/// A map.
pub fn map(place: &Place, name: &str) -> Result<MapData, Error> {
    let path = place.pins.join(name);
    MapData::from_pin(&path).map_err(|source| Error::Map { path, source })
}
