//! The steps of a scenario: commands of an operator, and packets of clients and servers.
//!
//! A scenario is plain data and has no expected results: those of the two directors are compared
//! with each other. A packet is symbolic where it depends on what the director did before: an
//! answer comes from the server that got the flow's last packet.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};
use shunt_lab::{Family, Segment};

/// Each scenario of a bed has its own addresses in each segment, this many of them.
const SPAN: u8 = 16;
/// The number of scenarios that share a bed. The first slot has the bed's own addresses.
pub(super) const SLOTS: u8 = 5;
/// The number of addresses of each kind that a scenario uses.
pub(super) const VIRTUALS: u8 = 4;
/// The virtual address for the services of firewall marks. An address is never used for both kinds.
pub(super) const MARKED: u8 = 3;
pub(super) const SERVERS: u8 = 5;
pub(super) const CLIENTS: u8 = 6;

/// One scenario, with all that is needed to play it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Scenario {
    pub seed: u64,
    pub slot: Slot,
    pub flows: Vec<Flow>,
    pub steps: Vec<Step>,
}

/// The addresses of one scenario among those that share a bed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Slot(pub u8);

impl Slot {
    fn host(self, segment: Segment, family: Family, number: u8) -> IpAddr {
        segment.host(family, (self.0 + 1) * SPAN + number)
    }

    pub(super) fn virtual_address(self, family: Family, number: u8) -> IpAddr {
        self.host(Segment::Virtual, family, number)
    }

    pub(super) fn server(self, family: Family, number: u8) -> IpAddr {
        self.host(Segment::Back, family, number)
    }

    pub(super) fn client(self, family: Family, number: u8) -> IpAddr {
        self.host(Segment::Clients, family, number)
    }

    pub(super) fn has_client(self, address: IpAddr) -> bool {
        let family = match address {
            IpAddr::V4(_) => Family::V4,
            IpAddr::V6(_) => Family::V6,
        };
        (0..CLIENTS).any(|number| self.client(family, number) == address)
    }
}

/// The slots of a bed.
pub(super) fn groups(scenarios: &[Scenario]) -> impl Iterator<Item = &[Scenario]> {
    scenarios.chunk_by(|one, next| one.slot.0 < next.slot.0)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Transport {
    Tcp,
    Udp,
    Sctp,
}

/// The packets of a firewall mark.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Rule {
    pub transport: Transport,
    pub at: SocketAddr,
}

impl Rule {
    pub(super) fn has(&self, flow: &Flow) -> bool {
        self.transport == flow.transport && self.at == flow.service
    }
}

/// The rule as `shunt mark add` reads it.
impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.transport.name(), self.at)
    }
}

/// A client's port, and the service to which it sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Flow {
    pub transport: Transport,
    pub client: SocketAddr,
    pub service: SocketAddr,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) enum Step {
    /// Runs `ipvsadm` with these arguments and this input.
    Command { line: String, input: String },
    /// Sets a sysctl of IPVS (`net.ipv4.vs.*`) and the same setting of Shunt.
    Setting { name: String, value: u8 },
    /// Gives packets of clients to this target this firewall mark.
    Mark { mark: u32, rule: Rule },
    /// The flow's client sends a packet.
    Client { flow: usize, datagram: Datagram },
    /// The flow's masqueraded server answers.
    Server { flow: usize, datagram: Datagram },
    /// The flow's masqueraded server, or a router before it, rejects the flow's last packet.
    ServerError { flow: usize, error: Error },
    /// The client, or a router before it, rejects an answer.
    ClientError { flow: usize, error: Error },
    /// The flow's client sends an IPsec packet.
    ClientSecured { flow: usize, secured: Secured },
    /// The flow's masqueraded server sends an IPsec packet.
    ServerSecured { flow: usize, secured: Secured },
}

/// The properties of a packet besides addresses and ports.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) struct Datagram {
    /// The flags of TCP, or the chunk type of SCTP. UDP has neither.
    pub flags: u8,
    pub payload: u16,
    pub ttl: u8,
    pub traffic_class: u8,
    pub dont_fragment: bool,
    /// The number of fragments.
    pub pieces: u8,
}

/// A packet that has no ports (RFC 4302, RFC 4303).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Secured {
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

pub(super) const FIN: u8 = 1;
pub(super) const SYN: u8 = 2;
pub(super) const RST: u8 = 4;
pub(super) const PUSH: u8 = 8;
pub(super) const ACK: u8 = 16;

/// Chunk types of SCTP (RFC 9260, 3.2).
pub(super) mod chunk {
    pub(crate) const DATA: u8 = 0;
    pub(crate) const INIT: u8 = 1;
    pub(crate) const INIT_ACK: u8 = 2;
    pub(crate) const ABORT: u8 = 6;
    pub(crate) const SHUTDOWN: u8 = 7;
    pub(crate) const SHUTDOWN_ACK: u8 = 8;
    pub(crate) const ERROR: u8 = 9;
    pub(crate) const COOKIE_ECHO: u8 = 10;
    pub(crate) const COOKIE_ACK: u8 = 11;
    pub(crate) const SHUTDOWN_COMPLETE: u8 = 14;
    pub(crate) const ALL: [u8; 10] = [
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
pub(super) enum Error {
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
    /// Describes the step in one line.
    pub(super) fn describe(&self, step: &Step) -> String {
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
