//! What the daemon leaves and finds again: damaged, missing, on a full disk, of another layout.

use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::process::Stdio;

use anyhow::{Context, Result, ensure};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use shunt_daemon::kernel::place::Place;
use shunt_datapath::entry::LAYOUT;
use shunt_lab::{Family, Host, HttpLoad, Process, Topology, get, skipped, until};

use crate::bed::{LIMIT, Method, add_web, flawless, web_servers};
use crate::director::{Director, called};

#[test]
fn damaged_state_costs_nothing_that_can_be_read_elsewhere() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let bed = Topology::builder().servers(1).offloads().build()?;
    let _members = Method::Masquerade.prepare(&bed)?;
    let _http = web_servers(&bed)?;
    let mut director = Director::start(bed.director())?;
    let web = add_web(&bed, &director, Family::V4, Method::Masquerade, 1)?;
    get(bed.client(), web, "/")?;
    let rules = director.ipvsadm("-Sn")?;
    let place = director.place()?;
    let flip = || -> Result<()> {
        let mut text = fs::read(place.memory())?;
        let middle = text.len() / 2;
        text[middle] ^= 1;
        Ok(fs::write(place.memory(), text)?)
    };
    let damages: [(&str, &dyn Fn() -> Result<()>); 8] = [
        ("empty", &|| Ok(fs::write(place.memory(), "")?)),
        ("foreign", &|| {
            Ok(fs::write(place.memory(), "{\"changes\": 7}")?)
        }),
        ("zeros", &|| Ok(fs::write(place.memory(), [0; 4096])?)),
        ("one bit", &flip),
        ("missing", &|| Ok(fs::remove_file(place.memory())?)),
        ("no notes", &|| {
            Ok(fs::remove_file(place.runtime.join("path.json"))?)
        }),
        ("no folder", &|| {
            fs::remove_file(place.memory())?;
            Ok(fs::remove_file(place.runtime.join("path.json"))?)
        }),
        ("a pin less", &|| {
            Ok(fs::remove_file(place.pins.join("POOLS"))?)
        }),
    ];
    for (what, damage) in damages {
        director.kill()?;
        damage().context(what)?;
        get(bed.client(), web, "/").with_context(|| format!("{what}, no daemon"))?;
        director.restart()?;
        ensure!(director.ipvsadm("-Sn")? == rules, "{what}: another table");
        get(bed.client(), web, "/").context(what)?;
        let mode = fs::metadata(place.memory())?.permissions().mode();
        ensure!(mode & 0o777 == 0o600, "{what}: journal has mode {mode:o}");
    }
    Ok(())
}

#[test]
fn what_nobody_remembers_goes_on_forwarding_until_it_is_added_or_flushed() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let bed = Topology::builder().servers(1).offloads().build()?;
    let _members = Method::Masquerade.prepare(&bed)?;
    let _http = web_servers(&bed)?;
    let mut director = Director::start(bed.director())?;
    let web = add_web(&bed, &director, Family::V4, Method::Masquerade, 1)?;
    get(bed.client(), web, "/")?;
    let place = director.place()?;
    director.kill()?;
    fs::remove_file(place.memory())?;
    fs::remove_file(place.duplicate())?;
    // Twice: the next daemon must not take for a leftover what this one keeps.
    for _ in 0..2 {
        director.restart()?;
        get(bed.client(), web, "/")?;
        let status = director.shunt("status")?;
        ensure!(
            status.contains("records of the table were lost"),
            "{status}"
        );
        director.kill()?;
    }
    director.restart()?;
    director.ipvsadm("-C")?;
    until("nothing to forward", LIMIT, || {
        Ok(get(bed.client(), web, "/").is_err())
    })?;
    add_web(&bed, &director, Family::V4, Method::Masquerade, 1)?;
    get(bed.client(), web, "/")?;
    Ok(())
}

#[test]
fn a_full_disk_refuses_changes_and_names_the_file() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let bed = Topology::builder().servers(1).build()?;
    let host = bed.director();
    let runtime = host.run(|| Ok(Place::make()?))?.runtime;
    let mounted = |arguments: &[&str]| -> Result<()> {
        let status = std::process::Command::new(arguments[0])
            .args(&arguments[1..])
            .status()?;
        ensure!(status.success(), "{arguments:?}: {status}");
        Ok(())
    };
    let path = runtime.to_string_lossy().into_owned();
    mounted(&["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", &path])?;
    let tried = full_disk(host);
    mounted(&["umount", "-l", &path])?;
    tried
}

fn full_disk(host: &Host) -> Result<()> {
    let mut director = Director::start(host)?;
    let mut refused = None;
    for port in 1..=250 {
        let answer = director.ask("ipvsadm", &format!("-A -t 192.0.2.1:{port} -s rr"))?;
        if !answer.status.success() {
            refused = Some(String::from_utf8_lossy(&answer.stderr).into_owned());
            break;
        }
    }
    let refused = refused.context("250 services fit into 64 kB")?;
    ensure!(
        refused.contains("ENOSPC") && refused.contains("make room"),
        "{refused}"
    );
    let rules = director.ipvsadm("-Sn")?;
    director.kill()?;
    director.restart()?;
    ensure!(
        director.ipvsadm("-Sn")? == rules,
        "what was refused is there, or more is lost"
    );
    Ok(())
}

#[test]
fn a_second_daemon_with_notes_of_its_own_is_refused() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let bed = Topology::builder().servers(1).build()?;
    let director = Director::start(bed.director())?;
    let mut command = called(bed.director(), "shuntd", &["--flows", "65536"]);
    // SAFETY: system calls alone, with what needs no memory.
    unsafe {
        command.pre_exec(|| Ok(with_own_run()?));
    }
    let log = std::env::temp_dir().join(format!("shuntd-second-{}.log", std::process::id()));
    command.stdout(Stdio::null()).stderr(File::create(&log)?);
    let mut second = Process::start(command)?;
    let ended = until("the second daemon to end", LIMIT, || {
        Ok(!second.is_running()?)
    });
    let said = fs::read_to_string(&log)?;
    fs::remove_file(&log)?;
    ended.with_context(|| said.clone())?;
    ensure!(
        said.contains("running in this network namespace already"),
        "{said}"
    );
    director.ipvsadm("-Ln")?;
    Ok(())
}

/// A mount namespace with the same pins and another /run/shunt.
fn with_own_run() -> nix::Result<()> {
    let nothing: Option<&str> = None;
    unshare(CloneFlags::CLONE_NEWNS)?;
    let all = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    mount(nothing, "/", nothing, all, nothing)?;
    mount(
        Some("tmpfs"),
        "/run/shunt",
        Some("tmpfs"),
        MsFlags::empty(),
        nothing,
    )
}

/// A daemon of another layout finds the pins of this one in another folder.
#[test]
fn another_layout_keeps_services_connections_and_counters() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let bed = Topology::builder().servers(1).offloads().build()?;
    let _members = Method::Masquerade.prepare(&bed)?;
    let _http = web_servers(&bed)?;
    let mut director = Director::start(bed.director())?;
    let web = add_web(&bed, &director, Family::V4, Method::Masquerade, 1)?;
    let load = HttpLoad::to(web).workers(4).start(bed.client())?;
    load.wait_for("requests", LIMIT, |now| now.ok > 50)?;
    let rules = director.ipvsadm("-Sn")?;
    let place = director.place()?;
    for round in 0..3 {
        director.kill()?;
        let other = place.pins.with_file_name("v1");
        fs::rename(&place.pins, &other)?;
        let notes = place.runtime.join("path.json");
        let text = fs::read_to_string(&notes)?;
        let layout = format!("\"layout\":{LAYOUT}");
        ensure!(text.contains(&layout), "{text}");
        fs::write(&notes, text.replace(&layout, "\"layout\":1"))?;
        director.restart()?;
        ensure!(
            director.ipvsadm("-Sn")? == rules,
            "round {round}: another table"
        );
        until("the folder before to go", LIMIT, || Ok(!other.exists()))?;
        let before = load.so_far().ok;
        load.wait_for("more requests", LIMIT, |now| now.ok > before + 50)?;
    }
    let load = load.stop()?;
    flawless(&load)?;
    ensure!(
        load.connections == 4,
        "{} connections for 4 workers",
        load.connections
    );
    Ok(())
}

/// The connections in the totals of the first service.
fn total(director: &Director) -> Result<u64> {
    let text = director.shunt("service list --json")?;
    let services: serde_json::Value = serde_json::from_str(&text)?;
    services[0]["counters"]["connections"]
        .as_u64()
        .context(text)
}

#[test]
fn another_layout_of_connections_keeps_services_and_totals() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let bed = Topology::builder().servers(1).offloads().build()?;
    let _members = Method::Masquerade.prepare(&bed)?;
    let _http = web_servers(&bed)?;
    let mut director = Director::start(bed.director())?;
    let web = add_web(&bed, &director, Family::V4, Method::Masquerade, 1)?;
    for _ in 0..8 {
        get(bed.client(), web, "/")?;
    }
    let (rules, before) = (director.ipvsadm("-Sn")?, total(&director)?);
    ensure!(before >= 8, "{before}");
    let place = director.place()?;
    director.kill()?;
    let other = place.pins.with_file_name("v1");
    fs::rename(&place.pins, &other)?;
    let notes = place.runtime.join("path.json");
    let mut made: serde_json::Value = serde_json::from_str(&fs::read_to_string(&notes)?)?;
    for version in ["layout", "connections"] {
        ensure!(made[version].is_u64(), "{made}");
        made[version] = 1.into();
    }
    fs::write(&notes, made.to_string())?;
    director.restart()?;
    until("the folder before to go", LIMIT, || Ok(!other.exists()))?;
    ensure!(director.ipvsadm("-Sn")? == rules, "another table");
    ensure!(total(&director)? == before, "the totals are not kept");
    let entries = director.ipvsadm("-Lnc")?;
    ensure!(!entries.contains("TCP"), "{entries}");
    for _ in 0..4 {
        get(bed.client(), web, "/")?;
    }
    ensure!(total(&director)? == before + 4, "not counted on");
    Ok(())
}

#[test]
fn totals_of_deleted_servers_outlive_the_daemon() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let bed = Topology::builder().servers(2).offloads().build()?;
    let _members = Method::Masquerade.prepare(&bed)?;
    let _http = web_servers(&bed)?;
    let mut director = Director::start(bed.director())?;
    let web = add_web(&bed, &director, Family::V4, Method::Masquerade, 2)?;
    for _ in 0..8 {
        get(bed.client(), web, "/")?;
    }
    let before = total(&director)?;
    ensure!(before >= 8, "{before}");
    let server = director.ipvsadm("-Sn")?;
    let server = server
        .split_whitespace()
        .skip_while(|word| *word != "-r")
        .nth(1);
    let server = server.context("no server")?;
    director.ipvsadm(&format!("-d -t {web} -r {server}"))?;
    ensure!(total(&director)? == before, "not counted on");
    director.kill()?;
    director.restart()?;
    ensure!(total(&director)? == before, "not kept");
    Ok(())
}

const NOBODY: u32 = 65_534;
const CAPABILITIES: &str = "+bpf,+net_admin,+perfmon,+net_raw";

/// As its unit starts it: a user of its own, and a BPF file system that this user may write.
#[test]
fn four_capabilities_are_enough_without_being_root() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let host = Host::new("director")?;
    let folder = std::env::temp_dir().join(format!("shunt-nobody-{}", std::process::id()));
    fs::create_dir_all(&folder)?;
    let program = folder.join("shuntd");
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_shunt"), &program)?;
    let log = folder.join("log");
    let mut command = host.command("setpriv");
    command
        .args(["--reuid", "65534", "--regid", "65534", "--clear-groups"])
        .args(["--inh-caps", CAPABILITIES, "--ambient-caps", CAPABILITIES])
        .args(["--bounding-set", &format!("-all,{CAPABILITIES}")])
        .arg(&program)
        .args(["--flows", "65536", "--stop", "remove"])
        .stdout(Stdio::null())
        .stderr(File::create(&log)?);
    // SAFETY: system calls alone, with what needs no memory.
    unsafe {
        command.pre_exec(|| Ok(with_place_of_nobody()?));
    }
    let mut process = Process::start(command)?;
    let ready = until("shuntd to be ready", LIMIT, || {
        ensure!(process.is_running()?, "it ended");
        let said = fs::read_to_string(&log)?;
        Ok(said.lines().any(|line| line.ends_with(" ready")))
    });
    let said = fs::read_to_string(&log)?;
    ready.with_context(|| said.clone())?;
    ensure!(!said.contains("ERROR"), "{said}");
    let status = process.stop(LIMIT)?;
    ensure!(status.success(), "{status}: {}", fs::read_to_string(&log)?);
    fs::remove_dir_all(&folder)?;
    Ok(())
}

/// A mount namespace whose /run/shunt, and a BPF file system in it, belong to nobody.
fn with_place_of_nobody() -> nix::Result<()> {
    let nothing: Option<&str> = None;
    unshare(CloneFlags::CLONE_NEWNS)?;
    let all = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    mount(nothing, "/", nothing, all, nothing)?;
    mount(
        Some("tmpfs"),
        "/run/shunt",
        Some("tmpfs"),
        MsFlags::empty(),
        Some("uid=65534,gid=65534,mode=0750"),
    )?;
    let bpf = "/run/shunt/bpf";
    nix::unistd::mkdir(bpf, nix::sys::stat::Mode::S_IRWXU)?;
    mount(
        Some("bpf"),
        bpf,
        Some("bpf"),
        MsFlags::empty(),
        Some("mode=0700"),
    )?;
    nix::unistd::chown(bpf, Some(NOBODY.into()), Some(NOBODY.into()))
}
