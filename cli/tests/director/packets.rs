//! Packets that do not fit somewhere on their way.

use anyhow::{Context, Result, ensure};
use shunt_lab::{
    Family, HttpServer, Topology, UdpEcho, skipped, transfer_down, transfer_up, udp_ask, udp_burst,
};

use crate::bed::{LIMIT, Method, add_web, at, web_servers};
use crate::director::Director;

const BYTES: u64 = 5_000_000;
/// Smaller than any device's, large enough for IPv6 (RFC 8200, 5), in a tunnel too.
const SMALL: u32 = 1400;
/// With any headers it does not fit.
const LARGE: usize = 1380;
/// Bytes of a datagram, and how many are sent as one.
const AS_ONE: (u16, u8) = (1200, 8);

/// The servers learn of a small link to the client by ICMP errors that come to the virtual
/// address: the director knows whom they concern.
#[test]
fn servers_learn_of_a_small_link_to_the_client() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    for method in Method::ALL {
        let bed = Topology::builder()
            .servers(2)
            .client_mtu(SMALL)
            .offloads()
            .build()?;
        let _members = method.prepare(&bed)?;
        let _http: Vec<HttpServer> = web_servers(&bed)?;
        let director = Director::start(bed.director())?;
        for family in Family::BOTH {
            let web = add_web(&bed, &director, family, method, 2)?;
            let case = || format!("{method:?} {family:?}");
            // Once each server.
            for _ in 0..2 {
                transfer_down(bed.client(), web, BYTES).with_context(case)?;
                transfer_up(bed.client(), web, BYTES).with_context(case)?;
            }
        }
    }
    Ok(())
}

/// The client learns of a small link to the servers from the director, which cannot forward what
/// does not fit.
#[test]
fn clients_learn_of_a_small_link_to_the_servers() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    for method in Method::ALL {
        let bed = Topology::builder()
            .servers(2)
            .back_mtu(SMALL)
            .offloads()
            .build()?;
        let _members = method.prepare(&bed)?;
        let _http = web_servers(&bed)?;
        let _udp: Vec<UdpEcho> = bed
            .servers
            .iter()
            .map(|server| UdpEcho::start(server, 53))
            .collect::<Result<_>>()?;
        let director = Director::start(bed.director())?;
        for family in Family::BOTH {
            let case = || format!("{method:?} {family:?}");
            let web = add_web(&bed, &director, family, method, 2)?;
            transfer_down(bed.client(), web, BYTES).with_context(case)?;
            transfer_up(bed.client(), web, BYTES).with_context(case)?;

            let dns = bed.service(family, 1, 53);
            let server = at(bed.server_address(family, 0), 53);
            director.ipvsadm(&format!("-A -u {dns}"))?;
            director.ipvsadm(&format!("-a -u {dns} -r {server} {}", method.option()))?;
            udp_ask(bed.client(), dns, 100, LIMIT).with_context(case)?;
            // The first one is refused, and its sender told why.
            let first = udp_ask(bed.client(), dns, LARGE, LIMIT);
            ensure!(
                first.is_err(),
                "{}: {LARGE} bytes passed a link of {SMALL}",
                case()
            );
            let told = format!("{:#}", first.err().context("no error")?);
            ensure!(told.contains("too long"), "{}: {told}", case());
            udp_ask(bed.client(), dns, LARGE, LIMIT).with_context(case)?;
        }
    }
    Ok(())
}

/// What a sender leaves to a device to cut comes to the director whole, and goes on so.
#[test]
fn datagrams_that_were_sent_as_one_arrive_each() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let all = [Method::ALL.as_slice(), &[Method::Gue, Method::Gre]].concat();
    for method in all {
        let bed = Topology::builder().servers(1).offloads().build()?;
        let _members = method.prepare(&bed)?;
        let _udp = UdpEcho::start(&bed.servers[0], 53)?;
        if method == Method::Gue {
            // As a network card does. The kernel of a server that gets the whole frame takes the
            // header off, and cannot cut what was in it.
            bed.director().wire("back")?;
        }
        let director = Director::start(bed.director())?;
        for family in Family::BOTH {
            let dns = bed.service(family, 1, 53);
            let server = at(bed.server_address(family, 0), 53);
            director.ipvsadm(&format!("-A -u {dns}"))?;
            director.ipvsadm(&format!("-a -u {dns} -r {server} {}", method.option()))?;
            let case = || format!("{method:?} {family:?}");
            udp_ask(bed.client(), dns, 100, LIMIT).with_context(case)?;
            let answered = udp_burst(bed.client(), dns, AS_ONE, LIMIT).with_context(case)?;
            ensure!(
                answered == usize::from(AS_ONE.1),
                "{}: {answered} of {AS_ONE:?}: {}",
                case(),
                director.shunt("stats")?
            );
        }
    }
    Ok(())
}
