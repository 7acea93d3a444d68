//! The outcome of a packet. Each outcome has a counter, and each counter a name.

mod names;
mod numbers;

use crate::wire::ports::Ports;

pub use names::{Class, NAMES};

/// The outcome of the walk, or the step that is due. The shell turns an outcome into the hook's own
/// action.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The kernel gets the packet, unchanged.
    Pass(Pass),
    /// The frame leaves by the interface with this index.
    Send(u32),
    /// The frame holds an answer of the director, and leaves by the interface that it came by.
    Bounce(Bounce),
    /// An answer is due: [`crate::reply::answer`] makes it. The number is the MTU to tell in bytes,
    /// or 0.
    Answer(Bounce, u32),
    /// An ICMP message is due at [`crate::icmp::follow`].
    Related,
    /// The frame is no plain one of TCP or UDP: [`crate::walk::rest`] decides.
    Rest,
    /// GUE or GRE leads to this server: [`crate::tunnel::wrap`] writes the headers.
    Tunnel(u32),
    /// A packet of a translated flow: [`crate::translate::carry`] forwards it to this server or,
    /// with [`crate::table::entry::NONE`], to a client.
    Translate(u32),
    /// A packet that may open a connection of a service with calls, by the service's endpoint, or
    /// with which a masqueraded server may begin a call: [`crate::call::carry`] forwards it.
    Call(u32),
    /// An ICMP error about an unknown connection of this endpoint, for [`crate::quoted::schedule`].
    Quoted(u32),
    /// The first packet of a translated flow with these ports: [`crate::translate::enter::enter`]
    /// enters its translation, and [`Verdict::Translate`] follows.
    Enter(u32),
    /// No client may name another one in its SYN ([`crate::translate::disown`]). Then
    /// [`crate::translate::carry`] runs again.
    Disown,
    /// A SYN of a translated flow shall name the client ([`crate::translate::announce`]);
    /// [`Verdict::Translate`] follows.
    Announce,
    /// A PROXY header shall name the client ([`crate::translate::proxy`]); [`Verdict::Translate`]
    /// follows.
    Introduce,
    /// A PROXY header is due before the payload (1) or in place of it (0):
    /// [`crate::translate::proxy::put`] writes it.
    Put(u32),
    /// A packet of a translated flow, or an ICMP error about it, whose other end is of the other
    /// family: [`crate::translate::cross`] translates it. 1 for a packet of IPv6.
    Cross(u32),
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
    /// The program for [`Verdict::Rest`] was missing: an internal error.
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

/// A verdict, or a server's id, in one word, since a separate function of the kernel can return a
/// word. The walk uses words throughout: the compiler may leave the unused part of an enum
/// unwritten, which the kernel's verifier refuses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Word(pub u64);

impl Word {
    /// Set aside: [`Verdict::Hold`].
    pub const HOLD: Word = Word::new(6, 0);
    /// [`Verdict::Related`].
    pub const RELATED: Word = Word::new(5, 0);
    /// [`Verdict::Introduce`].
    pub const INTRODUCE: Word = Word::new(13, 0);
    /// [`Verdict::Disown`].
    pub const DISOWN: Word = Word::new(17, 0);
    /// [`Verdict::Announce`].
    pub const ANNOUNCE: Word = Word::new(12, 0);
    /// An IPsec packet, for a separate program: [`crate::secured`].
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

    /// [`Verdict::Pass`].
    #[inline(always)]
    #[must_use]
    pub const fn pass(why: Pass) -> Self {
        Self::new(1, why as u32)
    }

    /// [`Verdict::Send`].
    #[inline(always)]
    #[must_use]
    pub const fn send(interface: u32) -> Self {
        Self::new(2, interface)
    }

    /// [`Verdict::Bounce`].
    #[inline(always)]
    #[must_use]
    pub const fn bounce(what: Bounce) -> Self {
        Self::new(3, what as u32)
    }

    /// [`Verdict::Answer`]; `mtu` in bytes.
    #[inline(always)]
    #[must_use]
    pub const fn answer(what: Bounce, mtu: u32) -> Self {
        Self::new(4, what as u32 | mtu << 8)
    }

    /// [`Verdict::Tunnel`].
    #[inline(always)]
    #[must_use]
    pub const fn tunnel(server: u32) -> Self {
        Self::new(8, server)
    }

    /// [`Verdict::Translate`].
    #[inline(always)]
    #[must_use]
    pub const fn translate(server: u32) -> Self {
        Self::new(10, server)
    }

    /// [`Verdict::Call`]. Its tag ends as that of a translated flow does: see [`Word::onward`].
    #[inline(always)]
    #[must_use]
    pub const fn call(endpoint: u32) -> Self {
        Self::new(26, endpoint)
    }

    /// [`Verdict::Quoted`]. Its tag ends as that of a translated flow does: see [`Word::onward`].
    #[inline(always)]
    #[must_use]
    pub const fn quoted(endpoint: u32) -> Self {
        Self::new(42, endpoint)
    }

    /// [`Verdict::Drop`].
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

    /// The interface that the packet leaves by.
    #[inline(always)]
    #[must_use]
    pub fn sent(self) -> Option<u32> {
        if self.0 >> 32 != 2 {
            return None;
        }
        Some(self.0 as u32)
    }

    /// The server of a [`Verdict::Tunnel`].
    #[inline(always)]
    #[must_use]
    pub fn tunnelled(self) -> Option<u32> {
        if self.0 >> 32 != 8 {
            return None;
        }
        Some(self.0 as u32)
    }

    /// The server of a [`Verdict::Translate`]; [`crate::table::entry::NONE`] is a client.
    #[inline(always)]
    #[must_use]
    pub fn translated(self) -> Option<u32> {
        if self.0 >> 32 != 10 {
            return None;
        }
        Some(self.0 as u32)
    }

    /// The endpoint of a [`Verdict::Call`].
    #[inline(always)]
    #[must_use]
    pub fn calling(self) -> Option<u32> {
        if self.0 >> 32 != 26 {
            return None;
        }
        Some(self.0 as u32)
    }

    /// The endpoint of a [`Verdict::Quoted`].
    #[inline(always)]
    #[must_use]
    pub fn quoting(self) -> Option<u32> {
        if self.0 >> 32 != 42 {
            return None;
        }
        Some(self.0 as u32)
    }

    /// The detail that the next program gets, if a separate program goes on with the packet.
    #[inline(always)]
    #[must_use]
    pub fn onward(self) -> Option<u32> {
        if self.0 >> 32 & 15 != 10 {
            return None;
        }
        Some(self.0 as u32)
    }

    /// [`Verdict::Put`].
    #[inline(always)]
    #[must_use]
    pub const fn put(keeps: bool) -> Self {
        Self::new(14, keeps as u32)
    }

    /// The detail of a [`Verdict::Put`]: 1 if the payload stays behind the header, else 0.
    #[inline(always)]
    #[must_use]
    pub fn putting(self) -> Option<u32> {
        if self.0 >> 32 != 14 {
            return None;
        }
        Some(self.0 as u32 & 1)
    }

    /// [`Verdict::Cross`].
    #[inline(always)]
    #[must_use]
    pub const fn cross(from_v6: bool) -> Self {
        Self::new(15, from_v6 as u32)
    }

    /// For a [`Verdict::Cross`]: whether the packet is of IPv6.
    #[inline(always)]
    #[must_use]
    pub fn crossing(self) -> Option<bool> {
        if self.0 >> 32 != 15 {
            return None;
        }
        Some(self.0 as u32 != 0)
    }

    /// [`Verdict::Enter`].
    #[inline(always)]
    #[must_use]
    pub const fn enter(ports: Ports) -> Self {
        Self::new(11, (ports.target as u32) << 16 | ports.source as u32)
    }

    /// The ports of a [`Verdict::Enter`].
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

    /// The number of the [`Bounce`] of a [`Verdict::Answer`], and the MTU to tell in bytes.
    #[inline(always)]
    #[must_use]
    pub fn due(self) -> Option<(u32, u32)> {
        if self.0 >> 32 != 4 {
            return None;
        }
        Some((self.0 as u32 & 0xff, self.0 as u32 >> 8))
    }

    /// The verdict that the word stands for.
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
            17 => Verdict::Disown,
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
            // Steps have no counter: counting one is an internal error.
            _ => DROP_BASE.wrapping_add(Drop::Internal as u32),
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
