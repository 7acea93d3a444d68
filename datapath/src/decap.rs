//! Takes a packet that a director tunnelled to this real server out of its outer header.
//!
//! IP in IP, all four forms (RFC 2003, RFC 2473, RFC 4213), the same in GUE and in GRE: the outer
//! header must be for an address of this machine, the inner packet for a virtual address. One
//! header is taken off, never two: virtual addresses are no ends of tunnels. Everything else goes
//! up as it came, and the kernel does with it what it did before.
//!
//! Outer options and extension headers are taken off with the header as long as they have 60 bytes
//! together. Outer fragments are not put together: directors say "do not fragment" and answer
//! "too big" to clients, so one that arrives was made by somebody else. VLAN tags stay.

use crate::checksum;
use crate::family::{Family, V4, V6};
use crate::frame::Frame;
use crate::link;
use crate::method::set_ethertype;
use crate::packet::{self, Packet, Part, UDP};
use crate::realserver::{Knowledge, Note, key, role};
use crate::tunnel::{GRE, sum_of};
use own::Remote;

mod own;
#[cfg(test)]
pub(crate) mod tests;

/// RFC 2003, 3.1, and RFC 4213, 3: what protocol the outer header announces.
const INNER_V4: u8 = 4;
const INNER_V6: u8 = 41;
/// The longest outer IP header, and more than the longest of a tunnel's own behind it.
const LONGEST_HEADER: usize = 60;
const LONGEST_OWN: usize = 31;

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
    let Some(note) = look(frame, known) else {
        return Outcome::Untouched;
    };
    known.count(note);
    match note {
        Note::Decapsulated => Outcome::Decapsulated,
        Note::Congested | Note::BadChecksum => Outcome::Drop,
        _ => Outcome::Untouched,
    }
}

/// A tunnelled packet that is ours.
struct Tunnel {
    l3: usize,
    /// Bytes of the outer headers.
    header: usize,
    inner_v6: bool,
    /// The checksum that was left to us.
    remote: Remote,
    /// A router said on the way that it is congested.
    marked: bool,
}

/// What became of the tunnelled packet that this frame is; nothing if it is none.
#[inline(always)]
fn look<P: Frame, K: Knowledge>(frame: &mut P, known: &K) -> Option<Note> {
    let link = link::tags(frame)?;
    match link.ethertype {
        link::IPV4 => {
            // Nearly every packet ends here; only a tunnelled one has its checksum looked at.
            let ip = frame.view::<20>(link.l3)?;
            let header = ((ip.u8::<0>() & 15) as usize) << 2;
            if !may_be_tunnel(frame, known, ip.u8::<9>(), link.l3.wrapping_add(header)) {
                return None;
            }
            let outer = packet::parse4(frame, link.l3).ok()?;
            let mark = frame.view::<2>(link.l3)?.u8::<1>();
            Some(tunnelled::<V4, P, K>(frame, known, &outer, mark))
        }
        link::IPV6 => {
            let outer = packet::read6(frame, link.l3).ok()?;
            if !may_be_tunnel(frame, known, outer.protocol, outer.l4) {
                return None;
            }
            let mark = frame.view::<2>(link.l3)?.u8::<1>() >> 4;
            Some(tunnelled::<V6, P, K>(frame, known, &outer, mark))
        }
        _ => None,
    }
}

/// Whether the protocol is that of a tunnel; of UDP only the port of GUE is.
#[inline(always)]
fn may_be_tunnel<P: Frame, K: Knowledge>(frame: &P, known: &K, protocol: u8, l4: usize) -> bool {
    if protocol != UDP {
        return protocol == INNER_V4 || protocol == INNER_V6 || protocol == GRE;
    }
    let port = known.settings().gue_port;
    match frame.view::<4>(l4) {
        Some(udp) => port != 0 && udp.u16::<2>() == port,
        None => false,
    }
}

/// Takes the headers off, or says why not. Notes are all that is given back on the way: the
/// compiler may leave the unused part of a result without a value, which the verifier refuses.
#[inline(always)]
fn tunnelled<F: Family, P: Frame, K: Knowledge>(
    frame: &mut P,
    known: &K,
    outer: &Packet<F>,
    mark: u8,
) -> Note {
    if outer.part != Part::Whole {
        return Note::OuterFragment;
    }
    // The verifier goes on once for all lengths; by a mask it is told again that they are short
    // ones, since on Linux 6.1 it forgets what was compared.
    let header = outer.l4.wrapping_sub(outer.l3);
    if header > LONGEST_HEADER {
        return Note::LongHeader;
    }
    let header = known.blur(header) & 0x3f;
    if let Some(note) = refused::<F, K>(known, outer) {
        return note;
    }
    let payload = outer.length.wrapping_sub(header as u32);
    let l4 = outer.l3.wrapping_add(header);
    let Some(own) = own::read(frame, outer.protocol, l4, payload) else {
        return Note::OtherHeader;
    };
    let bytes = known.blur(own.bytes) & LONGEST_OWN;
    if bytes as u32 > payload {
        return Note::OtherHeader;
    }
    let at = l4.wrapping_add(bytes);
    let room = payload.wrapping_sub(bytes as u32);
    let inner = if own.inner_v6 {
        inner6(frame, at, room)
    } else {
        inner4(frame, at, room)
    };
    let Some(inner) = inner else {
        return Note::BadInner;
    };
    if inner.protocol == INNER_V4 || inner.protocol == INNER_V6 {
        return Note::Nested;
    }
    if known.role(inner.target) & role::VIRTUAL == 0 {
        return Note::NotVirtual;
    }
    let marked = mark & CONGESTED == CONGESTED;
    if marked && inner.mark & CONGESTED == 0 {
        return Note::Congested;
    }
    // Packets that the kernel joined have the first one's checksum; it looked at each before.
    let is_single = frame.segment() == 0;
    if own.summed && is_single && !own::is_right(frame, outer, &own, l4, at, room) {
        return Note::BadChecksum;
    }
    let mut remote = Remote::NONE;
    if own.is_remote {
        remote = own.remote.sum(frame, at, room);
        if remote.is_none() {
            return Note::OtherHeader;
        }
    }
    let tunnel = Tunnel {
        l3: outer.l3,
        header: header.wrapping_add(bytes),
        inner_v6: own.inner_v6,
        remote,
        marked,
    };
    take_off(frame, known, &tunnel)
}

/// Why a tunnel with these ends is not ours to take off, if it is not.
#[inline(always)]
fn refused<F: Family, K: Knowledge>(known: &K, outer: &Packet<F>) -> Option<Note> {
    if known.role(key::<F>(outer.target)) & role::OWN == 0 {
        return Some(Note::NotHere);
    }
    if known.settings().listed != 0 && known.role(key::<F>(outer.source)) & role::DIRECTOR == 0 {
        return Some(Note::NotFromDirector);
    }
    None
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
fn take_off<P: Frame, K: Knowledge>(frame: &mut P, known: &K, tunnel: &Tunnel) -> Note {
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
    tunnel.remote.put(frame, known, tunnel.l3);
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
