//! SCTP: ports and the events of a packet's chunks.
//!
//! The events are the kernel's `sctp_events` (net/netfilter/ipvs/ip_vs_proto_sctp.c, Linux 6.1).

use super::frame::Frame;
use super::ports::{Ports, flag};

/// Bytes of the common header (RFC 9260, 3.1).
const HEADER: usize = 12;
/// Bytes of a chunk header (RFC 9260, 3.2).
const CHUNK: usize = 4;
/// Bytes of the shortest packet: each has a chunk.
pub const LEAST: usize = HEADER.saturating_add(CHUNK);

/// Chunk types (RFC 9260, 3.2).
mod chunk {
    pub const ABORT: u8 = 6;
}

/// Events of chunks, in the order of the tables' rows (`sctp_events`).
mod event {
    /// DATA, SACK, HEARTBEAT, and every unknown chunk type.
    pub const DATA: u64 = 0;
    pub const INIT: u64 = 1;
    pub const INIT_ACK: u64 = 2;
    pub const COOKIE_ECHO: u64 = 3;
    pub const COOKIE_ACK: u64 = 4;
    pub const SHUTDOWN: u64 = 5;
    pub const SHUTDOWN_ACK: u64 = 6;
    pub const SHUTDOWN_COMPLETE: u64 = 7;
    pub const ERROR: u64 = 8;
    pub const ABORT: u64 = 9;
}

/// The event of each chunk type, four bits each, type 0 lowest (`sctp_events`).
const EVENTS: u64 = event::DATA
    | event::INIT << 4
    | event::INIT_ACK << 8
    | event::ABORT << 24
    | event::SHUTDOWN << 28
    | event::SHUTDOWN_ACK << 32
    | event::ERROR << 36
    | event::COOKIE_ECHO << 40
    | event::COOKIE_ACK << 44
    | event::SHUTDOWN_COMPLETE << 56;

/// [`Ports::flags`] for a chunk of this type: the event in the high four bits. INIT also has SYN,
/// since it opens an association.
#[inline(always)]
#[must_use]
pub fn flags(kind: u8) -> u8 {
    let event = if kind < 16 {
        (EVENTS >> ((kind & 15) as u32).wrapping_mul(4) & 15) as u8
    } else {
        event::DATA as u8
    };
    let opens = (event == event::INIT as u8) as u8;
    event << 4 | opens.wrapping_mul(flag::SYN)
}

/// Whether [`Ports::flags`] stand for an ABORT.
#[inline(always)]
#[must_use]
pub fn is_abort(flags: u8) -> bool {
    (flags >> 4) as u64 == event::ABORT
}

/// ```text
///  0                   1                   2                   3
///  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// |      Source Port Number       |   Destination Port Number     |
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// |                       Verification Tag                        |
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// |                           Checksum                            |
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// |  Chunk Type   |  Chunk Flags  |         Chunk Length          |
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// ```
/// RFC 9260, 3.1 and 3.2: the common header and the header of the first chunk. `end` is the
/// offset of the packet's end.
#[inline(always)]
pub fn ports<P: Frame>(frame: &P, l4: usize, end: usize) -> Option<Ports> {
    let read = frame.association(l4, end);
    if read == 0 {
        return None;
    }
    Some(Ports {
        source: read as u16,
        target: (read >> 16) as u16,
        flags: (read >> 32) as u8,
    })
}

/// The ports of a packet and, above them, its flags, in one number; 0 if they cannot be read. `end`
/// is the offset of the packet's end. In the kernel this is a separate function
/// ([`Frame::association`]).
#[inline(always)]
pub fn read<P: Frame>(frame: &P, l4: usize, end: usize) -> u64 {
    let Some(header) = frame.view::<LEAST>(l4) else {
        return 0;
    };
    if l4.wrapping_add(LEAST) > end {
        return 0;
    }
    let ports = header.u32::<0>() as u64;
    let length = u16::from_be(header.u16::<14>()) as usize;
    let flags = told(frame, flags(header.u8::<12>()), length, l4, end);
    1 << 63 | (flags as u64) << 32 | ports
}

/// The flags of a packet: those of its first chunk, whose length is `length`, or of an ABORT behind
/// a COOKIE ECHO or COOKIE ACK (`set_sctp_state`; RFC 9260, 3.3.7).
#[inline(always)]
fn told<P: Frame>(frame: &P, flags: u8, length: usize, l4: usize, end: usize) -> u8 {
    let event = (flags >> 4) as u64;
    if event != event::COOKIE_ECHO && event != event::COOKIE_ACK {
        return flags;
    }
    let next = l4
        .wrapping_add(HEADER)
        .wrapping_add(length.wrapping_add(3) & !3);
    if length < CHUNK || next.wrapping_add(CHUNK) > end {
        return flags;
    }
    // The sum of four bytes is the bytes themselves, and `sum` reaches behind the linear part of
    // the frame.
    match frame.sum(next, CHUNK) {
        Some(chunk) if chunk as u8 == chunk::ABORT => (event::ABORT as u8) << 4,
        _ => flags,
    }
}
