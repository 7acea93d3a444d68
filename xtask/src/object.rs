//! Builds the eBPF objects, proves that those in the repository are built from these sources, and
//! runs clippy on the sources as the kernel's target compiles them.
//!
//! The objects are checked in, so that building or installing Shunt needs nothing but stable Rust.
//! They are byte for byte the same wherever they are built: every path that could get into them is
//! replaced, and compiler and linker are pinned (`sysroot`).

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, bail};

use crate::sysroot::{Compiler, Sysroot};
use crate::{place, process, strip, sysroot};

const TARGET: &str = "bpfel-unknown-none";

/// Builds the objects and writes them into the repository.
pub(crate) fn build() -> Result<()> {
    let compiler = Compiler::find()?;
    for (name, object) in compile(&compiler)? {
        let path = place::object(name);
        let is_same = fs::read(&path).is_ok_and(|present| present == object);
        if !is_same {
            fs::create_dir_all(path.parent().unwrap_or(Path::new(".")))?;
            fs::write(&path, &object)
                .with_context(|| format!("cannot write {}", path.display()))?;
        }
        let change = if is_same { "unchanged" } else { "written" };
        println!("ebpf/object/{name}.o  {} bytes  {change}", object.len());
    }
    if let Some(difference) = compiler.difference() {
        println!("do not commit these objects: {difference}");
    }
    Ok(())
}

/// Builds the objects and compares them with those in the repository.
pub(crate) fn check() -> Result<()> {
    let compiler = Compiler::find()?;
    if let Some(difference) = compiler.difference() {
        println!("NOT COMPARED: {difference}.");
        println!("NOT COMPARED: the checked-in eBPF objects are used as they are.");
        return Ok(());
    }
    let mut different = Vec::new();
    for (name, object) in compile(&compiler)? {
        let is_same = fs::read(place::object(name)).is_ok_and(|present| present == object);
        println!(
            "ebpf/object/{name}.o  {}",
            if is_same { "same" } else { "DIFFERENT" }
        );
        if !is_same {
            different.push(name);
        }
    }
    if !different.is_empty() {
        bail!(
            "ebpf/object is not built from these sources ({}); run `cargo xtask bpf` and commit \
             the result",
            different.join(", ")
        );
    }
    Ok(())
}

/// Runs clippy on the eBPF programs. For the host, most of their files are not compiled.
pub(crate) fn clippy() -> Result<()> {
    let sysroot = sysroot::prepare(&Compiler::find()?)?;
    let mut cargo = cargo(&sysroot, "clippy")?;
    cargo
        .arg("--target-dir")
        .arg(sysroot.folder.join("clippy"))
        // clippy does not run `RUSTC`, which would name this folder's `core`.
        .env("SYSROOT", sysroot.folder.join("sysroot"))
        .args(["--", "-Dwarnings"]);
    process::run(&mut cargo)
}

fn compile(compiler: &Compiler) -> Result<Vec<(&'static str, Vec<u8>)>> {
    let sysroot = sysroot::prepare(compiler)?;
    let start = Instant::now();
    let build = sysroot.folder.join("build");
    let mut cargo = cargo(&sysroot, "build")?;
    cargo.arg("--target-dir").arg(&build);
    process::run(&mut cargo).context("cannot build the eBPF programs")?;
    let mut objects = Vec::new();
    for name in place::OBJECTS {
        let built = build.join(TARGET).join("bpf").join(format!("shunt-{name}"));
        let whole = fs::read(&built).with_context(|| format!("no {}", built.display()))?;
        let stripped = strip::strip(&whole).with_context(|| format!("cannot strip {name}"))?;
        objects.push((name, stripped));
    }
    println!(
        "eBPF objects built in {:.1} s",
        start.elapsed().as_secs_f64()
    );
    Ok(objects)
}

/// A command of cargo for the eBPF programs and their target.
fn cargo(sysroot: &Sysroot, verb: &str) -> Result<Command> {
    let path = env::var_os("PATH").unwrap_or_default();
    let path =
        env::join_paths(std::iter::once(sysroot.programs.clone()).chain(env::split_paths(&path)))?;
    let mut cargo = process::cargo();
    cargo
        .args([verb, "--locked", "--quiet"])
        .args(["--package", "shunt-ebpf", "--bins", "--profile", "bpf"])
        .args(["-Zbuild-std=core", "--target", TARGET])
        .env("RUSTC_BOOTSTRAP", "1")
        .env("RUSTC", &sysroot.rustc)
        .env("PATH", path)
        .env("CARGO_ENCODED_RUSTFLAGS", flags(sysroot)?.join("\x1f"));
    for name in [
        "RUSTFLAGS",
        "RUSTC_WRAPPER",
        "RUSTC_WORKSPACE_WRAPPER",
        "CARGO_BUILD_TARGET",
    ] {
        cargo.env_remove(name);
    }
    Ok(cargo)
}

fn flags(sysroot: &Sysroot) -> Result<Vec<String>> {
    let mut flags: Vec<String> = [
        // The variable selects the bindings. Without it, the machine that builds would select them.
        "--cfg=bpf_target_arch=\"x86_64\"",
        // The first instruction set with atomics that return a value. All supported kernels have
        // it.
        "-Ctarget-cpu=v3",
        // Subprograms and callbacks need BTF, which is generated from debug information.
        "-Cdebuginfo=2",
        "-Clink-arg=--btf",
        // This option halves the code that reads packets. Structs on the stack must then be
        // `align(8)`.
        "-Clink-arg=--cpu-features=+allows-misaligned-mem-access",
    ]
    .map(String::from)
    .to_vec();
    for (path, name) in replaced_paths(sysroot)? {
        flags.push(format!("--remap-path-prefix={}={name}", path.display()));
    }
    Ok(flags)
}

// BTF contains the names of source files. If two prefixes match, rustc uses the later one.
fn replaced_paths(sysroot: &Sysroot) -> Result<Vec<(PathBuf, &'static str)>> {
    let root = place::root();
    let mut paths = vec![(root.canonicalize()?, "/shunt"), (root.clone(), "/shunt")];
    // The name of a registry's folder depends on the registry's address.
    let registries = cargo_home().join("registry/src");
    if let Ok(entries) = fs::read_dir(&registries) {
        let mut folders = entries.map(|e| Ok(e?.path())).collect::<Result<Vec<_>>>()?;
        folders.sort();
        paths.extend(folders.into_iter().map(|folder| (folder, "/registry")));
    }
    let library = sysroot.sources.join("library").canonicalize()?;
    paths.push((sysroot.sources.clone(), "/rust"));
    // Cargo names files below the workspace relative to it.
    if let Ok(relative) = sysroot.sources.strip_prefix(&root) {
        paths.push((relative.to_path_buf(), "/rust"));
    }
    paths.push((library, "/rust/library"));
    Ok(paths)
}

fn cargo_home() -> PathBuf {
    match env::var_os("CARGO_HOME") {
        Some(folder) => PathBuf::from(folder),
        None => Path::new(&env::var_os("HOME").unwrap_or_default()).join(".cargo"),
    }
}
