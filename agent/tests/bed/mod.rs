//! A client, a director that encapsulates each packet, and a real server, all with real stacks.
//!
//! The director reads what the client sends to virtual addresses from the client's wire and sends
//! it to the server in tunnels. Its kernel routes the answers.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Result;
use shunt_agent::{Options, Report};
use shunt_lab::{Host, Offload, PacketSocket, Route, veth};

pub(crate) const LIMIT: Duration = Duration::from_secs(5);
pub(crate) const VIRTUAL4: &str = "192.0.2.10";
pub(crate) const VIRTUAL6: &str = "2001:db8:2::10";
pub(crate) const SERVER4: &str = "10.1.0.7";
pub(crate) const SERVER6: &str = "2001:db8:1::7";
pub(crate) const DIRECTOR4: &str = "10.1.0.1";
pub(crate) const DIRECTOR6: &str = "2001:db8:1::1";
/// The client's next hop. No device has it, so that no kernel receives the packets.
const NOWHERE: [u8; 6] = [2, 0, 0, 0, 0, 0xfe];

pub(crate) struct Bed {
    pub client: Host,
    pub director: Host,
    pub server: Host,
}

impl Bed {
    pub(crate) fn new() -> Result<Bed> {
        let bed = Bed {
            client: Host::new("client")?,
            director: Host::new("director")?,
            server: Host::new("server")?,
        };
        let Bed {
            client,
            director,
            server,
        } = &bed;
        veth(client, "eth0", director, "front")?;
        veth(director, "back", server, "eth0")?;
        for (host, device) in [
            (client, "eth0"),
            (director, "front"),
            (director, "back"),
            (server, "eth0"),
        ] {
            host.wire(device)?;
        }
        // Packets joined by offloads could not be encapsulated.
        director.offload("front", Offload::Gro, false)?;
        director.sysctls(&[
            ("net.ipv4.ip_forward", "1"),
            ("net.ipv6.conf.all.forwarding", "1"),
        ])?;
        for (host, device, addresses) in [
            (client, "eth0", ["198.51.100.7/24", "2001:db8:c::7/64"]),
            (director, "front", ["198.51.100.1/24", "2001:db8:c::1/64"]),
            (director, "back", ["10.1.0.1/24", "2001:db8:1::1/64"]),
            (server, "eth0", ["10.1.0.7/24", "2001:db8:1::7/64"]),
        ] {
            for address in addresses {
                host.address(device, address)?;
            }
        }
        for (gateway, prefix) in [
            ("198.51.100.254", "192.0.2.0/24"),
            ("2001:db8:c::fe", "2001:db8:2::/64"),
        ] {
            client.neighbour("eth0", gateway.parse()?, NOWHERE)?;
            client.route(&Route::to(prefix).via(gateway.parse()?))?;
        }
        for gateway in [DIRECTOR4, DIRECTOR6] {
            server.route(&Route::default_via(gateway.parse()?))?;
        }
        Ok(bed)
    }

    /// Begins to encapsulate what the client sends, in IPv4 or IPv6.
    pub(crate) fn tunnel(&self, outer_v6: bool) -> Result<Tunnel> {
        let mut from = PacketSocket::open(&self.director, "front")?;
        let to = PacketSocket::open(&self.director, "back")?;
        let mut ethernet = self.server.link("eth0")?.mac.to_vec();
        ethernet.extend(self.director.link("back")?.mac);
        let (go_on, end) = (Arc::new(AtomicBool::new(true)), Duration::from_millis(20));
        let goes_on = Arc::clone(&go_on);
        let thread = self.director.spawn(move || {
            while goes_on.load(Ordering::Relaxed) {
                let wanted =
                    from.receive(end, |seen| !seen.outgoing && seen.frame[..6] == NOWHERE)?;
                if let Some(seen) = wanted {
                    let frame = wrap(&ethernet, &seen.frame[14..], outer_v6);
                    // A packet that is too long for the wire is lost, as with a real director.
                    let _ = to.send(&frame);
                }
            }
            Ok(())
        })?;
        Ok(Tunnel {
            go_on,
            thread: Some(thread),
        })
    }

    /// Makes the server a member. Dropping the guard undoes it.
    pub(crate) fn join(&self, options: &Options) -> Result<Joined> {
        let report = self.server.run(|| shunt_agent::join(options))?;
        Ok(Joined {
            server: self.server.clone(),
            report,
        })
    }
}

/// Encapsulates until it is dropped.
pub(crate) struct Tunnel {
    go_on: Arc<AtomicBool>,
    thread: Option<JoinHandle<Result<()>>>,
}

impl Drop for Tunnel {
    fn drop(&mut self) {
        self.go_on.store(false, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

pub(crate) struct Joined {
    server: Host,
    pub report: Report,
}

impl Drop for Joined {
    fn drop(&mut self) {
        let _ = self.server.run(shunt_agent::leave);
    }
}

pub(crate) fn options() -> Options {
    Options {
        vips: vec![VIRTUAL4.parse().unwrap(), VIRTUAL6.parse().unwrap()],
        tunnel: true,
        anyone: true,
        ..Options::default()
    }
}

pub(crate) fn service(address: &str, port: u16) -> SocketAddr {
    SocketAddr::new(address.parse().unwrap(), port)
}

/// An Ethernet frame with the packet in a tunnel from the director to the server.
pub(crate) fn wrap(ethernet: &[u8], packet: &[u8], outer_v6: bool) -> Vec<u8> {
    let protocol = if packet[0] >> 4 == 6 { 41 } else { 4 };
    let mut frame = ethernet.to_vec();
    if outer_v6 {
        frame.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
        frame.extend((packet.len() as u16).to_be_bytes());
        frame.extend([protocol, 64]);
        frame.extend(octets(DIRECTOR6));
        frame.extend(octets(SERVER6));
    } else {
        frame.extend([0x08, 0x00, 0x45, 0]);
        frame.extend((packet.len() as u16 + 20).to_be_bytes());
        frame.extend([0, 0, 0x40, 0, 64, protocol, 0, 0]);
        frame.extend(octets(DIRECTOR4));
        frame.extend(octets(SERVER4));
        let sum: u32 = frame[14..34]
            .chunks(2)
            .map(|word| u32::from(word[0]) << 8 | u32::from(word[1]))
            .sum();
        let sum = !((sum & 0xffff) + (sum >> 16)) as u16;
        frame[24..26].copy_from_slice(&sum.to_be_bytes());
    }
    frame.extend(packet);
    frame
}

pub(crate) fn octets(address: &str) -> Vec<u8> {
    match address.parse().unwrap() {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    }
}
