//! Calls of SIP: datagrams of one Call-ID reach one server, from whatever port and client.

use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use shunt_lab::{Family, Host, Topology, UdpEcho, skipped, until};

use crate::bed::{LIMIT, Method, at};
use crate::director::Director;

const SIP: u16 = 5060;
/// How long nobody answers what is dropped.
const SILENCE: Duration = Duration::from_millis(300);

/// A phone: a client's socket of its own.
struct Phone(UdpSocket);

impl Phone {
    fn new(client: &Host, family: Family, port: u16) -> Result<Phone> {
        let any = if family == Family::V4 {
            "0.0.0.0"
        } else {
            "::"
        };
        let socket = client.run(|| Ok(UdpSocket::bind((any, port))?))?;
        socket.set_read_timeout(Some(LIMIT))?;
        Ok(Phone(socket))
    }

    fn send(&self, to: SocketAddr, call: &str) -> Result<()> {
        let text =
            format!("INVITE sip:bob@example.com SIP/2.0\r\nVia: x\r\nCall-ID: {call}\r\n\r\n");
        self.0.send_to(text.as_bytes(), to).context("send")?;
        Ok(())
    }

    /// The next datagram, and where it comes from.
    fn hear(&self) -> Result<(String, SocketAddr)> {
        let mut bytes = [0; 2048];
        let (length, from) = self.0.recv_from(&mut bytes).context("an answer")?;
        let from = SocketAddr::new(from.ip().to_canonical(), from.port());
        Ok((String::from_utf8_lossy(&bytes[..length]).into_owned(), from))
    }

    /// The server that answers a datagram of this call, from the virtual address.
    fn call(&self, to: SocketAddr, call: &str) -> Result<String> {
        self.send(to, call)?;
        let (text, from) = self.hear()?;
        ensure!(from == to, "answered from {from}, not from {to}");
        let (server, _) = text.split_once(' ').context("no name")?;
        Ok(server.to_owned())
    }
}

/// Two clients and two servers that answer datagrams.
fn bed(method: Method) -> Result<(Topology, Vec<UdpEcho>)> {
    let bed = Topology::builder()
        .clients(2)
        .servers(2)
        .offloads()
        .build()?;
    let _members = method.prepare(&bed)?;
    let echo = |server| UdpEcho::start(server, SIP);
    let echoes = bed.servers.iter().map(echo).collect::<Result<_>>()?;
    Ok((bed, echoes))
}

/// Adds the service; all clients are one.
fn add_sip(
    bed: &Topology,
    director: &Director,
    family: Family,
    method: Method,
    extra: &str,
) -> Result<SocketAddr> {
    let sip = bed.service(family, 1, SIP);
    let everybody = if family == Family::V4 { "0.0.0.0" } else { "1" };
    director.ipvsadm(&format!(
        "-A -u {sip} -s rr --pe sip -M {everybody} {extra}"
    ))?;
    for index in 0..2 {
        let server = at(bed.server_address(family, index), SIP);
        director.ipvsadm(&format!("-a -u {sip} -r {server} {}", method.option()))?;
        // The answer waits for its MAC address, but not for ever, and datagrams are sent once.
        let way = format!("by {} mtu", bed.server_address(family, index));
        until("the server to be reached", LIMIT, || {
            Ok(director.shunt("server list")?.contains(&way))
        })?;
    }
    Ok(sip)
}

/// The seconds that a call has left, and its state.
fn listed(director: &Director, call: &str) -> Result<Option<(u32, String)>> {
    let listing = director.ipvsadm("-Lnc --persistent-conn")?;
    let is_it = |line: &&str| line.ends_with(&format!(" {call}"));
    let Some(line) = listing.lines().find(is_it) else {
        return Ok(None);
    };
    let words: Vec<&str> = line.split_whitespace().collect();
    ensure!(words.get(6) == Some(&"sip"), "{line}");
    let time = words.get(1).and_then(|time| time.split_once(':'));
    let (minutes, seconds) = time.with_context(|| format!("no time in {line:?}"))?;
    let left = minutes.parse::<u32>()? * 60 + seconds.parse::<u32>()?;
    Ok(Some((left, words.get(2).unwrap_or(&"").to_string())))
}

#[test]
fn a_call_has_one_server_whoever_speaks_and_the_listings_name_it() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    for method in [Method::Masquerade, Method::Route] {
        let (bed, _echoes) = bed(method)?;
        let mut director = Director::start(bed.director())?;
        for family in Family::BOTH {
            let sip = add_sip(&bed, &director, family, method, "-p 100 -o")?;
            let [alice, bob] = [0, 1].map(|client| Phone::new(&bed.clients[client], family, SIP));
            let (alice, bob) = (alice?, bob?);
            let other = Phone::new(&bed.clients[0], family, 0)?;

            let first = alice.call(sip, "one@x")?;
            ensure!(bob.call(sip, "one@x")? == first, "another client");
            ensure!(other.call(sip, "one@x")? == first, "another port");
            let second = alice.call(sip, "two@x")?;
            ensure!(second != first, "rr gave both calls {first}");
            ensure!(alice.call(sip, "one@x")? == first, "one port, two calls");

            let (left, state) = listed(&director, "one@x")?.context("no call")?;
            ensure!(
                (95..=100).contains(&left) && state == "NONE",
                "{left} {state}"
            );
            let listing = director.ipvsadm("-Ln")?;
            ensure!(listing.contains(" pe sip ops"), "{listing}");
            let shown = director.shunt("connection list")?;
            ensure!(shown.contains("  Call-ID one@x\n"), "{shown}");
            let shown = director.shunt("connection list --json")?;
            let wanted = "\"engine\":{\"name\":\"sip\",\"data\":\"two@x\"}";
            ensure!(shown.contains(wanted), "{shown}");

            // Without a Call-ID nobody hears it.
            alice.0.send_to(b"OPTIONS\r\nVia: x\r\n\r\n", sip)?;
            alice.0.set_read_timeout(Some(SILENCE))?;
            ensure!(alice.hear().is_err(), "an answer to no call");
            alice.0.set_read_timeout(Some(LIMIT))?;
            let counted = director.shunt("stats")?;
            ensure!(counted.contains("no-call-id"), "{counted}");

            director.kill()?;
            ensure!(bob.call(sip, "one@x")? == first, "after a kill");
            director.restart()?;
            ensure!(bob.call(sip, "one@x")? == first, "after a restart");
            ensure!(listed(&director, "two@x")?.is_some(), "not listed any more");
            director.ipvsadm(&format!("-D -u {sip}"))?;
        }
    }
    Ok(())
}

#[test]
fn a_call_ends_after_its_time_and_stays_while_it_has_a_connection() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let (bed, _echoes) = bed(Method::Masquerade)?;
    let director = Director::start(bed.director())?;
    let sip = add_sip(&bed, &director, Family::V4, Method::Masquerade, "-p 3 -o")?;
    let phone = Phone::new(bed.client(), Family::V4, 0)?;
    phone.call(sip, "short@x")?;
    ensure!(listed(&director, "short@x")?.is_some(), "no call");
    until("the call to end", LIMIT, || {
        Ok(listed(&director, "short@x")?.is_none())
    })?;
    until("the call to be taken out", LIMIT, || {
        Ok(!director.shunt("status")?.contains("\ncalls "))
    })?;

    director.ipvsadm(&format!("-E -u {sip} -s rr -p 10 --pe sip"))?;
    phone.call(sip, "long@x")?;
    phone.call(sip, "long@x")?;
    // ip_vs_conn_expire: a template that has connections gets another minute.
    until("the call to get another minute", LIMIT, || {
        let found = listed(&director, "long@x")?;
        Ok(found.is_some_and(|(left, state)| left > 50 && state == "ASSURED"))
    })?;
    Ok(())
}

// ip_vs_new_conn_out.
#[test]
fn a_masqueraded_server_begins_a_call_from_the_virtual_address() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    for extra in ["-p 100 -o", "-p 100"] {
        let bed = Topology::builder().servers(2).offloads().build()?;
        let _members = Method::Masquerade.prepare(&bed)?;

        let director = Director::start(bed.director())?;
        for family in Family::BOTH {
            let sip = add_sip(&bed, &director, family, Method::Masquerade, extra)?;
            let phone = Phone::new(bed.client(), family, SIP)?;
            let servers = [0, 1].map(|index| Phone::new(&bed.servers[index], family, SIP));
            let [first, second] = servers;
            let (first, second) = (first?, second?);
            let to = SocketAddr::new(bed.client_address(family, 0), SIP);

            for (call, server) in [("bye@x", &second), ("other@x", &first)] {
                server.send(to, call)?;
                let (_, from) = phone.hear()?;
                ensure!(from == sip, "{call} came from {from}");
                let reply = Phone::new(bed.client(), family, 0)?;
                reply.send(sip, call)?;
                let (_, from) = server.hear()?;
                ensure!(from.ip() == to.ip(), "{call} is answered by {from}");
            }
            director.ipvsadm(&format!("-D -u {sip}"))?;
        }
    }
    Ok(())
}
