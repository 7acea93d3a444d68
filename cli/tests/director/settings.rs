//! Settings at work: what becomes of connections whose server is gone, what opens a connection, and
//! what is done against floods.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use shunt_lab::{Family, Host, Topology, UdpEcho, skipped, until};

use crate::bed::{Held, LIMIT, Method, add_web, at, web_servers};
use crate::director::Director;

/// A UDP client with one port for ever.
struct Phone(UdpSocket);

impl Phone {
    fn new(client: &Host, family: Family, to: SocketAddr) -> Result<Self> {
        let any = match family {
            Family::V4 => "0.0.0.0:0",
            Family::V6 => "[::]:0",
        };
        client.run(|| {
            let socket = UdpSocket::bind(any)?;
            socket.connect(to)?;
            socket.set_read_timeout(Some(Duration::from_secs(2)))?;
            Ok(Phone(socket))
        })
    }

    /// The server that answers one datagram.
    fn ask(&self) -> std::io::Result<String> {
        self.0.send(b"hello")?;
        let mut answer = [0; 64];
        let length = self.0.recv(&mut answer)?;
        let text = String::from_utf8_lossy(&answer[..length]).into_owned();
        Ok(text.split(' ').next().unwrap_or_default().to_owned())
    }
}

/// A UDP service with an echo on each of two servers.
fn add_dns(
    bed: &Topology,
    director: &Director,
    family: Family,
    method: Method,
) -> Result<SocketAddr> {
    let dns = bed.service(family, 1, 53);
    director.ipvsadm(&format!("-A -u {dns} -s rr"))?;
    for index in 0..2 {
        let server = at(bed.server_address(family, index), 53);
        director.ipvsadm(&format!("-a -u {dns} -r {server} {}", method.option()))?;
    }
    Ok(dns)
}

fn delete(
    bed: &Topology,
    director: &Director,
    family: Family,
    option: &str,
    service: SocketAddr,
    name: &str,
) -> Result<String> {
    let index = usize::from(name.as_bytes()[6] - b'1');
    let server = at(bed.server_address(family, index), service.port());
    director.ipvsadm(&format!("-d {option} {service} -r {server}"))?;
    Ok(server)
}

/// Pain of kernel IPVS: a client with one port sends to a dead server for ever.
#[test]
fn udp_leaves_dead_server() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    for method in [Method::Masquerade, Method::Route] {
        let bed = Topology::builder().servers(2).offloads().build()?;
        let _members = method.prepare(&bed)?;
        let echo = |server| UdpEcho::start(server, 53);
        let _udp: Vec<UdpEcho> = bed.servers.iter().map(echo).collect::<Result<_>>()?;
        let mut director = Director::start(bed.director())?;
        for family in Family::BOTH {
            let case = format!("{method:?} {family:?}");
            let dns = add_dns(&bed, &director, family, method)?;
            let phone = Phone::new(bed.client(), family, dns)?;
            let first = phone.ask()?;
            ensure!(phone.ask()? == first, "{case}: one flow, two servers");

            let server = delete(&bed, &director, family, "-u", dns, &first)?;

            let other = phone.ask().with_context(|| format!("{case}: still dead"))?;
            ensure!(other != first, "{case}: {first} is deleted and answers");

            // As kernel IPVS: nobody answers, and what comes back goes on.
            director.shunt("setting set expire_nodest_conn 0")?;
            director.ipvsadm(&format!("-a -u {dns} -r {server} {}", method.option()))?;
            let server = delete(&bed, &director, family, "-u", dns, &other)?;
            let silent = phone.ask().err().map(|error| error.kind());
            ensure!(silent == Some(ErrorKind::WouldBlock), "{case}: {silent:?}");
            director.kill()?;
            director.restart()?;
            let silent = phone.ask().err().map(|error| error.kind());
            ensure!(silent == Some(ErrorKind::WouldBlock), "{case}: {silent:?}");
            director.ipvsadm(&format!("-a -u {dns} -r {server} {}", method.option()))?;
            ensure!(phone.ask()? == other, "{case}: it came back to another");

            // Told once, and then with the other one.
            director.shunt(&format!("service edit udp/{dns} --on-down reset"))?;
            delete(&bed, &director, family, "-u", dns, &other)?;
            let told = phone.ask().err().map(|error| error.kind());
            ensure!(
                told == Some(ErrorKind::ConnectionRefused),
                "{case}: {told:?}"
            );
            ensure!(phone.ask()? == first, "{case}: not rescheduled");

            director.ipvsadm(&format!("-D -u {dns}"))?;
            director.shunt("setting set on_down by_protocol")?;
        }
    }
    Ok(())
}

/// Both ends of a connection hear a reset when their server is deleted; others hear nothing.
#[test]
fn a_reset_tells_clients_of_a_deleted_server() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    for (method, hook) in [
        (Method::Masquerade, "tc"),
        (Method::Route, "tc"),
        (Method::Masquerade, "xdp-generic"),
        (Method::Route, "xdp-native"),
    ] {
        let bed = Topology::builder().servers(2);
        let bed = if hook == "tc" { bed.offloads() } else { bed };
        let bed = bed.build()?;
        let _members = method.prepare(&bed)?;
        let _http = web_servers(&bed)?;
        let director = Director::start_with(bed.director(), &["--attach", hook])?;
        for family in Family::BOTH {
            let case = format!("{method:?} {family:?} by {hook}");
            let web = add_web(&bed, &director, family, method, 2)?;
            director.shunt(&format!("service edit tcp/{web} --on-down reset"))?;
            let mut held = Held::open_all(bed.client(), web, 4)?;
            let gone = held[0].1.clone();

            delete(&bed, &director, family, "-t", web, &gone)?;

            for (held, server) in &mut held {
                let answer = held.ask();
                if *server != gone {
                    ensure!(answer? == *server, "{case}: moved");
                    continue;
                }
                let error = answer.err().with_context(|| format!("{case}: answered"))?;
                let error = error
                    .downcast_ref::<std::io::Error>()
                    .map(|error| error.kind());
                ensure!(
                    matches!(
                        error,
                        Some(ErrorKind::ConnectionReset | ErrorKind::BrokenPipe)
                    ),
                    "{case}: {error:?}"
                );
            }
            let (_, again) = &Held::open_all(bed.client(), web, 1)?[0];
            ensure!(*again != gone, "{case}: a deleted server got a connection");
            director.ipvsadm(&format!("-D -t {web}"))?;
        }
        let stats = director.shunt("stats")?;
        ensure!(stats.contains("answered-reset"), "{stats}");
    }
    Ok(())
}

/// A masqueraded server that was deleted and goes on speaking hears a reset too.
#[test]
fn a_reset_tells_a_masqueraded_server_that_it_is_deleted() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let bed = Topology::builder().servers(1).offloads().build()?;
    let _members = Method::Masquerade.prepare(&bed)?;
    let director = Director::start(bed.director())?;
    for family in Family::BOTH {
        let server = &bed.servers[0];
        let own = SocketAddr::new(bed.server_address(family, 0), 80);
        let listener = server.run(|| Ok(std::net::TcpListener::bind(own)?))?;
        let web = add_web(&bed, &director, family, Method::Masquerade, 1)?;
        director.shunt("setting set on_down reset")?;
        let mut client = bed.client().run(|| Ok(TcpStream::connect(web)?))?;
        let (mut accepted, _) = listener.accept()?;
        client.write_all(b"x")?;
        let mut byte = [0];
        accepted.read_exact(&mut byte)?;

        delete(&bed, &director, family, "-t", web, "server1")?;

        accepted.set_read_timeout(Some(LIMIT))?;
        accepted.write_all(b"are you there?")?;
        let heard = accepted.read(&mut byte).err().map(|error| error.kind());
        ensure!(
            heard == Some(ErrorKind::ConnectionReset),
            "{family:?}: {heard:?}"
        );
        director.ipvsadm(&format!("-D -t {web}"))?;
    }
    Ok(())
}

/// `expire_quiescent_template`, and settings that outlive the daemon.
#[test]
fn persistent_clients_leave_a_quiesced_server_if_they_shall() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let bed = Topology::builder().servers(2).offloads().build()?;
    let _members = Method::Route.prepare(&bed)?;
    let _http = web_servers(&bed)?;
    let mut director = Director::start(bed.director())?;
    for family in Family::BOTH {
        let web = add_web(&bed, &director, family, Method::Route, 2)?;
        director.ipvsadm(&format!("-E -t {web} -s rr -p 100"))?;
        let (mut held, first) = Held::open_all(bed.client(), web, 1)?.remove(0);
        let index = usize::from(first.as_bytes()[6] - b'1');
        let server = at(bed.server_address(family, index), 80);
        director.shunt(&format!("server drain tcp/{web} {server}"))?;
        let (_, stays) = &Held::open_all(bed.client(), web, 1)?[0];
        ensure!(*stays == first, "{family:?}: left a quiesced server");

        director.shunt("setting set expire_quiescent_template 1")?;
        director.kill()?;
        director.restart()?;

        let (_, leaves) = &Held::open_all(bed.client(), web, 1)?[0];
        ensure!(
            *leaves != first,
            "{family:?}: stayed with a quiesced server"
        );
        ensure!(held.ask()? == first, "{family:?}: a connection moved");
        director.shunt("setting set expire_quiescent_template 0")?;
    }
    Ok(())
}

/// `drop_packet 3` with `am_droprate 1` lets nobody in; who is in goes on; `drop_entry 3` takes
/// half-open connections out, and no established one.
#[test]
fn defences_take_nothing_from_who_is_established() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let bed = Topology::builder().servers(2).offloads().build()?;
    let _members = Method::Route.prepare(&bed)?;
    let _http = web_servers(&bed)?;
    let director = Director::start(bed.director())?;
    let web = add_web(&bed, &director, Family::V4, Method::Route, 2)?;
    let mut held = Held::open_all(bed.client(), web, 3)?;
    director.shunt("setting set am_droprate 1")?;
    director.shunt("setting set drop_packet 3")?;
    let refused = bed
        .client()
        .run(|| Ok(TcpStream::connect_timeout(&web, Duration::from_millis(300)).is_err()))?;
    ensure!(refused, "somebody came in");
    director.shunt("setting set drop_packet 0")?;

    // A server without the virtual address hears nothing: its connections stay half-open.
    bed.director_holds(0, "lo", 2)?;
    let deaf = bed.service(Family::V4, 2, 80);
    director.ipvsadm(&format!("-A -t {deaf} -s rr"))?;
    let server = at(bed.server_address(Family::V4, 0), 80);
    director.ipvsadm(&format!("-a -t {deaf} -r {server} -g"))?;
    bed.client().run(|| {
        for _ in 0..400 {
            let _ = TcpStream::connect_timeout(&deaf, Duration::from_millis(1));
        }
        Ok(())
    })?;
    let half_open = || -> Result<u64> {
        let count: Value = serde_json::from_str(&director.shunt("connection count --json")?)?;
        Ok(count["by_state"]["SYN_RECV"].as_u64().unwrap_or(0))
    };
    let before = half_open()?;
    ensure!(before >= 390, "{before} half-open");
    director.shunt("setting set drop_entry 3")?;
    until("drop_entry to take some out", LIMIT, || {
        Ok(half_open()? < before)
    })?;

    let status: Value = serde_json::from_str(&director.shunt("status --json")?)?;
    ensure!(status["defences"] == json!(["drop_entry"]), "{status}");
    ensure!(status["dropped_entries"].as_u64() > Some(0), "{status}");
    for (held, server) in &mut held {
        ensure!(held.ask()? == *server, "an established connection was lost");
    }
    Ok(())
}
