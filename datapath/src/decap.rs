//! Removes the outer header from packets that a director tunnelled to this real server.
//!
//! The tunnels are IP in IP in all four forms (RFC 2003, RFC 2473, RFC 4213), GUE and GRE. The
//! outer destination must be an address of this machine, the inner destination a virtual address.
//! One outer header is removed, never two: a virtual address is not the end of a tunnel. Any other
//! frame goes to the kernel as it came.
//!
//! Outer options and extension headers are removed with the outer header if all have at most 60
//! bytes together. Outer fragments are not reassembled: a director sets "don't fragment" and
//! answers clients with "too big", so a fragment comes from another sender. VLAN tags stay.

use crate::method::set_ethertype;
use crate::realserver::{Knowledge, Note, key, role};
use crate::table::family::{Family, V4, V6};
use crate::tunnel::{GRE, sum_of};
use crate::wire::checksum;
use crate::wire::frame::Frame;
use crate::wire::link;
use crate::wire::packet::{self, Packet, Part, UDP};
use shim::Remote;

mod shim;
#[cfg(test)]
pub(crate) mod tests;

/// The protocol in the outer header for a packet of each family (RFC 2003, 3.1; RFC 4213, 3).
const INNER_V4: u8 = 4;
const INNER_V6: u8 = 41;
/// The longest outer IP header in bytes, with its options or extension headers.
const LONGEST_HEADER: usize = 60;
/// A mask for the length of the GUE or GRE header, which has at most 20 bytes.
const LONGEST_SHIM: usize = 31;

/// What becomes of the frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The frame goes to the kernel as it came.
    Untouched,
    /// The frame goes to the kernel without its outer header.
    Decapsulated,
    /// The frame is dropped.
    Drop,
}

/// Removes the outer header if the frame is a tunnelled packet for this real server.
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

/// A tunnelled packet for this real server.
struct Tunnel {
    l3: usize,
    /// The length of all outer headers in bytes.
    header: usize,
    inner_v6: bool,
    /// The transport checksum that the sender left to this machine.
    remote: Remote,
    /// A router marked the outer header as "congestion experienced".
    marked: bool,
}

/// The note about a tunnelled packet, which is decapsulated if it is for this real server; `None`
/// if the frame is no tunnelled packet.
#[inline(always)]
fn look<P: Frame, K: Knowledge>(frame: &mut P, known: &K) -> Option<Note> {
    let link = link::tags(frame)?;
    match link.ethertype {
        link::IPV4 => {
            // Nearly every packet ends here. Only a tunnelled one is parsed, which verifies its
            // header's checksum.
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

/// Whether the protocol is IP in IP or GRE, or UDP to the port of GUE.
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

/// Removes the outer headers. Returns the note that gives the outcome. A `Result` would not do: the
/// compiler may leave its unused part uninitialised, which the verifier refuses.
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
    // `blur` lets the verifier follow one path for all lengths. The mask repeats the limit, since
    // Linux 6.1 forgets the comparison.
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
    let Some(shim) = shim::read(frame, outer.protocol, l4, payload) else {
        return Note::OtherHeader;
    };
    let bytes = known.blur(shim.bytes) & LONGEST_SHIM;
    if bytes as u32 > payload {
        return Note::OtherHeader;
    }
    let at = l4.wrapping_add(bytes);
    let room = payload.wrapping_sub(bytes as u32);
    let inner = if shim.inner_v6 {
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
    // Packets that GRO merged have the first packet's checksum; the kernel verified each before.
    let is_single = frame.segment() == 0;
    if shim.summed && is_single && !shim::is_right(frame, outer, &shim, l4, at, room) {
        return Note::BadChecksum;
    }
    let mut remote = Remote::NONE;
    if shim.is_remote {
        remote = shim.remote.sum(frame, at, room);
        if remote.is_none() {
            return Note::OtherHeader;
        }
    }
    let tunnel = Tunnel {
        l3: outer.l3,
        header: header.wrapping_add(bytes),
        inner_v6: shim.inner_v6,
        remote,
        marked,
    };
    take_off(frame, known, &tunnel)
}

/// The reason why a tunnel between these addresses is left to the kernel, if there is one.
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

/// Fields of the inner IP header.
struct Inner {
    /// The destination as [`key`] returns it.
    target: [u64; 2],
    protocol: u8,
    /// The ECN field in the two lowest bits; the other bits have no meaning.
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
    // Both places were read before, so both edits succeed.
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

/// RFC 3168, 5: both bits set mean "congestion experienced".
const CONGESTED: u8 = 3;

/// RFC 6040, 4.2: copies a router's congestion mark from the outer header to the inner one.
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
