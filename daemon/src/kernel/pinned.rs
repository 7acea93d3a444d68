//! Opens pinned maps and programs.

use anyhow::{Context, Result};
use aya::maps::MapData;
use aya::programs::Xdp;
use aya_obj::programs::XdpAttachType;

use super::place::Place;

pub const XDP: &str = "director_xdp";
pub const CLOCK: &str = "director_clock";
pub const PASS: &str = "director_pass";

/// The attach type of plain XDP programs.
pub const INTERFACE: XdpAttachType = XdpAttachType::Interface;

/// The first program of XDP.
pub fn xdp(place: &Place) -> Result<Xdp> {
    Xdp::from_pin(place.pins.join(XDP), INTERFACE).context("cannot open the pinned program")
}

/// The program that reads jiffies.
pub fn clock(place: &Place) -> Result<Xdp> {
    Xdp::from_pin(place.pins.join(CLOCK), INTERFACE).context("cannot open the pinned clock")
}

/// The program that passes every frame to the kernel.
pub fn pass(place: &Place) -> Result<Xdp> {
    Xdp::from_pin(place.pins.join(PASS), INTERFACE).context("cannot open the pinned program")
}

/// A map.
pub fn map(place: &Place, name: &str) -> Result<MapData> {
    let path = place.pins.join(name);
    MapData::from_pin(&path).with_context(|| format!("cannot open {}", path.display()))
}
