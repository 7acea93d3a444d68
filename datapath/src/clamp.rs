//! Lowers the MSS that a real server announces, so that packets still fit into a director's tunnel.
//!
//! A server announces the segment size that fits its own device (RFC 9293, 3.7.1). It does not know
//! the header that a director's tunnel adds. So the MSS option of a SYN or SYN-ACK that leaves from
//! a virtual address is lowered, never raised.
//!
//! This file finds the change, and the shell applies it: making an outgoing frame writable copies
//! its headers, even if nothing is written.

use crate::connection::flag;
use crate::realserver::{Knowledge, Note, key, role};
use crate::table::family::{Family, V4, V6};
use crate::wire::checksum;
use crate::wire::frame::{Frame, Transport};
use crate::wire::link;
use crate::wire::packet::{self, Packet, Part, TCP, checksum_at};

#[cfg(test)]
mod tests;

/// The number of TCP options that are searched for the MSS. TCP stacks put it first.
const OPTIONS: u32 = 8;
/// RFC 9293, 3.2: the end of the list.
pub const END: u8 = 0;
/// RFC 9293, 3.2: no operation.
pub const NOTHING: u8 = 1;
/// RFC 9293, 3.2: kind 2, length 4.
const SEGMENT: u8 = 2;

/// Two bytes to write, and the change of the checksum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change {
    /// Offset from the start of the frame.
    pub at: usize,
    /// Wire order.
    pub segment: u16,
    /// The checksum of the segment.
    pub transport: Transport,
    /// The change of that checksum.
    pub sum: u32,
}

/// The change that an outgoing frame needs, if any.
#[inline(always)]
pub fn look<P: Frame, K: Knowledge>(frame: &P, known: &K) -> Option<Change> {
    let link = link::tags(frame)?;
    match link.ethertype {
        link::IPV4 => {
            if frame.view::<20>(link.l3)?.u8::<9>() != TCP {
                return None;
            }
            let packet = packet::parse4(frame, link.l3).ok()?;
            segment::<V4, P, K>(frame, known, &packet)
        }
        link::IPV6 => {
            let packet = packet::read6(frame, link.l3).ok()?;
            segment::<V6, P, K>(frame, known, &packet)
        }
        _ => None,
    }
}

/// Applies the change to a frame; `None` if the frame cannot be written there.
#[inline(always)]
pub fn apply<P: Frame>(frame: &mut P, change: &Change) -> Option<()> {
    frame.edit::<2>(change.at)?.set_u16::<0>(change.segment);
    frame.carry(change.transport, 0, change.sum);
    Some(())
}

#[inline(always)]
fn segment<F: Family, P: Frame, K: Knowledge>(
    frame: &P,
    known: &K,
    packet: &Packet<F>,
) -> Option<Change> {
    if packet.protocol != TCP || packet.part != Part::Whole {
        return None;
    }
    let tcp = frame.view::<20>(packet.l4)?;
    if tcp.u8::<13>() & flag::SYN == 0 {
        return None;
    }
    if known.role(key::<F>(packet.source)) & role::VIRTUAL == 0 {
        return None;
    }
    let settings = known.settings();
    let limit = if F::V6 {
        settings.segment6
    } else {
        settings.segment4
    };
    let change = lower(frame, packet, limit)?;
    known.count(Note::Clamped);
    Some(change)
}

/// The change that a SYN needs if it announces an MSS above `limit`; 0 is no limit.
#[inline(always)]
pub fn lower<F: Family, P: Frame>(frame: &P, packet: &Packet<F>, limit: u16) -> Option<Change> {
    let tcp = frame.view::<20>(packet.l4)?;
    let end = ((tcp.u8::<12>() >> 4) as usize) << 2;
    let at = find(frame, packet.l4, end)?;
    let announced = frame.view::<2>(packet.l4.wrapping_add(at))?.u16::<0>();
    if limit == 0 || u16::from_be(announced) <= limit {
        return None;
    }
    let change = checksum::change_u16(announced, limit.to_be());
    // At an odd offset, the two bytes belong to two words of the sum.
    let sum = if at & 1 == 0 {
        change
    } else {
        checksum::fold(change).swap_bytes() as u32
    };
    Some(Change {
        at: packet.l4.wrapping_add(at),
        segment: limit.to_be(),
        transport: checksum_at(packet),
        sum,
    })
}

/// The offset of the announced MSS from the start of the TCP header.
#[inline(always)]
fn find<P: Frame>(frame: &P, l4: usize, end: usize) -> Option<usize> {
    let mut at = 20usize;
    for _ in 0..OPTIONS {
        if at.wrapping_add(4) > end {
            return None;
        }
        let option = frame.view::<2>(l4.wrapping_add(at))?;
        let length = match option.u8::<0>() {
            END => return None,
            NOTHING => 1,
            SEGMENT if option.u8::<1>() == 4 => return Some(at.wrapping_add(2)),
            _ => option.u8::<1>() as usize,
        };
        if length == 0 || length > 40 {
            return None;
        }
        at = at.wrapping_add(length);
    }
    None
}
