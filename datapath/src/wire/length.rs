//! Lengths in network headers. A frame above 64 kB ("BIG TCP" of Linux) consists of segments that
//! were put together or are still to be cut. No header holds its length: it is 0, for IPv6 with a
//! jumbo header (RFC 2675, 2) or without.

/// The largest number in a length field.
pub const LONGEST: u32 = 0xffff;

/// The length of a packet: `said` is the number in its header, which leaves `header` bytes out. A
/// packet above 64 kB has all of the frame's `room`.
#[inline(always)]
#[must_use]
pub fn of(said: u32, header: u32, room: u32) -> u32 {
    if said == 0 && room > LONGEST.wrapping_add(header) {
        room
    } else {
        said.wrapping_add(header)
    }
}

/// What a length field holds for so many bytes, in wire order.
#[inline(always)]
#[must_use]
pub fn field(bytes: u32) -> u16 {
    if bytes > LONGEST {
        0
    } else {
        (bytes as u16).to_be()
    }
}
