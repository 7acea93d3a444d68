//! The other side of `machine`: this program as the first process of a kernel that has IPVS.
//!
//! It loads the modules, plays the scenarios, writes the results, and switches the machine off. It
//! never returns.

use std::collections::BTreeMap;
use std::env;
use std::ffi::CStr;
use std::fs;
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{self, Command};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;

use anyhow::{Context, Result, bail};
use nix::mount::{MsFlags, mount};

use super::bed::Bed;
use super::play::play_group;
use super::record::Record;
use super::scenario::{Scenario, groups};

/// The kernel turns an unknown word of its command line into an environment variable.
pub(super) const VARIABLE: &str = "SHUNT_CONFORM";
/// The mount point of the host's folder.
pub(super) const SHARED: &str = "/shared";
pub(super) const SCENARIOS: &str = "scenarios.json";
pub(super) const PLAYED: &str = "played.json";
/// The folder of `ipvsadm` and its libraries.
pub(super) const IPVS: &str = "/ipvs";
const MODULES: &str = "/modules";
/// The number of beds in parallel. With more, a scenario takes so long that connections expire.
const LANES: usize = 4;

/// Whether this process is the first one of a machine that `machine` started.
pub(crate) fn is_here() -> bool {
    process::id() == 1 && env::var_os(VARIABLE).is_some()
}

/// The path of a module, by its place in the loading order.
pub(super) fn module(number: usize) -> PathBuf {
    Path::new(MODULES).join(format!("{number:03}.ko"))
}

/// Plays the scenarios and switches the machine off.
pub(crate) fn run() -> ! {
    if let Err(error) = start() {
        println!("playing failed: {error:#}");
    }
    // SAFETY: system calls with numbers and no pointer.
    unsafe {
        libc::sync();
        libc::reboot(libc::RB_POWER_OFF);
    }
    // If the kernel could not switch off, it panics when its first process ends, and exits.
    #[expect(clippy::disallowed_methods, reason = "the first process has no caller")]
    process::exit(1)
}

fn start() -> Result<()> {
    let outside = env::var(VARIABLE).context("no folder is named")?;
    for (kind, folder, data) in [
        ("proc", "/proc", None),
        ("sysfs", "/sys", None),
        ("tmpfs", "/tmp", None),
        ("hostfs", SHARED, Some(&*outside)),
    ] {
        fs::create_dir_all(folder).with_context(|| format!("cannot make {folder}"))?;
        mount(Some(kind), folder, Some(kind), MsFlags::empty(), data)
            .with_context(|| format!("cannot mount {kind}"))?;
    }
    for number in 0.. {
        let path = module(number);
        if !path.exists() {
            break;
        }
        load(&path)?;
    }
    let shared = Path::new(SHARED);
    let scenarios: Vec<Scenario> = serde_json::from_slice(&fs::read(shared.join(SCENARIOS))?)?;
    let played = all(&scenarios)?;
    fs::write(shared.join(PLAYED), serde_json::to_vec(&played)?)?;
    Ok(())
}

fn all(scenarios: &[Scenario]) -> Result<Vec<Vec<Record>>> {
    let ipvsadm = || -> Command {
        let mut command = Command::new(Path::new(IPVS).join("ipvsadm"));
        command.arg0("ipvsadm").env("LD_LIBRARY_PATH", IPVS);
        command
    };
    let groups: Vec<_> = groups(scenarios).collect();
    let next = AtomicUsize::new(0);
    let played = Mutex::new(BTreeMap::new());
    // A scenario spends much of its time waiting. Others run meanwhile.
    thread::scope(|scope| {
        let lane = || -> Result<()> {
            while let Some(group) = groups.get(next.fetch_add(1, Ordering::Relaxed)) {
                let mut bed = Bed::new(true)?;
                let records = play_group(&mut bed, &ipvsadm, true, group)?;
                let mut played = played.lock().unwrap_or_else(PoisonError::into_inner);
                played.extend(group.iter().map(|scenario| scenario.seed).zip(records));
            }
            Ok(())
        };
        let lanes: Vec<_> = (0..LANES).map(|_| scope.spawn(lane)).collect();
        let joined = lanes.into_iter().map(|lane| lane.join());
        joined
            .map(|ended| ended.unwrap_or_else(|_| bail!("a lane panicked")))
            .collect::<Result<Vec<()>>>()
    })?;
    let mut played = played.into_inner().unwrap_or_else(PoisonError::into_inner);
    let one = |scenario: &Scenario| played.remove(&scenario.seed).unwrap_or_default();
    Ok(scenarios.iter().map(one).collect())
}

fn load(path: &Path) -> Result<()> {
    const NO_OPTIONS: &CStr = c"";
    let file = fs::File::open(path)?;
    // SAFETY: the descriptor is open and the options are a string that ends with a zero byte.
    let done = unsafe {
        libc::syscall(
            libc::SYS_finit_module,
            file.as_raw_fd(),
            NO_OPTIONS.as_ptr(),
            0,
        )
    };
    if done != 0 {
        let error = std::io::Error::last_os_error();
        bail!("cannot load the module {}: {error}", path.display());
    }
    Ok(())
}
