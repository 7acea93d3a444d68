//! Loads the packet path, or takes over the one that an earlier daemon left.
//!
//! Maps, programs and links are pinned, so nothing of the packet path ends with the daemon. A
//! daemon of the same build takes programs and maps as they are; one of another build loads its
//! programs over the same maps and replaces them in the pinned links, device by device, without a
//! packet lost. The layout of the maps is part of the pin folder's name.

use std::collections::BTreeSet;
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use anyhow::{Context, Result, bail};
use aya::EbpfLoader;
use aya::maps::ProgramArray;
use aya::programs::{SchedClassifier, Xdp};
use serde::Serialize;
use shunt_datapath::entry;
use shunt_ebpf::LATER;
use shunt_model::program::Program;
use tracing::warn;

use super::clock;
pub use super::made::{Capacity, MAPS, Made};
use super::made::{PROGRAMS_XDP, sizes};
use super::pinned::{self, CLOCK, XDP};
use super::pins;
use super::place::{self, Place};
use super::presence;
use super::programs::{self, BARE, Behind, HANDED, LEAVE, Refused, TC, behind};
use super::refusal::Refusal;
use super::succession;

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
/// journal has, `is_lossy` that some of the journal is lost. What the table does not need is left
/// to be loaded behind, where no packet path forwards already.
pub fn open(
    place: &Place,
    wanted: Capacity,
    known: Option<Made>,
    is_lossy: bool,
    needed: &BTreeSet<Program>,
) -> Result<(Object, Behind)> {
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
    let all = BTreeSet::from(Program::ALL);
    let (object, behind) = match found {
        Some(made) if complete && made.build == build() => adopt(place, made, needed)?,
        Some(made) if complete => load(place, made, true, &all, needed)?,
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
            load(place, made, false, &all, needed)?
        }
        _ => load(place, make(wanted, cookie)?, false, needed, needed)?,
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
    let object = Object {
        is_foreign,
        ..object
    };
    Ok((object, behind))
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
    let rate = clock::rate()?;
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

fn program<'a, P>(ebpf: &'a mut aya::Ebpf, name: &str) -> Result<&'a mut P>
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

/// Loads a packet path that is pinned nowhere and ends with who holds it: for measuring.
pub fn unpinned(wanted: Capacity) -> Result<(aya::Ebpf, Made)> {
    let made = make(wanted, 0)?;
    let mut ebpf = read_in(&made, None)?;
    for name in [XDP, CLOCK] {
        let program: &mut Xdp = program(&mut ebpf, name)?;
        program.load().map_err(Refusal::of)?;
    }
    for (name, place) in LATER {
        let later: &mut Xdp = program(&mut ebpf, &behind(XDP, name))?;
        later.load().map_err(Refusal::of)?;
        let later = later.fd()?.try_clone()?;
        let map = ebpf.map_mut(PROGRAMS_XDP).context("no map of programs")?;
        ProgramArray::try_from(map)?
            .set(place, &later, 0)
            .context("cannot say which program goes on")?;
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
    // Nothing here depends on the layout of the kernel's own types, which take long to read.
    loader.btf(None);
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
    Ok(loader.load(shunt_ebpf::DIRECTOR).map_err(Refusal::of)?)
}

/// Makes the maps and loads the programs: those that every table needs, and these others. What was
/// refused of them may be missing unless the table needs it.
fn load(
    place: &Place,
    mut made: Made,
    adopted: bool,
    others: &BTreeSet<Program>,
    needed: &BTreeSet<Program>,
) -> Result<(Object, Behind)> {
    made.build = build();
    let mut ebpf = read_in(&made, Some(&place.pins))?;
    let refused = programs::load(&mut ebpf, place, true, others)?;
    must_have(&refused, needed)?;
    let object = opened(place, made, adopted)?;
    let later = Program::ALL.into_iter();
    let later: BTreeSet<Program> = later.filter(|program| !others.contains(program)).collect();
    let ebpf = (!later.is_empty()).then_some(ebpf);
    Ok((object, Behind::new(ebpf, place, later, refused)))
}

/// Takes the programs of an earlier daemon of our build, and loads those that it had not loaded
/// when it ended.
fn adopt(place: &Place, made: Made, needed: &BTreeSet<Program>) -> Result<(Object, Behind)> {
    let all = BTreeSet::from(Program::ALL);
    if !programs::has_all_that_always_run(place) {
        // The maps are whole; only a program's pin is missing.
        return load(place, made, true, &all, needed);
    }
    let missing = programs::missing(place);
    if missing.is_empty() {
        let object = opened(place, made, true)?;
        return Ok((object, Behind::none(place)));
    }
    let mut ebpf = read_in(&made, Some(&place.pins))?;
    let first = missing.intersection(needed).copied().collect();
    let refused = programs::load(&mut ebpf, place, false, &first)?;
    must_have(&refused, needed)?;
    let object = opened(place, made, true)?;
    let later = missing.difference(&first).copied().collect();
    Ok((object, Behind::new(Some(ebpf), place, later, refused)))
}

/// Processes of this machine get on without a program; packets do not.
fn must_have(refused: &Refused, needed: &BTreeSet<Program>) -> Result<()> {
    let mut packets = refused
        .iter()
        .filter(|(program, _)| **program != Program::Callers && needed.contains(program));
    match packets.next() {
        Some((program, why)) => bail!("the table needs the program for {program}: {why}"),
        None => Ok(()),
    }
}

/// Opens the pinned programs, after each has those that it goes on with.
fn opened(place: &Place, made: Made, adopted: bool) -> Result<Object> {
    programs::connect(place)?;
    let classifier = |name: &str| {
        SchedClassifier::from_pin(place.pins.join(name)).context("cannot open a pinned tc program")
    };
    Ok(Object {
        made,
        adopted,
        is_foreign: false,
        xdp: pinned::xdp(place)?,
        tc: classifier(TC)?,
        leave: classifier(LEAVE)?,
        bare: classifier(BARE)?,
        handed: classifier(HANDED)?,
        clock: pinned::clock(place)?,
    })
}
