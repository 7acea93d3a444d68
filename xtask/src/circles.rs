//! Finds circles of imports between the files of one crate.
//!
//! A file imports another if it names something of it by `use` or by a path. A module may name what
//! its own ancestors define: a folder is one room. Tests are free, as are paths inside of macros.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use anyhow::{Context, Result};
use syn::visit::{self, Visit};
use syn::{Attribute, Item, ItemMod, ItemUse, UseTree};

use crate::place;
use crate::source::Fault;

/// How many re-exports are followed from a name to where it is defined.
const LONGEST_CHAIN: usize = 8;

type Module = Vec<String>;

/// One file, and what it names.
#[derive(Default)]
struct File {
    path: String,
    module: Module,
    /// Names that `use` brings into the file, with their paths.
    names: BTreeMap<String, Module>,
    paths: BTreeSet<Module>,
}

/// The faults of every crate: circles that [`KNOWN`] does not list, and lines of it that are stale.
pub(crate) fn faults(files: &[String]) -> Result<Vec<Fault>> {
    let mut crates: BTreeMap<&str, Vec<File>> = BTreeMap::new();
    for path in files.iter().filter(|path| is_source(path)) {
        let (name, rest) = path.split_once("/src/").context("a source has a crate")?;
        let text = fs::read_to_string(place::root().join(path))?;
        let file = read(path, rest, &text)?;
        crates.entry(name).or_default().push(file);
    }
    let circles: Vec<_> = crates.values().flat_map(|files| circles(files)).collect();
    Ok(compare(&circles, &KNOWN))
}

fn is_source(path: &str) -> bool {
    path.ends_with(".rs") && path.contains("/src/") && !path.contains("tests")
}

fn compare(circles: &[BTreeSet<&str>], known: &[Known]) -> Vec<Fault> {
    let covers = |known: &Known, circle: &BTreeSet<&str>| {
        circle.iter().all(|path| known.files.contains(path))
    };
    let mut faults = Vec::new();
    for circle in circles {
        if !known.iter().any(|known| covers(known, circle)) {
            let names: Vec<_> = circle.iter().copied().collect();
            let rule = format!("a circle of {} files: {}", names.len(), names.join(", "));
            let path = names.first().copied().unwrap_or_default().to_owned();
            faults.push(Fault {
                path,
                line: 1,
                rule,
            });
        }
    }
    for known in known {
        if !circles.iter().any(|circle| covers(known, circle)) {
            let first = known.files.first().copied().unwrap_or_default();
            let rule = format!("its listed circle is open: strike the line that says {first}");
            let path = "xtask/src/circles.rs".to_owned();
            faults.push(Fault {
                path,
                line: 1,
                rule,
            });
        }
    }
    faults
}

/// A circle that is accepted.
struct Known {
    files: &'static [&'static str],
    /// Why it may stand.
    #[expect(dead_code, reason = "it is there to be read")]
    reason: &'static str,
}

/// Circles that are not opened yet.
const KNOWN: [Known; 0] = [];

fn read(path: &str, rest: &str, text: &str) -> Result<File> {
    let syntax = syn::parse_file(text).with_context(|| format!("cannot parse {path}"))?;
    let mut file = File {
        path: path.to_owned(),
        module: module(rest),
        ..File::default()
    };
    file.visit_file(&syntax);
    Ok(file)
}

/// The module that a file below `src` is.
fn module(rest: &str) -> Module {
    let mut parts: Module = rest.split('/').map(str::to_owned).collect();
    let name = parts.pop().unwrap_or_default();
    let name = name.trim_end_matches(".rs");
    if !["lib", "main", "mod"].contains(&name) {
        parts.push(name.to_owned());
    }
    parts
}

impl<'a> Visit<'a> for File {
    fn visit_item(&mut self, item: &'a Item) {
        let attributes = match item {
            Item::Use(item) => &item.attrs,
            Item::Mod(item) => &item.attrs,
            Item::Fn(item) => &item.attrs,
            Item::Impl(item) => &item.attrs,
            _ => return visit::visit_item(self, item),
        };
        if !is_for_tests(attributes) {
            visit::visit_item(self, item);
        }
    }

    fn visit_item_mod(&mut self, item: &'a ItemMod) {
        visit::visit_item_mod(self, item);
    }

    fn visit_item_use(&mut self, item: &'a ItemUse) {
        let mut found = Vec::new();
        leaves(&item.tree, &mut Vec::new(), &mut found);
        for (name, path) in found {
            self.paths.insert(path.clone());
            self.names.insert(name, path);
        }
    }

    fn visit_path(&mut self, path: &'a syn::Path) {
        let parts: Module = path.segments.iter().map(|s| s.ident.to_string()).collect();
        if parts.len() > 1 {
            self.paths.insert(parts);
        }
        visit::visit_path(self, path);
    }
}

fn is_for_tests(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        let words = attribute
            .meta
            .require_list()
            .map(|list| list.tokens.to_string());
        attribute.path().is_ident("cfg") && words.is_ok_and(|words| words == "test")
    })
}

/// Each name that a `use` brings, with its path.
fn leaves(tree: &UseTree, before: &mut Module, found: &mut Vec<(String, Module)>) {
    match tree {
        UseTree::Path(path) => {
            before.push(path.ident.to_string());
            leaves(&path.tree, before, found);
            before.pop();
        }
        UseTree::Group(group) => {
            for tree in &group.items {
                leaves(tree, before, found);
            }
        }
        UseTree::Name(name) => {
            let name = name.ident.to_string();
            let mut path = before.clone();
            let known_as = match name.as_str() {
                "self" => before.last().cloned().unwrap_or_default(),
                _ => {
                    path.push(name.clone());
                    name
                }
            };
            found.push((known_as, path));
        }
        UseTree::Rename(rename) => {
            let mut path = before.clone();
            if rename.ident != "self" {
                path.push(rename.ident.to_string());
            }
            found.push((rename.rename.to_string(), path));
        }
        UseTree::Glob(_) => found.push(("*".to_owned(), before.clone())),
    }
}

/// The circles among the files of one crate.
fn circles(files: &[File]) -> Vec<BTreeSet<&str>> {
    let by_module: BTreeMap<&[String], usize> = files
        .iter()
        .enumerate()
        .map(|(index, file)| (file.module.as_slice(), index))
        .collect();
    let arrows: Vec<BTreeSet<usize>> = files
        .iter()
        .map(|file| {
            let found = file.paths.iter();
            let found = found.filter_map(|path| target(files, &by_module, file, path, 0));
            let is_above = |index: &usize| file.module.starts_with(&files[*index].module);
            found.filter(|index| !is_above(index)).collect()
        })
        .collect();
    let reach: Vec<BTreeSet<usize>> = (0..files.len())
        .map(|from| reached(&arrows, from))
        .collect();
    let mut found = BTreeSet::new();
    for (from, there) in reach.iter().enumerate() {
        let circle: BTreeSet<&str> = there
            .iter()
            .filter(|to| reach[**to].contains(&from))
            .map(|to| files[*to].path.as_str())
            .collect();
        if circle.len() > 1 {
            found.insert(circle);
        }
    }
    found.into_iter().collect()
}

/// Every file that arrows lead to from here.
fn reached(arrows: &[BTreeSet<usize>], from: usize) -> BTreeSet<usize> {
    let mut reached = BTreeSet::new();
    let mut next = vec![from];
    while let Some(at) = next.pop() {
        for to in &arrows[at] {
            if reached.insert(*to) {
                next.push(*to);
            }
        }
    }
    reached
}

/// The file that defines what a path names, if it is one of this crate.
fn target(
    files: &[File],
    by_module: &BTreeMap<&[String], usize>,
    file: &File,
    path: &[String],
    depth: usize,
) -> Option<usize> {
    let mut at = file.module.clone();
    let mut rest = path;
    match rest.first()?.as_str() {
        "crate" => {
            rest = &rest[1..];
            // A program beside others in one folder has its root there.
            let root = at.first().filter(|first| {
                let below = [(*first).clone(), rest.first().cloned().unwrap_or_default()];
                by_module.contains_key(below.as_slice()) && !by_module.contains_key(&below[1..])
            });
            at = root.cloned().into_iter().collect();
        }
        "self" => rest = &rest[1..],
        "super" => {
            while rest.first().is_some_and(|part| part == "super") {
                at.pop();
                rest = &rest[1..];
            }
        }
        first => {
            let mut below = at.clone();
            below.push(first.to_owned());
            by_module.get(below.as_slice())?;
        }
    }
    while let Some(part) = rest.first() {
        let mut below = at.clone();
        below.push(part.clone());
        if !by_module.contains_key(below.as_slice()) {
            break;
        }
        at = below;
        rest = &rest[1..];
    }
    let index = *by_module.get(at.as_slice())?;
    let exported = rest.first().and_then(|name| files[index].names.get(name));
    match exported {
        Some(path) if depth < LONGEST_CHAIN => {
            let further = target(files, by_module, &files[index], path, depth + 1);
            Some(further.unwrap_or(index))
        }
        _ => Some(index),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(texts: &[(&str, &str)]) -> Vec<File> {
        let read = |(rest, text): &(&str, &str)| read(rest, rest, text).unwrap();
        texts.iter().map(read).collect()
    }

    fn found(texts: &[(&str, &str)]) -> Vec<Vec<String>> {
        let files = files(texts);
        let list = |circle: BTreeSet<&str>| circle.into_iter().map(str::to_owned).collect();
        circles(&files).into_iter().map(list).collect()
    }

    #[test]
    fn files_that_name_each_other_are_a_circle() {
        let circle = found(&[
            ("a.rs", "use crate::b::B; pub struct A(B);"),
            ("b.rs", "pub struct B; fn f() { crate::a::g(); }"),
            ("c.rs", "use crate::a::A;"),
        ]);

        assert_eq!(circle, [["a.rs", "b.rs"]]);
    }

    #[test]
    fn a_name_is_followed_through_a_re_export() {
        let circle = found(&[
            ("a/mod.rs", "mod b; mod c; pub use b::B;"),
            ("a/b.rs", "use super::c::C; pub struct B(C);"),
            ("a/c.rs", "use super::B; pub struct C(B);"),
        ]);

        assert_eq!(circle, [["a/b.rs", "a/c.rs"]]);
    }

    #[test]
    fn a_child_may_name_what_its_parent_defines() {
        let none = found(&[
            ("a/mod.rs", "mod b; use b::B; pub struct A(B);"),
            ("a/b.rs", "use super::A; pub struct B; impl A {}"),
        ]);

        assert!(none.is_empty());
    }

    #[test]
    fn tests_are_free() {
        let none = found(&[
            ("a.rs", "use crate::b::B;"),
            (
                "b.rs",
                "pub struct B; #[cfg(test)] mod tests { use crate::a::A; }",
            ),
        ]);

        assert!(none.is_empty());
    }

    #[test]
    fn a_listed_circle_is_accepted_while_it_stands() {
        let circle: BTreeSet<&str> = ["a.rs", "b.rs"].into();
        let known = Known {
            files: &["a.rs", "b.rs"],
            reason: "they are one idea",
        };

        assert_eq!(compare(std::slice::from_ref(&circle), &[]).len(), 1);
        assert!(compare(&[circle], std::slice::from_ref(&known)).is_empty());
        assert_eq!(compare(&[], &[known]).len(), 1);
    }
}
