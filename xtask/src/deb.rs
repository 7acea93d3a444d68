//! Debian packages that are unpacked beside the build and never installed.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};

use crate::process;

/// Downloads the newest version of a package from the machine's apt sources and unpacks it into a
/// folder. Returns the names of the packages that it depends on.
pub(crate) fn unpack(package: &str, folder: &Path) -> Result<Vec<String>> {
    ensure!(
        process::is_installed("apt-get"),
        "{package} is a Debian package, and this machine has no apt-get"
    );
    let download = folder.join("download");
    let _ = fs::remove_dir_all(&download);
    fs::create_dir_all(&download)?;
    println!("downloading {package}");
    let fetch = || {
        let mut apt = process::command("apt-get");
        process::output(apt.current_dir(&download).args(["download", package]))
    };
    if fetch().is_err() {
        // A new machine has no package lists.
        process::run(process::command("apt-get").args(["--quiet", "update"]))?;
        fetch()?;
    }
    let archive = first(&download, |name| name.ends_with(".deb"))?;
    let mut dpkg = process::command("dpkg-deb");
    process::output(dpkg.arg("-x").arg(&archive).arg(folder))?;
    let mut dpkg = process::command("dpkg-deb");
    let depends = process::output(dpkg.arg("-f").arg(&archive).arg("Depends"))?;
    fs::remove_dir_all(download)?;
    Ok(names(&depends))
}

/// The first file or folder in a folder whose name matches.
pub(crate) fn first(folder: &Path, is_it: impl Fn(&str) -> bool) -> Result<PathBuf> {
    let entries = fs::read_dir(folder).with_context(|| format!("no {}", folder.display()))?;
    for entry in entries {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if is_it(&name) {
            return Ok(path);
        }
    }
    bail!("the package has no matching file in {}", folder.display())
}

/// Of alternatives only the first one, without versions.
fn names(depends: &str) -> Vec<String> {
    let word = |clause: &str| clause.split_whitespace().next().map(str::to_owned);
    depends.split(',').filter_map(word).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dependencies_are_read_without_versions_and_alternatives() {
        let depends = "libc6 (>= 2.34), libpopt0 (>= 1.14) | other, lsb-base\n";

        assert_eq!(names(depends), ["libc6", "libpopt0", "lsb-base"]);
    }
}
