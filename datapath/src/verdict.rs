//! The outcome of a packet. Each outcome has a counter, and each counter a name. [`Step`] has what
//! comes before the outcome.

mod names;
mod numbers;
mod step;
mod word;

pub use names::{Class, NAMES};
pub use step::Step;
pub use word::Word;

/// The final outcome of a packet, which the shell turns into the hook's own action.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The kernel gets the packet, unchanged.
    Pass(Pass),
    /// The frame leaves by the interface with this index.
    Send(u32),
    /// The frame holds an answer of the director, and leaves by the interface that it came by.
    Bounce(Bounce),
    /// A later fragment that came before its first one: it is set aside for the daemon to send
    /// again.
    Hold,
    /// The packet is dropped.
    Drop(Drop),
}

/// Why a packet is left to the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Pass {
    /// Neither IPv4 nor IPv6.
    NotIp = 0,
    /// Neither to a service nor from a masqueraded server.
    NotOurs = 1,
    /// The headers contradict themselves, end too early, or go on beyond a limit.
    NotUnderstood = 2,
    /// A segment or chunk that opens nothing, of a connection that is not known.
    NotOpening = 3,
    /// The server is the director itself.
    Local = 4,
    /// An ICMP message that is no error about a flow of ours.
    Icmp = 5,
    /// The program for [`Step::Rest`] was missing: an internal error.
    NoRest = 6,
    /// No server of a firewall mark's service can take the packet, so it goes by the kernel's
    /// routes (`cache_bypass`).
    Bypassed = 7,
    /// A later fragment whose first one has not come. It could not be set aside, or its time is up.
    LostFragment = 8,
    /// The destination MAC address is another machine's, a multicast or the broadcast one.
    OtherHost = 9,
    /// The frame has the tag of a VLAN. The VLAN's device, if there is one, gets it without the
    /// tag.
    Tagged = 10,
    /// In the name of a masqueraded server, by a device that does not lead to it.
    WrongDevice = 11,
}

/// The kind of answer that the director sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Bounce {
    /// No server can take the connection: port unreachable, as IPVS answers.
    Unreachable = 0,
    /// The packet exceeds the MTU of its way.
    TooBig = 1,
    /// The TTL or hop limit is used up.
    TimeExceeded = 2,
    /// The connection has ended: a TCP reset.
    Reset = 3,
}

/// Why a packet is dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Drop {
    /// The flow's server is not in its pool.
    ServerGone = 0,
    /// No way to the server is known: no route, no neighbour or no interface.
    NoNextHop = 1,
    /// The connection table has no room and the method needs an entry.
    TableFull = 2,
    /// No server can take the connection, and no answer may be sent.
    NoServer = 3,
    /// TTL or hop limit used up, and no answer may be sent.
    Expired = 4,
    /// Too big for the way to the server, and no answer may be sent.
    TooBig = 5,
    /// The header checksum is wrong.
    BadChecksum = 6,
    /// The source cannot be a client's: unspecified, loopback, multicast, or the service itself.
    BadSource = 7,
    /// There is no room in front of or behind the frame.
    NoRoom = 8,
    /// A later fragment of a datagram that gets no entry, and whose first fragment found no server.
    LostFragment = 9,
    /// A fragment of a flow of ours that overlaps the transport header.
    BadFragment = 10,
    /// A table that must exist is missing: an internal error.
    Internal = 11,
    /// No way back to the client is known.
    NoWayBack = 12,
    /// A new connection, one of those that are dropped against a flood (`drop_packet`).
    Defence = 13,
    /// No local address and port is free for a translated flow.
    NoLocalPort = 14,
    /// The table of translations has no room.
    NoTranslation = 15,
    /// A fragment of an SCTP packet whose port must be rewritten: the checksum covers the whole
    /// packet.
    CutChecksum = 16,
    /// The other family has no counterpart: an ICMP error without one, or the first fragment of a
    /// datagram without a checksum.
    Untranslatable = 17,
    /// A packet for a service with calls has no Call-ID.
    NoCallId = 18,
    /// XDP cannot send by that device, and the driver of the input device cannot hand a frame on to
    /// tc. Only the shell returns this.
    NotCarried = 19,
}

/// Counted events that are no outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Note {
    /// A connection got an entry.
    Opened = 0,
    /// Forwarded by hash without an entry: both buckets were full of established flows.
    Untracked = 1,
    /// A half-open or closed entry gave way to a new flow.
    Displaced = 2,
    /// A SYN found a closing entry and was scheduled anew.
    Reused = 3,
    /// An ICMP error about a flow was forwarded to the packet's sender.
    IcmpRelated = 4,
    /// A fragment followed its first one.
    FragmentFollowed = 5,
    /// The way to a client was not prepared, so the kernel's routes were looked up.
    RouteAsked = 6,
    /// A process on the director itself was given a server.
    CallerServed = 7,
}

const PASSES: u32 = 12;
const BOUNCES: u32 = 4;
const DROPS: u32 = 20;
const NOTES: u32 = 8;
const SENT: u32 = PASSES;
const HELD: u32 = SENT.saturating_add(1);
const BOUNCE_BASE: u32 = HELD.saturating_add(1);
const DROP_BASE: u32 = BOUNCE_BASE.saturating_add(BOUNCES);
const NOTE_BASE: u32 = DROP_BASE.saturating_add(DROPS);

/// The number of counters.
pub const COUNTERS: u32 = NOTE_BASE.saturating_add(NOTES);

impl Note {
    /// The place of this note's counter.
    #[inline(always)]
    #[must_use]
    pub fn counter(self) -> u32 {
        NOTE_BASE.wrapping_add(self as u32)
    }
}
