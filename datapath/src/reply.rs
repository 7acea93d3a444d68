//! ICMP errors that the director itself sends: port unreachable, packet too big, time exceeded.
//!
//! The offending packet is truncated, wrapped and sent back (RFC 792; RFC 4443). No error answers
//! ICMP, a later fragment, or an address that cannot be a client's. A limit of errors a tick holds
//! on each CPU.

use crate::method::set_ethertype;
use crate::reset;
use crate::table::Tables;
use crate::table::family::{Family, V4, V6};
use crate::table::flows::Words;
use crate::verdict::{Bounce, Drop, Word};
use crate::wire::checksum;
use crate::wire::frame::{Frame, Room};
use crate::wire::link;
use crate::wire::packet::{self, ICMP, ICMPV6, Packet, Part, TCP, UDP};
use crate::wire::pseudo;

/// The largest IPv4 error: RFC 1812, 4.3.2.3.
const ERROR4: u32 = 576;
/// The largest IPv6 error: RFC 4443, 2.4 (c).
const ERROR6: u32 = 1280;

/// Type, code and the word behind the checksum.
#[derive(Clone, Copy, Debug)]
struct Message {
    /// Type in the low byte, code in the high one: as on the wire.
    head: u16,
    /// Wire order.
    rest: u32,
}

/// Makes the answer that the walk asked for; drops the packet if no answer may be sent. `mtu`, in
/// bytes, is for [`Bounce::TooBig`]. Parses the frame again: in the kernel this is a separate
/// function, far from the path of an ordinary packet.
#[inline(always)]
pub fn answer<P: Frame, T: Tables>(frame: &mut P, tables: &T, bounce: Bounce, mtu: u32) -> Word {
    let silent = match bounce {
        Bounce::Unreachable => Drop::NoServer,
        Bounce::TooBig => Drop::TooBig,
        Bounce::TimeExceeded => Drop::Expired,
        Bounce::Reset => Drop::ServerGone,
    };
    let Some(link) = link::parse(frame) else {
        return Word::drop(silent);
    };
    let sent = if link.ethertype == link::IPV4 {
        let message = match bounce {
            Bounce::Unreachable | Bounce::Reset => Message {
                head: 3 | 3 << 8,
                rest: 0,
            },
            // RFC 1191, 4: the MTU is in the second half of the word.
            Bounce::TooBig => Message {
                head: 3 | 4 << 8,
                rest: (mtu & 0xffff).to_be(),
            },
            Bounce::TimeExceeded => Message { head: 11, rest: 0 },
        };
        match packet::parse4(frame, link.l3) {
            Ok(packet) if bounce == Bounce::Reset => reset::send(frame, &packet),
            Ok(packet) => send::<V4, P, T>(frame, tables, &packet, message),
            Err(_) => None,
        }
    } else {
        let message = match bounce {
            Bounce::Unreachable | Bounce::Reset => Message {
                head: 1 | 4 << 8,
                rest: 0,
            },
            Bounce::TooBig => Message {
                head: 2,
                rest: mtu.to_be(),
            },
            Bounce::TimeExceeded => Message { head: 3, rest: 0 },
        };
        match packet::parse6(frame, tables, link.l3) {
            Ok(packet) if bounce == Bounce::Reset => reset::send(frame, &packet),
            Ok(packet) => send::<V6, P, T>(frame, tables, &packet, message),
            Err(_) => None,
        }
    };
    match sent {
        Some(()) => Word::bounce(bounce),
        None => Word::drop(silent),
    }
}

/// Whether another error may be sent in this tick. The allowance has the tick in its high half and
/// the number of errors sent in its low half.
#[inline(always)]
fn is_allowed<T: Tables>(tables: &T) -> bool {
    let (Some(words), Some(settings)) = (tables.allowance(), tables.settings()) else {
        return false;
    };
    let (word, now) = (words.load(0), tables.now());
    let used = if (word >> 32) as u32 == now {
        word as u32
    } else {
        0
    };
    if used >= settings.icmp_limit {
        return false;
    }
    words.store(0, (now as u64) << 32 | used.wrapping_add(1) as u64);
    true
}

#[inline(always)]
fn send<F: Family, P: Frame, T: Tables>(
    frame: &mut P,
    tables: &T,
    packet: &Packet<F>,
    message: Message,
) -> Option<()> {
    let quotable = packet.part != Part::Later
        && packet.protocol != ICMP
        && packet.protocol != ICMPV6
        && F::may_be_client(packet.source);
    if !quotable || !is_allowed(tables) {
        return None;
    }
    let room = if F::V6 {
        ERROR6.wrapping_sub(48)
    } else {
        ERROR4.wrapping_sub(28)
    };
    let quote = if packet.length > room {
        room
    } else {
        packet.length
    };
    let l3 = packet.l3;
    let sum = quoted::<F, P>(frame, packet, quote)?;
    if !frame.truncate(l3.wrapping_add(quote as usize)) {
        return None;
    }
    if F::V6 {
        wrap6::<F, P>(frame, packet, message, quote, sum)?;
    } else {
        wrap4::<F, P>(frame, packet, message, quote, sum)?;
    }
    link::turn(frame)
}

/// The checksum's sum over the first `quote` bytes of a packet as they will be on the wire.
///
/// A checksum that is left to a device (`CHECKSUM_PARTIAL`) holds the pseudo-header's sum until the
/// device completes it. The completed transport header and payload then sum to the complement of
/// what the field holds before.
#[inline(always)]
fn quoted<F: Family, P: Frame>(frame: &P, packet: &Packet<F>, quote: u32) -> Option<u32> {
    let header = packet.l4.wrapping_sub(packet.l3);
    let may_be = packet.part == Part::Whole && (packet.protocol == TCP || packet.protocol == UDP);
    let field = match frame.view::<2>(packet::checksum_at(packet).field) {
        Some(field) if may_be => field.u16::<0>(),
        _ => return frame.sum(packet.l3, quote as usize),
    };
    if !pseudo::is_left_to_device::<F, P>(frame, packet, field)? {
        return frame.sum(packet.l3, quote as usize);
    }
    let head = frame.sum(packet.l3, header)?;
    Some(checksum::add(head, (!field) as u32))
}

#[inline(always)]
fn wrap4<F: Family, P: Frame>(
    frame: &mut P,
    packet: &Packet<F>,
    message: Message,
    quote: u32,
    sum: u32,
) -> Option<()> {
    let l3 = packet.l3;
    if !frame.open(l3, 28, Room::Message) {
        return None;
    }
    let (from, to) = (
        F::words(packet.target)[0] as u32,
        F::words(packet.source)[0] as u32,
    );
    let mut ip = frame.edit::<28>(l3)?;
    // TOS 0xc0, "internetwork control", as the kernel's icmp_send sets it for errors.
    ip.set_u16::<0>(0x45 | 0xc0 << 8);
    ip.set_u16::<2>((quote.wrapping_add(28) as u16).to_be());
    // RFC 6864: an atomic packet needs no identification.
    ip.set_u32::<4>((0x4000u32).to_be());
    ip.set_u16::<8>(64 | (ICMP as u16) << 8);
    ip.set_u16::<10>(0);
    ip.set_u32::<12>(from);
    ip.set_u32::<16>(to);
    let header = ip.view();
    let own = checksum::add(
        checksum::of_u64(header.u64::<0>()),
        checksum::of_u64(header.u64::<8>()),
    );
    ip.set_u16::<10>(!checksum::fold(checksum::add(own, to)));
    ip.set_u16::<20>(message.head);
    ip.set_u32::<24>(message.rest);
    let own = checksum::add(message.head as u32, message.rest);
    ip.set_u16::<22>(!checksum::fold(checksum::add(own, sum)));
    set_ethertype(frame, l3, link::IPV4)
}

#[inline(always)]
fn wrap6<F: Family, P: Frame>(
    frame: &mut P,
    packet: &Packet<F>,
    message: Message,
    quote: u32,
    sum: u32,
) -> Option<()> {
    let l3 = packet.l3;
    if !frame.open(l3, 48, Room::Message) {
        return None;
    }
    let ([a, b], [c, d]) = (F::words(packet.target), F::words(packet.source));
    let length = quote.wrapping_add(8);
    let mut ip = frame.edit::<48>(l3)?;
    ip.set_u32::<0>(0x6000_0000u32.to_be());
    ip.set_u16::<4>((length as u16).to_be());
    ip.set_u16::<6>(ICMPV6 as u16 | 64 << 8);
    ip.set_u64::<8>(a);
    ip.set_u64::<16>(b);
    ip.set_u64::<24>(c);
    ip.set_u64::<32>(d);
    ip.set_u16::<40>(message.head);
    ip.set_u32::<44>(message.rest);
    // RFC 8200, 8.1: the pseudo-header has both addresses, the length and the protocol.
    let mut own = checksum::add(checksum::of_u64(a), checksum::of_u64(b));
    own = checksum::add(own, checksum::add(checksum::of_u64(c), checksum::of_u64(d)));
    own = checksum::add(own, checksum::add(length.to_be(), (ICMPV6 as u32).to_be()));
    own = checksum::add(own, checksum::add(message.head as u32, message.rest));
    ip.set_u16::<42>(!checksum::fold(checksum::add(own, sum)));
    set_ethertype(frame, l3, link::IPV6)
}
