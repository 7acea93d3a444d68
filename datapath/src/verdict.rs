//! What becomes of a packet. Each outcome has a counter, and each counter a name.

mod names;
mod numbers;

use crate::packet::Ports;

pub use names::{Class, NAMES};

/// The outcome of the walk; the shell turns it into the hook's own action.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The kernel's business, untouched.
    Pass(Pass),
    /// Out of this interface, as it is in the frame.
    Send(u32),
    /// An answer made here, back out of the interface the frame came by.
    Bounce(Bounce),
    /// An answer is due and not yet made: [`crate::reply::answer`] makes it. The number is the
    /// MTU to tell, or 0.
    Answer(Bounce, u32),
    /// An ICMP message: [`crate::icmp::follow`] says what becomes of it.
    Related,
    /// No plain frame of TCP or UDP: [`crate::walk::rest`] says what becomes of it.
    Rest,
    /// A tunnel with a header of its own leads to this server: [`crate::tunnel::wrap`] makes it.
    Tunnel(u32),
    /// A translated flow: [`crate::translate::carry`] takes the packet on to this server, or to a
    /// client ([`crate::entry::NONE`]).
    Translate(u32),
    /// A packet that opens something with a service that has calls, by its endpoint, or that a
    /// masqueraded server of one may begin a call with: [`crate::call::carry`] takes it on.
    Call(u32),
    /// An error about no known connection of an endpoint, for [`crate::quoted::schedule`].
    Quoted(u32),
    /// The first packet of a translated flow, of these ports: [`crate::translate::enter::enter`]
    /// gives it its translation, and [`Verdict::Translate`] comes again.
    Enter(u32),
    /// Its SYN is to tell who the client is ([`crate::translate::announce`]); then likewise.
    Announce,
    /// A header introduces its client ([`crate::translate::proxy`]); then likewise.
    Introduce,
    /// The header of such a client is due, before the payload (1) or in place of it (0):
    /// [`crate::translate::proxy::put`] writes it.
    Put(u32),
    /// A packet of a translated flow, or an ICMP error about it, whose other end is of the other
    /// family than it is (1 for IPv6): [`crate::translate::cross`] takes it there.
    Cross(u32),
    /// A later fragment that came before its first: set aside for the daemon to bring again.
    Hold,
    Drop(Drop),
}

/// Why a packet is left to the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Pass {
    /// Neither IPv4 nor IPv6.
    NotIp = 0,
    /// To no service of ours, and from no server behind NAT.
    NotOurs = 1,
    /// Headers that contradict themselves, or end too early, or go on beyond our bound.
    NotUnderstood = 2,
    /// A segment or chunk that opens nothing, of a connection that is not known.
    NotOpening = 3,
    /// For a server on the director itself.
    Local = 4,
    /// An ICMP message that is no error about a flow of ours.
    Icmp = 5,
    /// [`Verdict::Rest`], and the program that goes on with such frames was not there: our own
    /// fault.
    NoRest = 6,
    /// To a mark's service that no server can take, and which the kernel's routes shall have then
    /// (`cache_bypass`).
    Bypassed = 7,
    /// A later fragment whose first one has not come, and that could not be set aside or has been
    /// for long enough.
    LostFragment = 8,
    /// To another machine's MAC address, or to those of many.
    OtherHost = 9,
    /// Of a VLAN: the VLAN's device sees it without the tag, if there is one.
    Tagged = 10,
}

/// What kind of answer is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Bounce {
    /// No server can take the connection: port unreachable, as IPVS answers.
    Unreachable = 0,
    /// The packet does not fit the way to the server.
    TooBig = 1,
    /// The packet has been under way for too long.
    TimeExceeded = 2,
    /// The connection is no more: a TCP reset.
    Reset = 3,
}

/// Why a packet is dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Drop {
    /// The flow's server is no longer in the pool.
    ServerGone = 0,
    /// No way to the server is known: no route, no neighbour, no interface.
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
    /// No room in front of or behind the frame.
    NoRoom = 8,
    /// A fragment of a datagram that gets no entry, whose first one found no server.
    LostFragment = 9,
    /// A fragment of a flow of ours that overlaps the transport header.
    BadFragment = 10,
    /// A table that must be there is not: our own fault.
    Internal = 11,
    /// No way back to the client is known.
    NoWayBack = 12,
    /// A new connection, one of so many that are dropped against a flood (`drop_packet`).
    Defence = 13,
    /// No local address and port is free for a translated flow.
    NoLocalPort = 14,
    /// The table of translations has no room.
    NoTranslation = 15,
    /// A fragment of an SCTP packet whose port must be rewritten: its checksum covers the whole.
    CutChecksum = 16,
    /// On its way to the other family, and nothing there says the same: an ICMP error without a
    /// counterpart, the first fragment of a datagram that has no checksum.
    Untranslatable = 17,
    /// A packet for a service with calls that has no Call-ID.
    NoCallId = 18,
    /// XDP cannot send by that device, and the driver of the one that it came by does not let a
    /// frame be handed on to tc. The shell's own: the walk never says it.
    NotCarried = 19,
}

/// Things worth a number that are no verdict.
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
    /// An ICMP error about a flow was brought to the right side.
    IcmpRelated = 4,
    /// A fragment followed its first one.
    FragmentFollowed = 5,
    /// The way to a client was not prepared, so the kernel's routes were asked.
    RouteAsked = 6,
    /// A process of the director itself was given a server.
    CallerServed = 7,
}

const PASSES: u32 = 11;
const BOUNCES: u32 = 4;
const DROPS: u32 = 20;
const NOTES: u32 = 8;
const SENT: u32 = PASSES;
const HELD: u32 = SENT.saturating_add(1);
const BOUNCE_BASE: u32 = HELD.saturating_add(1);
const DROP_BASE: u32 = BOUNCE_BASE.saturating_add(BOUNCES);
const NOTE_BASE: u32 = DROP_BASE.saturating_add(DROPS);

/// How many counters there are.
pub const COUNTERS: u32 = NOTE_BASE.saturating_add(NOTES);

/// A verdict, or a server's id, in one word: what a function of its own in the kernel can return.
/// The walk speaks in words throughout, since the compiler may leave the unused part of an enum
/// without a value, which the kernel's verifier does not let pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Word(pub u64);

impl Word {
    /// Set aside: [`Verdict::Hold`].
    pub const HOLD: Word = Word::new(6, 0);
    /// [`Verdict::Related`].
    pub const RELATED: Word = Word::new(5, 0);
    /// [`Verdict::Introduce`].
    pub const INTRODUCE: Word = Word::new(13, 0);
    /// [`Verdict::Announce`].
    pub const ANNOUNCE: Word = Word::new(12, 0);
    /// IPsec's, which goes by a program of its own: [`crate::secured`].
    pub const SECURED: Word = Word::new(16, 0);
    /// [`Verdict::Rest`].
    pub const REST: Word = Word::new(9, 0);

    #[inline(always)]
    const fn new(tag: u64, detail: u32) -> Self {
        Self(tag << 32 | detail as u64)
    }

    /// A server was found.
    #[inline(always)]
    #[must_use]
    pub const fn server(id: u32) -> Self {
        Self::new(0, id)
    }

    #[inline(always)]
    #[must_use]
    pub const fn pass(why: Pass) -> Self {
        Self::new(1, why as u32)
    }

    #[inline(always)]
    #[must_use]
    pub const fn send(interface: u32) -> Self {
        Self::new(2, interface)
    }

    #[inline(always)]
    #[must_use]
    pub const fn bounce(what: Bounce) -> Self {
        Self::new(3, what as u32)
    }

    #[inline(always)]
    #[must_use]
    pub const fn answer(what: Bounce, mtu: u32) -> Self {
        Self::new(4, what as u32 | mtu << 8)
    }

    #[inline(always)]
    #[must_use]
    pub const fn tunnel(server: u32) -> Self {
        Self::new(8, server)
    }

    #[inline(always)]
    #[must_use]
    pub const fn translate(server: u32) -> Self {
        Self::new(10, server)
    }

    /// Its tag ends as that of a translated flow does: see [`Word::onward`].
    #[inline(always)]
    #[must_use]
    pub const fn call(endpoint: u32) -> Self {
        Self::new(26, endpoint)
    }

    /// Likewise.
    #[inline(always)]
    #[must_use]
    pub const fn quoted(endpoint: u32) -> Self {
        Self::new(42, endpoint)
    }

    #[inline(always)]
    #[must_use]
    pub const fn drop(why: Drop) -> Self {
        Self::new(7, why as u32)
    }

    /// The server's id, or the verdict's word.
    #[inline(always)]
    pub fn open(self) -> Result<u32, Word> {
        if self.0 >> 32 == 0 {
            Ok(self.0 as u32)
        } else {
            Err(self)
        }
    }

    /// The server to which a tunnel is due.
    #[inline(always)]
    #[must_use]
    pub fn tunnelled(self) -> Option<u32> {
        if self.0 >> 32 != 8 {
            return None;
        }
        Some(self.0 as u32)
    }

    /// The server to which a packet of a translated flow goes; [`crate::entry::NONE`] is a client.
    #[inline(always)]
    #[must_use]
    pub fn translated(self) -> Option<u32> {
        if self.0 >> 32 != 10 {
            return None;
        }
        Some(self.0 as u32)
    }

    /// The endpoint with which something is opened that may be a call.
    #[inline(always)]
    #[must_use]
    pub fn calling(self) -> Option<u32> {
        if self.0 >> 32 != 26 {
            return None;
        }
        Some(self.0 as u32)
    }

    /// The endpoint of the service that an ICMP error may open something with.
    #[inline(always)]
    #[must_use]
    pub fn quoting(self) -> Option<u32> {
        if self.0 >> 32 != 42 {
            return None;
        }
        Some(self.0 as u32)
    }

    /// Whether it goes on with a program of its own, to which the detail is handed.
    #[inline(always)]
    #[must_use]
    pub fn onward(self) -> Option<u32> {
        if self.0 >> 32 & 15 != 10 {
            return None;
        }
        Some(self.0 as u32)
    }

    #[inline(always)]
    #[must_use]
    pub const fn put(keeps: bool) -> Self {
        Self::new(14, keeps as u32)
    }

    /// Whether the payload stays behind a header that is due: 1 or 0.
    #[inline(always)]
    #[must_use]
    pub fn putting(self) -> Option<u32> {
        if self.0 >> 32 != 14 {
            return None;
        }
        Some(self.0 as u32 & 1)
    }

    #[inline(always)]
    #[must_use]
    pub const fn cross(from_v6: bool) -> Self {
        Self::new(15, from_v6 as u32)
    }

    /// Whether a packet that is to be taken to the other family is of IPv6.
    #[inline(always)]
    #[must_use]
    pub fn crossing(self) -> Option<bool> {
        if self.0 >> 32 != 15 {
            return None;
        }
        Some(self.0 as u32 != 0)
    }

    #[inline(always)]
    #[must_use]
    pub const fn enter(ports: Ports) -> Self {
        Self::new(11, (ports.target as u32) << 16 | ports.source as u32)
    }

    /// The ports of a translated flow that is to be entered.
    #[inline(always)]
    #[must_use]
    pub fn entering(self) -> Option<Ports> {
        if self.0 >> 32 != 11 {
            return None;
        }
        Some(Ports {
            source: self.0 as u16,
            target: (self.0 >> 16) as u16,
            flags: 0,
        })
    }

    /// The answer that is due, with the MTU to tell.
    #[inline(always)]
    #[must_use]
    pub fn due(self) -> Option<(u32, u32)> {
        if self.0 >> 32 != 4 {
            return None;
        }
        Some((self.0 as u32 & 0xff, self.0 as u32 >> 8))
    }

    /// What the word says.
    #[inline(always)]
    #[must_use]
    pub fn verdict(self) -> Verdict {
        let detail = self.0 as u32;
        match self.0 >> 32 {
            1 => Verdict::Pass(Pass::from(detail)),
            2 => Verdict::Send(detail),
            3 => Verdict::Bounce(Bounce::from(detail)),
            4 => Verdict::Answer(Bounce::from(detail & 0xff), detail >> 8),
            5 => Verdict::Related,
            6 => Verdict::Hold,
            7 => Verdict::Drop(Drop::from(detail)),
            8 => Verdict::Tunnel(detail),
            9 => Verdict::Rest,
            10 => Verdict::Translate(detail),
            11 => Verdict::Enter(detail),
            12 => Verdict::Announce,
            13 => Verdict::Introduce,
            14 => Verdict::Put(detail),
            15 => Verdict::Cross(detail),
            26 => Verdict::Call(detail),
            42 => Verdict::Quoted(detail),
            _ => Verdict::Drop(Drop::Internal),
        }
    }

    /// The place of this outcome's counter.
    #[inline(always)]
    #[must_use]
    pub fn counter(self) -> u32 {
        let detail = self.0 as u32;
        match self.0 >> 32 {
            1 => detail,
            2 => SENT,
            3 => BOUNCE_BASE.wrapping_add(detail),
            6 => HELD,
            7 => DROP_BASE.wrapping_add(detail),
            // Steps on the way to an outcome; whoever counts one forgot to take it.
            _ => DROP_BASE.wrapping_add(Drop::Internal as u32),
        }
    }
}

impl Drop {
    /// Why a translation was not entered ([`crate::tables::entered`]).
    #[inline(always)]
    #[must_use]
    pub fn refused(entered: u32) -> Self {
        if entered == crate::tables::entered::THERE {
            Drop::NoLocalPort
        } else {
            Drop::NoTranslation
        }
    }
}

impl Note {
    /// The place of this note's counter.
    #[inline(always)]
    #[must_use]
    pub fn counter(self) -> u32 {
        NOTE_BASE.wrapping_add(self as u32)
    }
}
