//! Hosts and cables: the kernel does what the lab asks for.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::Result;
use shunt_lab::{
    Host, Offload, PacketSocket, Process, Route, skipped, until, verify_checksums, veth,
};

const LIMIT: Duration = Duration::from_secs(5);

#[test]
fn hosts_are_separate_and_their_settings_are_their_own() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let (a, b) = (Host::new("a")?, Host::new("b")?);
    a.sysctl("net.ipv4.ip_forward", "1")?;
    assert_eq!(a.read_sysctl("net.ipv4.ip_forward")?, "1");
    assert_eq!(b.read_sysctl("net.ipv4.ip_forward")?, "0");
    assert_ne!(a.inode(), b.inode());
    let inside = a.run(|| Ok(std::fs::read_link("/proc/thread-self/ns/net")?))?;
    assert_eq!(inside.to_string_lossy(), format!("net:[{}]", a.inode()));
    assert_eq!(std::fs::read_link(a.path())?, inside);
    assert!(a.sysctl("kernel.panic", "0").is_err());
    Ok(())
}

#[test]
fn a_program_runs_in_its_host_and_ends_with_its_guard() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let host = Host::new("a")?;
    let mut command = host.command("readlink");
    let output = command.arg("/proc/self/ns/net").output()?;
    let said = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    assert_eq!(said, format!("net:[{}]", host.inode()));

    let mut command = host.command("sleep");
    command.arg("60");
    let process = Process::start(command)?;
    let id = process.id();
    drop(process);
    until("the program to be gone", LIMIT, || {
        Ok(!std::path::Path::new(&format!("/proc/{id}")).exists())
    })
}

#[test]
fn nothing_remains_of_a_lab_that_is_killed() -> Result<()> {
    const INSIDE: &str = "SHUNT_LAB_INSIDE";
    if skipped() {
        return Ok(());
    }
    if std::env::var_os(INSIDE).is_some() {
        return live_until_killed();
    }
    let mut lab = Command::new(std::env::current_exe()?);
    lab.args([
        "--exact",
        "nothing_remains_of_a_lab_that_is_killed",
        "--nocapture",
    ]);
    lab.env(INSIDE, "1")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped());
    let mut lab = Process::start(lab)?;
    let said = lab.child().stdout.take().expect("asked for");
    let program = BufReader::new(said)
        .lines()
        .find_map(|line| Some(line.ok()?.split_once("program ")?.1.to_owned()))
        .expect("the lab says what it started");
    let path = format!("/proc/{program}/ns/net");
    assert_ne!(
        std::fs::read_link(&path)?,
        std::fs::read_link("/proc/self/ns/net")?
    );
    lab.kill()?;
    until("the program to be gone", LIMIT, || {
        Ok(std::fs::read_link(&path).is_err())
    })
}

fn live_until_killed() -> Result<()> {
    let host = Host::new("a")?;
    let mut command = host.command("sleep");
    command.arg("60");
    let program = Process::start(command)?;
    println!("program {}", program.id());
    std::io::stdin().read_line(&mut String::new())?;
    Ok(())
}

#[test]
fn devices_addresses_and_routes_are_as_asked() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let (a, b) = (Host::new("a")?, Host::new("b")?);
    veth(&a, "left", &b, "right")?;
    a.set_mac("left", [2, 0, 0, 0, 0, 1])?;
    a.set_mtu("left", 1400)?;
    a.down("left")?;
    a.rename("left", "west")?;
    a.up("west")?;
    let west = a.link("west")?;
    assert_eq!(
        (west.mac, west.mtu, west.up),
        ([2, 0, 0, 0, 0, 1], 1400, true)
    );
    a.address("west", "10.1.0.1/24")?;
    a.address("west", "2001:db8:1::1/64")?;
    let all: Vec<String> = a
        .addresses("west")?
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(all, ["10.1.0.1/24", "2001:db8:1::1/64"]);
    for to in ["192.0.2.0/24", "0.0.0.0/0"] {
        a.route(&Route::to(to).via("10.1.0.2".parse()?).mtu(1300))?;
    }
    a.route(&Route::to("2001:db8:2::/64").device("west"))?;
    a.route(&Route::default_via("2001:db8:1::2".parse()?))?;
    a.route(
        &Route::default_via("fe80::1".parse()?)
            .device("west")
            .on_link(),
    )?;
    a.remove_address("west", "10.1.0.1/24")?;
    assert_eq!(a.addresses("west")?.len(), 1);
    a.delete("west")?;
    assert_eq!(b.links()?.len(), 1, "the other end goes with its pair");
    let error = format!("{:#}", a.up("west").unwrap_err());
    assert!(error.contains("host a: cannot find device west"), "{error}");
    Ok(())
}

#[test]
fn an_offload_can_be_switched_and_a_wire_has_what_xdp_needs() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let (a, b) = (Host::new("a")?, Host::new("b")?);
    veth(&a, "left", &b, "right")?;
    assert!(a.has_offload("left", Offload::Tso)?);
    a.offload("left", Offload::Tso, false)?;
    assert!(!a.has_offload("left", Offload::Tso)?);
    assert!(b.has_offload("right", Offload::TxChecksum)?);
    b.wire("right")?;
    assert!(!b.has_offload("right", Offload::TxChecksum)?);
    assert!(!b.has_offload("right", Offload::Gso)?);
    assert!(b.has_offload("right", Offload::Gro)?);
    Ok(())
}

#[test]
fn a_packet_socket_sends_as_crafted_and_hears_what_passes() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let (a, b) = (Host::new("a")?, Host::new("b")?);
    veth(&a, "left", &b, "right")?;
    a.wire("left")?;
    let sender = PacketSocket::open(&a, "left")?;
    let mut receiver = PacketSocket::open(&b, "right")?;
    let mut frame = vec![2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 0x88, 0xb5];
    frame.extend(b"as crafted, with a trailer to fill the frame up to sixty");
    sender.send(&frame)?;
    let heard = receiver.receive(LIMIT, |captured| captured.frame == frame)?;
    assert!(heard.is_some_and(|captured| !captured.outgoing));

    // The socket also receives what the kernel itself sends, with complete checksums.
    a.address("left", "10.1.0.1/24")?;
    a.neighbour("left", "10.1.0.2".parse()?, b.link("right")?.mac)?;
    a.run(|| {
        std::net::UdpSocket::bind("10.1.0.1:0")?.send_to(b"hello", "10.1.0.2:9")?;
        Ok(())
    })?;
    let heard = receiver.receive(LIMIT, |captured| captured.frame.ends_with(b"hello"))?;
    verify_checksums(&heard.expect("the datagram").frame)?;
    let none = receiver.receive(Duration::from_millis(5), |c| c.frame.ends_with(b"hello"))?;
    assert_eq!(none, None);
    Ok(())
}
