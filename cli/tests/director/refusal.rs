//! What goes wrong at the start is said in a line, and nothing is harmed by it.

use std::fs;
use std::os::unix::process::CommandExt;

use anyhow::{Result, ensure};
use shunt_lab::{Family, Host, Topology, get, skipped};

use crate::bed::{Method, add_web, web_servers};
use crate::director::{Director, called};

const NOBODY: u32 = 65534;

#[test]
fn without_rights_the_daemon_says_which_are_missing() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let host = Host::new("director")?;
    let mut command = called(&host, "shuntd", &[]);
    // SAFETY: setgid and setuid are async-signal-safe; they come after the namespace was entered.
    unsafe {
        command.pre_exec(|| {
            nix::unistd::setgid(NOBODY.into())?;
            Ok(nix::unistd::setuid(NOBODY.into())?)
        });
    }
    let output = command.output()?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(output.status.code() == Some(1), "{}: {said}", output.status);
    ensure!(
        said.lines().count() == 1 && said.contains("CAP_BPF"),
        "{said}"
    );
    Ok(())
}

#[test]
fn a_second_daemon_of_a_namespace_is_refused() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let host = Host::new("director")?;
    let director = Director::start(&host)?;
    let output = called(&host, "shuntd", &[]).output()?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(output.status.code() == Some(1), "{}: {said}", output.status);
    ensure!(
        said.lines().count() == 1 && said.contains("running in this"),
        "{said}"
    );
    director.ipvsadm("-Ln")?;
    Ok(())
}

#[test]
fn a_client_without_a_daemon_is_told_where_it_looked() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let host = Host::new("director")?;
    let output = called(&host, "shunt", &["status"]).output()?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(output.status.code() == Some(3), "{}: {said}", output.status);
    ensure!(
        said.contains("shuntd does not answer at /run/shunt/"),
        "{said}"
    );
    Ok(())
}

#[test]
fn notes_that_cannot_be_read_mean_an_empty_table_and_a_word_about_it() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let bed = Topology::builder().servers(1).offloads().build()?;
    let _members = Method::Masquerade.prepare(&bed)?;
    let _http = web_servers(&bed)?;
    let mut director = Director::start(bed.director())?;
    let add = |director: &Director| add_web(&bed, director, Family::V4, Method::Masquerade, 1);
    let web = add(&director)?;
    get(bed.client(), web, "/")?;
    let place = director.place()?;
    for broken in ["", "{\"changes\": 7}", "\0\0\0"] {
        director.kill()?;
        fs::write(place.memory(), broken)?;
        let before = director.log()?.len();
        director.restart()?;
        let said = director.log()?[before..].to_owned();
        ensure!(
            said.contains("table of the daemon before not readable"),
            "{said}"
        );
        ensure!(
            !director.ipvsadm("-Sn")?.contains("-A"),
            "the table is not empty"
        );
        ensure!(get(bed.client(), web, "/").is_err(), "something forwards");
        add(&director)?;
        get(bed.client(), web, "/")?;
    }
    Ok(())
}
