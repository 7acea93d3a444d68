//! UDP: a server that names itself and echoes, a question with its answer, and a probe that counts
//! losses.

use std::collections::BTreeMap;
use std::io;
use std::io::{IoSlice, IoSliceMut};
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::sys::socket::{
    ControlMessage, ControlMessageOwned, MsgFlags, SockaddrIn6, recvmsg, sendmsg, setsockopt,
    sockopt,
};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::Interest;
use tokio::net::UdpSocket;
use tokio::task::JoinSet;
use tokio::time::{interval, timeout};

use crate::background::{Background, Stop};
use crate::host::Host;
use crate::latency::Latency;
use crate::pattern::Pattern;
use crate::wait::until;

const QUEUE_BYTES: usize = 4 * 1024 * 1024;
const DATAGRAM_BYTES: usize = 64 * 1024;
/// How long a probe waits for late answers after its last question.
const GRACE: Duration = Duration::from_millis(500);
const TIME_LIMIT: Duration = Duration::from_secs(600);
/// How often a probe sends the datagrams that are due.
const PERIOD: Duration = Duration::from_millis(1);
/// After a stall of its own the probe does not catch up in one burst, which would overflow the
/// short rings of veth devices and look like loss on the path.
const BURST: u64 = 32;
/// A question counts as lost once this many later questions were asked.
const OUTSTANDING: usize = 65_536;

/// Answers each datagram with the server's name, a space, and the datagram, from the address to
/// which the datagram was sent, as direct routing needs. Dropping the value ends the server.
#[derive(Debug)]
pub struct UdpEcho {
    port: u16,
    datagrams: Arc<AtomicU64>,
    work: Background,
}

impl UdpEcho {
    /// Listens on all addresses of the host, of both families.
    pub fn start(host: &Host, port: u16) -> Result<UdpEcho> {
        let socket = host.run(|| {
            let address = SocketAddr::from((Ipv6Addr::UNSPECIFIED, port));
            let socket = bind(address).with_context(|| format!("cannot listen on {address}"))?;
            setsockopt(&socket, sockopt::Ipv6RecvPacketInfo, &true)?;
            Ok(socket)
        })?;
        let port = socket.local_addr()?.port();
        let datagrams = Arc::new(AtomicU64::new(0));
        let (count, name) = (Arc::clone(&datagrams), host.name().to_owned());
        let work = Background::start(host, move |stop| echo(socket, name, count, stop))?;
        Ok(UdpEcho {
            port,
            datagrams,
            work,
        })
    }

    /// The port on which it listens.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The datagrams received so far.
    pub fn datagrams(&self) -> u64 {
        self.datagrams.load(Ordering::Relaxed)
    }

    /// Stops it, and fails if it failed meanwhile.
    pub fn stop(mut self) -> Result<()> {
        self.work.finish()
    }
}

fn bind(address: SocketAddr) -> io::Result<std::net::UdpSocket> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::DGRAM,
        Some(Protocol::UDP),
    )?;
    if address.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    socket.set_recv_buffer_size(QUEUE_BYTES)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    Ok(socket.into())
}

async fn echo(
    socket: std::net::UdpSocket,
    name: String,
    datagrams: Arc<AtomicU64>,
    mut stop: Stop,
) -> Result<()> {
    let socket = UdpSocket::from_std(socket)?;
    let before = format!("{name} ").into_bytes();
    let mut datagram = vec![0; DATAGRAM_BYTES];
    loop {
        let asked = tokio::select! {
            asked = socket
                .async_io(Interest::READABLE, || receive(&socket, &mut datagram)) => asked,
            () = stop.asked() => return Ok(()),
        };
        // An ICMP error about an earlier answer is reported here. It concerns the client, not the
        // server.
        let Ok(Some((length, client, address))) = asked else {
            continue;
        };
        datagrams.fetch_add(1, Ordering::Relaxed);
        let pieces = [IoSlice::new(&before), IoSlice::new(&datagram[..length])];
        let answer = || {
            let source = [ControlMessage::Ipv6PacketInfo(&address)];
            let none = MsgFlags::empty();
            Ok(sendmsg(
                socket.as_raw_fd(),
                &pieces,
                &source,
                none,
                Some(&client),
            )?)
        };
        let _ = socket.async_io(Interest::WRITABLE, answer).await;
    }
}

/// A datagram: its length, its sender, and the address to which it was sent.
fn receive(
    socket: &UdpSocket,
    datagram: &mut [u8],
) -> io::Result<Option<(usize, SockaddrIn6, libc::in6_pktinfo)>> {
    let mut pieces = [IoSliceMut::new(datagram)];
    let mut room = nix::cmsg_space!(libc::in6_pktinfo);
    let message = recvmsg::<SockaddrIn6>(
        socket.as_raw_fd(),
        &mut pieces,
        Some(&mut room),
        MsgFlags::MSG_DONTWAIT,
    )?;
    let address = message.cmsgs()?.find_map(|extra| match extra {
        // The answer may leave by another device than the one by which the question arrived.
        ControlMessageOwned::Ipv6PacketInfo(info) => Some(libc::in6_pktinfo {
            ipi6_ifindex: 0,
            ..info
        }),
        _ => None,
    });
    let (Some(client), Some(address)) = (message.address, address) else {
        return Ok(None);
    };
    Ok(Some((message.bytes, client, address)))
}

/// Sends one datagram of `bytes`, compares every byte of the echo, and returns the server's name.
pub fn udp_ask(host: &Host, to: SocketAddr, bytes: usize, limit: Duration) -> Result<String> {
    let mut question = vec![0; bytes];
    Pattern::new().fill(&mut question);
    host.run(|| {
        let socket = std::net::UdpSocket::bind(unspecified(to))?;
        socket.connect(to)?;
        socket.set_read_timeout(Some(limit))?;
        socket.send(&question).context("send")?;
        let mut answer = vec![0; DATAGRAM_BYTES];
        let length = socket.recv(&mut answer).context("no answer")?;
        let (server, echoed) = split(&answer[..length]).context("an answer without a name")?;
        ensure!(echoed == question, "the server echoed something else");
        Ok(server.to_owned())
    })
    .with_context(|| format!("datagram of {bytes} bytes to {to}"))
}

/// Sends datagrams as one, which a device or the receiver's stack cuts (`UDP_SEGMENT`). Returns how
/// many had a correct answer.
pub fn udp_burst(
    host: &Host,
    to: SocketAddr,
    (bytes, count): (u16, u8),
    limit: Duration,
) -> Result<usize> {
    let mut question = vec![0; usize::from(bytes) * usize::from(count)];
    Pattern::new().fill(&mut question);
    host.run(|| {
        let socket = std::net::UdpSocket::bind(unspecified(to))?;
        setsockopt(&socket, sockopt::UdpGsoSegment, &i32::from(bytes)).context("UDP_SEGMENT")?;
        socket.connect(to)?;
        socket.set_read_timeout(Some(limit))?;
        socket.send(&question).context("send")?;
        let mut answer = vec![0; DATAGRAM_BYTES];
        let mut answered = 0;
        for piece in question.chunks(bytes.into()) {
            let Ok(length) = socket.recv(&mut answer) else {
                break;
            };
            let (_, echoed) = split(&answer[..length]).context("an answer without a name")?;
            answered += usize::from(echoed == piece);
        }
        Ok(answered)
    })
    .with_context(|| format!("{count} datagrams of {bytes} bytes as one to {to}"))
}

fn split(answer: &[u8]) -> Option<(&str, &[u8])> {
    let at = answer.iter().position(|&byte| byte == b' ')?;
    Some((std::str::from_utf8(&answer[..at]).ok()?, &answer[at + 1..]))
}

fn unspecified(like: SocketAddr) -> SocketAddr {
    match like {
        SocketAddr::V4(_) => SocketAddr::from(([0, 0, 0, 0], 0)),
        SocketAddr::V6(_) => SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)),
    }
}

/// A probe: datagrams at a steady rate. `start` starts it.
#[derive(Clone, Debug)]
pub struct UdpProbe {
    to: SocketAddr,
    from: Option<IpAddr>,
    rate: u32,
    flows: usize,
    bytes: usize,
    count: u64,
    time: Duration,
}

impl UdpProbe {
    /// A thousand small datagrams per second on one flow, until stopped.
    pub fn to(to: SocketAddr) -> UdpProbe {
        UdpProbe {
            to,
            from: None,
            rate: 1000,
            flows: 1,
            bytes: 64,
            count: u64::MAX,
            time: TIME_LIMIT,
        }
    }

    /// Sends from this address of the client.
    pub fn from(mut self, address: IpAddr) -> UdpProbe {
        self.from = Some(address);
        self
    }

    /// Sets the rate in datagrams per second, at most 32,000.
    pub fn rate(mut self, rate: u32) -> UdpProbe {
        self.rate = rate;
        self
    }

    /// Sets the number of source ports, which are used in turn.
    pub fn flows(mut self, flows: usize) -> UdpProbe {
        self.flows = flows.max(1);
        self
    }

    /// Sets the size of a datagram; it has at least room for the datagram's number.
    pub fn bytes(mut self, bytes: usize) -> UdpProbe {
        self.bytes = bytes.max(size_of::<u64>());
        self
    }

    /// Ends the probe after this many datagrams.
    pub fn count(mut self, count: u64) -> UdpProbe {
        self.count = count;
        self
    }

    /// Ends the probe after this time, at most ten minutes.
    pub fn time(mut self, time: Duration) -> UdpProbe {
        self.time = time.min(TIME_LIMIT);
        self
    }

    /// Starts the probe from this host.
    pub fn start(self, host: &Host) -> Result<RunningProbe> {
        let page = Arc::new(Mutex::new(Page::new()));
        let seen = Arc::clone(&page);
        let work = Background::start(host, move |stop| probe(self, seen, stop))?;
        Ok(RunningProbe { page, work })
    }

    /// Starts the probe and waits until it ends by count or by time.
    pub fn run(self, host: &Host) -> Result<UdpReport> {
        let limit = self.time + GRACE + Duration::from_secs(1);
        let running = self.start(host)?;
        until("the probe to end", limit, || Ok(!running.work.is_running()))?;
        running.stop()
    }
}

/// A running probe. Dropping it ends it.
#[derive(Debug)]
pub struct RunningProbe {
    page: Arc<Mutex<Page>>,
    work: Background,
}

impl RunningProbe {
    /// The result up to this moment.
    pub fn so_far(&self) -> UdpReport {
        lock(&self.page).report.clone()
    }

    /// Stops sending, waits a moment for late answers, and returns the report.
    pub fn stop(mut self) -> Result<UdpReport> {
        self.work.finish()?;
        Ok(self.so_far())
    }
}

/// The result of a probe.
#[derive(Clone, Debug, Default)]
pub struct UdpReport {
    /// Questions that were sent.
    pub sent: u64,
    /// Questions that could not be sent, for example after an ICMP error.
    pub refused: u64,
    /// Questions that were answered. A second answer to the same question does not count.
    pub received: u64,
    /// The number of answers of each server.
    pub servers: BTreeMap<String, u64>,
    /// From each question to its first answer.
    pub latency: Latency,
    /// The longest time between two answers.
    pub worst_gap: Duration,
}

impl UdpReport {
    /// Questions that were sent and not answered.
    pub fn lost(&self) -> u64 {
        self.sent - self.received
    }
}

#[derive(Debug)]
struct Page {
    report: UdpReport,
    outstanding: BTreeMap<u64, Instant>,
    last_answer: Instant,
}

impl Page {
    fn new() -> Page {
        Page {
            report: UdpReport::default(),
            outstanding: BTreeMap::new(),
            last_answer: Instant::now(),
        }
    }

    fn asks(&mut self, number: u64) {
        self.report.sent += 1;
        self.outstanding.insert(number, Instant::now());
        if self.outstanding.len() > OUTSTANDING {
            self.outstanding.pop_first();
        }
    }

    fn answered(&mut self, answer: &[u8]) {
        let Some((server, echoed)) = split(answer) else {
            return;
        };
        let Some(number) = echoed.first_chunk().map(|bytes| u64::from_be_bytes(*bytes)) else {
            return;
        };
        let Some(asked) = self.outstanding.remove(&number) else {
            return;
        };
        let now = Instant::now();
        let gap = now.saturating_duration_since(self.last_answer);
        self.last_answer = now;
        self.report.worst_gap = self.report.worst_gap.max(gap);
        self.report.received += 1;
        self.report
            .latency
            .add(now.saturating_duration_since(asked));
        *self.report.servers.entry(server.to_owned()).or_default() += 1;
    }
}

fn lock(page: &Mutex<Page>) -> MutexGuard<'_, Page> {
    page.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn probe(probe: UdpProbe, page: Arc<Mutex<Page>>, mut stop: Stop) -> Result<()> {
    let mut sockets = Vec::new();
    let mut listeners = JoinSet::new();
    for _ in 0..probe.flows {
        let from = probe
            .from
            .map_or(unspecified(probe.to), |from| SocketAddr::new(from, 0));
        let socket = Arc::new(UdpSocket::from_std(bind(from)?)?);
        socket
            .connect(probe.to)
            .await
            .with_context(|| format!("connect to {}", probe.to))?;
        listeners.spawn(listen(Arc::clone(&socket), Arc::clone(&page)));
        sockets.push(socket);
    }
    tokio::select! {
        done = timeout(probe.time, ask(&probe, &sockets, &page)) => drop(done),
        () = stop.asked() => {}
    }
    let answered = async {
        let mut tick = interval(PERIOD);
        while !lock(&page).outstanding.is_empty() {
            tick.tick().await;
        }
    };
    let _ = timeout(GRACE, answered).await;
    Ok(())
}

/// Sends the datagrams that are due, flow by flow.
async fn ask(probe: &UdpProbe, sockets: &[Arc<UdpSocket>], page: &Mutex<Page>) {
    let mut tick = interval(PERIOD);
    let mut datagram = vec![0; probe.bytes];
    let mut flows = sockets.iter().cycle();
    let mut begin = Instant::now();
    let (mut number, mut sent_since) = (0_u64, 0_u64);
    lock(page).last_answer = begin;
    while number < probe.count {
        tick.tick().await;
        let due = (begin.elapsed().as_secs_f64() * f64::from(probe.rate)) as u64 + 1;
        let mut now = due.saturating_sub(sent_since);
        if now > BURST {
            (begin, sent_since, now) = (Instant::now(), 0, BURST);
        }
        for socket in flows.by_ref().take(now.min(probe.count - number) as usize) {
            datagram[..8].copy_from_slice(&number.to_be_bytes());
            lock(page).asks(number);
            if socket.send(&datagram).await.is_err() {
                lock(page).report.refused += 1;
            }
            number += 1;
            sent_since += 1;
        }
    }
}

async fn listen(socket: Arc<UdpSocket>, page: Arc<Mutex<Page>>) {
    let mut answer = vec![0; DATAGRAM_BYTES];
    loop {
        // An error here is an ICMP message about a question, which counts as lost anyway.
        if let Ok(length) = socket.recv(&mut answer).await {
            lock(&page).answered(&answer[..length]);
        }
    }
}
