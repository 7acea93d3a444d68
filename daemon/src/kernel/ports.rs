//! The packet path's tables of devices: their MAC addresses, and the devices by which XDP can send.

use std::collections::BTreeMap;
use std::fs;
use std::time::{Duration, Instant};

use aya::Pod;
use aya::maps::xdp::DevMapHash;
use aya::maps::{Array, Map, MapData, MapError};
use shunt_control::network::Link;
use shunt_control::network::attach::{self, Choice};
use shunt_datapath::table::device::Device;
use tracing::{debug, warn};

use super::features;
use super::pinned::{self, map};
use super::place::Place;
use crate::chain::chain;

#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Entry(Device);
// SAFETY: integers only, no padding.
unsafe impl Pod for Entry {}

/// Why the tables of devices cannot be read or written.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the text of each variant describes it")]
pub enum Error {
    #[error(transparent)]
    Open(#[from] pinned::Error),
    #[error("the map {name}")]
    Map {
        name: &'static str,
        source: MapError,
    },
    #[error("cannot read the map DEVICES")]
    Read(#[source] MapError),
    #[error("cannot write the map DEVICES")]
    Write(#[source] MapError),
}

fn of(name: &'static str) -> impl Fn(MapError) -> Error {
    move |source| Error::Map { name, source }
}

/// Both tables, and the entries written to them.
pub struct Ports {
    devices: Array<MapData, Entry>,
    ports: DevMapHash<MapData>,
    /// The entries written, by place.
    known: BTreeMap<u32, Entry>,
    /// The devices of the last call of [`Ports::settle`].
    wanted: Vec<(Link, Choice)>,
    reviewed: Instant,
}

/// Between two looks at `rp_filter`.
const REVIEWED: Duration = Duration::from_secs(3);

impl Ports {
    /// Opens the tables of a pinned packet path, and reads the entries of an earlier daemon.
    pub fn open(place: &Place) -> Result<Self, Error> {
        let devices = Array::<_, Entry>::try_from(Map::Array(map(place, "DEVICES")?))
            .map_err(of("DEVICES"))?;
        let ports =
            DevMapHash::try_from(Map::DevMapHash(map(place, "PORTS")?)).map_err(of("PORTS"))?;
        let mut known = BTreeMap::new();
        for at in 0..devices.len() {
            let entry = devices.get(&at, 0).map_err(Error::Read)?;
            if entry != Entry::default() {
                known.insert(at, entry);
            }
        }
        Ok(Self {
            devices,
            ports,
            known,
            wanted: Vec::new(),
            reviewed: Instant::now(),
        })
    }

    /// Notices devices whose `rp_filter` has changed, of which the kernel sends no event. Looks a
    /// few seconds after the last time.
    pub fn review(&mut self, now: Instant) {
        if now.duration_since(self.reviewed) < REVIEWED {
            return;
        }
        self.reviewed = now;
        let wanted = std::mem::take(&mut self.wanted);
        if let Err(error) = self.name(&wanted) {
            warn!(
                error = chain(&error),
                action = "trying again",
                "the packet path's table of devices is not as it should be"
            );
        }
        self.wanted = wanted;
    }

    /// Writes the entries of these devices.
    pub fn settle(&mut self, wanted: &[(Link, Choice)]) {
        self.wanted = wanted.to_vec();
        if let Err(error) = self.name(wanted).and_then(|()| self.connect(wanted)) {
            warn!(
                error = chain(&error),
                action = "trying again",
                "the packet path's table of devices is not as it should be"
            );
        }
    }

    /// Writes the MAC addresses of the devices that get a program. Devices without Ethernet headers
    /// and the loopback device are left out.
    fn name(&mut self, wanted: &[(Link, Choice)]) -> Result<(), Error> {
        let all = rp_filter("all");
        let mut entries = BTreeMap::new();
        for (link, choice) in wanted {
            if link.ethernet && !choice.hooks.is_empty() {
                let redirects = attach::goes_back_by_redirect(link);
                let device = Device::new(link.index, link.mac, redirects);
                let entry = Entry(device.strict(is_strict(link, all)));
                entries.entry(Device::place(link.index)).or_insert(entry);
            }
        }
        let gone = self.known.keys().filter(|at| !entries.contains_key(at));
        let gone: Vec<_> = gone.map(|at| (*at, Entry::default())).collect();
        for (at, entry) in entries.iter().map(|(at, entry)| (*at, *entry)).chain(gone) {
            if self.known.get(&at).copied().unwrap_or_default() != entry {
                self.devices.set(at, entry, 0).map_err(Error::Write)?;
            }
        }
        self.known = entries;
        Ok(())
    }

    /// Writes the devices by which XDP can send. The kernel itself removes a device that goes.
    fn connect(&mut self, wanted: &[(Link, Choice)]) -> Result<(), Error> {
        let features = features::all().unwrap_or_else(|error| {
            debug!(error = chain(&error), "XDP features not known");
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
            // The kernel may have removed the device already.
            let _ = self.ports.remove(*index);
        }
        for index in ports.iter().filter(|index| !present.contains(index)) {
            if let Err(error) = self.ports.insert(*index, *index, None, 0) {
                // The device may be gone. An event of the network reports that.
                debug!(index, error = chain(&error), "device not entered");
            }
        }
        Ok(())
    }
}

/// Whether the kernel takes packets on a device only from addresses that lead back by it. The
/// packets of a bridge's or bond's port are those of the bridge or bond.
fn is_strict(link: &Link, all: u32) -> bool {
    link.master.is_none() && all.max(rp_filter(&link.name)) == 1
}

/// The setting of a device, or of `all`. The greater of the two is in force.
fn rp_filter(name: &str) -> u32 {
    let text = fs::read_to_string(format!("/proc/sys/net/ipv4/conf/{name}/rp_filter"));
    text.ok()
        .and_then(|text| text.trim().parse().ok())
        .unwrap_or(0)
}
