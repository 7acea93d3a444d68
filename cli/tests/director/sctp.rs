//! Associations of SCTP through the running director. Both ends write their packets themselves:
//! few kernels have SCTP.

use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::FromRawFd;

use anyhow::{Context, Result, ensure};
use shunt_lab::{Family, Host, Topology, skipped, until};

use crate::bed::{LIMIT, Method, at};
use crate::director::Director;
use crate::table::{live, numbers};

const CLIENT: u16 = 41_000;
const SERVICE: u16 = 3868;
const SERVER: u16 = 3869;

/// Chunk types (RFC 9260, 3.2).
pub(crate) const DATA: u8 = 0;
pub(crate) const INIT: u8 = 1;
pub(crate) const INIT_ACK: u8 = 2;
const SHUTDOWN: u8 = 7;
const SHUTDOWN_ACK: u8 = 8;
pub(crate) const COOKIE_ECHO: u8 = 10;
pub(crate) const COOKIE_ACK: u8 = 11;
const SHUTDOWN_COMPLETE: u8 = 14;

#[test]
fn an_association_opens_is_listed_outlives_the_daemon_and_closes() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    for (hook, offloads) in [("tc", true), ("xdp-native", false)] {
        let bed = Topology::builder().servers(1);
        let bed = if offloads { bed.offloads() } else { bed };
        let bed = bed.build()?;
        let _members = Method::Masquerade.prepare(&bed)?;
        let mut director = Director::start_with(bed.director(), &["--attach", hook])?;
        for family in Family::BOTH {
            association(&bed, &mut director, family)
                .with_context(|| format!("{hook} {family:?}"))?;
        }
    }
    Ok(())
}

fn association(bed: &Topology, director: &mut Director, family: Family) -> Result<()> {
    let service = bed.service(family, 1, SERVICE);
    let address = bed.server_address(family, 0);
    let target = at(address, SERVER);
    director.ipvsadm(&format!("-A --sctp-service {service}"))?;
    director.ipvsadm(&format!("-a --sctp-service {service} -r {target} -m"))?;
    let client = SocketAddr::new(bed.client_address(family, 0), CLIENT);
    let talk = Talk {
        client: End::open(bed.client(), client)?,
        server: End::open(&bed.servers[0], SocketAddr::new(address, SERVER))?,
        service,
    };

    talk.asks(INIT)?;
    talk.answers(INIT_ACK)?;
    talk.asks(COOKIE_ECHO)?;
    talk.answers(COOKIE_ACK)?;
    talk.asks(DATA)?;
    let ends = [client, service, talk.server.own];
    until("the association to be listed", LIMIT, || {
        is_listed(director, "ESTABLISHED", ends)
    })?;
    ensure!(live(&director.ipvsadm("-Ln")?, &target)? == (1, 0));

    director.kill()?;
    talk.asks(DATA)?;
    director.restart()?;
    talk.asks(SHUTDOWN)?;
    talk.answers(SHUTDOWN_ACK)?;
    talk.asks(SHUTDOWN_COMPLETE)?;
    until("the end to be listed", LIMIT, || {
        is_listed(director, "CLOSED", ends)
    })?;
    ensure!(live(&director.ipvsadm("-Ln")?, &target)? == (0, 1));
    let stats = numbers(&director.ipvsadm("-Ln --stats --exact")?, &target)?;
    ensure!(stats[..3] == [1, 6, 3], "{stats:?}");
    director
        .ipvsadm(&format!("-D --sctp-service {service}"))
        .map(drop)
}

/// Whether the connections have this one: client, service, server.
fn is_listed(director: &Director, state: &str, ends: [SocketAddr; 3]) -> Result<bool> {
    let [from, to, server] = ends.map(|end| end.to_string());
    let wanted = [state, &from, &to, &server];
    let all = director.ipvsadm("-Lcn")?;
    let mut lines = all.lines().filter(|line| line.starts_with("SCTP "));
    Ok(lines.any(|line| line.split_whitespace().skip(2).eq(wanted)))
}

/// Both ends of an association, and where the client thinks the server is.
struct Talk {
    client: End,
    server: End,
    service: SocketAddr,
}

impl Talk {
    /// The client says a chunk, which comes to the server.
    fn asks(&self, kind: u8) -> Result<()> {
        self.client.says(self.service, kind)?;
        let ports = [CLIENT, self.server.own.port()];
        self.server.hears(self.client.own.ip(), ports, kind)
    }

    /// The server says a chunk, which comes to the client as if from the service.
    fn answers(&self, kind: u8) -> Result<()> {
        self.server.says(self.client.own, kind)?;
        let ports = [self.service.port(), CLIENT];
        self.client.hears(self.service.ip(), ports, kind)
    }
}

/// A socket for the packets of SCTP of a host.
pub(crate) struct End {
    socket: UdpSocket,
    own: SocketAddr,
}

impl End {
    pub(crate) fn open(host: &Host, own: SocketAddr) -> Result<End> {
        let domain = if own.is_ipv4() {
            libc::AF_INET
        } else {
            libc::AF_INET6
        };
        let socket = host.run(|| {
            // SAFETY: no pointers.
            let fd = unsafe { libc::socket(domain, libc::SOCK_RAW, libc::IPPROTO_SCTP) };
            if fd < 0 {
                return Err(io::Error::last_os_error()).context("cannot open a raw socket");
            }
            // SAFETY: the socket is new and nobody else's. What is asked of it is to send and to
            // receive, which is the same for a raw one.
            Ok(unsafe { UdpSocket::from_raw_fd(fd) })
        })?;
        socket.set_read_timeout(Some(LIMIT))?;
        Ok(End { socket, own })
    }

    pub(crate) fn says(&self, to: SocketAddr, kind: u8) -> Result<()> {
        let mut packet = Vec::new();
        packet.extend(self.own.port().to_be_bytes());
        packet.extend(to.port().to_be_bytes());
        packet.extend([0, 0, 0, 7, 0, 0, 0, 0]);
        packet.extend([kind, 0, 0, 12, 1, 2, 3, 4, 5, 6, 7, 8]);
        let sum = crc32c(&packet);
        packet[8..12].copy_from_slice(&sum.to_le_bytes());
        let sent = self.socket.send_to(&packet, SocketAddr::new(to.ip(), 0))?;
        ensure!(sent == packet.len(), "{sent} bytes sent");
        Ok(())
    }

    /// The next packet: from there, between these ports, with that chunk and a right checksum.
    pub(crate) fn hears(&self, from: IpAddr, ports: [u16; 2], kind: u8) -> Result<()> {
        let mut buffer = [0; 2048];
        let (length, source) = self.socket.recv_from(&mut buffer).context("nothing came")?;
        // A raw socket of IPv4 gives the IP header too.
        let header = if source.is_ipv4() {
            usize::from(buffer[0] & 15) * 4
        } else {
            0
        };
        let packet = buffer.get_mut(header..length).context("a short packet")?;
        ensure!(packet.len() == 24, "{} bytes", packet.len());
        let port = |at: usize| u16::from_be_bytes([packet[at], packet[at + 1]]);
        let heard = (source.ip(), [port(0), port(2)], packet[12]);
        ensure!(heard == (from, ports, kind), "{heard:?}");
        let sum: [u8; 4] = packet[8..12].try_into()?;
        packet[8..12].fill(0);
        ensure!(crc32c(packet).to_le_bytes() == sum, "a wrong checksum");
        Ok(())
    }
}

/// RFC 9260, appendix A, bit by bit.
fn crc32c(bytes: &[u8]) -> u32 {
    let one = |crc: u32| crc >> 1 ^ if crc & 1 == 0 { 0 } else { 0x82f6_3b78 };
    !bytes.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| one(crc))
    })
}
