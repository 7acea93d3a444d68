//! Joining changes what is needed and nothing else; leaving restores exactly that.

mod bed;

use std::collections::BTreeMap;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bed::{Bed, LIMIT, SERVER4, VIRTUAL4, VIRTUAL6, octets, options, service};
use clap::Parser;
use shunt_agent::{Arguments, Options, State};
use shunt_lab::{
    Host, HttpServer, PacketSocket, Process, Route, UdpEcho, get, skipped, udp_ask, until, veth,
};

/// How long silence is listened to.
const SILENCE: Duration = Duration::from_millis(300);
const SETTINGS: [&str; 3] = ["arp_ignore", "arp_announce", "rp_filter"];

#[test]
fn leaving_restores_settings_addresses_and_programs() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let bed = Bed::new()?;
    bed.server.sysctl("net.ipv4.conf.all.arp_announce", "1")?;
    let before = state(&bed.server)?;

    let report = bed.server.run(|| shunt_agent::join(&options()))?;
    assert!(report.is_ready() && report.has_changes(), "{report}");
    assert_ne!(state(&bed.server)?, before);
    let report = bed.server.run(shunt_agent::leave)?;

    assert!(
        report
            .items
            .iter()
            .all(|item| item.state == State::Restored),
        "{report}"
    );
    assert_eq!(state(&bed.server)?, before);
    // A server without tunnel and agent cannot be reached, even if it has the address.
    let _udp = UdpEcho::start(&bed.server, 53)?;
    let _tunnel = bed.tunnel(false)?;
    bed.server.address("lo", VIRTUAL4)?;
    let answer = udp_ask(&bed.client, service(VIRTUAL4, 53), 100, SILENCE);
    assert!(answer.is_err(), "the tunnel is still taken off");
    Ok(())
}

#[test]
fn joining_twice_changes_nothing_the_second_time() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let bed = Bed::new()?;
    let _joined = bed.join(&options())?;
    let again = bed.server.run(|| shunt_agent::join(&options()))?;
    assert!(again.is_ready() && !again.has_changes(), "{again}");
    Ok(())
}

#[test]
fn joining_for_fewer_addresses_gives_the_others_back() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let bed = Bed::new()?;
    let _joined = bed.join(&options())?;
    let fewer = Options {
        vips: vec![VIRTUAL6.parse()?],
        tunnel: false,
        ..Options::default()
    };
    let report = bed.server.run(|| shunt_agent::join(&fewer))?;
    assert!(report.is_ready(), "{report}");
    let held: Vec<_> = bed
        .server
        .addresses("lo")?
        .iter()
        .map(ToString::to_string)
        .collect();
    assert!(held.contains(&format!("{VIRTUAL6}/128")), "{held:?}");
    assert!(!held.contains(&format!("{VIRTUAL4}/32")), "{held:?}");
    Ok(())
}

#[test]
fn what_was_there_before_stays_there_after() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let bed = Bed::new()?;
    bed.server.address("lo", VIRTUAL4)?;
    bed.server.sysctl("net.ipv4.conf.all.arp_ignore", "2")?;
    bed.server.sysctl("net.ipv4.conf.all.arp_announce", "2")?;
    let before = state(&bed.server)?;
    let set_up_by_hand = Options {
        vips: vec![VIRTUAL4.parse()?],
        ..Options::default()
    };

    let report = bed.server.run(|| shunt_agent::join(&set_up_by_hand))?;
    assert!(report.is_ready() && !report.has_changes(), "{report}");
    bed.server.run(shunt_agent::leave)?;

    assert_eq!(state(&bed.server)?, before);
    Ok(())
}

#[test]
fn a_setting_that_somebody_changed_since_is_kept() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let bed = Bed::new()?;
    bed.server.run(|| shunt_agent::join(&options()))?;
    bed.server.sysctl("net.ipv4.conf.all.arp_ignore", "8")?;
    let report = bed.server.run(shunt_agent::leave)?;
    assert!(
        report.items.iter().any(|item| item.state == State::Kept),
        "{report}"
    );
    assert_eq!(bed.server.read_sysctl("net.ipv4.conf.all.arp_ignore")?, "8");
    Ok(())
}

#[test]
fn check_names_what_is_missing_and_the_command_that_fixes_it() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let bed = Bed::new()?;
    let before = state(&bed.server)?;
    let report = bed.server.run(|| shunt_agent::check(&options()))?;
    assert!(!report.is_ready());
    let fixes: Vec<_> = report
        .items
        .iter()
        .filter_map(|item| item.fix.as_deref())
        .collect();
    for fix in [
        "sysctl -w net/ipv4/conf/all/arp_ignore=1",
        "sysctl -w net/ipv4/conf/all/arp_announce=2",
        "ip address add 192.0.2.10/32 dev lo scope host",
        "ip address add 2001:db8:2::10/128 dev lo nodad",
    ] {
        assert!(fixes.contains(&fix), "{fix} is not in {fixes:#?}");
    }
    assert_eq!(state(&bed.server)?, before);
    Ok(())
}

#[test]
fn a_virtual_address_on_a_device_that_answers_for_it_is_told() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let bed = Bed::new()?;
    bed.server.address("eth0", VIRTUAL4)?;
    let joined = bed.join(&options())?;
    let mut missing = joined
        .report
        .items
        .iter()
        .filter(|item| item.state == State::Missing);
    let fix = missing.next().and_then(|item| item.fix.clone());
    assert_eq!(fix.as_deref(), Some("ip address del 192.0.2.10 dev eth0"));
    Ok(())
}

#[test]
fn the_network_is_told_nothing_of_a_virtual_address() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let bed = Bed::new()?;
    bed.server.address("lo", VIRTUAL4)?;
    assert!(
        answers_arp(&bed, VIRTUAL4)?,
        "without the agent a server answers"
    );
    let _joined = bed.join(&options())?;
    assert!(!answers_arp(&bed, VIRTUAL4)?);
    assert!(answers_arp(&bed, SERVER4)?);
    assert!(!answers_solicitation(&bed, VIRTUAL6)?);
    assert!(answers_solicitation(&bed, bed::SERVER6)?);
    Ok(())
}

#[test]
fn a_strict_filter_is_loosened_where_the_way_back_is_another() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let bed = Bed::new()?;
    veth(&bed.server, "eth1", &bed.director, "side")?;
    bed.server.address("eth1", "10.2.0.7/24")?;
    bed.director.address("side", "10.2.0.1/24")?;
    bed.server.route(&Route::default_via("10.2.0.1".parse()?))?;
    bed.server.sysctl("net.ipv4.conf.all.rp_filter", "1")?;
    let _http = HttpServer::start(&bed.server, 80)?;
    let _tunnel = bed.tunnel(false)?;

    let _joined = bed.join(&options())?;

    assert_eq!(bed.server.read_sysctl("net.ipv4.conf.eth0.rp_filter")?, "2");
    assert_eq!(bed.server.read_sysctl("net.ipv4.conf.eth1.rp_filter")?, "0");
    assert_eq!(get(&bed.client, service(VIRTUAL4, 80), "/")?.status, 200);
    Ok(())
}

#[test]
fn a_killed_agent_serves_on_and_a_later_leave_restores() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let bed = Bed::new()?;
    let before = state(&bed.server)?;
    let _http = HttpServer::start(&bed.server, 80)?;
    let _tunnel = bed.tunnel(true)?;
    let mut agent = start(&bed.server)?;
    wait_ready(&bed)?;

    agent.kill()?;

    assert_eq!(get(&bed.client, service(VIRTUAL4, 80), "/")?.status, 200);
    bed.server.run(shunt_agent::leave)?;
    assert_eq!(state(&bed.server)?, before);
    Ok(())
}

#[test]
fn a_running_agent_sets_right_what_somebody_undid_and_leaves_at_the_end() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let bed = Bed::new()?;
    let before = state(&bed.server)?;
    let agent = start(&bed.server)?;
    wait_ready(&bed)?;

    bed.server.remove_address("lo", VIRTUAL4)?;
    bed.server.sysctl("net.ipv4.conf.all.arp_ignore", "0")?;
    bed.server.address("eth0", "10.1.0.70/24")?;

    until("the agent to set it right", LIMIT, || {
        Ok(bed
            .server
            .run(|| shunt_agent::check(&options()))?
            .is_ready())
    })?;
    let status = agent.stop(LIMIT)?;
    ensure!(status.success(), "the agent ended with {status}");
    bed.server.remove_address("eth0", "10.1.0.70/24")?;
    assert_eq!(state(&bed.server)?, before);
    Ok(())
}

/// Not a test: what runs in the processes that [`start`] starts.
#[test]
fn agent_process() -> Result<()> {
    let Ok(line) = std::env::var("SHUNT_AGENT_LINE") else {
        return Ok(());
    };
    shunt_agent::main(Arguments::parse_from(line.split(' ')))?;
    Ok(())
}

fn start(server: &Host) -> Result<Process> {
    let mut command = server.command(std::env::current_exe()?);
    command
        .args(["--exact", "agent_process", "--nocapture"])
        .env(
            "SHUNT_AGENT_LINE",
            format!("agent run {VIRTUAL4} {VIRTUAL6} --tunnel --from any"),
        )
        .stdout(Stdio::null());
    Process::start(command)
}

fn wait_ready(bed: &Bed) -> Result<()> {
    until("the agent to join", LIMIT, || {
        Ok(bed
            .server
            .run(|| shunt_agent::check(&options()))?
            .is_ready())
    })
}

/// All that the agent may change.
fn state(host: &Host) -> Result<BTreeMap<String, String>> {
    let mut all = BTreeMap::new();
    let mut devices = vec!["all".to_owned(), "default".to_owned()];
    for link in host.links()? {
        let addresses: Vec<_> = host
            .addresses(&link.name)?
            .iter()
            .map(|a| a.to_string())
            .collect();
        all.insert(link.name.clone(), addresses.join(" "));
        devices.push(link.name);
    }
    for device in devices {
        for name in SETTINGS {
            let key = format!("net.ipv4.conf.{device}.{name}");
            let value = host.read_sysctl(&key)?;
            all.insert(key, value);
        }
    }
    Ok(all)
}

fn answers_arp(bed: &Bed, address: &str) -> Result<bool> {
    asked(bed, &arp(bed, address)?, |answer| {
        is_arp_answer(answer, address)
    })
}

fn arp(bed: &Bed, address: &str) -> Result<Vec<u8>> {
    let mac = bed.director.link("back")?.mac;
    let mut frame = vec![0xff; 6];
    frame.extend(mac);
    frame.extend([0x08, 0x06, 0, 1, 8, 0, 6, 4, 0, 1]);
    frame.extend(mac);
    frame.extend(octets(bed::DIRECTOR4));
    frame.extend([0; 6]);
    frame.extend(octets(address));
    Ok(frame)
}

fn is_arp_answer(frame: &[u8], address: &str) -> bool {
    frame.get(12..14) == Some(&[0x08, 0x06])
        && frame.get(20..22) == Some(&[0, 2])
        && frame.get(28..32) == Some(&octets(address))
}

/// Sends a neighbour solicitation (RFC 4861, 4.3) and looks for the advertisement.
fn answers_solicitation(bed: &Bed, address: &str) -> Result<bool> {
    let mac = bed.director.link("back")?.mac;
    let target = octets(address);
    let mut group = octets("ff02::1:ff00:0");
    group[13..].copy_from_slice(&target[13..]);
    let mut icmp = vec![135, 0, 0, 0, 0, 0, 0, 0];
    icmp.extend(&target);
    icmp.extend([1, 1]);
    icmp.extend(mac);
    let source = octets(bed::DIRECTOR6);
    let pseudo: Vec<u8> = [&source[..], &group, &[0, 0, 0, 32, 0, 0, 0, 58], &icmp].concat();
    let mut sum: u32 = pseudo
        .chunks(2)
        .map(|w| u32::from(w[0]) << 8 | u32::from(w[1]))
        .sum();
    sum = (sum & 0xffff) + (sum >> 16);
    icmp[2..4].copy_from_slice(&(!(sum as u16)).to_be_bytes());
    let mut frame = vec![0x33, 0x33];
    frame.extend(&group[12..]);
    frame.extend(mac);
    frame.extend([0x86, 0xdd, 0x60, 0, 0, 0, 0, 32, 58, 255]);
    frame.extend(source);
    frame.extend(group);
    frame.extend(icmp);
    asked(bed, &frame, move |answer| {
        answer.get(54) == Some(&136) && answer.get(62..78) == Some(&target)
    })
}

/// Whether the server answers a question. A second question, which is always answered, shows
/// that no answer to the first will come.
fn asked(bed: &Bed, question: &[u8], is_answer: impl Fn(&[u8]) -> bool) -> Result<bool> {
    let mut wire = PacketSocket::open(&bed.director, "back")?;
    wire.send(question)?;
    wire.send(&arp(bed, SERVER4)?)?;
    let first = wire.receive(LIMIT, |seen| {
        !seen.outgoing && (is_answer(&seen.frame) || is_arp_answer(&seen.frame, SERVER4))
    })?;
    let first = first.context("the server answers nothing at all")?;
    Ok(is_answer(&first.frame))
}
