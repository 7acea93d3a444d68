//! What is done to both directors: commands of an operator, and packets of clients and servers.
//!
//! A scenario is plain data. It says nothing of what should come of it; that is what the two are
//! compared by. Packets are symbolic where they depend on what the director did before: an answer
//! comes from the server that got the flow's last packet.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};
use shunt_lab::{Family, Segment};

/// Scenarios of one bed have addresses of their own, so many of each segment.
const SPAN: u8 = 16;
/// How many scenarios share a bed. The first slot has the addresses of the bed itself.
pub const SLOTS: u8 = 5;
/// How many of each kind of address a scenario uses.
pub const VIRTUALS: u8 = 4;
/// The one of them whose services are those of firewall marks: an address is of one kind only.
pub const MARKED: u8 = 3;
pub const SERVERS: u8 = 5;
pub const CLIENTS: u8 = 6;

/// One of many, and all that is needed to play it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Scenario {
    pub seed: u64,
    pub slot: Slot,
    pub flows: Vec<Flow>,
    pub steps: Vec<Step>,
}

/// The addresses of one scenario among those that share a bed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Slot(pub u8);

impl Slot {
    fn host(self, segment: Segment, family: Family, number: u8) -> IpAddr {
        segment.host(family, (self.0 + 1) * SPAN + number)
    }

    pub fn virtual_address(self, family: Family, number: u8) -> IpAddr {
        self.host(Segment::Virtual, family, number)
    }

    pub fn server(self, family: Family, number: u8) -> IpAddr {
        self.host(Segment::Back, family, number)
    }

    pub fn client(self, family: Family, number: u8) -> IpAddr {
        self.host(Segment::Clients, family, number)
    }

    pub fn has_client(self, address: IpAddr) -> bool {
        let family = match address {
            IpAddr::V4(_) => Family::V4,
            IpAddr::V6(_) => Family::V6,
        };
        (0..CLIENTS).any(|number| self.client(family, number) == address)
    }
}

/// Those that share a bed.
pub fn groups(scenarios: &[Scenario]) -> impl Iterator<Item = &[Scenario]> {
    scenarios.chunk_by(|one, next| one.slot.0 < next.slot.0)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Transport {
    Tcp,
    Udp,
    Sctp,
}

/// The packets of a firewall mark.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rule {
    pub transport: Transport,
    pub at: SocketAddr,
}

impl Rule {
    pub fn has(&self, flow: &Flow) -> bool {
        self.transport == flow.transport && self.at == flow.service
    }
}

/// As `shunt mark add` reads it.
impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.transport.name(), self.at)
    }
}

/// A client's port and the service it speaks to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Flow {
    pub transport: Transport,
    pub client: SocketAddr,
    pub service: SocketAddr,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Step {
    /// `ipvsadm` with these words, and what it reads.
    Command { line: String, input: String },
    /// A switch of IPVS (`net.ipv4.vs.*`), a setting of Shunt.
    Setting { name: String, value: u8 },
    /// What clients send here has this firewall mark.
    Mark { mark: u32, rule: Rule },
    /// The flow's client sends.
    Client { flow: usize, datagram: Datagram },
    /// The masqueraded server of the flow answers.
    Server { flow: usize, datagram: Datagram },
    /// The masqueraded server of the flow, or a router before it, refuses the flow's last packet.
    ServerError { flow: usize, error: Error },
    /// The client, or a router before it, refuses an answer.
    ClientError { flow: usize, error: Error },
    /// The flow's client sends a packet of IPsec.
    ClientSecured { flow: usize, secured: Secured },
    /// Its masqueraded server does.
    ServerSecured { flow: usize, secured: Secured },
}

/// What a packet has besides addresses and ports.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Datagram {
    /// TCP's flags; the type of SCTP's chunk; nothing to UDP.
    pub flags: u8,
    pub payload: u16,
    pub ttl: u8,
    pub traffic_class: u8,
    pub dont_fragment: bool,
    /// It is sent in so many fragments.
    pub pieces: u8,
}

/// A packet that has no ports (RFC 4302, RFC 4303).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Secured {
    /// AH around ESP, or ESP alone.
    pub authenticated: bool,
    pub payload: u16,
    pub ttl: u8,
}

impl fmt::Display for Secured {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = if self.authenticated { "AH" } else { "ESP" };
        write!(f, "{name}, {} bytes, ttl {}", self.payload, self.ttl)
    }
}

pub const FIN: u8 = 1;
pub const SYN: u8 = 2;
pub const RST: u8 = 4;
pub const PUSH: u8 = 8;
pub const ACK: u8 = 16;

/// Types of SCTP's chunks (RFC 9260, 3.2).
pub mod chunk {
    pub const DATA: u8 = 0;
    pub const INIT: u8 = 1;
    pub const INIT_ACK: u8 = 2;
    pub const ABORT: u8 = 6;
    pub const SHUTDOWN: u8 = 7;
    pub const SHUTDOWN_ACK: u8 = 8;
    pub const ERROR: u8 = 9;
    pub const COOKIE_ECHO: u8 = 10;
    pub const COOKIE_ACK: u8 = 11;
    pub const SHUTDOWN_COMPLETE: u8 = 14;
    pub const ALL: [u8; 10] = [
        DATA,
        INIT,
        INIT_ACK,
        ABORT,
        SHUTDOWN,
        SHUTDOWN_ACK,
        ERROR,
        COOKIE_ECHO,
        COOKIE_ACK,
        SHUTDOWN_COMPLETE,
    ];
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub enum Error {
    PortUnreachable,
    HostUnreachable,
    TimeExceeded,
    TooBig { mtu: u16 },
}

impl Transport {
    fn name(self) -> &'static str {
        match self {
            Transport::Tcp => "tcp",
            Transport::Udp => "udp",
            Transport::Sctp => "sctp",
        }
    }
}

impl fmt::Display for Flow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let transport = self.transport.name();
        write!(f, "{transport} {} to {}", self.client, self.service)
    }
}

impl Flow {
    fn said(&self, datagram: &Datagram) -> String {
        match self.transport {
            Transport::Sctp => {
                let Datagram {
                    flags,
                    payload,
                    ttl,
                    ..
                } = datagram;
                format!("chunk {flags}, {payload} bytes, ttl {ttl}")
            }
            Transport::Tcp | Transport::Udp => datagram.to_string(),
        }
    }
}

impl fmt::Display for Datagram {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (flag, name) in [
            (SYN, "SYN"),
            (FIN, "FIN"),
            (RST, "RST"),
            (PUSH, "PSH"),
            (ACK, "ACK"),
        ] {
            if self.flags & flag != 0 {
                write!(f, "{name} ")?;
            }
        }
        write!(f, "{} bytes, ttl {}", self.payload, self.ttl)?;
        if self.pieces > 1 {
            write!(f, ", in {} fragments", self.pieces)?;
        }
        Ok(())
    }
}

impl Scenario {
    /// One line for a reader.
    pub fn describe(&self, step: &Step) -> String {
        let flow = |index: &usize| self.flows[*index];
        match step {
            Step::Command { line, input } if input.is_empty() => format!("ipvsadm {line}"),
            Step::Command { line, input } => format!("ipvsadm {line}, reading {input:?}"),
            Step::Setting { name, value } => format!("setting {name} {value}"),
            Step::Mark { mark, rule } => format!("mark {mark} for {rule}"),
            Step::Client { flow: at, datagram } => {
                format!("{}: {}", flow(at), flow(at).said(datagram))
            }
            Step::Server { flow: at, datagram } => {
                format!("answer to {}: {}", flow(at), flow(at).said(datagram))
            }
            Step::ServerError { flow: at, error } => {
                format!("{error:?} from {}'s server", flow(at))
            }
            Step::ClientError { flow: at, error } => {
                format!("{error:?} from {}'s client", flow(at))
            }
            Step::ClientSecured { flow: at, secured } => format!("beside {}: {secured}", flow(at)),
            Step::ServerSecured { flow: at, secured } => {
                format!("beside the answers to {}: {secured}", flow(at))
            }
        }
    }
}
