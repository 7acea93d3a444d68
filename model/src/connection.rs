//! One entry of the connection table, as a listing shows it.

use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::Protocol;
use crate::nearest::proposal;

/// The state of a connection, under the name that IPVS uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum State {
    /// No packet of the connection itself was seen, as of a persistence template.
    None,
    /// Both sides have accepted the connection, or the association.
    Established,
    /// The server has sent a SYN, and the client has not answered.
    SynSent,
    /// The client has sent a SYN, and the server has not accepted.
    SynRecv,
    /// One side has sent a FIN.
    FinWait,
    /// Both sides have sent a FIN.
    TimeWait,
    /// The connection was reset, or has ended.
    Close,
    /// The client has sent a FIN, and the answers pass the director.
    CloseWait,
    /// The last FIN waits for its acknowledgement.
    LastAck,
    /// IPVS has this state for a server that waits for a client; nothing leads to it here.
    Listen,
    /// The server has accepted, and the client has not confirmed (`secure_tcp`).
    Synack,
    /// A UDP flow, which has no other state.
    Udp,
    /// This state and those below belong to SCTP, which also uses `Established`.
    Init1,
    /// The server has sent an INIT chunk, and the client has not answered.
    Init,
    /// The client has sent a COOKIE-ECHO chunk.
    #[serde(rename = "C-SENT")]
    CookieSent,
    /// The server has sent a COOKIE-ECHO chunk.
    #[serde(rename = "C-REPLIED")]
    CookieReplied,
    /// The client has answered an INIT chunk of the server.
    #[serde(rename = "C-WAIT")]
    CookieWait,
    /// The server has answered the client's INIT chunk.
    Cookie,
    /// The client has echoed the server's cookie.
    #[serde(rename = "C-ECHOED")]
    CookieEchoed,
    /// The client has sent a SHUTDOWN chunk.
    #[serde(rename = "S-SENT")]
    ShutdownSent,
    /// The server has sent a SHUTDOWN chunk.
    #[serde(rename = "S-RECEIVED")]
    ShutdownReceived,
    /// A SHUTDOWN chunk was acknowledged.
    #[serde(rename = "S-ACK-SENT")]
    ShutdownAckSent,
    /// The association was refused by an ERROR chunk.
    Rejected,
    /// The association was aborted, or has ended.
    Closed,
    /// A persistence template whose client has proved that it exists.
    Assured,
}

impl State {
    /// Every state, in the order of the packet path's numbers.
    pub const ALL: [State; 25] = [
        State::None,
        State::Established,
        State::SynSent,
        State::SynRecv,
        State::FinWait,
        State::TimeWait,
        State::Close,
        State::CloseWait,
        State::LastAck,
        State::Listen,
        State::Synack,
        State::Udp,
        State::Init1,
        State::Init,
        State::CookieSent,
        State::CookieReplied,
        State::CookieWait,
        State::Cookie,
        State::CookieEchoed,
        State::ShutdownSent,
        State::ShutdownReceived,
        State::ShutdownAckSent,
        State::Rejected,
        State::Closed,
        State::Assured,
    ];

    /// The name in listings, as `ipvsadm -Lc` prints it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            State::None => "NONE",
            State::Established => "ESTABLISHED",
            State::SynSent => "SYN_SENT",
            State::SynRecv => "SYN_RECV",
            State::FinWait => "FIN_WAIT",
            State::TimeWait => "TIME_WAIT",
            State::Close => "CLOSE",
            State::CloseWait => "CLOSE_WAIT",
            State::LastAck => "LAST_ACK",
            State::Listen => "LISTEN",
            State::Synack => "SYNACK",
            State::Udp => "UDP",
            State::Init1 => "INIT1",
            State::Init => "INIT",
            State::CookieSent => "C-SENT",
            State::CookieReplied => "C-REPLIED",
            State::CookieWait => "C-WAIT",
            State::Cookie => "COOKIE",
            State::CookieEchoed => "C-ECHOED",
            State::ShutdownSent => "S-SENT",
            State::ShutdownReceived => "S-RECEIVED",
            State::ShutdownAckSent => "S-ACK-SENT",
            State::Rejected => "REJECTED",
            State::Closed => "CLOSED",
            State::Assured => "ASSURED",
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for State {
    type Err = UnknownState;

    /// Reads upper and lower case, with `_` or `-` between words.
    fn from_str(name: &str) -> Result<Self, Self::Err> {
        let as_one = |name: &str| name.to_uppercase().replace('-', "_");
        let mut all = State::ALL.into_iter();
        all.find(|state| as_one(state.name()) == as_one(name))
            .ok_or_else(|| UnknownState {
                name: name.to_owned(),
            })
    }
}

/// The name is not that of a state.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown state \"{name}\"{}", proposal(name, &State::ALL.map(State::name)))]
pub struct UnknownState {
    /// The name as it was given.
    pub name: String,
}

/// One connection: its client, its service and its real server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Connection {
    /// The transport protocol of the connection.
    pub protocol: Protocol,
    /// The client's address and port. A template has port 0.
    pub client: SocketAddr,
    /// The address and port that the client asked for.
    pub virtual_address: SocketAddr,
    /// The real server, with its own address and port.
    pub server: SocketAddr,
    /// The state, as the packets that pass the director show it.
    pub state: State,
    /// Seconds until the entry expires if no packet arrives.
    pub expires_s: u32,
    /// The entry is a template of a firewall mark's service. It matches every protocol and has the
    /// mark in place of the virtual address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mark: Option<u32>,
    /// The key by which a persistence engine finds the template.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub engine: Option<EngineData>,
}

/// The key, beside the client, by which a persistence engine finds a template.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EngineData {
    /// The engine, such as `sip`.
    pub name: String,
    /// The Call-ID. Each byte is one Latin-1 character.
    pub data: String,
}

impl EngineData {
    /// The bytes as they were received.
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        let bytes = self.data.chars();
        bytes
            .map(|byte| u8::try_from(byte).unwrap_or(b'?'))
            .collect()
    }
}
