//! Measures with other kernels: Debian kernels in machines that qemu emulates in software.
//!
//! A machine has one processor, no disk and no network. Its file system contains a copy of this
//! program (see `guest`), the libraries that it links to, and the objects. KVM is never used,
//! because its guests hang on the machines where the tests run.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};

use crate::measure::Measurement;
use crate::{deb, guest, initramfs, place, process, tools};

/// The kernels of the two Debian releases that Shunt supports.
const KERNELS: [&str; 2] = ["6.1", "6.12"];
/// The limit for a machine. It takes twenty seconds, or some minutes beside other work; a machine
/// that takes longer is stuck.
const PATIENCE_SECONDS: &str = "900";

/// Boots each kernel and measures in it.
pub(crate) fn measure() -> Result<Vec<Measurement>> {
    tools::install(&tools::FOR_KERNELS)?;
    let folder = place::target().join("kernels");
    fs::create_dir_all(&folder)?;
    let archive = folder.join("initramfs");
    fs::write(&archive, initramfs()?)?;
    let mut measurements = Vec::new();
    for kernel in KERNELS {
        let image = image(kernel, &folder)?;
        let start = Instant::now();
        let console = boot(&image, &archive)?;
        let measurement = guest::read(&console).with_context(|| format!("kernel {kernel}"))?;
        println!(
            "kernel {kernel} measured in {:.1} s",
            start.elapsed().as_secs_f64()
        );
        measurements.push(measurement);
    }
    Ok(measurements)
}

fn boot(image: &Path, archive: &Path) -> Result<String> {
    let mut machine = process::command("timeout");
    machine
        .args([PATIENCE_SECONDS, "qemu-system-x86_64", "-accel", "tcg"])
        // qemu 7.2 emulates this instruction incorrectly, and Linux 6.12 uses it.
        .args(["-cpu", "max,cx16=off", "-smp", "1", "-m", "1024"])
        .args(["-nographic", "-no-reboot", "-nic", "none"])
        .arg("-kernel")
        .arg(image)
        .arg("-initrd")
        .arg(archive)
        .args(["-append", "console=ttyS0 quiet panic=-1 mitigations=off"]);
    process::output(&mut machine).context("the emulated machine")
}

/// The kernel's image. It is downloaded once.
fn image(kernel: &str, folder: &Path) -> Result<PathBuf> {
    let image = folder.join(format!("vmlinuz-{kernel}"));
    if image.exists() {
        return Ok(image);
    }
    let package = package(kernel)?;
    let download = folder.join("unpacked");
    deb::unpack(&package, &download)?;
    let unpacked = deb::first(&download.join("boot"), |name| name.starts_with("vmlinuz"))?;
    // The move comes last, so that an interrupted download starts again.
    fs::rename(unpacked, &image)?;
    fs::remove_dir_all(download)?;
    Ok(image)
}

/// The newest package of this kernel in the machine's apt sources.
fn package(kernel: &str) -> Result<String> {
    ensure!(
        process::is_installed("apt-get"),
        "kernel {kernel} is a Debian package; use Debian"
    );
    let pattern = format!(
        "^linux-image-{}\\.[0-9].*-cloud-amd64$",
        kernel.replace('.', "\\.")
    );
    let search = || process::output(process::command("apt-cache").args(["-n", "search", &pattern]));
    let mut found = search()?;
    if found.trim().is_empty() {
        // A new machine has no package lists.
        process::run(process::command("apt-get").args(["--quiet", "update"]))?;
        found = search()?;
    }
    let names = found
        .lines()
        .filter_map(|line| line.split_whitespace().next());
    let Some(newest) = names.max_by_key(|name| version(name)) else {
        bail!("apt has no linux-image-{kernel}…-cloud-amd64; add a Debian release that has it");
    };
    Ok(newest.to_owned())
}

fn version(name: &str) -> Vec<u32> {
    name.split(|c: char| !c.is_ascii_digit())
        .filter_map(|number| number.parse().ok())
        .collect()
}

fn initramfs() -> Result<Vec<u8>> {
    let program = std::env::current_exe()?;
    let mut files = vec![(PathBuf::from("/init"), fs::read(&program)?)];
    for library in libraries(&program)? {
        files.push((library.clone(), fs::read(library)?));
    }
    for name in place::OBJECTS {
        let object = place::object(name);
        let inside = Path::new("/").join(object.strip_prefix(place::root())?);
        files.push((inside, fs::read(&object)?));
    }
    let files: Vec<_> = files
        .iter()
        .map(|(path, bytes)| (&**path, &**bytes))
        .collect();
    Ok(initramfs::pack(&files))
}

/// The libraries of a program, the loader included, by their absolute paths.
pub(crate) fn libraries(program: &Path) -> Result<Vec<PathBuf>> {
    let listed = process::output(Command::new("ldd").arg(program))?;
    let words = listed
        .split_whitespace()
        .filter(|word| word.starts_with('/'));
    Ok(words.map(PathBuf::from).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_package_is_the_one_with_the_highest_numbers() {
        let old = version("linux-image-6.12.99+deb12-cloud-amd64");
        let new = version("linux-image-6.12.117+deb12-cloud-amd64");

        assert!(new > old);
    }
}
