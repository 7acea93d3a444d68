//! TCP resets that the director makes: the answer to a segment of a connection that has ended.
//!
//! ```text
//!  0                   1                   2                   3
//!  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! |          Source Port          |       Destination Port        |
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! |                        Sequence Number                        |
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! |                    Acknowledgment Number                      |
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! |  Data |       |C|E|U|A|P|R|S|F|                               |
//! | Offset| Rsrvd |W|C|R|C|S|S|Y|I|            Window             |
//! |       |       |R|E|G|K|H|T|N|N|                               |
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! |           Checksum            |         Urgent Pointer        |
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! ```
//! RFC 9293, 3.1.

use crate::table::family::Family;
use crate::wire::checksum;
use crate::wire::frame::{Frame, View};
use crate::wire::link;
use crate::wire::packet::{Packet, Part, TCP};
use crate::wire::ports::flag;
use crate::wire::pseudo;

/// Bytes of a TCP header without options.
const HEADER: usize = 20;

/// Sequence and acknowledgement numbers and flags of a reset, as they lie on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Numbers {
    sequence: u32,
    acknowledgement: u32,
    /// The data offset and, in the high byte, the flags.
    flags: u16,
}

/// RFC 9293, 3.10.7.1: the numbers of the reset that answers a segment of `length` bytes, header
/// included. `None` if the segment is a reset.
#[inline(always)]
fn numbers(segment: &View<'_, HEADER>, length: u32) -> Option<Numbers> {
    const OFFSET: u16 = (HEADER as u16) << 2;
    let flags = segment.u8::<13>();
    if flags & flag::RST != 0 {
        return None;
    }
    if flags & flag::ACK != 0 {
        return Some(Numbers {
            sequence: segment.u32::<8>(),
            acknowledgement: 0,
            flags: OFFSET | (flag::RST as u16) << 8,
        });
    }
    let header = ((segment.u8::<12>() >> 4) as u32) << 2;
    // SYN and FIN take one sequence number each.
    let opens = (flags & flag::SYN) >> 1;
    let counted = (opens as u32).wrapping_add((flags & flag::FIN) as u32);
    let length = length.wrapping_sub(header).wrapping_add(counted);
    let next = u32::from_be(segment.u32::<4>()).wrapping_add(length);
    Some(Numbers {
        sequence: 0,
        acknowledgement: next.to_be(),
        flags: OFFSET | ((flag::RST | flag::ACK) as u16) << 8,
    })
}

/// Turns a segment into the reset that answers it, and sends it back. `None` if none may be sent:
/// to a reset, a fragment, an address that cannot be a client's, or a packet with IP options, whose
/// checksum a device may look for elsewhere.
#[inline(always)]
pub fn send<F: Family, P: Frame>(frame: &mut P, packet: &Packet<F>) -> Option<()> {
    let network = if F::V6 { 40usize } else { 20 };
    let is_plain = packet.l4.wrapping_sub(packet.l3) == network && packet.part == Part::Whole;
    if !is_plain || packet.protocol != TCP || !F::may_be_client(packet.source) {
        return None;
    }
    let length = packet.length.wrapping_sub(network as u32);
    let segment = frame.view::<HEADER>(packet.l4)?;
    let numbers = numbers(&segment, length)?;
    let (source, target) = (segment.u16::<0>(), segment.u16::<2>());
    let is_left = pseudo::is_left_to_device::<F, P>(frame, packet, segment.u16::<16>())?;
    let l3 = packet.l3;
    if !frame.truncate(l3.wrapping_add(network).wrapping_add(HEADER)) {
        return None;
    }
    if F::V6 {
        head6(frame, packet)?;
    } else {
        head4(frame, packet)?;
    }
    let mut sum = pseudo::sum(packet, HEADER as u32);
    if !is_left {
        let own = checksum::add(numbers.sequence, numbers.acknowledgement);
        let ports = (source as u32).wrapping_add(target as u32);
        let own = checksum::add(own, ports.wrapping_add(numbers.flags as u32));
        sum = (!checksum::fold(checksum::add(sum, own))) as u32;
    }
    let mut tcp = frame.edit::<HEADER>(packet.l4)?;
    tcp.set_u16::<0>(target);
    tcp.set_u16::<2>(source);
    tcp.set_u32::<4>(numbers.sequence);
    tcp.set_u32::<8>(numbers.acknowledgement);
    tcp.set_u16::<12>(numbers.flags);
    tcp.set_u16::<14>(0);
    tcp.set_u16::<16>(checksum::fold(sum));
    tcp.set_u16::<18>(0);
    link::turn(frame)
}

#[inline(always)]
fn head4<F: Family, P: Frame>(frame: &mut P, packet: &Packet<F>) -> Option<()> {
    const LENGTH: u16 = 40u16.to_be();
    let [from, _] = F::words(packet.target);
    let [to, _] = F::words(packet.source);
    let mut ip = frame.edit::<20>(packet.l3)?;
    ip.set_u16::<0>(0x45);
    ip.set_u16::<2>(LENGTH);
    // RFC 6864: an atomic packet needs no identification.
    ip.set_u32::<4>((0x4000u32).to_be());
    ip.set_u16::<8>(64 | (TCP as u16) << 8);
    ip.set_u16::<10>(0);
    ip.set_u32::<12>(from as u32);
    ip.set_u32::<16>(to as u32);
    let header = ip.view();
    let sum = checksum::add(
        checksum::of_u64(header.u64::<0>()),
        checksum::of_u64(header.u64::<8>()),
    );
    ip.set_u16::<10>(!checksum::fold(checksum::add(sum, to as u32)));
    Some(())
}

#[inline(always)]
fn head6<F: Family, P: Frame>(frame: &mut P, packet: &Packet<F>) -> Option<()> {
    const LENGTH: u16 = (HEADER as u16).to_be();
    let ([a, b], [c, d]) = (F::words(packet.target), F::words(packet.source));
    let mut ip = frame.edit::<40>(packet.l3)?;
    ip.set_u32::<0>(0x6000_0000u32.to_be());
    ip.set_u16::<4>(LENGTH);
    ip.set_u16::<6>(TCP as u16 | 64 << 8);
    ip.set_u64::<8>(a);
    ip.set_u64::<16>(b);
    ip.set_u64::<24>(c);
    ip.set_u64::<32>(d);
    Some(())
}
