//! What stands in the tables that the daemon writes and the walk reads.
//!
//! Byte arrays and integers in network order where the wire has them, numbers in host order
//! elsewhere; no `Option`, `bool` or `enum`, explicit `reserved`. The layout is shared with maps
//! that outlive the daemon: a change of any of it is a new [`LAYOUT`].

pub use crate::localities::{LOCALITY_SERVERS, Locality, LocalityKey, locality};
pub use crate::origin::{ORIGINS, OriginKey, lookup};
pub use crate::peer::PeerKey;
pub use crate::switches::{fate, nat, service_switch, switch};

/// The version of every layout in this file and in [`crate::flows`]. Part of the pin folder's name.
pub const LAYOUT: u32 = 6;

/// The version of what connections lie in: flows, translations, calls and counts of servers, with
/// the hashes by which their entries are found. A packet path of another [`LAYOUT`] and the same
/// version of this takes these tables over as they are, with every connection.
pub const CONNECTIONS: u32 = 2;

/// No id: ids of services, servers and NAT endpoints begin at 1.
pub const NONE: u32 = 0;
/// Ids of services and servers are below this.
pub const ID_LIMIT: u32 = 1 << 22;
/// The bit of an endpoint that has every port of its address: its id names one of [`WIDES`]
/// stretches of 65,536 ids, and the port makes it whole ([`with_port`]). So the key of a flow has
/// the port without being longer.
pub const WIDE: u32 = 1 << 22;
/// How many endpoints of every port there may be, of services and behind NAT each.
pub const WIDES: u32 = 64;
/// The bit that tells the id of a NAT endpoint from that of a service: an entry whose key has it
/// is one of the way back.
pub const BACK: u32 = 1 << 23;

/// The bit of the id of a mark's endpoint that no rule leads to any more: its connections go on,
/// and none is opened. The key of a flow does not have it.
pub const LEFT: u32 = 1 << 24;

/// The id of the endpoint of every port with this number.
#[must_use]
pub const fn wide(number: u32) -> u32 {
    WIDE | (number & 63) << 16
}

/// Which endpoint of every port an id names.
#[inline(always)]
#[must_use]
pub const fn wide_number(id: u32) -> u32 {
    id >> 16 & 63
}

/// The id of an endpoint together with a port in wire order, where that is part of it.
#[inline(always)]
#[must_use]
pub fn with_port(id: u32, port: u16) -> u32 {
    if id & WIDE == 0 {
        id
    } else {
        id & !0xffff | u16::from_be(port) as u32
    }
}

/// What an endpoint entry stands for.
pub mod kind {
    /// A virtual service: looked up by where a packet goes.
    pub const SERVICE: u8 = 1;
    /// A real server behind NAT: looked up by where a packet comes from.
    pub const MASQUERADED: u8 = 2;
    /// The address has services, or masqueraded servers, on some port (port 0 in the entry).
    pub const ADDRESS: u8 = 3;
}

/// The word of an endpoint entry that says which endpoint it is, but for the address.
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
    pub id: u32,
    pub reserved: u32,
}
const _: () = assert!(size_of::<Endpoint4>() == 16);

/// An IPv6 endpoint: one of two in a bucket of 64 bytes.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Endpoint6 {
    /// Wire order, as two words.
    pub address: [u64; 2],
    pub word: u32,
    pub id: u32,
    pub reserved: u64,
}
const _: () = assert!(size_of::<Endpoint6>() == 32);

#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default)]
pub struct Bucket4 {
    pub slots: [Endpoint4; 4],
}
const _: () = assert!(size_of::<Bucket4>() == 64);

#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default)]
pub struct Bucket6 {
    pub slots: [Endpoint6; 2],
}
const _: () = assert!(size_of::<Bucket6>() == 64);

/// Bits of [`Service::flags`].
pub mod service_flag {
    /// The service exists; without it the entry only keeps the flows of a deleted service apart.
    pub const PRESENT: u8 = 1;
    /// sh, mh: the source port takes part in the hash.
    pub const PORT: u8 = 2;
    /// sh, mh: look further when the hashed server is unavailable.
    pub const FALLBACK: u8 = 4;
    pub const IPV6: u8 = 8;
    /// Each datagram is scheduled by itself, and nothing is remembered of it.
    pub const ONE_PACKET: u8 = 16;
    /// Servers of full NAT are told the client's address, in an option of its SYN.
    pub const TOA: u8 = 32;
    /// Likewise by the PROXY protocol, in a header before a connection's first byte.
    pub const PROXY: u8 = 64;
    /// Its templates are [`crate::call`]s.
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
    pub protocol: u8,
    /// [`service_flag`].
    pub flags: u8,
    /// By what its templates are found: an id like a service's own. [`NONE`] if it never had any.
    pub template: u32,
    /// What of a client's address counts as one client: a mask in wire order.
    pub granularity: [u64; 2],
    /// Ticks that a template lives after its last connection began; 0 without persistence.
    pub persistence: u32,
    /// What [`LocalityKey`]s of it hold.
    pub epoch: u32,
    /// [`service_switch`].
    pub switches: u32,
    pub reserved2: u32,
}
const _: () = assert!(size_of::<Service>() == 64);

/// The schedulers as the walk tells them apart.
pub mod scheduler {
    /// No server may be picked.
    pub const EMPTY: u8 = 0;
    /// The slots in turn: rr, and wrr where its turn fits a ring.
    pub const RING: u8 = 1;
    pub const LC: u8 = 2;
    pub const WLC: u8 = 3;
    pub const SED: u8 = 4;
    pub const NQ: u8 = 5;
    pub const SH: u8 = 6;
    pub const MH: u8 = 7;
    /// wrr by its own rule, for turns too long for a ring and for servers with thresholds.
    pub const WRR: u8 = 8;
    pub const DH: u8 = 9;
    pub const FO: u8 = 10;
    pub const OVF: u8 = 11;
    pub const TWOS: u8 = 12;
    pub const LBLC: u8 = 13;
    pub const LBLCR: u8 = 14;
    /// Two different servers drawn by weight, the better one taken.
    pub const P2C: u8 = 15;
    /// Added to lc, wlc, sed, nq, lblc, lblcr: the servers with the least load lie in front.
    pub const SHORT: u8 = 0x80;
}

/// Where a service's pool lies: the first slot's place (32 bits), the number of slots (24), the
/// scheduler (8).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PoolWord(pub u64);

impl PoolWord {
    #[inline(always)]
    #[must_use]
    pub fn new(base: u32, length: u32, scheduler: u8) -> Self {
        Self((base as u64) | ((length & 0xff_ffff) as u64) << 32 | (scheduler as u64) << 56)
    }

    #[inline(always)]
    #[must_use]
    pub fn base(self) -> u32 {
        self.0 as u32
    }

    #[inline(always)]
    #[must_use]
    pub fn length(self) -> u32 {
        ((self.0 >> 32) as u32) & 0xff_ffff
    }

    #[inline(always)]
    #[must_use]
    pub fn scheduler(self) -> u8 {
        (self.0 >> 56) as u8 & !scheduler::SHORT
    }

    /// Whether a short list lies before the slots ([`scheduler::SHORT`]).
    #[inline(always)]
    #[must_use]
    pub fn is_short(self) -> bool {
        self.0 >> 63 != 0
    }

    /// The slots that are compared for a new connection.
    #[inline(always)]
    #[must_use]
    pub fn compared(self) -> u32 {
        if self.is_short() {
            SHORT_LENGTH
        } else {
            self.length()
        }
    }

    /// Where the slots of all servers begin.
    #[inline(always)]
    #[must_use]
    pub fn first_listed(self) -> u32 {
        let short = if self.is_short() { SHORT_LENGTH } else { 0 };
        self.base().wrapping_add(POOL_HEAD).wrapping_add(short)
    }
}

/// A pool is a stretch of 64-bit words: [`POOL_HEAD`] words of state, then a slot each.
pub const POOL_HEAD: u32 = 2;
/// Servers in the short list of a large pool. Free places at its end have weight 0.
pub const SHORT_LENGTH: u32 = 128;

/// A slot of a pool: which server, and its weight (0: not to be picked).
#[inline(always)]
#[must_use]
pub fn pool_slot(server: u32, weight: u32) -> u64 {
    (server as u64) | (weight as u64) << 32
}

/// The bit of a slot whose server has thresholds.
pub const SLOT_LIMITED: u64 = 1 << 31;

#[inline(always)]
#[must_use]
pub fn slot_server(slot: u64) -> u32 {
    slot as u32 & (ID_LIMIT - 1)
}

#[inline(always)]
#[must_use]
pub fn slot_is_limited(slot: u64) -> bool {
    slot & SLOT_LIMITED != 0
}

/// How a server stands with its scheduler, besides its live counts: the words of an entry of four,
/// of which the last is reserved.
pub mod standing {
    pub const WORDS: usize = 4;
    /// The upper threshold (0: none) in the low half. In the high one, how many connections an
    /// overloaded server must have fewer than.
    pub const BOUNDS: usize = 0;
    /// 1 while the server is overloaded: the walk's own.
    pub const OVERLOADED: usize = 1;
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
    /// In the pool of its service. Flows of a server that is not are dropped, as IPVS does.
    pub const PRESENT: u8 = 1;
    /// The outer header of a tunnel, or the server of NAT, is IPv6.
    pub const IPV6: u8 = 2;
    /// GUE, GRE: the tunnel's header has a checksum.
    pub const CHECKSUM: u8 = 4;
    /// Translated flows: the server sees a local address in place of the client's.
    pub const FULL_NAT: u8 = 8;
    /// Has thresholds ([`super::standing`]).
    pub const LIMITED: u8 = 128;
}

/// The forwarding methods as the walk tells them apart.
pub mod method {
    pub const MASQUERADE: u8 = 1;
    pub const ROUTE: u8 = 2;
    /// IP in IP.
    pub const TUNNEL: u8 = 3;
    // From here on the packet does not go out by the walk itself.
    pub const LOCAL: u8 = 4;
    /// Tunnels with a header of their own: [`crate::tunnel`].
    pub const GUE: u8 = 5;
    pub const GRE: u8 = 6;
    /// Flows whose rewriting does not follow from the entry alone: [`crate::translate`].
    pub const TRANSLATE: u8 = 7;
    /// Masquerade, and the server is the director itself: [`crate::here`].
    pub const HERE: u8 = 8;
}

/// A real server of one service, with all that can be computed once. The first cache line is what
/// every packet needs, the second what tunnels and the way back need.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Server {
    pub ways: Ways,
    /// NAT: the id of the endpoint (address, port, protocol) that answers come from, with
    /// [`BACK`] set.
    pub endpoint: u32,
    /// Wire order; IPv4 in the first four bytes.
    pub address: [u64; 2],
    /// Wire order.
    pub port: u16,
    /// NAT: what putting the server's address in place of the virtual one adds to a checksum.
    pub address_delta: u16,
    /// NAT: the same for the port.
    pub port_delta: u16,
    /// Tunnel: the sum of both outer addresses.
    pub outer_sum: u16,
    pub method: u8,
    pub flags: u8,
    /// [`fate`].
    pub fate: u16,
    pub service: u32,
    /// Tunnel: the outer source address.
    pub outer_source: [u64; 2],
    /// The service's address and port, wire order.
    pub virtual_address: [u64; 2],
    pub virtual_port: u16,
    /// GUE: the UDP port that the tunnel ends at, wire order.
    pub tunnel_port: u16,
    pub reserved2: [u16; 2],
    /// Who takes the connections of this one's templates: the same server by another method.
    /// [`NONE`] if it takes them itself.
    pub successor: u32,
    pub reserved3: u32,
    pub reserved4: [u64; 2],
}
const _: () = assert!(size_of::<Server>() == 128);

impl Server {
    /// Whether its answers are known by where they come from.
    #[inline(always)]
    #[must_use]
    pub fn has_way_back(&self) -> bool {
        self.method == method::MASQUERADE || self.method == method::HERE
    }

    /// Whether it is the director itself, to which no hop leads.
    #[inline(always)]
    #[must_use]
    pub fn is_director(&self) -> bool {
        self.method == method::LOCAL || self.method == method::HERE
    }
}

/// The way to a neighbour. Each word is stored at once, so that no packet sees half an address.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ways {
    /// The neighbour's MAC address in the low 48 bits as they lie in memory, the MTU above.
    pub target: u64,
    /// Our own MAC address likewise; above it 1 if the way may be used.
    pub source: u64,
    pub interface: u32,
}

impl Ways {
    /// A usable way.
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

/// Where packets for clients go: a gateway, or a client on the link.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Hop {
    pub ways: Ways,
}
const _: () = assert!(size_of::<Hop>() == 24);

/// Hops are named by 10 bits in a flow's entry; 0 is "none known".
pub const HOPS: u32 = 1024;

/// What the operator can change while packets flow.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Ticks that an entry lives in each state ([`crate::connection::State`]).
    pub timeouts: [u32; crate::connection::STATES],
    /// [`switch`].
    pub switches: u32,
    /// [`nat`]: not 0 if packets are also looked up by where they come from.
    pub masquerades: u32,
    /// ICMP errors that the director may send a tick and CPU.
    pub icmp_limit: u32,
    /// [`lookup`].
    pub wide: u32,
    /// One of so many new connections is dropped; 0 drops none.
    pub drop_rate: u32,
    pub reserved: u32,
}
const _: () = assert!(size_of::<Settings>() == 152);

/// What was carried for one server, on one CPU.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    pub connections: u64,
    pub in_packets: u64,
    pub out_packets: u64,
    pub in_bytes: u64,
    pub out_bytes: u64,
}
const _: () = assert!(size_of::<Traffic>() == 40);

/// The live counts of a server in one word, so that one addition moves a connection from one to
/// the other: ActiveConn in the low half, InActConn in the high one.
pub mod counts {
    pub const ACTIVE: u64 = 1;
    pub const INACTIVE: u64 = 1 << 32;

    #[inline(always)]
    #[must_use]
    pub fn active(word: u64) -> u32 {
        word as u32
    }

    #[inline(always)]
    #[must_use]
    pub fn inactive(word: u64) -> u32 {
        (word >> 32) as u32
    }
}
