//! A kernel that has IPVS, as a process: Debian's user-mode-linux.
//!
//! Its file system is an archive of this program, `ipvsadm` and the kernel's modules, made from
//! packages that are downloaded and never installed. The machine sees one folder of the host, with
//! the scenarios to play, and writes the results into it.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use shunt_lab::Process;

use super::inside::{self, IPVS, PLAYED, SCENARIOS, VARIABLE};
use super::record::Record;
use super::scenario::Scenario;
use crate::{deb, initramfs, kernels, place, process};

const KERNEL: &str = "user-mode-linux";
const IPVSADM: &str = "ipvsadm";
/// Modules that are loaded with their dependencies, by their names in `modules.dep`.
const MODULES: [&str; 4] = [
    "kernel/net/ipv6/ipv6.ko",
    "kernel/drivers/net/veth.ko",
    "kernel/net/netfilter/ipvs/ip_vs.ko",
    "kernel/net/netfilter/ipvs/ip_vs_",
];
/// The dependencies that no scenario needs.
const NOT_LOADED: [&str; 1] = ["ip_vs_ftp.ko"];
/// The limit for a scenario. It takes half a second on an idle machine.
const PATIENCE: Duration = Duration::from_secs(20);

/// The parts of a machine, downloaded once.
pub(super) struct Machine {
    kernel: PathBuf,
    archive: PathBuf,
    folder: PathBuf,
}

impl Machine {
    pub(super) fn prepare() -> Result<Machine> {
        let folder = place::target().join("conform");
        let unpacked = folder.join("packages");
        if !unpacked.is_dir() {
            // The move comes last, so that an interrupted download starts again.
            let half = folder.join("half");
            let _ = fs::remove_dir_all(&half);
            download(&half)?;
            fs::rename(&half, &unpacked)?;
        }
        let archive = folder.join("archive");
        fs::write(&archive, pack(&unpacked)?).context("cannot write the machine's archive")?;
        Ok(Machine {
            kernel: unpacked.join("usr/bin/linux.uml"),
            archive,
            folder,
        })
    }

    /// Plays all scenarios in one machine. With `again`, the results of the last run may be used.
    pub(super) fn play(&self, scenarios: &[Scenario], again: bool) -> Result<Vec<Vec<Record>>> {
        let shared = self.folder.join("shared");
        let wanted = serde_json::to_vec(scenarios)?;
        let played = shared.join(PLAYED);
        if again && played.exists() && fs::read(shared.join(SCENARIOS))? == wanted {
            return Ok(serde_json::from_slice(&fs::read(played)?)?);
        }
        let _ = fs::remove_dir_all(&shared);
        fs::create_dir_all(&shared)?;
        fs::write(shared.join(SCENARIOS), wanted)?;
        let console = self.folder.join("console");
        let output = fs::File::create(&console)?;
        let mut command = process::command(&self.kernel);
        command
            .args([
                "mem=512M",
                "quiet",
                "panic=-1",
                "con=null",
                "con0=null,fd:1",
                "ssl=null",
            ])
            .arg(format!("initrd={}", self.archive.display()))
            .arg(format!("{VARIABLE}={}", shared.display()))
            .env("LD_PRELOAD", registers(&self.folder)?)
            .stderr(output.try_clone()?)
            .stdout(output);
        let limit = Duration::from_secs(60) + PATIENCE * u32::try_from(scenarios.len())?;
        let ended = Process::start(command)?.wait(limit);
        let played = match fs::read(played) {
            Ok(played) => serde_json::from_slice(&played).context("what the machine wrote"),
            Err(error) if error.kind() == ErrorKind::NotFound => {
                let said = fs::read(&console).unwrap_or_default();
                let said = String::from_utf8_lossy(&said).into_owned();
                ended.with_context(|| said.clone())?;
                bail!(
                    "the machine ended before it had played everything; \
                     the end of its console\n{said}"
                )
            }
            Err(error) => Err(error).context("cannot read what the machine wrote"),
        };
        let played: Vec<Vec<Record>> = played?;
        ensure!(
            played.len() == scenarios.len(),
            "the machine did not play every scenario"
        );
        Ok(played)
    }
}

/// The library that user-mode-linux needs on some processors (`registers.rs`), compiled.
fn registers(folder: &Path) -> Result<PathBuf> {
    let source = place::root().join("xtask/src/conform/registers.rs");
    let library = folder.join("libregisters.so");
    let mut compiler = process::command("rustc");
    compiler
        .args([
            "--edition=2024",
            "--crate-type=cdylib",
            "-Copt-level=1",
            "-o",
        ])
        .arg(&library)
        .arg(source);
    process::run(&mut compiler).context("cannot compile xtask/src/conform/registers.rs")?;
    Ok(library)
}

/// The kernel, `ipvsadm` and its libraries.
fn download(folder: &Path) -> Result<()> {
    deb::unpack(KERNEL, folder)?;
    let mut wanted = vec![IPVSADM.to_owned()];
    let mut seen = Vec::new();
    while let Some(package) = wanted.pop() {
        if seen.contains(&package) {
            continue;
        }
        let needs = deb::unpack(&package, folder)?;
        // The C library is on the host, because this program runs.
        let is_library = |name: &String| name.starts_with("libnl") || name.starts_with("libpopt");
        wanted.extend(needs.into_iter().filter(is_library));
        seen.push(package);
    }
    Ok(())
}

fn pack(unpacked: &Path) -> Result<Vec<u8>> {
    let mut files = Vec::new();
    let program = std::env::current_exe()?;
    for library in kernels::libraries(&program)? {
        files.push((library.clone(), fs::read(library)?));
    }
    files.push((PathBuf::from("/init"), fs::read(program)?));
    for path in tree(unpacked)? {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let is_library = name.contains(".so.") && path.to_string_lossy().contains("/lib/");
        if is_library || path.ends_with("sbin/ipvsadm") {
            files.push((Path::new(IPVS).join(&*name), fs::read(&path)?));
        }
    }
    let modules = deb::first(&unpacked.join("usr/lib/uml/modules"), |_| true)
        .or_else(|_| deb::first(&unpacked.join("lib/uml/modules"), |_| true))?;
    let list = fs::read_to_string(modules.join("modules.dep")).context("modules.dep")?;
    for (number, module) in modules_in_order(&list).into_iter().enumerate() {
        let bytes = fs::read(modules.join(&module)).with_context(|| module.clone())?;
        files.push((inside::module(number), bytes));
    }
    let files: Vec<_> = files
        .iter()
        .map(|(path, bytes)| (&**path, &**bytes))
        .collect();
    Ok(initramfs::pack(&files))
}

/// Every file below a folder. A link is read as the file that it leads to.
fn tree(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_symlink() || path.is_file() {
            found.extend(path.is_file().then_some(path));
        } else {
            found.extend(tree(&path)?);
        }
    }
    Ok(found)
}

/// The modules to load, each after its dependencies.
fn modules_in_order(list: &str) -> Vec<String> {
    let mut order: Vec<String> = Vec::new();
    let lines: Vec<_> = list
        .lines()
        .filter_map(|line| line.split_once(':'))
        .collect();
    for wanted in MODULES {
        for (module, needs) in &lines {
            if !module.starts_with(wanted) || NOT_LOADED.iter().any(|name| module.ends_with(name)) {
                continue;
            }
            // The nearest dependency comes first.
            for one in needs.split_whitespace().rev().chain([*module]) {
                if !order.iter().any(|known| known == one) {
                    order.push(one.to_owned());
                }
            }
        }
    }
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_module_comes_after_what_it_needs_and_once() {
        let list = "\
kernel/net/netfilter/ipvs/ip_vs.ko: kernel/net/nf_conntrack.ko kernel/net/ipv6/ipv6.ko
kernel/net/netfilter/ipvs/ip_vs_ftp.ko: kernel/net/netfilter/ipvs/ip_vs.ko
kernel/net/netfilter/ipvs/ip_vs_rr.ko: kernel/net/netfilter/ipvs/ip_vs.ko kernel/net/ipv6/ipv6.ko
kernel/net/ipv6/ipv6.ko:
kernel/sound/snd.ko:
";

        let order = modules_in_order(list);

        assert_eq!(
            order,
            [
                "kernel/net/ipv6/ipv6.ko",
                "kernel/net/nf_conntrack.ko",
                "kernel/net/netfilter/ipvs/ip_vs.ko",
                "kernel/net/netfilter/ipvs/ip_vs_rr.ko",
            ]
        );
    }
}
