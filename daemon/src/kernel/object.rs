//! Loads the packet path, or takes over the one that an earlier daemon left.
//!
//! Maps, programs and links are pinned, so nothing of the packet path ends with the daemon. A
//! daemon of the same build takes programs and maps as they are; one of another build loads its
//! programs over the same maps and replaces them in the pinned links, device by device, without a
//! packet lost. The layout of the maps is part of the pin folder's name.

use std::borrow::BorrowMut;
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use anyhow::{Context, Result, bail};
use aya::EbpfLoader;
use aya::maps::{Map, MapData, ProgramArray};
use aya::programs::{ProgramFd, SchedClassifier, Xdp};
use serde::Serialize;
use shunt_datapath::entry;
use shunt_ebpf::{FIRST, LATER};
use tracing::warn;

use super::callers;
use super::clock;
pub use super::made::{Capacity, MAPS, Made};
use super::made::{PROGRAMS_TC, PROGRAMS_XDP, sizes};
use super::pins;
use super::place::{self, Place};
use super::presence;
use super::succession;

const XDP: &str = "director_xdp";
const TC: &str = "director_tc";
/// tc's program for devices without Ethernet headers, which goes on with [`TC`].
const BARE: &str = "director_bare";
/// tc's program beside XDP, for what XDP cannot send itself.
const HANDED: &str = "director_handed";
const CLOCK: &str = "director_clock";
const LEAVE: &str = "director_leave";
const PASS: &str = "director_pass";
/// A loaded packet path.
#[derive(Debug)]
pub struct Object {
    pub made: Made,
    /// Whether an earlier daemon's tables were found and kept.
    pub adopted: bool,
    /// Whether what was found is of a namespace that is gone, whose inode is ours.
    pub is_foreign: bool,
    pub xdp: Xdp,
    pub tc: SchedClassifier,
    /// For frames that leave a device.
    pub leave: SchedClassifier,
    pub bare: SchedClassifier,
    pub handed: SchedClassifier,
    pub clock: Xdp,
}

fn build() -> u64 {
    let mut hasher = DefaultHasher::new();
    shunt_ebpf::DIRECTOR.hash(&mut hasher);
    hasher.finish()
}

/// Takes over what is pinned, or loads anew. `known` are the notes of the packet path that the
/// journal has, `is_lossy` that some of the journal is lost.
pub fn open(
    place: &Place,
    wanted: Capacity,
    known: Option<Made>,
    is_lossy: bool,
) -> Result<Object> {
    let notes = place.runtime.join("path.json");
    let cookie = place::cookie()?;
    let found = read(&notes).or(known);
    // What a namespace of the same inode left behind is nobody's.
    let is_ours = |made: &Made| made.namespace_cookie == cookie;
    let is_foreign = found.as_ref().is_some_and(|made| !is_ours(made));
    if is_foreign {
        empty(place)?;
    }
    let found = found.filter(is_ours);
    if let Some(made) = &found {
        succession::find_pins(place, made);
    }
    let complete = found.as_ref().is_some_and(|made| is_complete(place, made));
    let object = match found {
        Some(made) if complete && made.build == build() => adopt(place, made)?,
        Some(made) if complete => Object {
            adopted: true,
            ..load(place, made)?
        },
        found if place.has_pins() => {
            warn!(
                action = "the one before forwards until then",
                "packet path made anew"
            );
            let keeps = found.is_some() && !is_lossy;
            let made = match found {
                Some(made) => Made {
                    layout: entry::LAYOUT,
                    ..made
                },
                None => make(wanted, cookie)?,
            };
            let made = succession::prepare(place, made, keeps)?;
            load(place, made)?
        }
        _ => load(place, make(wanted, cookie)?)?,
    };
    if read(&notes).as_ref() != Some(&object.made)
        && let Err(error) = write(&notes, &object.made)
    {
        // The journal has the same, if it can be written.
        warn!(
            error = format!("{error:#}"),
            "notes of the packet path not written"
        );
    }
    presence::mark(place)?;
    Ok(Object {
        is_foreign,
        ..object
    })
}

/// Whether the packet path is of our layout, and every map is pinned as the notes say.
fn is_complete(place: &Place, made: &Made) -> bool {
    if made.layout != entry::LAYOUT || !place.has_pins() {
        return false;
    }
    match pins::unfit(&place.pins, shunt_ebpf::DIRECTOR, &MAPS, &sizes(made)) {
        Ok(unfit) if unfit.is_empty() => true,
        Ok(unfit) => {
            let why: Vec<String> = unfit.into_values().collect();
            warn!(why = why.join("; "), "pinned maps are not ours");
            false
        }
        Err(error) => {
            warn!(
                error = format!("{error:#}"),
                "pinned maps cannot be looked at"
            );
            false
        }
    }
}

fn read(notes: &Path) -> Option<Made> {
    serde_json::from_slice(&fs::read(notes).ok()?).ok()
}

/// Writes a file so that it is either the old or the new one, whatever happens.
pub fn write(path: &Path, value: &impl Serialize) -> Result<()> {
    let next = path.with_extension("next");
    let text = serde_json::to_vec(value).context("cannot put notes into words")?;
    let _ = fs::remove_file(&next);
    let mut file = fs::File::options();
    let file = file.write(true).create_new(true).mode(0o600).open(&next);
    file.and_then(|mut file| file.write_all(&text).and_then(|()| file.sync_data()))
        .with_context(|| format!("cannot write {}", next.display()))?;
    fs::rename(&next, path).with_context(|| format!("cannot write {}", path.display()))
}

/// Takes away all that another namespace pinned: nobody's devices have it any more.
fn empty(place: &Place) -> Result<()> {
    place.clear().context("cannot take the pins away")?;
    fs::create_dir_all(&place.pins).with_context(|| format!("cannot make {}", place.pins.display()))
}

fn make(capacity: Capacity, namespace_cookie: u64) -> Result<Made> {
    let mut seed = [0u8; 8];
    let file = fs::File::open("/dev/urandom").context("cannot draw a seed")?;
    std::io::Read::read_exact(&mut &file, &mut seed).context("cannot draw a seed")?;
    let rate = probe_clock()?;
    Ok(Made {
        build: build(),
        namespace_cookie,
        capacity,
        seed: u64::from_ne_bytes(seed),
        tick_shift: clock::tick_shift(rate),
        jiffies_rate: rate,
        endpoint_buckets: capacity.sizes.endpoint_buckets(),
        layout: entry::LAYOUT,
        connections: entry::CONNECTIONS,
    })
}

/// Jiffies a second, told by the clock program alone.
fn probe_clock() -> Result<u64> {
    let mut loader = EbpfLoader::new();
    let mut ebpf = loader.load(shunt_ebpf::DIRECTOR).map_err(explain)?;
    let clock: &mut Xdp = program(&mut ebpf, CLOCK)?;
    clock.load().map_err(explain)?;
    clock::rate(clock)
}

pub(super) fn program<'a, P>(ebpf: &'a mut aya::Ebpf, name: &str) -> Result<&'a mut P>
where
    &'a mut P: TryFrom<&'a mut aya::programs::Program>,
{
    let program = ebpf
        .program_mut(name)
        .with_context(|| format!("no program {name}"))?;
    let Ok(program) = <&mut P>::try_from(program) else {
        bail!("program {name} is of another kind");
    };
    Ok(program)
}

/// What the kernel said, and what to do about it.
pub(super) fn explain(error: impl std::error::Error + Send + Sync + 'static) -> anyhow::Error {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        text.push_str(": ");
        text.push_str(&inner.to_string());
        source = inner.source();
    }
    let hint = if text.contains("Operation not permitted") || text.contains("os error 1)") {
        "the rights are missing; run as root, or with CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON"
    } else if text.contains("os error 38") || text.contains("Function not implemented") {
        "this kernel has no BPF; Linux 6.1 or later with CONFIG_BPF_SYSCALL is needed"
    } else {
        "Linux 6.1 or later with CONFIG_BPF_SYSCALL and CONFIG_DEBUG_INFO_BTF is needed"
    };
    let last: String = text
        .chars()
        .rev()
        .take(600)
        .collect::<Vec<_>>()
        .into_iter()
        .rev()
        .collect();
    anyhow::anyhow!("the kernel refuses the packet path: {last}; {hint}")
}

/// Loads a packet path that is pinned nowhere and ends with who holds it: for measuring.
pub fn unpinned(wanted: Capacity) -> Result<(aya::Ebpf, Made)> {
    let made = make(wanted, 0)?;
    let mut ebpf = read_in(&made, None)?;
    for name in [XDP, CLOCK] {
        let program: &mut Xdp = program(&mut ebpf, name)?;
        program.load().map_err(explain)?;
    }
    for (name, place) in LATER {
        let later: &mut Xdp = program(&mut ebpf, &behind(XDP, name))?;
        later.load().map_err(explain)?;
        let later = later.fd()?.try_clone()?;
        let map = ebpf.map_mut(PROGRAMS_XDP).context("no map of programs")?;
        go_on(ProgramArray::try_from(map)?, place, &later)?;
    }
    Ok((ebpf, made))
}

/// Makes the maps, or finds them among the pins, and leaves the programs to be loaded.
fn read_in(made: &Made, pins: Option<&Path>) -> Result<aya::Ebpf> {
    let masks = [
        ("ENDPOINT4_MASK", made.endpoint_mask()),
        ("ENDPOINT6_MASK", made.endpoint_mask()),
        ("FLOW4_MASK", made.flow4_mask()),
        ("FLOW6_MASK", made.flow6_mask()),
        ("TICK_SHIFT", made.tick_shift),
    ];
    let mut loader = EbpfLoader::new();
    for (name, value) in &masks {
        loader.override_global(name, value, true);
    }
    loader.override_global("SEED", &made.seed, true);
    loader.override_global("NAMESPACE", &made.namespace_cookie, true);
    for (name, count) in sizes(made) {
        loader.map_max_entries(name, count);
    }
    if let Some(pins) = pins {
        for name in MAPS {
            loader.map_pin_path(name, pins.join(name));
        }
    }
    loader.load(shunt_ebpf::DIRECTOR).map_err(explain)
}

fn load(place: &Place, mut made: Made) -> Result<Object> {
    made.build = build();
    let mut ebpf = read_in(&made, Some(&place.pins))?;
    let later = |first: &'static str| LATER.map(|(name, _)| behind(first, name));
    for name in [XDP, CLOCK, PASS]
        .map(str::to_owned)
        .into_iter()
        .chain(later(XDP))
    {
        let name = name.as_str();
        let program: &mut Xdp = program(&mut ebpf, name)?;
        program.load().map_err(explain)?;
        pin_over(&place.pins.join(name), |path| program.pin(path))?;
    }
    let of_tc = [TC, BARE, HANDED, LEAVE].map(str::to_owned);
    for name in of_tc.into_iter().chain(later(TC)) {
        let name = name.as_str();
        let program: &mut SchedClassifier = program(&mut ebpf, name)?;
        program.load().map_err(explain)?;
        pin_over(&place.pins.join(name), |path| program.pin(path))?;
    }
    callers::load(&mut ebpf, place)?;
    programs(place, made, false)
}

pub(super) fn pin_over<E>(path: &Path, pin: impl FnOnce(&Path) -> Result<(), E>) -> Result<()>
where
    E: std::error::Error + Send + Sync + 'static,
{
    let _ = fs::remove_file(path);
    pin(path).with_context(|| format!("cannot pin {}", path.display()))
}

fn adopt(place: &Place, made: Made) -> Result<Object> {
    match programs(place, made.clone(), true) {
        Ok(object) => Ok(object),
        // The maps are whole; only a program's pin is missing.
        Err(_) => Ok(Object {
            adopted: true,
            ..load(place, made)?
        }),
    }
}

fn programs(place: &Place, made: Made, adopted: bool) -> Result<Object> {
    let path = |name: &str| place.pins.join(name);
    let kind = aya_obj_xdp();
    // Before anything is attached, and also where nothing changed: it costs nothing, and an array
    // that was emptied from outside is whole again. What hangs on the devices meanwhile goes on
    // with these: nothing is handed over but the frame, and the tables are of one layout.
    for (name, at) in LATER {
        let pinned = "cannot open a pinned program";
        let later = Xdp::from_pin(path(&behind(XDP, name)), kind).context(pinned)?;
        let programs = Map::ProgramArray(map(place, PROGRAMS_XDP)?);
        go_on(ProgramArray::try_from(programs)?, at, later.fd()?)?;
        let later = SchedClassifier::from_pin(path(&behind(TC, name))).context(pinned)?;
        let programs = Map::ProgramArray(map(place, PROGRAMS_TC)?);
        go_on(ProgramArray::try_from(programs)?, at, later.fd()?)?;
    }
    let classifier = |name: &str| {
        SchedClassifier::from_pin(path(name)).context("cannot open a pinned tc program")
    };
    let tc = classifier(TC)?;
    let programs = Map::ProgramArray(map(place, PROGRAMS_TC)?);
    go_on(ProgramArray::try_from(programs)?, FIRST, tc.fd()?)?;
    Ok(Object {
        made,
        adopted,
        is_foreign: false,
        xdp: Xdp::from_pin(path(XDP), kind).context("cannot open the pinned XDP program")?,
        tc,
        leave: classifier(LEAVE)?,
        bare: classifier(BARE)?,
        handed: classifier(HANDED)?,
        clock: clock(place)?,
    })
}

/// The name of a program behind a hook's first one.
fn behind(first: &str, name: &str) -> String {
    format!("{first}_{name}")
}

/// Puts a later program in its place, in one step.
fn go_on(
    mut programs: ProgramArray<impl BorrowMut<MapData>>,
    place: u32,
    later: &ProgramFd,
) -> Result<()> {
    programs
        .set(place, later, 0)
        .context("cannot say which program goes on")
}

/// The attach type of plain XDP programs.
fn aya_obj_xdp() -> aya_obj::programs::XdpAttachType {
    aya_obj::programs::XdpAttachType::Interface
}

/// The pinned XDP program, once more.
pub fn xdp(place: &Place) -> Result<Xdp> {
    Xdp::from_pin(place.pins.join(XDP), aya_obj_xdp()).context("cannot open the pinned program")
}

/// The pinned clock, once more.
pub fn clock(place: &Place) -> Result<Xdp> {
    Xdp::from_pin(place.pins.join(CLOCK), aya_obj_xdp()).context("cannot open the pinned clock")
}

/// The pinned program that leaves frames to the kernel.
pub fn pass(place: &Place) -> Result<Xdp> {
    Xdp::from_pin(place.pins.join(PASS), aya_obj_xdp()).context("cannot open the pinned program")
}

/// A pinned map.
pub fn map(place: &Place, name: &str) -> Result<MapData> {
    let path = place.pins.join(name);
    MapData::from_pin(&path).with_context(|| format!("cannot open {}", path.display()))
}
