//! Loads the programs of the packet path, several at once, and pins them.
//!
//! The verifier takes most of the time of a start, and it runs in the thread that loads. Programs
//! that every table needs are loaded before the packet path is attached; those that only some
//! tables need (`shunt_control::programs`) may be loaded behind it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};

use aya::Ebpf;
use aya::maps::{Map, MapError, ProgramArray};
use aya::programs::{Program as Loadable, ProgramError, ProgramFd, ProgramInfo};
use shunt_ebpf::{FIRST, LATER};
use shunt_model::program::Program;

use super::callers;
use super::heap;
use super::made::{PROGRAMS_TC, PROGRAMS_XDP};
use super::pinned::{self, CLOCK, PASS, XDP, map};
use super::place::Place;
use super::refusal::Refusal;
use crate::chain::chain;
use crate::file::{self, cannot};

/// Why programs cannot be loaded, or put in their places.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the text of each variant describes it")]
pub enum Error {
    #[error("no program {0}")]
    Missing(String),
    #[error(transparent)]
    Refused(#[from] Refusal),
    #[error(transparent)]
    File(#[from] file::Error),
    #[error(transparent)]
    Pinned(#[from] pinned::Error),
    #[error("cannot hold a loaded program")]
    Hold(#[source] ProgramError),
    #[error("cannot say which program goes on")]
    Connect(#[source] MapError),
    #[error("cannot start a thread that loads programs")]
    Start(#[source] io::Error),
    #[error("a thread that loads programs died")]
    Died,
}

pub(super) const TC: &str = "director_tc";
/// tc's program for devices without Ethernet headers, which goes on with [`TC`].
pub(super) const BARE: &str = "director_bare";
/// tc's program beside XDP, for what XDP cannot send itself.
pub(super) const HANDED: &str = "director_handed";
pub(super) const LEAVE: &str = "director_leave";

/// Programs that every table needs, those that take the longest to verify first.
const ALWAYS: [&str; 13] = [
    "director_xdp_rest",
    "director_tc_rest",
    XDP,
    TC,
    LEAVE,
    "director_xdp_icmp",
    "director_tc_icmp",
    "director_xdp_secured",
    "director_tc_secured",
    BARE,
    HANDED,
    CLOCK,
    PASS,
];

/// How many programs are verified at a time.
const AT_ONCE: usize = 2;

/// The programs of the kernel that are one for the table.
fn names(program: Program) -> Vec<&'static str> {
    match program {
        Program::Callers => callers::PROGRAMS.map(|(name, _)| name).to_vec(),
        Program::Translate => vec!["director_tc_translate", "director_xdp_translate"],
        Program::Quoted => vec!["director_tc_quoted", "director_xdp_quoted"],
        Program::Call => vec!["director_tc_call", "director_xdp_call"],
    }
}

/// Whether all of these are pinned.
fn are_pinned(place: &Place, names: &[&str]) -> bool {
    let mut pins = names.iter().map(|name| place.pins.join(name));
    pins.all(|pin| ProgramInfo::from_pin(pin).is_ok())
}

/// Whether every program that every table needs is pinned.
pub fn has_all_that_always_run(place: &Place) -> bool {
    are_pinned(place, &ALWAYS)
}

/// The programs, of those that only some tables need, that are not pinned.
pub fn missing(place: &Place) -> BTreeSet<Program> {
    let programs = Program::ALL.into_iter();
    programs
        .filter(|program| !are_pinned(place, &names(*program)))
        .collect()
}

/// What the kernel refused, with why.
pub type Refused = BTreeMap<Program, String>;

/// Loads and pins the programs that every table needs, if `anew`, and these. What only some tables
/// need may be refused.
pub fn load(
    ebpf: &mut Ebpf,
    place: &Place,
    anew: bool,
    others: &BTreeSet<Program>,
) -> Result<Refused, Error> {
    let always = if anew { ALWAYS.as_slice() } else { &[] };
    let mut wanted = always.to_vec();
    wanted.extend(others.iter().flat_map(|program| names(*program)));
    let mut failed = load_named(ebpf, place, &wanted, &AtomicBool::new(false))?;
    for name in always {
        if let Some(error) = failed.remove(name) {
            return Err(error);
        }
    }
    Ok(others
        .iter()
        .filter_map(|program| Some((*program, refusal(&mut failed, *program)?)))
        .collect())
}

/// Why one of a program's was refused.
fn refusal(failed: &mut BTreeMap<&str, Error>, program: Program) -> Option<String> {
    let names = names(program).into_iter();
    let mut errors = names.filter_map(|name| Some((name, failed.remove(name)?)));
    let (name, error) = errors.next()?;
    Some(format!("{name}: {}", chain(&error)))
}

/// Loads and pins programs in several threads, in this order, until it shall stop. Returns those
/// that could not be.
fn load_named<'a>(
    ebpf: &mut Ebpf,
    place: &Place,
    names: &[&'a str],
    stop: &AtomicBool,
) -> Result<BTreeMap<&'a str, Error>, Error> {
    let mut found: BTreeMap<&str, &mut Loadable> = ebpf.programs_mut().collect();
    let mut queue = Vec::with_capacity(names.len());
    for name in names {
        let program = found.remove(name);
        let program = program.ok_or_else(|| Error::Missing((*name).to_owned()))?;
        queue.push((*name, program));
    }
    let queue = Mutex::new(queue.into_iter());
    let next = || {
        queue
            .lock()
            .ok()?
            .next()
            .filter(|_| !stop.load(Ordering::Relaxed))
    };
    let work = || {
        let each = std::iter::from_fn(next);
        each.filter_map(|(name, program)| Some((name, load_one(name, program, place).err()?)))
            .collect::<Vec<_>>()
    };
    thread::scope(|scope| {
        let threads = [(); AT_ONCE].map(|()| scope.spawn(work));
        let mut failed = BTreeMap::new();
        for thread in threads {
            match thread.join() {
                Ok(some) => failed.extend(some),
                Err(_) => return Err(Error::Died),
            }
        }
        Ok(failed)
    })
}

#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "the object has programs of these three types only"
)]
fn load_one(name: &str, program: &mut Loadable, place: &Place) -> Result<(), Error> {
    match program {
        Loadable::Xdp(program) => program.load(),
        Loadable::SchedClassifier(program) => program.load(),
        Loadable::CgroupSockAddr(program) => {
            callers::put_link_aside(place, name)?;
            program.load()
        }
        _ => Err(ProgramError::NotLoaded),
    }
    .map_err(Refusal::of)?;
    let path = place.pins.join(name);
    let _ = fs::remove_file(&path);
    program.pin(&path).map_err(cannot("pin", &path))?;
    Ok(())
}

/// Puts every pinned program that follows a hook's first one in its place, each in one step.
///
/// This comes before anything is attached, and also where nothing changed: it costs nothing, and an
/// array that was emptied from outside is whole again. What hangs on the devices meanwhile goes on
/// with these: nothing is handed over but the frame, and the tables are of one layout.
pub fn connect(place: &Place) -> Result<(), Error> {
    for (name, at) in LATER {
        let (xdp, tc) = (behind(XDP, name), behind(TC, name));
        if !are_pinned(place, &[&xdp, &tc]) {
            continue;
        }
        let later = pinned::xdp(place, &xdp)?;
        go_on(place, PROGRAMS_XDP, at, later.fd())?;
        let later = pinned::tc(place, &tc)?;
        go_on(place, PROGRAMS_TC, at, later.fd())?;
    }
    let tc = pinned::tc(place, TC)?;
    go_on(place, PROGRAMS_TC, FIRST, tc.fd())
}

/// The name of a program behind a hook's first one.
pub(super) fn behind(first: &str, name: &str) -> String {
    format!("{first}_{name}")
}

fn go_on(
    place: &Place,
    programs: &str,
    at: u32,
    later: Result<&ProgramFd, ProgramError>,
) -> Result<(), Error> {
    let later = later.map_err(Error::Hold)?;
    let programs = Map::ProgramArray(map(place, programs)?);
    let mut programs = ProgramArray::try_from(programs).map_err(Error::Connect)?;
    programs.set(at, later, 0).map_err(Error::Connect)
}

/// Programs that are still to be loaded.
pub struct Behind {
    ebpf: Option<Ebpf>,
    place: Place,
    programs: BTreeSet<Program>,
    refused: Refused,
}

impl Behind {
    /// `ebpf` has the programs that are loaded behind, if there are any.
    pub fn new(
        ebpf: Option<Ebpf>,
        place: &Place,
        programs: BTreeSet<Program>,
        refused: Refused,
    ) -> Self {
        Self {
            ebpf,
            place: place.clone(),
            programs,
            refused,
        }
    }

    /// Nothing is left to be loaded.
    pub fn none(place: &Place) -> Self {
        Self::new(None, place, BTreeSet::new(), Refused::new())
    }

    /// All that is not there yet: what is loaded behind, and what was refused.
    #[must_use]
    pub fn missing(&self) -> BTreeSet<Program> {
        let refused = self.refused.keys().copied();
        self.programs.iter().copied().chain(refused).collect()
    }
}

impl Behind {
    /// Loads them in a thread of its own, and tells of each.
    pub fn start(
        self,
        tell: impl Fn(Program, Result<(), String>) + Send + 'static,
    ) -> Result<Loader, Error> {
        let stop = Arc::new(AtomicBool::new(false));
        let until = stop.clone();
        let thread = thread::Builder::new().name("programs".to_owned());
        let thread = thread
            .spawn(move || self.run(&until, &tell))
            .map_err(Error::Start)?;
        Ok(Loader { thread, stop })
    }

    fn run(self, stop: &AtomicBool, tell: &impl Fn(Program, Result<(), String>)) {
        for (program, why) in self.refused {
            tell(program, Err(why));
        }
        let Some(mut ebpf) = self.ebpf else {
            return;
        };
        for program in self.programs {
            let result = load_behind(&mut ebpf, &self.place, program, stop);
            if stop.load(Ordering::Relaxed) {
                return;
            }
            tell(program, result);
        }
        drop(ebpf);
        heap::give_back();
    }
}

/// Loads one of the programs that are loaded behind. An error is the reason, for the operator.
fn load_behind(
    ebpf: &mut Ebpf,
    place: &Place,
    program: Program,
    stop: &AtomicBool,
) -> Result<(), String> {
    let loaded = load_named(ebpf, place, &names(program), stop);
    let mut failed = loaded.map_err(|error| chain(&error))?;
    match refusal(&mut failed, program) {
        Some(why) => Err(why),
        None => connect(place).map_err(|error| chain(&error)),
    }
}

/// The thread that loads what is behind.
#[derive(Debug)]
pub struct Loader {
    thread: JoinHandle<()>,
    stop: Arc<AtomicBool>,
}

impl Loader {
    /// Waits until nothing more is pinned. What is not loaded by then will not be.
    pub fn stop(self) {
        self.stop.store(true, Ordering::Relaxed);
        let _ = self.thread.join();
    }
}
