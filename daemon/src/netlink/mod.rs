//! Netlink: it reads links, addresses, next-hop objects, routes, rules and neighbours from the
//! kernel, as inputs of the network machine, and asks the kernel to resolve neighbours.
//!
//! One socket, in the network namespace of the thread that opens it, gives a full account and then
//! events. Each queue has a limit. While the receiver of the inputs is slow, events wait in the
//! socket's buffer. When the buffer is full, the kernel drops events and reports it; then
//! everything is read again. This module never decides what a change means.

#![allow(
    clippy::wildcard_enum_match_arm,
    reason = "the enums of the netlink libraries have hundreds of kinds, of which a few matter"
)]

mod message;
mod read;
mod rule;
#[cfg(test)]
mod tests;

use std::future::Future;
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::time::Duration;

use futures_util::StreamExt;
use netlink_packet_route::link::LinkMessage;
use netlink_packet_route::neighbour::{
    NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
};
use netlink_packet_route::route::RouteMessage;
use netlink_packet_route::rule::RuleMessage;
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage, address::AddressMessage};
use nix::sys::socket::{setsockopt, sockopt};
use rtnetlink::MulticastGroup;
use rtnetlink::packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NetlinkHeader,
    NetlinkMessage, NetlinkPayload,
};
use rtnetlink::proto::sys::protocols::NETLINK_ROUTE;
use rtnetlink::proto::sys::{AsyncSocket, SocketAddr};
use rtnetlink::proto::{Connection, ConnectionHandle};
use shunt_control::network::Input;
use tokio::sync::mpsc;
use tokio::time::Instant;

use message::Message;
pub use message::attributes;

/// Room for some ten thousand events in the socket.
const SOCKET_BUFFER: usize = 8 << 20;
/// The most inputs that wait for the receiver. Further events wait in the socket.
const INPUTS: usize = 1024;
/// The most probes that wait for the kernel. A further probe is dropped; the network machine asks
/// again.
const PROBES: usize = 1024;
/// The pause before everything is read again, in which changes may settle.
const SETTLE: Duration = Duration::from_millis(50);
/// After an account comes a pause of so many times its duration. So even in a storm of events,
/// accounts take at most a fifth of one CPU.
const PAUSES: u32 = 4;
/// The pause after the kernel refused an account.
const PAUSE: Duration = Duration::from_secs(1);
/// The most attempts to read one table that changes while it is read.
const TRIES: usize = 5;

const GROUPS: [MulticastGroup; 9] = [
    MulticastGroup::Link,
    MulticastGroup::Ipv4Ifaddr,
    MulticastGroup::Ipv6Ifaddr,
    MulticastGroup::Ipv4Route,
    MulticastGroup::Ipv6Route,
    MulticastGroup::Ipv4Rule,
    MulticastGroup::Ipv6Rule,
    MulticastGroup::Nexthop,
    MulticastGroup::Neigh,
];

/// Why the daemon cannot follow the network.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the text of each variant describes it")]
pub enum Error {
    #[error("cannot listen to the kernel's network events: {0}")]
    Open(#[source] io::Error),
}

/// The two ends of the conversation with the kernel. It ends when `inputs` is dropped, and
/// `inputs` ends when the socket failed.
#[derive(Debug)]
pub struct Netlink {
    /// The kernel's events, and whole accounts of the network.
    pub inputs: mpsc::Receiver<Input>,
    /// The way to ask for neighbours.
    pub prober: Prober,
}

/// Asks the kernel to resolve or confirm neighbours.
#[derive(Clone, Debug)]
pub struct Prober(mpsc::Sender<(u32, IpAddr)>);

impl Prober {
    /// Queues a probe. The answer comes as an input. The probe is lost if too many wait.
    pub fn probe(&self, interface: u32, neighbour: IpAddr) {
        let _ = self.0.try_send((interface, neighbour));
    }
}

/// Opens the socket in the network namespace of the calling thread and begins to listen, in a
/// task of the calling thread's tokio runtime.
pub fn open() -> Result<Netlink, Error> {
    open_with(SOCKET_BUFFER)
}

fn open_with(buffer: usize) -> Result<Netlink, Error> {
    let (mut connection, handle, messages) =
        rtnetlink::proto::new_connection(NETLINK_ROUTE).map_err(Error::Open)?;
    let socket = connection.socket_mut().socket_mut();
    socket.bind(&SocketAddr::new(0, 0)).map_err(Error::Open)?;
    for group in GROUPS {
        // A kernel may lack a group: policy routing and next-hop objects are optional.
        if let Err(error) = socket.add_membership(group as u32) {
            tracing::debug!(?group, %error, "kernel without such events");
        }
    }
    let socket = connection.socket_mut().as_raw_fd();
    // SAFETY: the connection owns the socket, keeps it open and is not touched meanwhile.
    let socket = unsafe { BorrowedFd::borrow_raw(socket) };
    // With CAP_NET_ADMIN the buffer may exceed the system's limit.
    setsockopt(&socket, sockopt::RcvBufForce, &buffer)
        .or_else(|_| setsockopt(&socket, sockopt::RcvBuf, &buffer))
        .map_err(|error| Error::Open(error.into()))?;
    let (to_network, inputs) = mpsc::channel(INPUTS);
    let (prober, probes) = mpsc::channel(PROBES);
    let listener = Listener {
        connection,
        handle,
        messages,
        inputs: to_network,
        again: None,
        rested: Instant::now(),
    };
    tokio::spawn(listener.run(probes));
    Ok(Netlink {
        inputs,
        prober: Prober(prober),
    })
}

/// The socket failed, or the receiver of the inputs is gone.
struct Ended;

/// The kernel refused a request.
type Answer<T> = Result<T, io::Error>;

type Heard = NetlinkMessage<Message>;
type Handle = ConnectionHandle<Message>;

struct Listener<Messages> {
    /// It reads the socket only while it is polled. Without polling, events wait in the socket.
    connection: Connection<Message>,
    handle: Handle,
    messages: Messages,
    inputs: mpsc::Sender<Input>,
    /// When everything must be read again.
    again: Option<Instant>,
    /// The earliest time of the next account.
    rested: Instant,
}

impl<Source, Messages> Listener<Messages>
where
    Messages: futures_util::Stream<Item = (Heard, Source)> + Unpin,
{
    async fn run(mut self, mut probes: mpsc::Receiver<(u32, IpAddr)>) -> Result<(), Ended> {
        self.account().await?;
        loop {
            let again = self.again;
            tokio::select! {
                () = at(again) => self.account().await?,
                message = self.messages.next() => {
                    let (message, _) = message.ok_or(Ended)?;
                    self.hear(message).await?;
                }
                () = &mut self.connection => {
                    tracing::error!("netlink socket closed");
                    return Err(Ended);
                }
                Some((interface, neighbour)) = probes.recv() => {
                    self.probe(interface, neighbour).await?;
                }
                () = self.inputs.closed() => return Err(Ended),
            }
        }
    }

    /// Takes in one event.
    async fn hear(&mut self, message: Heard) -> Result<(), Ended> {
        let input = match message.payload {
            NetlinkPayload::InnerMessage(inner) => read::input(inner, message.header.flags),
            NetlinkPayload::Overrun(_) => {
                tracing::warn!(action = "everything is read again", "netlink events lost");
                self.read_again_after(SETTLE);
                None
            }
            _ => None,
        };
        let Some(input) = input else { return Ok(()) };
        if read::hides_lost_routes(&input) {
            self.read_again_after(SETTLE);
        }
        self.tell(input).await
    }

    /// Reads everything. Events that come meanwhile are passed on afterwards. They may repeat what
    /// was read, but the last input about each object is the kernel's last.
    async fn account(&mut self) -> Result<(), Ended> {
        self.again = None;
        let begun = Instant::now();
        let account = account(self.handle.clone());
        match drive(&mut self.connection, account).await? {
            Err(error) => {
                tracing::warn!(%error, "cannot read the kernel's network tables");
                self.read_again_after(PAUSE);
            }
            Ok(Account { inputs, torn }) => {
                self.tell(Input::ResyncBegin).await?;
                for input in inputs {
                    self.tell(input).await?;
                }
                self.tell(Input::ResyncEnd).await?;
                self.rested = Instant::now() + begun.elapsed() * PAUSES;
                if torn {
                    self.read_again_after(PAUSE);
                }
            }
        }
        Ok(())
    }

    async fn probe(&mut self, interface: u32, neighbour: IpAddr) -> Result<(), Ended> {
        let probe = probe(self.handle.clone(), interface, neighbour);
        if let Err(error) = drive(&mut self.connection, probe).await? {
            // The device may be gone. The network machine gets an event about that.
            tracing::debug!(interface, %neighbour, %error, "cannot probe neighbour");
        }
        Ok(())
    }

    async fn tell(&self, input: Input) -> Result<(), Ended> {
        self.inputs.send(input).await.map_err(|_| Ended)
    }

    fn read_again_after(&mut self, wait: Duration) {
        let then = (Instant::now() + wait).max(self.rested);
        self.again = Some(self.again.map_or(then, |again| again.min(then)));
    }
}

async fn at(time: Option<Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time).await,
        None => std::future::pending().await,
    }
}

/// Polls the connection while `work` waits for its answers.
async fn drive<T>(
    connection: &mut Connection<Message>,
    work: impl Future<Output = T>,
) -> Result<T, Ended> {
    tokio::select! {
        biased;
        done = work => Ok(done),
        () = connection => Err(Ended),
    }
}

struct Account {
    inputs: Vec<Input>,
    /// A table kept changing while it was read.
    torn: bool,
}

/// Reads all tables. Links come first because everything else refers to them, and next-hop objects
/// come before the routes that use them.
async fn account(handle: Handle) -> Answer<Account> {
    let requests = [
        Message::Route(RouteNetlinkMessage::GetLink(LinkMessage::default())),
        Message::Route(RouteNetlinkMessage::GetAddress(AddressMessage::default())),
        Message::GetObjects,
        Message::Route(RouteNetlinkMessage::GetRoute(RouteMessage::default())),
        Message::Route(RouteNetlinkMessage::GetRule(RuleMessage::default())),
        Message::Route(RouteNetlinkMessage::GetNeighbour(
            NeighbourMessage::default(),
        )),
    ];
    let mut account = Account {
        inputs: Vec::new(),
        torn: false,
    };
    for request in requests {
        let first = dump(handle.clone(), request.clone()).await;
        let (mut inputs, mut torn) = match first {
            Err(error) if is_optional(&request, &error) => continue,
            first => first?,
        };
        for _ in 1..TRIES {
            if !torn {
                break;
            }
            (inputs, torn) = dump(handle.clone(), request.clone()).await?;
        }
        account.inputs.extend(inputs);
        account.torn |= torn;
    }
    Ok(account)
}

/// Whether a kernel may lack this table: next-hop objects came with Linux 5.3, and policy rules are
/// optional.
fn is_optional(request: &Message, error: &io::Error) -> bool {
    let optional = matches!(
        request,
        Message::GetObjects | Message::Route(RouteNetlinkMessage::GetRule(_))
    );
    let unknown = [
        nix::libc::EOPNOTSUPP,
        nix::libc::EAFNOSUPPORT,
        nix::libc::ENOENT,
    ];
    let unknown = error
        .raw_os_error()
        .is_some_and(|code| unknown.contains(&code));
    optional && unknown
}

/// Sends a request to the kernel.
fn ask(
    handle: &Handle,
    message: Message,
    flags: u16,
) -> Answer<impl futures_util::Stream<Item = Heard> + use<>> {
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST | flags;
    let request = NetlinkMessage::new(header, NetlinkPayload::InnerMessage(message));
    let kernel = SocketAddr::new(0, 0);
    handle.request(request, kernel).map_err(io::Error::other)
}

/// Reads one table. The flag is true if the table changed meanwhile.
async fn dump(handle: Handle, request: Message) -> Answer<(Vec<Input>, bool)> {
    let mut answers = ask(&handle, request, NLM_F_DUMP)?;
    let (mut inputs, mut torn) = (Vec::new(), false);
    while let Some(answer) = answers.next().await {
        let flags = answer.header.flags;
        torn |= flags & NLM_F_DUMP_INTR != 0;
        match answer.payload {
            NetlinkPayload::InnerMessage(inner) => inputs.extend(read::input(inner, 0)),
            NetlinkPayload::Error(error) if error.code.is_some() => return Err(error.to_io()),
            _ => {}
        }
    }
    Ok((inputs, torn))
}

/// Makes the kernel treat the neighbour as about to be used: the kernel resolves a missing entry,
/// confirms a stale one, and leaves a reachable one.
async fn probe(handle: Handle, interface: u32, neighbour: IpAddr) -> Answer<()> {
    let mut message = NeighbourMessage::default();
    message.header.family = match neighbour {
        IpAddr::V4(_) => AddressFamily::Inet,
        IpAddr::V6(_) => AddressFamily::Inet6,
    };
    message.header.ifindex = interface;
    message.header.state = NeighbourState::None;
    message.header.flags = NeighbourFlags::Use;
    message
        .attributes
        .push(NeighbourAttribute::Destination(neighbour.into()));
    let message = Message::Route(RouteNetlinkMessage::NewNeighbour(message));
    let mut answers = ask(&handle, message, NLM_F_ACK | NLM_F_CREATE)?;
    while let Some(answer) = answers.next().await {
        match answer.payload {
            NetlinkPayload::Error(error) if error.code.is_some() => return Err(error.to_io()),
            _ => {}
        }
    }
    Ok(())
}
