//! Loads the packet path, or takes over the one that an earlier daemon left.
//!
//! Maps, programs and links are pinned, so nothing of the packet path ends with the daemon. A
//! daemon of the same build takes programs and maps as they are; one of another build loads its
//! programs over the same maps and replaces them in the pinned links, device by device, without a
//! packet lost. The layout of the maps is part of the pin folder's name.

use std::collections::BTreeSet;
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use aya::EbpfLoader;
use aya::maps::{MapError, ProgramArray};
use aya::programs::{ProgramError, SchedClassifier, Xdp};
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
use crate::chain::chain;
use crate::file::{self, cannot};

/// Why there is no packet path.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the text of each variant describes it")]
pub enum Error {
    #[error(transparent)]
    Place(#[from] place::Error),
    #[error(transparent)]
    File(#[from] file::Error),
    #[error(transparent)]
    Clock(#[from] clock::Error),
    #[error(transparent)]
    Refused(#[from] Refusal),
    #[error(transparent)]
    Programs(#[from] programs::Error),
    #[error(transparent)]
    Pinned(#[from] pinned::Error),
    #[error(transparent)]
    Presence(#[from] presence::Error),
    #[error("cannot draw a seed")]
    Seed(#[source] io::Error),
    #[error("the table needs the program for {program}: {why}")]
    Needed { program: Program, why: String },
    #[error("the packet path's object has no program {0} of the right type")]
    NoProgram(String),
    #[error("the packet path's object has no map {0}")]
    NoMap(&'static str),
    #[error("cannot hold a loaded program")]
    Hold(#[source] ProgramError),
    #[error("cannot say which program goes on")]
    Connect(#[source] MapError),
}

/// A loaded packet path.
#[derive(Debug)]
pub struct Object {
    /// What is known of its maps.
    pub made: Made,
    /// Whether an earlier daemon's tables were found and kept.
    pub adopted: bool,
    /// Whether what was found is of a namespace that is gone, whose inode is ours.
    pub is_foreign: bool,
    /// The first program of XDP.
    pub xdp: Xdp,
    /// The first program of tc, for devices with Ethernet headers.
    pub tc: SchedClassifier,
    /// For frames that leave a device.
    pub leave: SchedClassifier,
    /// For devices without Ethernet headers.
    pub bare: SchedClassifier,
    /// Sends what XDP cannot send itself, beside it.
    pub handed: SchedClassifier,
    /// Reads the kernel's jiffies. It is attached to nothing.
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
) -> Result<(Object, Behind), Error> {
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
            error = chain(&error),
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
            warn!(error = chain(&error), "pinned maps cannot be looked at");
            false
        }
    }
}

fn read(notes: &Path) -> Option<Made> {
    serde_json::from_slice(&fs::read(notes).ok()?).ok()
}

/// Writes a file so that it is either the old or the new one, whatever happens.
pub fn write(path: &Path, value: &impl Serialize) -> Result<(), file::Error> {
    let next = path.with_extension("next");
    let text = serde_json::to_vec(value).map_err(cannot("find words for", path))?;
    let _ = fs::remove_file(&next);
    let mut file = fs::File::options();
    let file = file.write(true).create_new(true).mode(0o600).open(&next);
    file.and_then(|mut file| file.write_all(&text).and_then(|()| file.sync_data()))
        .map_err(cannot("write", &next))?;
    fs::rename(&next, path).map_err(cannot("write", path))
}

/// Takes away all that another namespace pinned: nobody's devices have it any more.
fn empty(place: &Place) -> Result<(), file::Error> {
    place.clear().map_err(cannot("empty", &place.pins))?;
    fs::create_dir_all(&place.pins).map_err(cannot("make", &place.pins))
}

fn make(capacity: Capacity, namespace_cookie: u64) -> Result<Made, Error> {
    let mut seed = [0u8; 8];
    let file = fs::File::open("/dev/urandom").map_err(Error::Seed)?;
    io::Read::read_exact(&mut &file, &mut seed).map_err(Error::Seed)?;
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

fn program<'a, P>(ebpf: &'a mut aya::Ebpf, name: &str) -> Result<&'a mut P, Error>
where
    &'a mut P: TryFrom<&'a mut aya::programs::Program>,
{
    let program = ebpf.program_mut(name);
    let program = program.and_then(|program| <&mut P>::try_from(program).ok());
    program.ok_or_else(|| Error::NoProgram(name.to_owned()))
}

/// Loads a packet path that is pinned nowhere and ends with who holds it: for measuring.
pub fn unpinned(wanted: Capacity) -> Result<(aya::Ebpf, Made), Error> {
    let made = make(wanted, 0)?;
    let mut ebpf = read_in(&made, None)?;
    for name in [XDP, CLOCK] {
        let program: &mut Xdp = program(&mut ebpf, name)?;
        program.load().map_err(Refusal::of)?;
    }
    for (name, place) in LATER {
        let later: &mut Xdp = program(&mut ebpf, &behind(XDP, name))?;
        later.load().map_err(Refusal::of)?;
        let later = later.fd().map_err(Error::Hold)?;
        let later = later
            .try_clone()
            .map_err(|error| Error::Hold(error.into()))?;
        let map = ebpf
            .map_mut(PROGRAMS_XDP)
            .ok_or(Error::NoMap(PROGRAMS_XDP))?;
        let mut map = ProgramArray::try_from(map).map_err(Error::Connect)?;
        map.set(place, &later, 0).map_err(Error::Connect)?;
    }
    Ok((ebpf, made))
}

/// Makes the maps, or finds them among the pins, and leaves the programs to be loaded.
fn read_in(made: &Made, pins: Option<&Path>) -> Result<aya::Ebpf, Refusal> {
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
    loader.load(shunt_ebpf::DIRECTOR).map_err(Refusal::of)
}

/// Makes the maps and loads the programs: those that every table needs, and these others. What was
/// refused of them may be missing unless the table needs it.
fn load(
    place: &Place,
    mut made: Made,
    adopted: bool,
    others: &BTreeSet<Program>,
    needed: &BTreeSet<Program>,
) -> Result<(Object, Behind), Error> {
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
fn adopt(place: &Place, made: Made, needed: &BTreeSet<Program>) -> Result<(Object, Behind), Error> {
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
fn must_have(refused: &Refused, needed: &BTreeSet<Program>) -> Result<(), Error> {
    let mut packets = refused
        .iter()
        .filter(|(program, _)| **program != Program::Callers && needed.contains(program));
    match packets.next() {
        Some((program, why)) => Err(Error::Needed {
            program: *program,
            why: why.clone(),
        }),
        None => Ok(()),
    }
}

/// Opens the pinned programs, after each has those that it goes on with.
fn opened(place: &Place, made: Made, adopted: bool) -> Result<Object, Error> {
    programs::connect(place)?;
    Ok(Object {
        made,
        adopted,
        is_foreign: false,
        xdp: pinned::xdp(place, XDP)?,
        tc: pinned::tc(place, TC)?,
        leave: pinned::tc(place, LEAVE)?,
        bare: pinned::tc(place, BARE)?,
        handed: pinned::tc(place, HANDED)?,
        clock: pinned::xdp(place, CLOCK)?,
    })
}
