//! Loads every program of every object into this kernel and asks the kernel for its size.
//!
//! Nothing is attached, and nothing stays: programs, maps and pins go when the measuring ends.

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

/// Endings of the names of maps as large as the machine allows, which a measurement makes small.
const LARGE_MAPS: [&str; 3] = ["FLOWS", "CONNECTIONS", "TEMPLATES"];
const SMALL: u32 = 1024;
/// The end of the verifier's log says why; the beginning repeats the program.
const LOG_LINES: usize = 40;

/// What one kernel makes of one program.
#[derive(Debug, Clone, PartialEq)]
pub struct Sizes {
    pub name: String,
    /// Instructions after the verifier's rewriting.
    pub translated: u32,
    /// Instructions that the verifier walked, over all paths.
    pub verified: u32,
    /// Bytes of machine code; 0 where the kernel does not translate.
    pub jitted: u32,
}

/// What one kernel makes of all programs.
#[derive(Debug, Default)]
pub struct Measurement {
    /// The kernel's whole release, as `uname -r` says it.
    pub release: String,
    pub programs: Vec<Sizes>,
    /// Programs that the kernel refused, and what it said.
    pub refused: Vec<(String, String)>,
}

impl Measurement {
    /// The kernel's version without the parts that do not change the verifier: `6.12`.
    pub fn kernel(&self) -> String {
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

/// Measures with the kernel that runs us. Needs root.
pub fn this_kernel() -> Result<Measurement> {
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
        // A kind that is loaded some other way gets its line when an object has one.
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

/// The names of an object's maps: the symbols of the section where their definitions are.
fn maps(bytes: &[u8]) -> Result<Vec<String>> {
    let file = ElfFile64::<Endianness>::parse(bytes).context("this is no eBPF object")?;
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

/// A folder for maps that want to be pinned, so that they meet none of a running director.
struct Pins {
    folder: PathBuf,
}

impl Pins {
    fn new() -> Pins {
        let folder = Path::new("/sys/fs/bpf").join(format!("shunt-verify-{}", process::id()));
        // Where no bpffs is mounted this fails, and loading does too if a map wants to be pinned.
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
