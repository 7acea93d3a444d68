//! Ids of services, servers and endpoints: indexes of tables, and part of the keys of flows.

/// No id: ids of services, servers and NAT endpoints begin at 1.
pub const NONE: u32 = 0;
/// Ids of services and servers are below this.
pub const ID_LIMIT: u32 = 1 << 22;
/// The bit in the id of an endpoint of every port. Each such endpoint has one of [`WIDES`] ranges
/// of 65,536 ids, and the port selects the id within the range ([`with_port`]). So the key of a
/// flow contains the port and is no longer than others.
pub const WIDE: u32 = 1 << 22;
/// The limit of endpoints of every port: of services, and of servers behind NAT.
pub const WIDES: u32 = 64;
/// The bit in the id of a NAT endpoint, which the id of a service does not have. An entry with this
/// bit in its key is for the way back.
pub const BACK: u32 = 1 << 23;

/// The bit in the id of a mark's endpoint whose rule is deleted: its connections continue, and none
/// is opened. The key of a flow does not contain this bit.
pub const LEFT: u32 = 1 << 24;

/// The first id of the endpoint of every port with this number.
#[must_use]
pub const fn wide(number: u32) -> u32 {
    WIDE | (number & 63) << 16
}

/// The number of the endpoint of every port that has this id.
#[inline(always)]
#[must_use]
pub const fn wide_number(id: u32) -> u32 {
    id >> 16 & 63
}

/// The id of an endpoint for a port in wire order. Only an id with [`WIDE`] contains the port.
#[inline(always)]
#[must_use]
pub fn with_port(id: u32, port: u16) -> u32 {
    if id & WIDE == 0 {
        id
    } else {
        id & !0xffff | u16::from_be(port) as u32
    }
}
