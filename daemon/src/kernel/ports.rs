//! What the packet path knows of devices: their MAC addresses, and which of them XDP can send by.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use aya::Pod;
use aya::maps::xdp::DevMapHash;
use aya::maps::{Array, Map, MapData};
use shunt_control::network::Link;
use shunt_control::network::attach::{self, Choice};
use shunt_datapath::device::Device;
use tracing::{debug, warn};

use super::features;
use super::object::map;
use super::place::Place;

#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Entry(Device);
// SAFETY: integers only, no padding.
unsafe impl Pod for Entry {}

/// Both tables, and what was written to them.
pub struct Ports {
    devices: Array<MapData, Entry>,
    ports: DevMapHash<MapData>,
    /// By their places.
    known: BTreeMap<u32, Entry>,
}

impl Ports {
    /// Opens the tables of a pinned packet path, with what an earlier daemon wrote.
    pub fn open(place: &Place) -> Result<Self> {
        let devices = Array::<_, Entry>::try_from(Map::Array(map(place, "DEVICES")?))
            .context("the map DEVICES")?;
        let ports =
            DevMapHash::try_from(Map::DevMapHash(map(place, "PORTS")?)).context("the map PORTS")?;
        let mut known = BTreeMap::new();
        for at in 0..devices.len() {
            let entry = devices.get(&at, 0).context("cannot read the map DEVICES")?;
            if entry != Entry::default() {
                known.insert(at, entry);
            }
        }
        Ok(Self {
            devices,
            ports,
            known,
        })
    }

    /// Writes what is so of these devices.
    pub fn settle(&mut self, wanted: &[(Link, Choice)]) {
        if let Err(error) = self.name(wanted).and_then(|()| self.connect(wanted)) {
            warn!(
                error = format!("{error:#}"),
                action = "trying again",
                "the packet path's table of devices is not as it should be"
            );
        }
    }

    /// The MAC addresses of the devices that get a program. Those of a device without Ethernet
    /// headers do not count, and neither do those of loopback.
    fn name(&mut self, wanted: &[(Link, Choice)]) -> Result<()> {
        let mut entries = BTreeMap::new();
        for (link, choice) in wanted {
            if link.ethernet && !choice.hooks.is_empty() {
                let redirects = attach::goes_back_by_redirect(link);
                let entry = Entry(Device::new(link.index, link.mac, redirects));
                entries.entry(Device::place(link.index)).or_insert(entry);
            }
        }
        let gone = self.known.keys().filter(|at| !entries.contains_key(at));
        let gone: Vec<_> = gone.map(|at| (*at, Entry::default())).collect();
        for (at, entry) in entries.iter().map(|(at, entry)| (*at, *entry)).chain(gone) {
            if self.known.get(&at).copied().unwrap_or_default() != entry {
                self.devices
                    .set(at, entry, 0)
                    .context("cannot write the map DEVICES")?;
            }
        }
        self.known = entries;
        Ok(())
    }

    /// The devices that XDP can send by. The kernel itself takes out those that go.
    fn connect(&mut self, wanted: &[(Link, Choice)]) -> Result<()> {
        let features = features::all().unwrap_or_else(|error| {
            debug!(error = format!("{error:#}"), "XDP features not known");
            BTreeMap::new()
        });
        let is_port = |link: &Link| attach::is_port(link, features.get(&link.index).copied());
        let links = wanted.iter().map(|(link, _)| link);
        let ports: Vec<u32> = links
            .filter(|link| is_port(link))
            .map(|link| link.index)
            .collect();
        let present: Vec<u32> = self.ports.keys().filter_map(Result::ok).collect();
        for index in present.iter().filter(|index| !ports.contains(index)) {
            // Gone meanwhile is gone.
            let _ = self.ports.remove(*index);
        }
        for index in ports.iter().filter(|index| !present.contains(index)) {
            if let Err(error) = self.ports.insert(*index, *index, None, 0) {
                // A device that has gone meanwhile: the network says so in a moment.
                debug!(index, %error, "device not entered");
            }
        }
        Ok(())
    }
}
