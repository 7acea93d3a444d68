//! A verdict or a step as one word, which a separate function of the kernel can return.

use super::{BOUNCE_BASE, Bounce, DROP_BASE, Drop, HELD, Pass, SENT, Step, Verdict};
use crate::wire::ports::Ports;

/// The meanings of a word's high half. The low half has the detail.
mod tag {
    pub const SERVER: u64 = 0;
    pub const PASS: u64 = 1;
    pub const SEND: u64 = 2;
    pub const BOUNCE: u64 = 3;
    pub const ANSWER: u64 = 4;
    pub const RELATED: u64 = 5;
    pub const HOLD: u64 = 6;
    pub const DROP: u64 = 7;
    pub const TUNNEL: u64 = 8;
    pub const REST: u64 = 9;
    pub const TRANSLATE: u64 = 10;
    pub const ENTER: u64 = 11;
    pub const ANNOUNCE: u64 = 12;
    pub const INTRODUCE: u64 = 13;
    pub const PUT: u64 = 14;
    pub const CROSS: u64 = 15;
    pub const SECURED: u64 = 16;
    pub const DISOWN: u64 = 17;
    /// The bits that are equal in the tags of [`super::Word::onward`]: one comparison finds them.
    pub const ONWARD: u64 = 15;
    pub const CALL: u64 = 16 | TRANSLATE;
    pub const QUOTED: u64 = 32 | TRANSLATE;
}

/// A verdict, or a server's id, in one word, since a separate function of the kernel can return a
/// word. The walk uses words throughout: the compiler may leave the unused part of an enum
/// unwritten, which the kernel's verifier refuses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Word(pub u64);

impl Word {
    /// Set aside: [`Verdict::Hold`].
    pub const HOLD: Word = Word::new(tag::HOLD, 0);
    /// [`Step::Related`].
    pub const RELATED: Word = Word::new(tag::RELATED, 0);
    /// [`Step::Introduce`].
    pub const INTRODUCE: Word = Word::new(tag::INTRODUCE, 0);
    /// [`Step::Disown`].
    pub const DISOWN: Word = Word::new(tag::DISOWN, 0);
    /// [`Step::Announce`].
    pub const ANNOUNCE: Word = Word::new(tag::ANNOUNCE, 0);
    /// [`Step::Secured`].
    pub const SECURED: Word = Word::new(tag::SECURED, 0);
    /// [`Step::Rest`].
    pub const REST: Word = Word::new(tag::REST, 0);

    #[inline(always)]
    const fn new(tag: u64, detail: u32) -> Self {
        Self(tag << 32 | detail as u64)
    }

    #[inline(always)]
    const fn tag(self) -> u64 {
        self.0 >> 32
    }

    /// A server was found.
    #[inline(always)]
    #[must_use]
    pub const fn server(id: u32) -> Self {
        Self::new(tag::SERVER, id)
    }

    /// [`Verdict::Pass`].
    #[inline(always)]
    #[must_use]
    pub const fn pass(why: Pass) -> Self {
        Self::new(tag::PASS, why as u32)
    }

    /// [`Verdict::Send`].
    #[inline(always)]
    #[must_use]
    pub const fn send(interface: u32) -> Self {
        Self::new(tag::SEND, interface)
    }

    /// [`Verdict::Bounce`].
    #[inline(always)]
    #[must_use]
    pub const fn bounce(what: Bounce) -> Self {
        Self::new(tag::BOUNCE, what as u32)
    }

    /// [`Step::Answer`]; `mtu` in bytes.
    #[inline(always)]
    #[must_use]
    pub const fn answer(what: Bounce, mtu: u32) -> Self {
        Self::new(tag::ANSWER, what as u32 | mtu << 8)
    }

    /// [`Step::Tunnel`].
    #[inline(always)]
    #[must_use]
    pub const fn tunnel(server: u32) -> Self {
        Self::new(tag::TUNNEL, server)
    }

    /// [`Step::Translate`].
    #[inline(always)]
    #[must_use]
    pub const fn translate(server: u32) -> Self {
        Self::new(tag::TRANSLATE, server)
    }

    /// [`Step::Call`].
    #[inline(always)]
    #[must_use]
    pub const fn call(endpoint: u32) -> Self {
        Self::new(tag::CALL, endpoint)
    }

    /// [`Step::Quoted`].
    #[inline(always)]
    #[must_use]
    pub const fn quoted(endpoint: u32) -> Self {
        Self::new(tag::QUOTED, endpoint)
    }

    /// [`Verdict::Drop`].
    #[inline(always)]
    #[must_use]
    pub const fn drop(why: Drop) -> Self {
        Self::new(tag::DROP, why as u32)
    }

    /// The server's id, or the verdict's word.
    #[inline(always)]
    pub fn open(self) -> Result<u32, Word> {
        if self.tag() == tag::SERVER {
            Ok(self.0 as u32)
        } else {
            Err(self)
        }
    }

    /// The interface of a [`Verdict::Send`].
    #[inline(always)]
    #[must_use]
    pub fn sent(self) -> Option<u32> {
        if self.tag() != tag::SEND {
            return None;
        }
        Some(self.0 as u32)
    }

    /// The server of a [`Step::Tunnel`].
    #[inline(always)]
    #[must_use]
    pub fn tunnelled(self) -> Option<u32> {
        if self.tag() != tag::TUNNEL {
            return None;
        }
        Some(self.0 as u32)
    }

    /// The server of a [`Step::Translate`]; [`crate::table::entry::NONE`] is a client.
    #[inline(always)]
    #[must_use]
    pub fn translated(self) -> Option<u32> {
        if self.tag() != tag::TRANSLATE {
            return None;
        }
        Some(self.0 as u32)
    }

    /// The endpoint of a [`Step::Call`].
    #[inline(always)]
    #[must_use]
    pub fn calling(self) -> Option<u32> {
        if self.tag() != tag::CALL {
            return None;
        }
        Some(self.0 as u32)
    }

    /// The endpoint of a [`Step::Quoted`].
    #[inline(always)]
    #[must_use]
    pub fn quoting(self) -> Option<u32> {
        if self.tag() != tag::QUOTED {
            return None;
        }
        Some(self.0 as u32)
    }

    /// The detail of a [`Step::Translate`], [`Step::Call`] or [`Step::Quoted`]. In the kernel each
    /// is a separate program, which gets this number.
    #[inline(always)]
    #[must_use]
    pub fn onward(self) -> Option<u32> {
        if self.tag() & tag::ONWARD != tag::TRANSLATE {
            return None;
        }
        Some(self.0 as u32)
    }

    /// [`Step::Put`].
    #[inline(always)]
    #[must_use]
    pub const fn put(keeps: bool) -> Self {
        Self::new(tag::PUT, keeps as u32)
    }

    /// The detail of a [`Step::Put`]: 1 if the payload stays behind the header, else 0.
    #[inline(always)]
    #[must_use]
    pub fn putting(self) -> Option<u32> {
        if self.tag() != tag::PUT {
            return None;
        }
        Some(self.0 as u32 & 1)
    }

    /// [`Step::Cross`].
    #[inline(always)]
    #[must_use]
    pub const fn cross(from_v6: bool) -> Self {
        Self::new(tag::CROSS, from_v6 as u32)
    }

    /// For a [`Step::Cross`]: whether the packet is of IPv6.
    #[inline(always)]
    #[must_use]
    pub fn crossing(self) -> Option<bool> {
        if self.tag() != tag::CROSS {
            return None;
        }
        Some(self.0 as u32 != 0)
    }

    /// [`Step::Enter`].
    #[inline(always)]
    #[must_use]
    pub const fn enter(ports: Ports) -> Self {
        Self::new(
            tag::ENTER,
            (ports.target as u32) << 16 | ports.source as u32,
        )
    }

    /// The ports of a [`Step::Enter`].
    #[inline(always)]
    #[must_use]
    pub fn entering(self) -> Option<Ports> {
        if self.tag() != tag::ENTER {
            return None;
        }
        Some(Ports::of(self.0 as u32))
    }

    /// The number of the [`Bounce`] of a [`Step::Answer`], and the MTU in the answer, in bytes.
    #[inline(always)]
    #[must_use]
    pub fn due(self) -> Option<(u32, u32)> {
        if self.tag() != tag::ANSWER {
            return None;
        }
        Some((self.0 as u32 & 0xff, self.0 as u32 >> 8))
    }

    /// The verdict that the word stands for. A word that stands for a step is an internal error.
    #[inline(always)]
    #[must_use]
    pub fn verdict(self) -> Verdict {
        let detail = self.0 as u32;
        match self.tag() {
            tag::PASS => Verdict::Pass(Pass::from(detail)),
            tag::SEND => Verdict::Send(detail),
            tag::BOUNCE => Verdict::Bounce(Bounce::from(detail)),
            tag::HOLD => Verdict::Hold,
            tag::DROP => Verdict::Drop(Drop::from(detail)),
            _ => Verdict::Drop(Drop::Internal),
        }
    }

    /// The step that the word stands for; `None` for a verdict or a server.
    #[inline(always)]
    #[must_use]
    pub fn step(self) -> Option<Step> {
        let detail = self.0 as u32;
        Some(match self.tag() {
            tag::REST => Step::Rest,
            tag::RELATED => Step::Related,
            tag::SECURED => Step::Secured,
            tag::QUOTED => Step::Quoted(detail),
            tag::CALL => Step::Call(detail),
            tag::TUNNEL => Step::Tunnel(detail),
            tag::TRANSLATE => Step::Translate(detail),
            tag::ENTER => Step::Enter(Ports::of(detail)),
            tag::DISOWN => Step::Disown,
            tag::ANNOUNCE => Step::Announce,
            tag::INTRODUCE => Step::Introduce,
            tag::PUT => Step::Put(detail & 1),
            tag::CROSS => Step::Cross(detail != 0),
            tag::ANSWER => Step::Answer(Bounce::from(detail & 0xff), detail >> 8),
            _ => return None,
        })
    }

    /// The place of this outcome's counter.
    #[inline(always)]
    #[must_use]
    pub fn counter(self) -> u32 {
        let detail = self.0 as u32;
        match self.tag() {
            tag::PASS => detail,
            tag::SEND => SENT,
            tag::BOUNCE => BOUNCE_BASE.wrapping_add(detail),
            tag::HOLD => HELD,
            tag::DROP => DROP_BASE.wrapping_add(detail),
            // A step has no counter: to count one is an internal error.
            _ => DROP_BASE.wrapping_add(Drop::Internal as u32),
        }
    }
}
