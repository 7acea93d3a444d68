//! Loads every program of every object into this kernel and asks the kernel for its size.
//!
//! Nothing is attached and nothing remains: programs, maps and pins end with the measurement.

use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::process;

use anyhow::{Context, Result};
use aya::programs::{Program, ProgramError};
use aya::{Ebpf, EbpfLoader};
use object::read::elf::ElfFile64;
use object::{Endianness, Object, ObjectSection, ObjectSymbol};

use crate::place;

/// The ends of the names of large maps, which a measurement makes small.
const LARGE_MAPS: [&str; 3] = ["FLOWS", "CONNECTIONS", "TEMPLATES"];
const SMALL: u32 = 1024;
/// The reason is at the end of the verifier's log; the beginning repeats the program.
const LOG_LINES: usize = 40;

/// The sizes of one program in one kernel.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Sizes {
    pub name: String,
    /// Instructions after the verifier's rewriting.
    pub translated: u32,
    /// Instructions that the verifier processed, over all paths.
    pub verified: u32,
    /// Bytes of machine code; 0 if the kernel has no JIT compiler.
    pub jitted: u32,
}

/// The sizes of all programs in one kernel.
#[derive(Debug, Default)]
pub(crate) struct Measurement {
    /// The kernel's whole release, as in `uname -r`.
    pub release: String,
    pub programs: Vec<Sizes>,
    /// The programs that the kernel rejected, and its message.
    pub refused: Vec<(String, String)>,
}

impl Measurement {
    /// The part of the kernel's version that matters to the verifier: `6.12`.
    pub(crate) fn kernel(&self) -> String {
        let number = |text: &str| {
            text.chars()
                .take_while(char::is_ascii_digit)
                .collect::<String>()
        };
        let mut parts = self.release.split('.');
        let major = number(parts.next().unwrap_or_default());
        let minor = number(parts.next().unwrap_or_default());
        format!("{major}.{minor}")
    }
}

/// Measures with the running kernel. Needs root.
pub(crate) fn this_kernel() -> Result<Measurement> {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease")?
        .trim()
        .to_owned();
    let mut measurement = Measurement {
        release,
        ..Measurement::default()
    };
    for name in place::OBJECTS {
        let path = place::object(name);
        let bytes = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
        load(name, &bytes, &mut measurement)?;
    }
    Ok(measurement)
}

fn load(object: &str, bytes: &[u8], measurement: &mut Measurement) -> Result<()> {
    let maps = maps(bytes)?;
    let pins = Pins::new();
    let mut loader = EbpfLoader::new();
    loader.default_map_pin_directory(&pins.folder);
    for map in maps.iter().filter(|map| is_large(map)) {
        loader.map_max_entries(map, SMALL);
    }
    let mut ebpf = match loader.load(bytes) {
        Ok(ebpf) => ebpf,
        Err(error) => {
            measurement
                .refused
                .push((format!("{object}/*"), reason(&error)));
            return Ok(());
        }
    };
    for name in names(&ebpf) {
        let whole = format!("{object}/{name}");
        let Some(program) = ebpf.program_mut(&name) else {
            continue;
        };
        match load_program(program) {
            Ok((translated, verified, jitted)) => {
                measurement.programs.push(Sizes {
                    name: whole,
                    translated,
                    verified,
                    jitted,
                });
            }
            Err(error) => measurement.refused.push((whole, reason(&error))),
        }
    }
    Ok(())
}

fn load_program(program: &mut Program) -> Result<(u32, u32, u32), ProgramError> {
    match program {
        Program::Xdp(program) => program.load()?,
        Program::SchedClassifier(program) => program.load()?,
        Program::SocketFilter(program) => program.load()?,
        Program::SkLookup(program) => program.load()?,
        Program::CgroupSkb(program) => program.load()?,
        Program::CgroupSockAddr(program) => program.load()?,
        Program::RawTracePoint(program) => program.load()?,
        // A program type that is loaded in another way is added here when an object has one.
        _ => return Err(ProgramError::UnexpectedProgramType),
    }
    let info = program.info()?;
    let translated = info.size_translated().unwrap_or(0) / 8;
    Ok((
        translated,
        info.verified_instruction_count().unwrap_or(0),
        info.size_jitted(),
    ))
}

fn names(ebpf: &Ebpf) -> Vec<String> {
    let mut names: Vec<_> = ebpf.programs().map(|(name, _)| name.to_owned()).collect();
    names.sort();
    names
}

/// The names of an object's maps: the symbols of the section that defines them.
fn maps(bytes: &[u8]) -> Result<Vec<String>> {
    let file = ElfFile64::<Endianness>::parse(bytes).context("this is not an eBPF object")?;
    let Some(section) = file.section_by_name(".maps") else {
        return Ok(Vec::new());
    };
    let symbols = file
        .symbols()
        .filter(|symbol| symbol.section_index() == Some(section.index()));
    let names = symbols
        .filter_map(|symbol| symbol.name().ok())
        .filter(|name| !name.is_empty());
    Ok(names.map(str::to_owned).collect())
}

fn is_large(map: &str) -> bool {
    LARGE_MAPS.iter().any(|ending| map.ends_with(ending))
}

/// The whole chain of an error, cut to the end of the verifier's log.
fn reason(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    let lines: Vec<_> = text.lines().collect();
    if lines.len() <= LOG_LINES + 1 {
        return text;
    }
    let end = lines[lines.len() - LOG_LINES..].join("\n");
    format!("{}\n…\n{end}", lines[0])
}

/// A folder for pinned maps, apart from those of a running director.
struct Pins {
    folder: PathBuf,
}

impl Pins {
    fn new() -> Pins {
        let folder = Path::new("/sys/fs/bpf").join(format!("shunt-verify-{}", process::id()));
        // Without bpffs this fails, and so does the loading of a program with a pinned map.
        let _ = fs::create_dir(&folder);
        Pins { folder }
    }
}

impl Drop for Pins {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_is_known_by_its_first_two_numbers() {
        for (release, kernel) in [
            ("6.1.0-56-cloud-amd64", "6.1"),
            ("6.12.117+deb12-cloud-amd64", "6.12"),
            ("7.3-rc1", "7.3"),
        ] {
            let measurement = Measurement {
                release: release.to_owned(),
                ..Measurement::default()
            };
            assert_eq!(measurement.kernel(), kernel);
        }
    }

    #[test]
    fn maps_as_large_as_the_machine_are_made_small() {
        assert!(is_large("FLOWS"));
        assert!(is_large("COLD_FLOWS"));
        assert!(!is_large("SERVICES"));
    }
}
