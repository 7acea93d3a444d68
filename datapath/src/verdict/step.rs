//! The steps between the walk and the verdict.

use super::Bounce;
use crate::wire::ports::Ports;

/// A step that must be taken before the packet has its `Verdict`. In the kernel each is a
/// separate function or program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// The frame is no plain one of TCP or UDP: [`crate::walk::rest`] decides.
    Rest,
    /// An ICMP message: [`crate::icmp::follow`] decides.
    Related,
    /// A packet of ESP or AH: [`crate::secured::carry`] decides.
    Secured,
    /// An ICMP error about an unknown connection of this endpoint: [`crate::quoted::schedule`]
    /// opens the connection.
    Quoted(u32),
    /// A packet that may open a connection of a service with calls, by the service's endpoint, or
    /// with which a masqueraded server may begin a call: [`crate::call::carry`] forwards it.
    Call(u32),
    /// GUE or GRE leads to this server: [`crate::tunnel::wrap`] writes the headers.
    Tunnel(u32),
    /// A packet of a translated flow: [`crate::translate::carry`] forwards it to this server or,
    /// with [`crate::table::entry::NONE`], to a client.
    Translate(u32),
    /// The first packet of a translated flow with these ports: [`crate::translate::enter::enter`]
    /// enters its translation, and [`Step::Translate`] follows.
    Enter(Ports),
    /// No client may name another one in its SYN ([`crate::translate::disown`]);
    /// [`Step::Translate`] follows.
    Disown,
    /// A SYN of a translated flow shall name the client ([`crate::translate::announce`]);
    /// [`Step::Translate`] follows.
    Announce,
    /// A PROXY header shall name the client ([`crate::translate::proxy`]); [`Step::Translate`]
    /// follows.
    Introduce,
    /// A PROXY header is due before the payload (1) or in place of it (0):
    /// [`crate::translate::proxy::put`] writes it.
    Put(u32),
    /// A packet of a translated flow, or an ICMP error about it, whose other end is of the other
    /// family: [`crate::translate::cross`] translates it. True for a packet of IPv6.
    Cross(bool),
    /// The director answers ([`crate::reply::answer`]). The number is the MTU in the answer, in
    /// bytes, or 0.
    Answer(Bounce, u32),
}
