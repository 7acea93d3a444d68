//! Frames, built to be read: a test gives only what is special. Checksums are computed here over
//! whole packets, independently of the code under test.

use std::net::IpAddr;

pub(crate) const FIN: u8 = 0x01;
pub(crate) const SYN: u8 = 0x02;
pub(crate) const RST: u8 = 0x04;
pub(crate) const ACK: u8 = 0x10;

const ICMP: u8 = 1;
pub(crate) const TCP: u8 = 6;
pub(crate) const UDP: u8 = 17;
pub(crate) const SCTP: u8 = 132;

/// Chunk types (RFC 9260, 3.2).
pub(crate) mod chunk {
    pub(crate) const DATA: u8 = 0;
    pub(crate) const INIT: u8 = 1;
    pub(crate) const INIT_ACK: u8 = 2;
    pub(crate) const ABORT: u8 = 6;
    pub(crate) const SHUTDOWN: u8 = 7;
    pub(crate) const SHUTDOWN_ACK: u8 = 8;
    pub(crate) const COOKIE_ECHO: u8 = 10;
    pub(crate) const COOKIE_ACK: u8 = 11;
    pub(crate) const SHUTDOWN_COMPLETE: u8 = 14;
}
const FRAGMENT: u8 = 44;
const ICMPV6: u8 = 58;

/// The header behind the network header.
#[derive(Clone, Debug)]
enum Head {
    Tcp {
        ports: [u16; 2],
        flags: u8,
        /// Sequence number, acknowledgement number.
        numbers: [u32; 2],
        window: u16,
    },
    Udp {
        ports: [u16; 2],
        summed: bool,
    },
    /// A chunk whose value is the payload. With `value` the payload goes on in a second chunk.
    Sctp {
        ports: [u16; 2],
        kind: u8,
        value: Option<u16>,
    },
    Icmp {
        kind: u8,
        code: u8,
        rest: u32,
    },
    /// A protocol without ports.
    None {
        protocol: u8,
    },
}

#[derive(Clone, Debug)]
pub(crate) struct Packet {
    macs: [u16; 2],
    tags: Vec<u16>,
    /// The VLAN of the outermost tag.
    vlan: u16,
    source: IpAddr,
    target: IpAddr,
    service: u8,
    ttl: u8,
    id: u32,
    dont_fragment: bool,
    /// The fragment offset in bytes, and whether more fragments follow.
    fragment: Option<(u16, bool)>,
    options: Vec<u8>,
    tcp_options: Vec<u8>,
    extensions: Vec<(u8, Vec<u8>)>,
    head: Head,
    payload: Vec<u8>,
    padding: usize,
}

fn packet(source: IpAddr, target: IpAddr, head: Head) -> Packet {
    Packet {
        macs: [2, 1],
        tags: Vec::new(),
        vlan: 0,
        source,
        target,
        service: 0,
        ttl: 64,
        id: 0,
        dont_fragment: true,
        fragment: None,
        options: Vec::new(),
        tcp_options: Vec::new(),
        extensions: Vec::new(),
        head,
        payload: Vec::new(),
        padding: 0,
    }
}

/// An end of a flow.
pub(crate) type End = (IpAddr, u16);

pub(crate) fn tcp(source: End, target: End, flags: u8) -> Packet {
    let ports = [source.1, target.1];
    let head = Head::Tcp {
        ports,
        flags,
        numbers: [0x0102_0304, 0x0506_0708],
        window: 0xfaf0,
    };
    packet(source.0, target.0, head)
}

pub(crate) fn udp(source: End, target: End) -> Packet {
    let (ports, summed) = ([source.1, target.1], true);
    packet(source.0, target.0, Head::Udp { ports, summed })
}

/// A packet of SCTP with one chunk.
pub(crate) fn sctp(source: End, target: End, kind: u8) -> Packet {
    let head = Head::Sctp {
        ports: [source.1, target.1],
        kind,
        value: None,
    };
    packet(source.0, target.0, head)
}

/// A TCP SYN, an INIT of SCTP, or a UDP datagram.
pub(crate) fn opening(protocol: u8, source: End, target: End) -> Packet {
    match protocol {
        TCP => tcp(source, target, SYN),
        SCTP => sctp(source, target, chunk::INIT).payload(&[7; 16]),
        _ => udp(source, target).payload(b"hello"),
    }
}

pub(crate) fn icmp(source: IpAddr, target: IpAddr, kind: u8, code: u8, rest: u32) -> Packet {
    packet(source, target, Head::Icmp { kind, code, rest })
}

pub(crate) fn bare(source: IpAddr, target: IpAddr, protocol: u8) -> Packet {
    packet(source, target, Head::None { protocol })
}

impl Packet {
    /// To this MAC address, from that one.
    pub(crate) fn macs(mut self, to: u16, from: u16) -> Self {
        self.macs = [to, from];
        self
    }

    /// Sets the VLAN of the outermost tag. Without it the tag gives only a priority.
    pub(crate) fn vlan(mut self, number: u16) -> Self {
        self.vlan = number;
        self
    }

    /// VLAN tags, outermost first: their types.
    pub(crate) fn tags(mut self, tags: &[u16]) -> Self {
        self.tags = tags.to_vec();
        self
    }

    pub(crate) fn from(mut self, source: End) -> Self {
        self.source = source.0;
        if let Some(ports) = self.ports_mut() {
            ports[0] = source.1;
        }
        self
    }

    pub(crate) fn to(mut self, target: End) -> Self {
        self.target = target.0;
        if let Some(ports) = self.ports_mut() {
            ports[1] = target.1;
        }
        self
    }

    fn ports_mut(&mut self) -> Option<&mut [u16; 2]> {
        match &mut self.head {
            Head::Tcp { ports, .. } | Head::Udp { ports, .. } | Head::Sctp { ports, .. } => {
                Some(ports)
            }
            Head::Icmp { .. } | Head::None { .. } => None,
        }
    }

    /// Sets the type of the first chunk.
    pub(crate) fn kind(mut self, wanted: u8) -> Self {
        if let Head::Sctp { kind, .. } = &mut self.head {
            *kind = wanted;
        }
        self
    }

    /// Sets the bytes of the first chunk's value; the rest of the payload is another chunk.
    pub(crate) fn value(mut self, bytes: u16) -> Self {
        if let Head::Sctp { value, .. } = &mut self.head {
            *value = Some(bytes);
        }
        self
    }

    pub(crate) fn ttl(mut self, ttl: u8) -> Self {
        self.ttl = ttl;
        self
    }

    /// Type of service, or traffic class.
    pub(crate) fn service(mut self, service: u8) -> Self {
        self.service = service;
        self
    }

    /// Clears the "don't fragment" bit and sets the identification.
    pub(crate) fn may_be_cut(mut self, id: u16) -> Self {
        self.dont_fragment = false;
        self.id = id.into();
        self
    }

    /// An IPv4 packet that a director makes of a small one of IPv6: it may be fragmented, and its
    /// identification is hashed from its content.
    pub(crate) fn named(self) -> Self {
        let body = self.transport();
        let word = |at: usize| {
            let word = body.get(at..at + 8).unwrap_or(&[0; 8]);
            u64::from_le_bytes(word.try_into().unwrap())
        };
        let hash = shunt_datapath::hash::wide([word(0), word(12)], 0, 0x5eed);
        self.may_be_cut((hash as u16).swap_bytes())
    }

    pub(crate) fn fragment(mut self, id: u32, offset: u16, more: bool) -> Self {
        self.dont_fragment = false;
        self.id = id;
        self.fragment = Some((offset, more));
        self
    }

    pub(crate) fn options(mut self, options: &[u8]) -> Self {
        self.options = options.to_vec();
        self
    }

    /// Sets the sequence number and the acknowledgement number of a segment.
    pub(crate) fn numbers(mut self, own: u32, acknowledged: u32) -> Self {
        if let Head::Tcp { numbers, .. } = &mut self.head {
            *numbers = [own, acknowledged];
        }
        self
    }

    pub(crate) fn tcp_options(mut self, options: &[u8]) -> Self {
        self.tcp_options = options.to_vec();
        self
    }

    /// Adds an extension header of this type; `body` is what follows its first two bytes.
    pub(crate) fn extension(mut self, kind: u8, body: &[u8]) -> Self {
        self.extensions.push((kind, body.to_vec()));
        self
    }

    pub(crate) fn payload(mut self, payload: &[u8]) -> Self {
        self.payload = payload.to_vec();
        self
    }

    /// Adds bytes behind the packet, as in short Ethernet frames.
    pub(crate) fn padding(mut self, bytes: usize) -> Self {
        self.padding = bytes;
        self
    }

    pub(crate) fn without_checksum(mut self) -> Self {
        if let Head::Udp { summed, .. } = &mut self.head {
            *summed = false;
        }
        self
    }

    /// The frame with only the pseudo-header's sum in its transport checksum, as a sender leaves it
    /// to a device (CHECKSUM_PARTIAL).
    pub(crate) fn half_made(&self) -> Vec<u8> {
        let mut frame = self.bytes();
        let l4 = frame.len() - self.padding - self.transport().len();
        let at = l4 + if self.is_tcp() { 16 } else { 6 };
        let sum = !checksum(&self.pseudo(self.transport().len()));
        frame[at..at + 2].copy_from_slice(&sum.to_be_bytes());
        frame
    }

    /// This packet in a tunnel: IP in IP.
    pub(crate) fn inside(&self, source: IpAddr, target: IpAddr) -> Packet {
        let protocol = if self.source.is_ipv6() { 41 } else { 4 };
        let mut outer = packet(source, target, Head::None { protocol });
        outer.tags.clone_from(&self.tags);
        outer.ttl = self.ttl;
        outer.service = self.service;
        outer.payload = self.network();
        outer.dont_fragment = self.dont_fragment || self.source.is_ipv6();
        if !outer.dont_fragment && source.is_ipv4() {
            outer.id = self.id;
        }
        outer
    }

    /// This packet in a tunnel: GUE in UDP, from and to these ports.
    pub(crate) fn in_gue(&self, source: End, target: End, summed: bool) -> Packet {
        let mut outer = self.inside(source.0, target.0);
        let carried = outer.protocol();
        let ports = [source.1, target.1];
        outer.head = Head::Udp { ports, summed };
        let gue = [0, carried, 0, 0];
        outer.payload = [gue.as_slice(), &outer.payload].concat();
        outer
    }

    /// This packet in a tunnel: GRE.
    pub(crate) fn in_gre(&self, source: IpAddr, target: IpAddr, summed: bool) -> Packet {
        let mut outer = self.inside(source, target);
        outer.head = Head::None { protocol: 47 };
        let carried = if self.source.is_ipv6() {
            [0x86, 0xdd]
        } else {
            [0x08, 0x00]
        };
        let mut gre = vec![if summed { 0x80 } else { 0 }, 0];
        gre.extend(carried);
        if summed {
            gre.extend([0; 4]);
        }
        gre.extend(&outer.payload);
        if summed {
            let sum = checksum(&gre);
            gre[4..6].copy_from_slice(&sum.to_be_bytes());
        }
        outer.payload = gre;
        outer
    }

    /// The ports, as they lie in the header.
    pub(crate) fn ports(&self) -> u32 {
        match self.head {
            Head::Tcp { ports, .. } | Head::Udp { ports, .. } | Head::Sctp { ports, .. } => {
                u32::from(ports[0].to_be()) | u32::from(ports[1].to_be()) << 16
            }
            Head::Icmp { .. } | Head::None { .. } => 0,
        }
    }

    /// Whether this is a fragment.
    pub(crate) fn is_fragment(&self) -> bool {
        self.fragment.is_some()
    }

    pub(crate) fn flags(mut self, wanted: u8) -> Self {
        if let Head::Tcp { flags, .. } = &mut self.head {
            *flags = wanted;
        }
        self
    }

    /// The reset that answers this segment (RFC 9293, 3.10.7.1).
    pub(crate) fn reset(&self) -> Packet {
        let Head::Tcp {
            ports,
            flags,
            numbers: [sequence, acknowledgement],
            ..
        } = self.head
        else {
            panic!("only TCP has resets");
        };
        let length = self.payload.len() as u32 + u32::from(flags & FIN) + u32::from(flags >> 1 & 1);
        let (numbers, flags) = if flags & ACK != 0 {
            ([acknowledgement, 0], RST)
        } else {
            ([0, sequence + length], RST | ACK)
        };
        let head = Head::Tcp {
            ports: [ports[1], ports[0]],
            flags,
            numbers,
            window: 0,
        };
        self.copy_link(packet(self.target, self.source, head).macs(1, 2))
    }

    /// The TTL or hop limit.
    pub(crate) fn hops(&self) -> u8 {
        self.ttl
    }

    /// Source and target address.
    pub(crate) fn ends(&self) -> (IpAddr, IpAddr) {
        (self.source, self.target)
    }

    pub(crate) fn is_tcp(&self) -> bool {
        matches!(self.head, Head::Tcp { .. })
    }

    /// `other` with the VLAN tags of this packet.
    pub(crate) fn copy_link(&self, mut other: Packet) -> Packet {
        other.tags.clone_from(&self.tags);
        other
    }

    pub(crate) fn is_tagged(&self) -> bool {
        !self.tags.is_empty()
    }

    /// The number of bytes behind the packet.
    pub(crate) fn behind(&self) -> usize {
        self.padding
    }

    /// The whole frame.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut frame = Vec::new();
        for mac in self.macs {
            frame.extend_from_slice(&shunt_datapath::host::mac(mac));
        }
        for (index, tag) in self.tags.iter().enumerate() {
            frame.extend_from_slice(&tag.to_be_bytes());
            let vlan = if index == 0 { self.vlan } else { 1 };
            frame.extend_from_slice(&(0x2000 | vlan).to_be_bytes());
        }
        let ethertype: u16 = if self.source.is_ipv6() {
            0x86dd
        } else {
            0x0800
        };
        frame.extend_from_slice(&ethertype.to_be_bytes());
        frame.extend(self.network());
        frame.resize(frame.len() + self.padding, 0);
        frame
    }

    /// The packet from its network header on.
    pub(crate) fn network(&self) -> Vec<u8> {
        if self.source.is_ipv6() {
            self.network6()
        } else {
            self.network4()
        }
    }

    fn network4(&self) -> Vec<u8> {
        let body = self.transport();
        let header = 20 + self.options.len();
        let mut ip = vec![0x40 | (header / 4) as u8, self.service];
        ip.extend_from_slice(&length_field(header + body.len()));
        ip.extend_from_slice(&(self.id as u16).to_be_bytes());
        let (offset, more) = self.fragment.unwrap_or((0, false));
        let flags = u16::from(self.dont_fragment) << 14 | u16::from(more) << 13;
        ip.extend_from_slice(&(flags | (offset / 8)).to_be_bytes());
        ip.extend_from_slice(&[self.ttl, self.protocol(), 0, 0]);
        ip.extend(octets(self.source));
        ip.extend(octets(self.target));
        ip.extend_from_slice(&self.options);
        let sum = checksum(&ip);
        ip[10..12].copy_from_slice(&sum.to_be_bytes());
        ip.extend(body);
        ip
    }

    fn network6(&self) -> Vec<u8> {
        let mut extensions = self.extensions.clone();
        if let Some((offset, more)) = self.fragment {
            let mut body = (offset | u16::from(more)).to_be_bytes().to_vec();
            body.extend_from_slice(&self.id.to_be_bytes());
            extensions.push((FRAGMENT, body));
        }
        let mut behind = Vec::new();
        for (index, (kind, body)) in extensions.iter().enumerate() {
            let next = extensions
                .get(index + 1)
                .map_or(self.protocol(), |next| next.0);
            let length = if *kind == FRAGMENT {
                0
            } else {
                (body.len() + 2) / 8 - 1
            };
            behind.extend_from_slice(&[next, length as u8]);
            behind.extend_from_slice(body);
        }
        behind.extend(self.transport());
        let first = 0x6000_0000 | u32::from(self.service) << 20;
        let mut ip = first.to_be_bytes().to_vec();
        ip.extend_from_slice(&length_field(behind.len()));
        let next = extensions.first().map_or(self.protocol(), |first| first.0);
        ip.extend_from_slice(&[next, self.ttl]);
        ip.extend(octets(self.source));
        ip.extend(octets(self.target));
        ip.extend(behind);
        ip
    }

    pub(crate) fn protocol(&self) -> u8 {
        match self.head {
            Head::Tcp { .. } => TCP,
            Head::Udp { .. } => UDP,
            Head::Sctp { .. } => SCTP,
            Head::Icmp { .. } if self.source.is_ipv6() => ICMPV6,
            Head::Icmp { .. } => ICMP,
            Head::None { protocol } => protocol,
        }
    }

    fn transport(&self) -> Vec<u8> {
        let mut body = Vec::new();
        let field = match &self.head {
            Head::Tcp {
                ports,
                flags,
                numbers,
                window,
            } => {
                body.extend(ports.iter().flat_map(|port| port.to_be_bytes()));
                body.extend(numbers.iter().flat_map(|number| number.to_be_bytes()));
                let words = 5 + self.tcp_options.len() as u8 / 4;
                body.extend_from_slice(&[words << 4, *flags]);
                body.extend_from_slice(&window.to_be_bytes());
                body.extend_from_slice(&[0; 4]);
                body.extend_from_slice(&self.tcp_options);
                Some(16)
            }
            Head::Udp { ports, summed } => {
                body.extend(ports.iter().flat_map(|port| port.to_be_bytes()));
                body.extend_from_slice(&length_field(8 + self.payload.len()));
                body.extend_from_slice(&[0; 2]);
                summed.then_some(6)
            }
            Head::Sctp { ports, kind, value } => {
                body.extend(ports.iter().flat_map(|port| port.to_be_bytes()));
                body.extend_from_slice(&[9, 8, 7, 6, 0, 0, 0, 0, *kind, 0]);
                let value = value.unwrap_or(self.payload.len() as u16);
                body.extend_from_slice(&(4 + value).to_be_bytes());
                None
            }
            Head::Icmp { kind, code, rest } => {
                body.extend_from_slice(&[*kind, *code, 0, 0]);
                body.extend_from_slice(&rest.to_be_bytes());
                Some(2)
            }
            Head::None { .. } => None,
        };
        body.extend_from_slice(&self.payload);
        if let Some(at) = field {
            let pseudo = if self.protocol() == ICMP {
                Vec::new()
            } else {
                self.pseudo(body.len())
            };
            let sum = checksum(&[pseudo, body.clone()].concat());
            let is_none = matches!(self.head, Head::Udp { .. }) && sum == 0;
            let sum = if is_none { 0xffff } else { sum };
            body[at..at + 2].copy_from_slice(&sum.to_be_bytes());
        }
        if matches!(self.head, Head::Sctp { .. }) {
            let crc = crc32c(&body);
            body[8..12].copy_from_slice(&crc.to_le_bytes());
        }
        body
    }

    /// RFC 9293, 3.1; RFC 8200, 8.1.
    fn pseudo(&self, length: usize) -> Vec<u8> {
        let mut pseudo = octets(self.source);
        pseudo.extend(octets(self.target));
        pseudo.extend_from_slice(&(length as u32).to_be_bytes());
        pseudo.extend_from_slice(&[0, 0, 0, self.protocol()]);
        pseudo
    }
}

/// The packet with the header that says how long a packet beyond 64 kB is (RFC 2675, 2).
pub(crate) fn jumbo(packet: &Packet) -> Packet {
    let length = packet.clone().extension(0, &[0; 6]).network().len() as u32 - 40;
    let mut body = vec![0xc2, 4];
    body.extend_from_slice(&length.to_be_bytes());
    packet.clone().extension(0, &body)
}

/// What a header holds of a length: 0 where it cannot.
fn length_field(bytes: usize) -> [u8; 2] {
    u16::try_from(bytes).unwrap_or(0).to_be_bytes()
}

/// The checksum that a device computes over a transport header and its payload, truncated or not:
/// the complement of their sum.
pub(crate) fn finished(transport: &[u8]) -> [u8; 2] {
    checksum(transport).to_be_bytes()
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

/// Makes an IPv4 header's checksum right.
pub(crate) fn mend(header: &mut [u8]) {
    header[10..12].fill(0);
    let sum = checksum(header);
    header[10..12].copy_from_slice(&sum.to_be_bytes());
}

/// RFC 9260, appendix A, bit by bit.
fn crc32c(bytes: &[u8]) -> u32 {
    let mut crc = u32::MAX;
    for byte in bytes {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = if crc & 1 != 0 {
                crc >> 1 ^ 0x82f6_3b78
            } else {
                crc >> 1
            };
        }
    }
    !crc
}

/// RFC 1071, word by word.
fn checksum(bytes: &[u8]) -> u16 {
    let mut sum: u64 = bytes
        .chunks(2)
        .map(|pair| u64::from(pair[0]) << 8 | u64::from(*pair.get(1).unwrap_or(&0)))
        .sum();
    while sum >> 16 != 0 {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}
