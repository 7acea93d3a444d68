//! The compiler for eBPF: the installed rustc, the sources of its `core`, and a linker that uses
//! rustc's own LLVM.
//!
//! Everything is below `target/bpf/RELEASE`; the installed toolchain is only read. The checked-in
//! objects come from one pinned pair of rustc and linker, and only that pair can reproduce them.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};

use crate::{place, process};

/// The compiler whose objects are checked in.
const RELEASE: &str = "1.95.0";
const LLVM: &str = "22.1.2";
const HOST: &str = "x86_64-unknown-linux-gnu";
const LINKER: &str = "0.13.0";
/// The LLVM versions that this bpf-linker can be built with.
const LINKER_LLVM: [&str; 3] = ["21", "22", "23"];

/// The installed compiler.
pub(crate) struct Compiler {
    release: String,
    llvm: String,
    host: String,
    sysroot: PathBuf,
}

impl Compiler {
    pub(crate) fn find() -> Result<Compiler> {
        let about = process::output(process::command("rustc").arg("-vV"))?;
        let sysroot = process::output(process::command("rustc").args(["--print", "sysroot"]))?;
        let word = |key: &str| {
            let value = about.lines().find_map(|line| line.strip_prefix(key));
            value.map(str::trim).unwrap_or_default().to_owned()
        };
        Ok(Compiler {
            release: word("release:"),
            llvm: word("LLVM version:"),
            host: word("host:"),
            sysroot: PathBuf::from(sysroot.trim()),
        })
    }

    /// Why objects of this compiler may differ from the checked-in ones.
    pub(crate) fn difference(&self) -> Option<String> {
        let is_pinned = self.release == RELEASE && self.llvm == LLVM && self.host == HOST;
        (!is_pinned).then(|| {
            format!(
                "the objects are built by rustc {RELEASE} with LLVM {LLVM} on {HOST}, but this is \
                 rustc {} with LLVM {} on {}",
                self.release, self.llvm, self.host
            )
        })
    }
}

/// The tools of a build for eBPF.
pub(crate) struct Sysroot {
    /// The folder of this compiler's files, including those of the build.
    pub folder: PathBuf,
    /// A rustc that uses this folder's `core`.
    pub rustc: PathBuf,
    /// The folder of `bpf-linker`.
    pub programs: PathBuf,
    /// The sources of the standard library, by rustc's own path.
    pub sources: PathBuf,
}

/// Builds what is missing. The first time takes a minute or two, for the linker.
pub(crate) fn prepare(compiler: &Compiler) -> Result<Sysroot> {
    let folder = place::target().join("bpf").join(&compiler.release);
    let sysroot = folder.join("sysroot");
    let rustlib = sysroot.join("lib/rustlib");
    let sources = rustlib.join("src/rust");
    fs::create_dir_all(&sources)?;
    link(
        &compiler.sysroot.join("lib/rustlib").join(&compiler.host),
        &rustlib.join(&compiler.host),
    )?;
    place_sources(compiler, &sources)?;

    let rustc = folder.join("rustc");
    let real = compiler.sysroot.join("bin/rustc");
    let script = format!(
        "#!/bin/sh\nexec '{}' --sysroot '{}' \"$@\"\n",
        real.display(),
        sysroot.display()
    );
    if fs::read_to_string(&rustc).ok().as_ref() != Some(&script) {
        fs::write(&rustc, script)?;
        fs::set_permissions(&rustc, fs::Permissions::from_mode(0o755))?;
    }
    install_linker(compiler, &folder)?;
    Ok(Sysroot {
        programs: folder.join("bin"),
        folder,
        rustc,
        sources,
    })
}

// The pinned compiler uses the copy in the repository, so that its objects need no download.
fn place_sources(compiler: &Compiler, sources: &Path) -> Result<()> {
    let library = sources.join("library");
    if library.join("core/src/lib.rs").exists() {
        return Ok(());
    }
    let installed = compiler.sysroot.join("lib/rustlib/src/rust/library");
    if compiler.release == RELEASE {
        let archive =
            place::root().join(format!("ebpf/toolchain/rust-src-{RELEASE}-library.tar.xz"));
        let unpacked = sources.join("unpacked");
        fs::create_dir_all(&unpacked)?;
        let mut tar = process::command("tar");
        process::run(tar.arg("-xJf").arg(archive).arg("-C").arg(&unpacked))
            .context("cannot unpack the sources of core (is xz-utils installed?)")?;
        // The move comes last, so that an interrupted unpacking starts again.
        fs::rename(unpacked.join("library"), library)?;
        fs::remove_dir(unpacked)?;
        Ok(())
    } else if installed.join("core/src/lib.rs").exists() {
        link(&installed, &library)
    } else {
        bail!(
            "building eBPF with rustc {} needs the sources of core; install them with `rustup \
             component add rust-src`, or use rustc {RELEASE}, whose sources are in ebpf/toolchain",
            compiler.release
        )
    }
}

// The second link has the name that the linker asks for at run time, so it needs no search path.
fn install_linker(compiler: &Compiler, folder: &Path) -> Result<()> {
    // The linker does not start if the checkout was moved or if rustc was replaced.
    if process::output(process::command(folder.join("bin/bpf-linker")).arg("--version")).is_ok() {
        return Ok(());
    }
    let major = compiler.llvm.split('.').next().unwrap_or_default();
    ensure!(
        LINKER_LLVM.contains(&major),
        "rustc {} brings LLVM {}, but bpf-linker {LINKER} knows only LLVM {}; use rustc {RELEASE}",
        compiler.release,
        compiler.llvm,
        LINKER_LLVM.join(", ")
    );
    let Some(llvm) = llvm_library(&compiler.sysroot.join("lib"))? else {
        bail!(
            "rustc {} has no libLLVM.so of its own in {}/lib, and bpf-linker must share LLVM with \
             rustc; use a rustc from rustup, such as {RELEASE}",
            compiler.release,
            compiler.sysroot.display()
        );
    };
    println!("building bpf-linker {LINKER} with LLVM {major}, once");
    let libraries = folder.join("llvm/lib");
    fs::create_dir_all(&libraries)?;
    link(&llvm, &libraries.join("libLLVM.so"))?;
    link(&llvm, &libraries.join(llvm.file_name().unwrap_or_default()))?;
    let build = folder.join("linker");
    let mut install = process::cargo();
    install
        .args([
            "install",
            &format!("bpf-linker@{LINKER}"),
            "--locked",
            "--quiet",
            "--force",
        ])
        .args([
            "--no-default-features",
            "--features",
            &format!("llvm-{major}"),
        ])
        .arg("--root")
        .arg(folder)
        .arg("--target-dir")
        .arg(&build)
        .env("LLVM_PREFIX", folder.join("llvm"));
    process::run(&mut install).context("cannot build bpf-linker")?;
    // The build's 300 MB are not needed again.
    fs::remove_dir_all(build)?;
    Ok(())
}

// A linker script has a similar name: `libLLVM-22-….so`. It is not the library.
fn llvm_library(folder: &Path) -> Result<Option<PathBuf>> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if name.starts_with("libLLVM.so.") {
            return Ok(Some(path));
        }
    }
    Ok(None)
}

fn link(original: &Path, link: &Path) -> Result<()> {
    if fs::read_link(link).is_ok_and(|present| present == original) {
        return Ok(());
    }
    let _ = fs::remove_file(link);
    symlink(original, link)
        .with_context(|| format!("cannot link {} to {}", link.display(), original.display()))
}
