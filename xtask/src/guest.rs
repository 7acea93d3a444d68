//! The other side of `kernels`: this program as the first process of an emulated machine.
//!
//! It mounts what loading programs needs, measures, writes the results to the console, and switches
//! the machine off. It never returns.

use std::fs;
use std::process;

use anyhow::{Context, Result, anyhow};
use nix::mount::{MsFlags, mount};

use crate::measure::{self, Measurement, Sizes};

/// The prefix of every result line. The console also has the kernel's lines.
const MARK: &str = "verify:";

/// Whether this process is the first one of a machine that `kernels` started.
pub(crate) fn is_here() -> bool {
    process::id() == 1 && std::env::args().next().as_deref() == Some("/init")
}

/// Measures and switches the machine off.
pub(crate) fn run() -> ! {
    match start() {
        Ok(measurement) => print!("{}", write(&measurement)),
        Err(error) => println!("the measurement failed: {error:#}"),
    }
    // SAFETY: a system call with a number and no pointer. There is no disk to sync.
    unsafe { libc::reboot(libc::RB_POWER_OFF) };
    // If the kernel could not switch off, it restarts when its first process ends, and qemu exits.
    #[expect(clippy::disallowed_methods, reason = "the first process has no caller")]
    process::exit(1)
}

fn start() -> Result<Measurement> {
    for (kind, folder) in [("proc", "/proc"), ("sysfs", "/sys"), ("bpf", "/sys/fs/bpf")] {
        // The mount point of bpffs is part of sysfs.
        let _ = fs::create_dir_all(folder);
        mount(
            Some(kind),
            folder,
            Some(kind),
            MsFlags::empty(),
            None::<&str>,
        )
        .with_context(|| format!("cannot mount {kind}"))?;
    }
    measure::this_kernel()
}

fn write(measurement: &Measurement) -> String {
    let mut lines = vec![format!("{MARK} kernel {}", measurement.release)];
    for Sizes {
        name,
        translated,
        verified,
        jitted,
    } in &measurement.programs
    {
        lines.push(format!(
            "{MARK} program {name} {translated} {verified} {jitted}"
        ));
    }
    for (name, reason) in &measurement.refused {
        lines.extend(
            reason
                .lines()
                .map(|line| format!("{MARK} refused {name} {line}")),
        );
    }
    lines.push(format!("{MARK} done\n"));
    lines.join("\n")
}

/// Reads the result lines of `run` from a whole console log.
pub(crate) fn read(console: &str) -> Result<Measurement> {
    let mut measurement = Measurement::default();
    let mut is_done = false;
    for line in console.lines() {
        let Some((_, line)) = line.split_once(MARK) else {
            continue;
        };
        let (word, rest) = line.trim().split_once(' ').unwrap_or((line.trim(), ""));
        match word {
            "kernel" => rest.clone_into(&mut measurement.release),
            "program" => measurement.programs.push(sizes(rest)?),
            "refused" => refuse(&mut measurement, rest),
            "done" => is_done = true,
            _ => {}
        }
    }
    if is_done {
        return Ok(measurement);
    }
    let lines: Vec<_> = console.lines().collect();
    let end = lines[lines.len().saturating_sub(30)..].join("\n");
    Err(anyhow!(
        "the machine ended before its measurement; the end of its console\n{end}"
    ))
}

fn sizes(text: &str) -> Result<Sizes> {
    let words: Vec<_> = text.split_whitespace().collect();
    let [name, translated, verified, jitted] = words[..] else {
        return Err(anyhow!("the console has a damaged line: {text}"));
    };
    let count = |word: &str| word.parse().with_context(|| format!("no count: {word}"));
    Ok(Sizes {
        name: name.to_owned(),
        translated: count(translated)?,
        verified: count(verified)?,
        jitted: count(jitted)?,
    })
}

fn refuse(measurement: &mut Measurement, text: &str) {
    let (name, line) = text.split_once(' ').unwrap_or((text, ""));
    match measurement.refused.last_mut() {
        Some((last, reason)) if last == name => {
            reason.push('\n');
            reason.push_str(line);
        }
        _ => measurement.refused.push((name.to_owned(), line.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_guest_writes_is_read_among_other_lines() {
        let name = "director/xdp".to_owned();
        let measurement = Measurement {
            release: "6.1.0-56-cloud-amd64".to_owned(),
            programs: vec![Sizes {
                name,
                translated: 7,
                verified: 9,
                jitted: 80,
            }],
            refused: vec![("bench/tc".to_owned(), "first line\nsecond line".to_owned())],
        };
        let console = format!("booting\r\n{}[  1.0] power off", write(&measurement));

        let read = read(&console.replace('\n', "\r\n")).unwrap();

        assert_eq!(read.release, measurement.release);
        assert_eq!(read.programs, measurement.programs);
        assert_eq!(read.refused, measurement.refused);
    }

    #[test]
    fn a_machine_that_died_is_no_result() {
        assert!(read("verify: kernel 6.1.0\nverify: program director/xdp 1 2 3\n").is_err());
    }
}
