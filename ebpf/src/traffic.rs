//! The traffic that the bench's driver makes. `cargo xtask bench` writes it, the driver reads it.

/// One kind of traffic, and the driver's position in it.
///
/// A flow is a number. Its client's address is `client` plus the number's bits from bit 14 on; its
/// port is 1024 plus the low 14 bits.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// The first bytes of every frame. The driver puts in the client's address and port, the flags
    /// and the checksums.
    pub template: [u64; 16],
    /// The number of packets made.
    pub sequence: u64,
    /// How often the driver waited for its own writes.
    pub settled: u64,
    /// The value of `settled` before the last wait.
    pub settled_before: u64,
    /// The length of a frame in bytes.
    pub length: u32,
    /// The order of flows: a constant of [`order`].
    pub order: u32,
    /// 1 for IPv6, 0 for IPv4.
    pub v6: u32,
    /// 1 for TCP, 0 for UDP.
    pub tcp: u32,
    /// 1 if the packets go from servers to clients, so that the client is the target.
    pub back: u32,
    /// The last four bytes of the first client's address, in host order.
    pub client: u32,
    /// The sum of the 16-bit words of the IPv4 header, in host order, without the client's address.
    pub network_sum: u32,
    /// The sum of the 16-bit words of pseudo-header, transport header and data, without the
    /// client's address and port and without the flags.
    pub transport_sum: u32,
    /// The number of flows, less one. The number of flows is a power of two.
    pub mask: u32,
    /// The last flow of [`order::MIXED`].
    pub last: u32,
    /// TCP flags outside [`order::CONNECTIONS`].
    pub flags: u32,
    /// The interface on which `generate` sends.
    pub interface: u32,
}
const _: () = assert!(size_of::<Traffic>() == 200);

/// The order of flows.
pub mod order {
    /// One flow after the other, over and over.
    pub const TURN: u32 = 0;
    /// Each flow once a round, in an order that no cache predicts.
    pub const MIXED: u32 = 1;
    /// Connections of eight packets (SYN, six ACK, FIN), 256 at a time.
    pub const CONNECTIONS: u32 = 2;
}
