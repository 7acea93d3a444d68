//! Checks the walls between the crates, and the rules of style that a program can check.
//!
//! `source` checks the rules for a single file. Dependencies of tests (`dev-dependencies`) are
//! free, because a wall concerns only what the product can reach.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use crate::source::{self, Fault};
use crate::{circles, place, process};

/// The crates that each crate may use. A new arrow needs a page in `docs/decisions`.
const ARROWS: [(&str, &[&str]); 9] = [
    ("agent", &["datapath", "ebpf"]),
    ("cli", &["agent", "daemon", "lab", "model"]),
    ("control", &["datapath", "model"]),
    ("daemon", &["control", "datapath", "ebpf", "model"]),
    ("datapath", &[]),
    ("ebpf", &["datapath"]),
    ("lab", &[]),
    ("model", &[]),
    (
        "xtask",
        &["control", "daemon", "datapath", "ebpf", "lab", "model"],
    ),
];

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
}

#[derive(Deserialize)]
struct Package {
    name: String,
    dependencies: Vec<Dependency>,
}

#[derive(Deserialize)]
struct Dependency {
    name: String,
    kind: Option<String>,
    path: Option<String>,
}

/// Prints each fault with its place, and fails if there is one.
pub(crate) fn run() -> Result<()> {
    let metadata = process::output(process::cargo().args([
        "metadata",
        "--no-deps",
        "--locked",
        "--format-version=1",
    ]))?;
    let metadata: Metadata = serde_json::from_str(&metadata).context("cargo metadata")?;
    let mut faults = arrows(&metadata);
    let mut files = Vec::new();
    walk(&place::root(), Path::new(""), &mut files)?;
    faults.extend(circles::faults(&files)?);
    for path in &files {
        faults.extend(source::name_faults(path));
        // A file that is not text has no lines.
        if let Ok(text) = fs::read_to_string(place::root().join(path)) {
            faults.extend(source::faults(path, &text));
        }
    }
    for fault in &faults {
        println!("{fault}");
    }
    if !faults.is_empty() {
        bail!("{} faults in {} files", faults.len(), files.len());
    }
    println!("{} files follow the rules", files.len());
    Ok(())
}

fn arrows(metadata: &Metadata) -> Vec<Fault> {
    let mut faults = Vec::new();
    for package in &metadata.packages {
        let from = short(&package.name);
        let manifest = format!("{from}/Cargo.toml");
        let Some((_, allowed)) = ARROWS.iter().find(|(name, _)| *name == from) else {
            let rule = format!("crate {from} is in no list of arrows (xtask/src/walls.rs)");
            faults.push(Fault {
                path: manifest,
                line: 1,
                rule,
            });
            continue;
        };
        for dependency in &package.dependencies {
            let to = short(&dependency.name);
            let is_ours = dependency.path.is_some();
            let is_test = dependency.kind.as_deref() == Some("dev");
            if is_ours && !is_test && !allowed.contains(&to) {
                let rule = format!("{from} may not use {to}");
                faults.push(Fault {
                    path: manifest.clone(),
                    line: 1,
                    rule,
                });
            }
        }
    }
    faults
}

fn short(name: &str) -> &str {
    name.strip_prefix("shunt-").unwrap_or(name)
}

/// Every file of the checkout, without those of git and cargo.
fn walk(root: &Path, folder: &Path, files: &mut Vec<String>) -> Result<()> {
    let mut entries: Vec<_> = fs::read_dir(root.join(folder))?.collect::<Result<_, _>>()?;
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let name = entry.file_name();
        let path = folder.join(&name);
        let kind = entry.file_type()?;
        if kind.is_dir() && name != ".git" && name != "target" {
            walk(root, &path, files)?;
        } else if kind.is_file() && name != ".git" {
            files.push(path.to_string_lossy().into_owned());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_arrow_that_is_not_listed_is_a_fault() {
        let faults = arrows(&package("shunt-datapath", "shunt-model", None));

        assert_eq!(faults.len(), 1);
        assert_eq!(
            faults[0].to_string(),
            "datapath/Cargo.toml:1: datapath may not use model"
        );
    }

    #[test]
    fn listed_arrows_and_arrows_of_tests_are_free() {
        assert!(arrows(&package("shunt-ebpf", "shunt-datapath", None)).is_empty());
        assert!(arrows(&package("shunt-daemon", "shunt-lab", Some("dev"))).is_empty());
    }

    #[test]
    fn a_crate_that_nobody_listed_is_a_fault() {
        assert_eq!(
            arrows(&package("shunt-extra", "shunt-model", None)).len(),
            1
        );
    }

    fn package(name: &str, dependency: &str, kind: Option<&str>) -> Metadata {
        let dependencies = vec![Dependency {
            name: dependency.to_owned(),
            kind: kind.map(str::to_owned),
            path: Some("there".to_owned()),
        }];
        Metadata {
            packages: vec![Package {
                name: name.to_owned(),
                dependencies,
            }],
        }
    }
}
