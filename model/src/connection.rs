//! One entry of the connection table, as it is listed.

use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::Protocol;
use crate::nearest::proposal;

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

impl State {
    pub const ALL: [State; 14] = [
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
        State::Closed,
        State::Assured,
    ];

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

    /// In large or small letters, with `_` or `-` between words.
    fn from_str(name: &str) -> Result<Self, Self::Err> {
        let written = name.to_uppercase().replace('-', "_");
        let mut all = State::ALL.into_iter();
        all.find(|state| state.name() == written)
            .ok_or_else(|| UnknownState {
                name: name.to_owned(),
            })
    }
}

/// A name that is no state's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown state \"{name}\"{}", proposal(name, &State::ALL.map(State::name)))]
pub struct UnknownState {
    pub name: String,
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
    /// The template of a firewall mark's client: it is for every protocol, and the mark stands in
    /// place of the virtual address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mark: Option<u32>,
}
