//! One entry of the connection table, as it is listed.

use std::fmt;
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::Protocol;

/// The state of a connection, by IPVS's names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum State {
    None,
    Established,
    SynSent,
    SynRecv,
    FinWait,
    TimeWait,
    Close,
    CloseWait,
    LastAck,
    Listen,
    Synack,
    Udp,
    /// SCTP only.
    Closed,
    /// A persistence template whose client has proved that it is there.
    Assured,
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
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
            State::Closed => "CLOSED",
            State::Assured => "ASSURED",
        })
    }
}

/// One connection: who, to what, and which real server has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Connection {
    pub protocol: Protocol,
    pub client: SocketAddr,
    pub virtual_address: SocketAddr,
    pub server: SocketAddr,
    pub state: State,
    /// Seconds until the entry expires if no packet comes.
    pub expires_s: u32,
}
