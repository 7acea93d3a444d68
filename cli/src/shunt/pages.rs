//! Man pages and completions of `shunt` and `shuntd`, generated from their command lines.

use std::fs;
use std::io::{self, Write};
use std::path::Path;

use clap::{Command, CommandFactory, ValueEnum};
use clap_complete::Shell;
use clap_mangen::Man;
use shunt_daemon::options::Options;

use super::{Halt, Shunt};

/// The pages that are written by hand.
const BY_HAND: [(&str, &str); 3] = [
    ("ipvsadm.8", include_str!("ipvsadm.8")),
    ("ipvsadm-save.8", ".so man8/ipvsadm.8\n"),
    ("ipvsadm-restore.8", ".so man8/ipvsadm.8\n"),
];

pub(super) fn completions(shell: Shell, out: &mut dyn Write) -> Result<(), Halt> {
    Ok(out.write_all(&completion(shell, "shunt", Shunt::command()))?)
}

/// Writes one page. Its name may have or lack the prefix "shunt-" and the section.
pub(super) fn man(page: &str, out: &mut dyn Write) -> Result<(), Halt> {
    let pages = all()?;
    let is_it = |name: &str| {
        let plain = name.rsplit_once('.').map_or(name, |(plain, _)| plain);
        page == name || page == plain || plain.strip_prefix("shunt-") == Some(page)
    };
    match pages.iter().find(|(name, _)| is_it(name)) {
        Some((_, text)) => Ok(out.write_all(text)?),
        None => {
            let names: Vec<_> = pages.iter().map(|(name, _)| name.as_str()).collect();
            let names = names.join(" ");
            Err(Halt::Usage(format!(
                "there is no page \"{page}\"; there are {names}"
            )))
        }
    }
}

/// Writes `man/*` and `completions/*` into a directory.
pub(super) fn write_all(folder: &Path, out: &mut dyn Write) -> Result<(), Halt> {
    let (man, completions) = (folder.join("man"), folder.join("completions"));
    fs::create_dir_all(&man)?;
    fs::create_dir_all(&completions)?;
    let mut files = Vec::new();
    for (name, text) in all()? {
        files.push((man.join(name), text));
    }
    for shell in Shell::value_variants() {
        for (name, command) in programs() {
            let path = completions.join(format!("{name}.{shell}"));
            files.push((path, completion(*shell, name, command)));
        }
    }
    for (path, text) in files {
        fs::write(&path, text)?;
        writeln!(out, "{}", path.display())?;
    }
    Ok(())
}

/// The programs whose command lines `clap` describes.
fn programs() -> [(&'static str, Command); 2] {
    [("shunt", Shunt::command()), ("shuntd", Options::command())]
}

fn completion(shell: Shell, name: &str, mut command: Command) -> Vec<u8> {
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut command, name, &mut text);
    text
}

/// Every page, by its file name.
fn all() -> io::Result<Vec<(String, Vec<u8>)>> {
    let mut command = Shunt::command().disable_help_subcommand(true);
    command.build();
    let mut pages = Vec::new();
    add(&command, &mut pages)?;
    let mut text = Vec::new();
    Man::new(Options::command())
        .section("8")
        .render(&mut text)?;
    pages.push(("shuntd.8".to_owned(), text));
    for (name, text) in BY_HAND {
        pages.push((name.to_owned(), text.as_bytes().to_vec()));
    }
    Ok(pages)
}

fn add(command: &Command, pages: &mut Vec<(String, Vec<u8>)>) -> io::Result<()> {
    let name = command.get_display_name().unwrap_or(command.get_name());
    let mut text = Vec::new();
    Man::new(command.clone()).render(&mut text)?;
    pages.push((format!("{name}.1"), text));
    let mut below = command
        .get_subcommands()
        .filter(|below| !below.is_hide_set());
    below.try_for_each(|below| add(below, pages))
}
