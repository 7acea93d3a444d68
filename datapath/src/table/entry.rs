//! The entries of the tables that the daemon writes and the walk reads.
//!
//! Addresses and ports are in network order, other numbers in host order. There is no `Option`,
//! `bool` or `enum`, and padding is an explicit `reserved`. The maps outlive the daemon, so any
//! change of a layout needs another [`LAYOUT`].

pub use super::id::{BACK, ID_LIMIT, LEFT, NONE, WIDE, WIDES, wide, wide_number, with_port};
pub use super::localities::{LOCALITY_SERVERS, Locality, LocalityKey, locality};
pub use super::origin::{ORIGINS, OriginKey, wide_flag};
pub use super::peer::PeerKey;
pub use super::pool::{
    POOL_HEAD, PoolWord, SHORT_LENGTH, SLOT_LIMITED, pool_slot, scheduler, slot_is_limited,
    slot_server,
};
pub use super::switches::{fate, nat, service_switch, switch};

/// The version of every layout in this file and in [`super::flows`]. Part of the pin folder's name.
pub const LAYOUT: u32 = 7;

/// The version of the tables of connections (flows, translations, calls, counts of servers) and of
/// the hashes of their keys. A packet path with another [`LAYOUT`] and the same version here takes
/// over these tables with every connection.
pub const CONNECTIONS: u32 = 2;

/// The kinds of endpoint entries.
pub mod kind {
    /// A virtual service; looked up by a packet's destination.
    pub const SERVICE: u8 = 1;
    /// A real server behind NAT; looked up by a packet's source.
    pub const MASQUERADED: u8 = 2;
    /// The address has services, or masqueraded servers, on some port (port 0 in the entry).
    pub const ADDRESS: u8 = 3;
}

/// The key of an endpoint entry without the address: port (wire order), protocol and [`kind`].
#[inline(always)]
#[must_use]
pub fn endpoint_word(port: u16, protocol: u8, kind: u8) -> u32 {
    (port as u32) | (protocol as u32) << 16 | (kind as u32) << 24
}

/// An IPv4 endpoint: one of four in a bucket of 64 bytes.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Endpoint4 {
    /// Wire order.
    pub address: u32,
    /// [`endpoint_word`]; 0 is a free slot. Written last, cleared first.
    pub word: u32,
    /// The endpoint's id in the keys of flows.
    pub id: u32,
    /// Zero.
    pub reserved: u32,
}
const _: () = assert!(size_of::<Endpoint4>() == 16);

/// An IPv6 endpoint: one of two in a bucket of 64 bytes.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Endpoint6 {
    /// Wire order, as two words.
    pub address: [u64; 2],
    /// [`endpoint_word`]; 0 is a free slot. Written last, cleared first.
    pub word: u32,
    /// The endpoint's id in the keys of flows.
    pub id: u32,
    /// Zero.
    pub reserved: u64,
}
const _: () = assert!(size_of::<Endpoint6>() == 32);

/// A bucket of IPv4 endpoints: one cache line.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default)]
pub struct Bucket4 {
    /// The endpoints.
    pub slots: [Endpoint4; 4],
}
const _: () = assert!(size_of::<Bucket4>() == 64);

/// A bucket of IPv6 endpoints: one cache line.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default)]
pub struct Bucket6 {
    /// The endpoints.
    pub slots: [Endpoint6; 2],
}
const _: () = assert!(size_of::<Bucket6>() == 64);

/// Bits of [`Service::flags`].
pub mod service_flag {
    /// The service exists. Without this bit, the entry only reserves the id of a deleted service,
    /// so that its flows are not another service's.
    pub const PRESENT: u8 = 1;
    /// sh, mh: the hash includes the source port (`sh-port`, `mh-port`).
    pub const PORT: u8 = 2;
    /// sh, mh: another server is picked if the hashed one is unavailable (`sh-fallback`,
    /// `mh-fallback`).
    pub const FALLBACK: u8 = 4;
    /// The virtual address is IPv6.
    pub const IPV6: u8 = 8;
    /// Each datagram is scheduled by itself, without an entry (`IP_VS_SVC_F_ONEPACKET`).
    pub const ONE_PACKET: u8 = 16;
    /// Servers of full NAT get the client's address in an option of the SYN (TOA).
    pub const TOA: u8 = 32;
    /// Servers of full NAT get the client's address in a header before a connection's first byte
    /// (PROXY protocol).
    pub const PROXY: u8 = 64;
    /// The templates of the service are [`crate::call`]s.
    pub const CALLS: u8 = 128;
}

/// A virtual service.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Service {
    /// [`PoolWord`]: one store switches scheduler, length and place of the pool at once.
    pub pool: u64,
    /// The virtual address, wire order; IPv4 in the first four bytes.
    pub address: [u64; 2],
    /// Wire order.
    pub port: u16,
    /// Protocol number; 0 for a firewall mark.
    pub protocol: u8,
    /// [`service_flag`].
    pub flags: u8,
    /// The id in the keys of the service's templates, like a service's id. [`NONE`] if the service
    /// never had templates.
    pub template: u32,
    /// The mask of client addresses that count as one client, wire order.
    pub granularity: [u64; 2],
    /// Ticks that a template lives after its last connection began; 0 without persistence.
    pub persistence: u32,
    /// The epoch in the [`LocalityKey`]s of this service.
    pub epoch: u32,
    /// [`service_switch`].
    pub switches: u32,
    /// Zero.
    pub reserved2: u32,
}
const _: () = assert!(size_of::<Service>() == 64);

/// A server's thresholds, overload and weight: an entry of four words, of which the last is
/// reserved.
pub mod standing {
    /// Number of words.
    pub const WORDS: usize = 4;
    /// The upper threshold in the low half, 0 if there is none. In the high half, the number of
    /// connections below which an overloaded server is used again.
    pub const BOUNDS: usize = 0;
    /// 1 while the server is overloaded. Only the walk writes this word.
    pub const OVERLOADED: usize = 1;
    /// The server's weight.
    pub const WEIGHT: usize = 2;

    /// The word [`BOUNDS`]. Without a lower threshold, a server is overloaded until it has fewer
    /// than three quarters of the upper one (`ip_vs_unbind_dest`).
    #[must_use]
    pub const fn bounds(upper: u32, lower: u32) -> u64 {
        let below = if lower != 0 {
            lower as u64
        } else {
            (upper as u64).wrapping_mul(3).div_ceil(4)
        };
        if upper == 0 {
            0
        } else {
            upper as u64 | below << 32
        }
    }
}

/// Bits of [`Server::flags`].
pub mod server_flag {
    /// The server is in its service's pool. Packets for a server that is not are dropped, as in
    /// IPVS; [`super::fate`] has the exceptions.
    pub const PRESENT: u8 = 1;
    /// The server's address is IPv6: for tunnels the outer header's destination.
    pub const IPV6: u8 = 2;
    /// GUE, GRE: the tunnel's header has a checksum.
    pub const CHECKSUM: u8 = 4;
    /// Translated flows: the server sees a local address in place of the client's.
    pub const FULL_NAT: u8 = 8;
    /// Several devices lead to the server by routes of equal cost, and its answers come by any.
    pub const SEVERAL_WAYS: u8 = 16;
    /// The server has thresholds ([`super::standing`]).
    pub const LIMITED: u8 = 128;
}

/// The numbers of the forwarding methods in [`Server::method`].
pub mod method {
    /// Masquerading (`-m`): the destination is rewritten, and in answers the source.
    pub const MASQUERADE: u8 = 1;
    /// Direct routing (`-g`): only the MAC addresses are rewritten.
    pub const ROUTE: u8 = 2;
    /// IP in IP.
    pub const TUNNEL: u8 = 3;
    // The walk's main function does not send packets of the methods from here on.
    /// The server is the director itself, and the packet stays as it is.
    pub const LOCAL: u8 = 4;
    /// Tunnels with a header of their own: [`crate::tunnel`].
    pub const GUE: u8 = 5;
    /// GRE (RFC 2784).
    pub const GRE: u8 = 6;
    /// Flows whose rewriting does not follow from the entry alone: [`crate::translate`].
    pub const TRANSLATE: u8 = 7;
    /// Masquerade, and the server is the director itself: [`crate::here`].
    pub const HERE: u8 = 8;
}

/// A real server of one service, with all values that can be computed in advance. Every packet
/// needs the first cache line; tunnels and the way back also need the second.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Server {
    /// The next hop.
    pub ways: Ways,
    /// NAT: the id of the endpoint (address, port, protocol) that answers come from, with
    /// [`BACK`] set.
    pub endpoint: u32,
    /// Wire order; IPv4 in the first four bytes.
    pub address: [u64; 2],
    /// Wire order.
    pub port: u16,
    /// NAT: the change of a checksum when the server's address replaces the virtual one.
    pub address_delta: u16,
    /// NAT: the change of a checksum when the server's port replaces the virtual one.
    pub port_delta: u16,
    /// Tunnel: the checksum's sum over both outer addresses.
    pub outer_sum: u16,
    /// [`method`].
    pub method: u8,
    /// [`server_flag`].
    pub flags: u8,
    /// [`fate`].
    pub fate: u16,
    /// The endpoint of the server's service, in the keys of its flows.
    pub service: u32,
    /// Tunnel: the outer source address.
    pub outer_source: [u64; 2],
    /// The service's address and port, wire order.
    pub virtual_address: [u64; 2],
    /// The service's port, in wire order.
    pub virtual_port: u16,
    /// GUE: the tunnel's destination port (UDP), wire order.
    pub tunnel_port: u16,
    /// Zero.
    pub reserved2: [u16; 2],
    /// The server that gets the connections of this one's templates: the same server with another
    /// forwarding method. [`NONE`] if this one gets them itself.
    pub successor: u32,
    /// Zero.
    pub reserved3: u32,
    /// Zero.
    pub reserved4: [u64; 2],
}
const _: () = assert!(size_of::<Server>() == 128);

impl Server {
    /// Whether the server is in its pool.
    #[inline(always)]
    #[must_use]
    pub fn is_present(&self) -> bool {
        self.flags & server_flag::PRESENT != 0
    }

    /// Whether its connections have a way-back entry, by which answers are looked up.
    #[inline(always)]
    #[must_use]
    pub fn has_way_back(&self) -> bool {
        self.method == method::MASQUERADE || self.method == method::HERE
    }

    /// Whether the server is the director itself, which has no next hop.
    #[inline(always)]
    #[must_use]
    pub fn is_director(&self) -> bool {
        self.method == method::LOCAL || self.method == method::HERE
    }
}

/// A next hop. Each word is written by one store, so that no packet sees half an address.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ways {
    /// The neighbour's MAC address in the low 48 bits, in memory order; the MTU in bytes above it.
    pub target: u64,
    /// The interface's own MAC address in the low 48 bits; above it 1 if the next hop is usable.
    pub source: u64,
    /// The index of the interface.
    pub interface: u32,
}

impl Ways {
    /// A usable next hop; `mtu` in bytes.
    #[must_use]
    pub fn new(target_mac: [u8; 6], source_mac: [u8; 6], interface: u32, mtu: u16) -> Self {
        Self {
            target: mac_word(target_mac) | (mtu as u64) << 48,
            source: mac_word(source_mac) | 1 << 48,
            interface,
        }
    }

    /// The largest network packet, in bytes.
    #[inline(always)]
    #[must_use]
    pub fn mtu(&self) -> u32 {
        (self.target >> 48) as u32
    }

    /// Whether packets can be sent to this next hop.
    #[inline(always)]
    #[must_use]
    pub fn is_usable(&self) -> bool {
        self.source >> 48 != 0
    }
}

#[must_use]
fn mac_word(mac: [u8; 6]) -> u64 {
    let [a, b, c, d, e, f] = mac;
    u64::from_le_bytes([a, b, c, d, e, f, 0, 0])
}

/// A prepared next hop to clients: a gateway, or a client on the link.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Hop {
    /// The next hop.
    pub ways: Ways,
}
const _: () = assert!(size_of::<Hop>() == 24);

/// The number of hops. A flow's entry has 10 bits for its hop; 0 means that none is known.
pub const HOPS: u32 = 1024;

/// The settings of the director as the walk reads them.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Ticks that an entry lives in each state ([`crate::connection::State`]).
    pub timeouts: [u32; crate::connection::STATES],
    /// [`switch`].
    pub switches: u32,
    /// [`nat`]: not 0 if packets are also looked up by their source.
    pub masquerades: u32,
    /// The limit of ICMP errors that the director sends, per tick and CPU.
    pub icmp_limit: u32,
    /// [`wide_flag`].
    pub wide: u32,
    /// One of this many new connections is dropped (drop_packet); 0 drops none.
    pub drop_rate: u32,
    /// Zero.
    pub reserved: u32,
}
const _: () = assert!(size_of::<Settings>() == 152);

/// The traffic of one server on one CPU. A packet path of another [`LAYOUT`] takes the table over
/// if the size of an entry is the same, so another meaning needs another size.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Connections that were opened.
    pub connections: u64,
    /// Packets to the server.
    pub in_packets: u64,
    /// Packets from the server.
    pub out_packets: u64,
    /// Bytes to the server, from the network header on.
    pub in_bytes: u64,
    /// Bytes from the server, from the network header on.
    pub out_bytes: u64,
}
const _: () = assert!(size_of::<Traffic>() == 40);

/// The live counts of a server in one word: ActiveConn in the low half, InActConn in the high half.
/// One addition moves a connection from one count to the other.
pub mod counts {
    /// One active connection.
    pub const ACTIVE: u64 = 1;
    /// One inactive connection.
    pub const INACTIVE: u64 = 1 << 32;

    /// The active connections.
    #[inline(always)]
    #[must_use]
    pub fn active(word: u64) -> u32 {
        word as u32
    }

    /// The inactive connections.
    #[inline(always)]
    #[must_use]
    pub fn inactive(word: u64) -> u32 {
        (word >> 32) as u32
    }
}
