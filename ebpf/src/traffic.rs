//! What traffic the bench's driver makes: written by `cargo xtask bench`, read in the kernel.

/// One kind of traffic, and how far it has come.
///
/// A flow is a number: its client's address is `client` plus the number above bit 14, its port
/// 1024 plus the low 14 bits.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// The first bytes of every frame. The client's address and port and the checksums are put in.
    pub template: [u64; 16],
    /// How many packets were made.
    pub sequence: u64,
    /// How often the driver waited for its own writes, and before that.
    pub settled: u64,
    pub settled_before: u64,
    /// Bytes of a frame.
    pub length: u32,
    /// [`order`].
    pub order: u32,
    pub v6: u32,
    pub tcp: u32,
    /// 1: from servers to clients, so that the client is the target.
    pub back: u32,
    /// The (low) four bytes of the first client's address, host order.
    pub client: u32,
    /// The sum of the IPv4 header without the client's address, of words in host order.
    pub network_sum: u32,
    /// The sum of the pseudo-header, transport header and data without client and flags.
    pub transport_sum: u32,
    /// Flows, less one; a power of two less one.
    pub mask: u32,
    /// The last flow of [`order::MIXED`].
    pub last: u32,
    /// TCP flags outside [`order::CONNECTIONS`].
    pub flags: u32,
    /// Where `generate` sends.
    pub interface: u32,
}
const _: () = assert!(size_of::<Traffic>() == 200);

/// The order of flows.
pub mod order {
    /// One after another, over and over.
    pub const TURN: u32 = 0;
    /// All of them, in an order that no cache guesses.
    pub const MIXED: u32 = 1;
    /// Connections of eight packets (SYN, six ACK, FIN), 256 at a time.
    pub const CONNECTIONS: u32 = 2;
}
