//! A director's tunnels end at a real server without a tunnel device, and its stack answers from
//! the virtual address.

mod bed;

use anyhow::{Context, Result};
use bed::{Bed, LIMIT, VIRTUAL4, VIRTUAL6, options, service};
use shunt_agent::{Hook, Options};
use shunt_lab::{HttpServer, PacketSocket, UdpEcho, get, skipped, transfer_down, transfer_up};
use shunt_lab::{udp_ask, verify_checksums};

const LARGE: u64 = 16 * 1024 * 1024;

#[test]
fn all_four_forms_end_at_the_server_by_every_hook() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let bed = Bed::new()?;
    let http = HttpServer::start(&bed.server, 80)?;
    let udp = UdpEcho::start(&bed.server, 53)?;
    for hook in [Hook::Tc, Hook::Generic, Hook::Native] {
        let joined = bed.join(&Options { hook, ..options() })?;
        assert!(joined.report.is_ready(), "{}", joined.report);
        for outer_v6 in [false, true] {
            let _tunnel = bed.tunnel(outer_v6)?;
            for address in [VIRTUAL4, VIRTUAL6] {
                let case = || format!("{hook}, outer IPv6: {outer_v6}, to {address}");
                let answer = get(&bed.client, service(address, 80), "/").with_context(case)?;
                assert_eq!(answer.status, 200, "{}", case());
                let to = service(address, 53);
                let said = udp_ask(&bed.client, to, 1000, LIMIT).with_context(case)?;
                assert!(said.starts_with("server"), "{}: {said}", case());
            }
        }
    }
    assert!(http.requests() >= 12 && udp.datagrams() >= 12);
    Ok(())
}

#[test]
fn large_uploads_pass_since_clients_are_told_what_fits() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let bed = Bed::new()?;
    let _http = HttpServer::start(&bed.server, 80)?;
    for hook in [Hook::Tc, Hook::Generic, Hook::Native] {
        let _joined = bed.join(&Options { hook, ..options() })?;
        for outer_v6 in [false, true] {
            let _tunnel = bed.tunnel(outer_v6)?;
            for address in [VIRTUAL4, VIRTUAL6] {
                let up = transfer_up(&bed.client, service(address, 80), LARGE)?;
                let down = transfer_down(&bed.client, service(address, 80), LARGE)?;
                println!(
                    "{hook}, outer IPv6 {outer_v6}, {address}: {LARGE} bytes up {:.2} Gbit/s, \
                     down {:.2} Gbit/s",
                    up.bits_per_second() / 1e9,
                    down.bits_per_second() / 1e9
                );
            }
        }
    }
    Ok(())
}

#[test]
fn a_syn_ack_from_a_virtual_address_announces_a_segment_that_fits() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let bed = Bed::new()?;
    let _http = HttpServer::start(&bed.server, 80)?;
    let _tunnel = bed.tunnel(false)?;
    let directors = vec![bed::DIRECTOR4.parse()?];
    for (options, overhead) in [
        (options(), 40),
        (
            Options {
                directors,
                ..options()
            },
            20,
        ),
    ] {
        let _joined = bed.join(&options)?;
        for (address, headers) in [(VIRTUAL4, 20 + 20), (VIRTUAL6, 40 + 20)] {
            let mut wire = PacketSocket::open(&bed.client, "eth0")?;
            get(&bed.client, service(address, 80), "/")?;
            let syn_ack = wire
                .receive(LIMIT, |seen| {
                    !seen.outgoing && announced(&seen.frame).is_some()
                })?
                .context("no SYN-ACK arrived")?;
            assert_eq!(announced(&syn_ack.frame), Some(1500 - overhead - headers));
            verify_checksums(&syn_ack.frame)?;
        }
    }
    Ok(())
}

#[test]
fn a_stranger_is_not_believed_when_directors_are_named() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let bed = Bed::new()?;
    let udp = UdpEcho::start(&bed.server, 53)?;
    let _tunnel = bed.tunnel(false)?;
    let directors = vec!["10.1.0.99".parse()?];
    let _joined = bed.join(&Options {
        directors,
        ..options()
    })?;

    let limit = std::time::Duration::from_millis(300);
    assert!(udp_ask(&bed.client, service(VIRTUAL4, 53), 100, limit).is_err());

    assert_eq!(udp.datagrams(), 0);
    let report = bed.server.run(|| shunt_agent::check(&Options::default()))?;
    assert!(report.counters["not_from_director"] >= 1, "{report}");
    Ok(())
}

/// The segment size that a SYN-ACK announces.
fn announced(frame: &[u8]) -> Option<u16> {
    let l4 = match frame.get(12..14)? {
        [0x08, 0x00] if frame.get(23) == Some(&6) => 34,
        [0x86, 0xdd] if frame.get(20) == Some(&6) => 54,
        _ => return None,
    };
    // Linux puts the segment size first among the options.
    let is_syn_ack = frame.get(l4 + 13)? & 0x12 == 0x12 && frame.get(l4 + 20..l4 + 22)? == [2, 4];
    is_syn_ack.then(|| u16::from_be_bytes([frame[l4 + 22], frame[l4 + 23]]))
}
