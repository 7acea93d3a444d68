//! Takes a packet that a director tunnelled to this real server out of its outer header.
//!
//! IP in IP, all four forms (RFC 2003, RFC 2473, RFC 4213): the outer header must be for an address
//! of this machine, the inner packet for a virtual address. One header is taken off, never two:
//! virtual addresses are no ends of tunnels. Everything else goes up as it came, and the kernel
//! does with it what it did before.
//!
//! Outer options and extension headers are taken off with the header as long as they have 60 bytes
//! together. Outer fragments are not put together: directors say "do not fragment" and answer
//! "too big" to clients, so one that arrives was made by somebody else. VLAN tags stay.

use crate::checksum;
use crate::family::{Family, V4, V6};
use crate::frame::Frame;
use crate::link;
use crate::method::set_ethertype;
use crate::packet::{self, Packet, Part};
use crate::realserver::{Knowledge, Note, key, role};

#[cfg(test)]
pub(crate) mod tests;

/// RFC 2003, 3.1, and RFC 4213, 3: what protocol the outer header announces.
const INNER_V4: u8 = 4;
const INNER_V6: u8 = 41;
/// What one step can take off.
const LONGEST_HEADER: usize = 60;

/// What becomes of the frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Goes up as it came.
    Untouched,
    /// Goes up without its outer header.
    Decapsulated,
    Drop,
}

/// Takes the outer header off if the frame is a tunnelled packet for this real server.
#[inline(always)]
pub fn receive<P: Frame, K: Knowledge>(frame: &mut P, known: &K) -> Outcome {
    let note = match look(frame, known) {
        Some(Ok(tunnel)) => take_off(frame, &tunnel),
        Some(Err(note)) => note,
        None => return Outcome::Untouched,
    };
    known.count(note);
    match note {
        Note::Decapsulated => Outcome::Decapsulated,
        Note::Congested => Outcome::Drop,
        _ => Outcome::Untouched,
    }
}

/// A tunnelled packet that is ours.
struct Tunnel {
    l3: usize,
    /// Bytes of the outer header.
    header: usize,
    inner_v6: bool,
    /// A router said on the way that it is congested.
    marked: bool,
}

/// The tunnelled packet that this frame is; why it is left alone; or that it is none.
#[inline(always)]
fn look<P: Frame, K: Knowledge>(frame: &P, known: &K) -> Option<Result<Tunnel, Note>> {
    let link = link::tags(frame)?;
    match link.ethertype {
        link::IPV4 => {
            // Nearly every packet ends here; only a tunnelled one has its checksum looked at.
            let protocol = frame.view::<20>(link.l3)?.u8::<9>();
            if protocol != INNER_V4 && protocol != INNER_V6 {
                return None;
            }
            let outer = packet::parse4(frame, link.l3).ok()?;
            let mark = frame.view::<2>(link.l3)?.u8::<1>();
            Some(outer_header::<V4, P, K>(frame, known, &outer, mark))
        }
        link::IPV6 => {
            let outer = packet::read6(frame, link.l3).ok()?;
            if outer.protocol != INNER_V4 && outer.protocol != INNER_V6 {
                return None;
            }
            let mark = frame.view::<2>(link.l3)?.u8::<1>() >> 4;
            Some(outer_header::<V6, P, K>(frame, known, &outer, mark))
        }
        _ => None,
    }
}

#[inline(always)]
fn outer_header<F: Family, P: Frame, K: Knowledge>(
    frame: &P,
    known: &K,
    outer: &Packet<F>,
    mark: u8,
) -> Result<Tunnel, Note> {
    if outer.part != Part::Whole {
        return Err(Note::OuterFragment);
    }
    let header = outer.l4.wrapping_sub(outer.l3);
    if header > LONGEST_HEADER {
        return Err(Note::LongHeader);
    }
    if known.role(key::<F>(outer.target)) & role::OWN == 0 {
        return Err(Note::NotHere);
    }
    if known.settings().listed != 0 && known.role(key::<F>(outer.source)) & role::DIRECTOR == 0 {
        return Err(Note::NotFromDirector);
    }
    let room = outer.length.wrapping_sub(header as u32);
    let inner_v6 = outer.protocol == INNER_V6;
    let inner = if inner_v6 {
        inner6(frame, outer.l4, room)
    } else {
        inner4(frame, outer.l4, room)
    };
    let Some(inner) = inner else {
        return Err(Note::BadInner);
    };
    if inner.protocol == INNER_V4 || inner.protocol == INNER_V6 {
        return Err(Note::Nested);
    }
    if known.role(inner.target) & role::VIRTUAL == 0 {
        return Err(Note::NotVirtual);
    }
    let marked = mark & CONGESTED == CONGESTED;
    if marked && inner.mark & CONGESTED == 0 {
        return Err(Note::Congested);
    }
    Ok(Tunnel {
        l3: outer.l3,
        header,
        inner_v6,
        marked,
    })
}

/// What is asked of the inner header.
struct Inner {
    /// As [`key`] makes it.
    target: [u64; 2],
    protocol: u8,
    /// Its two ECN bits in the lowest place.
    mark: u8,
}

#[inline(always)]
fn inner4<P: Frame>(frame: &P, l3: usize, room: u32) -> Option<Inner> {
    let ip = frame.view::<20>(l3)?;
    let first = ip.u8::<0>();
    let header = ((first & 15) as u32) << 2;
    let length = u16::from_be(ip.u16::<2>()) as u32;
    if first >> 4 != 4 || header < 20 || length < header || length > room {
        return None;
    }
    Some(Inner {
        target: key::<V4>(ip.u32::<16>()),
        protocol: ip.u8::<9>(),
        mark: ip.u8::<1>(),
    })
}

#[inline(always)]
fn inner6<P: Frame>(frame: &P, l3: usize, room: u32) -> Option<Inner> {
    let ip = frame.view::<40>(l3)?;
    let length = (u16::from_be(ip.u16::<4>()) as u32).wrapping_add(40);
    if ip.u8::<0>() >> 4 != 6 || length > room {
        return None;
    }
    Some(Inner {
        target: [ip.u64::<24>(), ip.u64::<32>()],
        protocol: ip.u8::<6>(),
        mark: ip.u8::<1>() >> 4,
    })
}

#[inline(always)]
fn take_off<P: Frame>(frame: &mut P, tunnel: &Tunnel) -> Note {
    if !frame.close(tunnel.l3, tunnel.header, tunnel.inner_v6) {
        return Note::NoRoom;
    }
    let ethertype = if tunnel.inner_v6 {
        link::IPV6
    } else {
        link::IPV4
    };
    // Both were read before, so they are there.
    let mut done = set_ethertype(frame, tunnel.l3, ethertype);
    if tunnel.marked {
        done = done.and(mark(frame, tunnel));
    }
    if done.is_some() {
        Note::Decapsulated
    } else {
        Note::NoRoom
    }
}

/// RFC 3168, 5: both bits set say "congestion experienced".
const CONGESTED: u8 = 3;

/// RFC 6040, 4.2: what routers marked on the outer header is carried to the inner one.
#[inline(always)]
fn mark<P: Frame>(frame: &mut P, tunnel: &Tunnel) -> Option<()> {
    if tunnel.inner_v6 {
        let mut ip = frame.edit::<2>(tunnel.l3)?;
        let class = ip.view().u8::<1>();
        ip.set_u8::<1>(class | CONGESTED << 4);
        return Some(());
    }
    let mut ip = frame.edit::<12>(tunnel.l3)?;
    let before = ip.view().u16::<0>();
    let class = ip.view().u8::<1>();
    ip.set_u8::<1>(class | CONGESTED);
    let change = checksum::change_u16(before, ip.view().u16::<0>());
    let sum = checksum::update(ip.view().u16::<10>(), change);
    ip.set_u16::<10>(sum);
    Some(())
}
