//! Builds the packets of clients and servers, and parses those that come out.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::scenario::{Datagram, Error, Flow, SYN, Secured, Transport};

pub(super) const ICMP: u8 = 1;
pub(super) const TCP: u8 = 6;
pub(super) const UDP: u8 = 17;
pub(super) const SCTP: u8 = 132;
pub(super) const IPIP: u8 = 4;
pub(super) const GRE: u8 = 47;
pub(super) const ESP: u8 = 50;
pub(super) const AH: u8 = 51;
/// The port at which the servers of scenarios accept GUE.
pub(super) const GUE_PORT: u16 = 6080;
pub(super) const IPV6: u8 = 41;
pub(super) const FRAGMENT: u8 = 44;
pub(super) const ICMP6: u8 = 58;
pub(super) const ETHERNET: usize = 14;
const MORE_FRAGMENTS: u16 = 0x2000;
const DONT_FRAGMENT: u16 = 0x4000;

/// The fields of an IP header that a sender chooses.
#[derive(Clone, Copy, Debug)]
pub(super) struct Header {
    pub source: IpAddr,
    pub target: IpAddr,
    pub protocol: u8,
    pub ttl: u8,
    pub traffic_class: u8,
    pub dont_fragment: bool,
    pub identification: u16,
}

/// A payload with room for a Call-ID, and for what a scan of it reads beyond it.
pub(super) const CALL_BYTES: u16 = 40;

/// The IP packets of a datagram from one end of a flow: one packet, or its fragments in order.
pub(super) fn datagram(header: Header, ports: [u16; 2], datagram: Datagram) -> Vec<Vec<u8>> {
    let body = (0..datagram.payload).map(|at| at as u8 ^ 0x5a);
    // A UDP datagram with enough room contains one of eight Call-IDs, chosen by the flags field.
    let call = match header.protocol == UDP && datagram.payload >= CALL_BYTES {
        true => format!("ACK\r\nCall-ID: {}@x\r\n", datagram.flags & 7),
        false => String::new(),
    };
    let body: Vec<u8> = call.bytes().chain(body.skip(call.len())).collect();
    let mut payload = Vec::new();
    payload.extend(ports[0].to_be_bytes());
    payload.extend(ports[1].to_be_bytes());
    if header.protocol == TCP {
        let options: &[u8] = match datagram.flags & SYN != 0 {
            true => &[2, 4, 5, 0xb4], // MSS: 1460 bytes.
            false => &[],
        };
        payload.extend(0x1000_0000_u32.to_be_bytes());
        payload.extend(0x2000_0000_u32.to_be_bytes());
        payload.extend([(5 + options.len() as u8 / 4) << 4, datagram.flags]);
        payload.extend([0x20, 0, 0, 0, 0, 0]);
        payload.extend(options);
    } else if header.protocol == SCTP {
        payload.extend(0x3000_0000_u32.to_be_bytes());
        payload.extend([0, 0, 0, 0, datagram.flags, 0]);
        payload.extend((4 + datagram.payload).to_be_bytes());
    } else {
        payload.extend((8 + datagram.payload).to_be_bytes());
        payload.extend([0, 0]);
    }
    payload.extend(body);
    if header.protocol == SCTP {
        payload.resize(payload.len().next_multiple_of(4), 0);
        let sum = crc32c(&payload);
        payload[8..12].copy_from_slice(&sum.to_le_bytes());
    } else {
        sum_up(&header, &mut payload);
    }
    packets(header, &payload, usize::from(datagram.pieces.max(1)))
}

/// An IPsec packet: SPI, sequence number, and encrypted data.
pub(super) fn secured(header: Header, secured: Secured) -> Vec<u8> {
    let mut payload = Vec::new();
    if secured.authenticated {
        // The length of the whole header in words, less two. Twelve bytes of it are the integrity
        // check.
        payload.extend([ESP, 4, 0, 0, 0, 0, 1, 0, 0, 0, 0, 9]);
        payload.extend([0xa5; 12]);
    }
    payload.extend([0, 0, 2, 0, 0, 0, 0, 7]);
    payload.extend((0..secured.payload).map(|at| at as u8 ^ 0xa5));
    packets(header, &payload, 1).remove(0)
}

/// An ICMP error that quotes a packet.
pub(super) fn error(header: Header, error: Error, quoted: &[u8]) -> Vec<u8> {
    let (kind, code, rest) = match (header.source.is_ipv4(), error) {
        (true, Error::PortUnreachable) => (3, 3, 0),
        (true, Error::HostUnreachable) => (3, 1, 0),
        (true, Error::TimeExceeded) => (11, 0, 0),
        (true, Error::TooBig { mtu }) => (3, 4, u32::from(mtu)),
        (false, Error::PortUnreachable) => (1, 4, 0),
        (false, Error::HostUnreachable) => (1, 3, 0),
        (false, Error::TimeExceeded) => (3, 0, 0),
        (false, Error::TooBig { mtu }) => (2, 0, u32::from(mtu)),
    };
    let mut payload = vec![kind, code, 0, 0];
    payload.extend(rest.to_be_bytes());
    payload.extend(quoted);
    sum_up(&header, &mut payload);
    packets(header, &payload, 1).remove(0)
}

/// An ICMP echo request.
pub(super) fn echo(header: Header, number: u16) -> Vec<u8> {
    let kind = if header.source.is_ipv4() { 8 } else { 128 };
    let [high, low] = number.to_be_bytes();
    let mut payload = vec![kind, 0, 0, 0, high, low, 0, 0];
    sum_up(&header, &mut payload);
    packets(header, &payload, 1).remove(0)
}

/// Whether a frame is the answer to this echo request.
pub(super) fn is_echo_reply(frame: &[u8], number: u16) -> bool {
    let Some(packet) = Packet::read(frame.get(ETHERNET..).unwrap_or_default()) else {
        return false;
    };
    let is_reply = (packet.protocol == ICMP && packet.payload.first() == Some(&0))
        || (packet.protocol == ICMP6 && packet.payload.first() == Some(&129));
    is_reply && packet.payload.get(4..6) == Some(&number.to_be_bytes())
}

/// Adds an Ethernet header.
pub(super) fn frame(target: [u8; 6], source: [u8; 6], packet: &[u8]) -> Vec<u8> {
    let kind: [u8; 2] = match packet.first().map(|byte| byte >> 4) {
        Some(6) => [0x86, 0xdd],
        _ => [0x08, 0x00],
    };
    [&target[..], &source[..], &kind[..], packet].concat()
}

impl Flow {
    pub(super) fn protocol(&self) -> u8 {
        match self.transport {
            Transport::Tcp => TCP,
            Transport::Udp => UDP,
            Transport::Sctp => SCTP,
        }
    }
}

/// A parsed packet. The parser only handles packets that a scenario or a director made.
#[derive(Clone, Copy, Debug)]
pub(super) struct Packet<'a> {
    pub source: IpAddr,
    pub target: IpAddr,
    pub protocol: u8,
    pub ttl: u8,
    /// The fragment's offset, and whether more follow.
    pub fragment: Option<Fragment>,
    pub payload: &'a [u8],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Fragment {
    pub identification: u32,
    pub offset: usize,
    pub more: bool,
}

impl<'a> Packet<'a> {
    pub(super) fn read(packet: &'a [u8]) -> Option<Packet<'a>> {
        match packet.first()? >> 4 {
            4 => Self::read4(packet),
            6 => Self::read6(packet),
            _ => None,
        }
    }

    fn read4(packet: &'a [u8]) -> Option<Packet<'a>> {
        let length = usize::from(packet.first()? & 15) * 4;
        let word = word(packet, 6)?;
        let fragment = Fragment {
            identification: u32::from(self::word(packet, 4)?),
            offset: usize::from(word & 0x1fff) * 8,
            more: word & MORE_FRAGMENTS != 0,
        };
        let end = usize::from(self::word(packet, 2)?);
        Some(Packet {
            source: IpAddr::V4(Ipv4Addr::from(array(packet, 12)?)),
            target: IpAddr::V4(Ipv4Addr::from(array(packet, 16)?)),
            protocol: *packet.get(9)?,
            ttl: *packet.get(8)?,
            fragment: (fragment.more || fragment.offset != 0).then_some(fragment),
            payload: packet.get(length..end.min(packet.len()))?,
        })
    }

    fn read6(packet: &'a [u8]) -> Option<Packet<'a>> {
        let end = 40 + usize::from(word(packet, 4)?);
        let (mut protocol, mut at, mut fragment) = (*packet.get(6)?, 40, None);
        if protocol == FRAGMENT {
            let word = word(packet, 42)?;
            protocol = *packet.get(40)?;
            at = 48;
            fragment = Some(Fragment {
                identification: u32::from_be_bytes(array(packet, 44)?),
                offset: usize::from(word & !7),
                more: word & 1 != 0,
            });
        }
        Some(Packet {
            source: IpAddr::V6(Ipv6Addr::from(array::<16>(packet, 8)?)),
            target: IpAddr::V6(Ipv6Addr::from(array::<16>(packet, 24)?)),
            protocol,
            ttl: *packet.get(7)?,
            fragment,
            payload: packet.get(at..end.min(packet.len()))?,
        })
    }

    /// The two ports, if the packet has ports.
    pub(super) fn ports(&self) -> Option<[u16; 2]> {
        let has_ports = matches!(self.protocol, TCP | UDP | SCTP);
        if !has_ports || self.fragment.is_some_and(|fragment| fragment.offset != 0) {
            return None;
        }
        Some([word(self.payload, 0)?, word(self.payload, 2)?])
    }

    /// The two ends, if the packet has ports.
    pub(super) fn ends(&self) -> Option<[SocketAddr; 2]> {
        let [source, target] = self.ports()?;
        Some([
            SocketAddr::new(self.source, source),
            SocketAddr::new(self.target, target),
        ])
    }
}

fn word(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(array(bytes, at)?))
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at + N)?.try_into().ok()
}

/// Splits a payload at multiples of eight bytes, as RFC 791 and RFC 8200 require.
fn packets(header: Header, payload: &[u8], pieces: usize) -> Vec<Vec<u8>> {
    let size = payload.len().div_ceil(pieces).next_multiple_of(8);
    let last = payload.len().saturating_sub(1) / size * size;
    let chunks = payload.chunks(size).enumerate();
    let packet = |(index, piece): (usize, &[u8])| {
        let offset = index * size;
        packet(&header, offset, offset != last, piece)
    };
    chunks.map(packet).collect()
}

fn packet(header: &Header, offset: usize, more: bool, payload: &[u8]) -> Vec<u8> {
    let mut packet = Vec::new();
    match (header.source, header.target) {
        (IpAddr::V4(source), IpAddr::V4(target)) => {
            let flag = |on: bool, flag| if on { flag } else { 0 };
            let word = (offset / 8) as u16
                | flag(more, MORE_FRAGMENTS)
                | flag(header.dont_fragment, DONT_FRAGMENT);
            packet.extend([0x45, header.traffic_class]);
            packet.extend((20 + payload.len() as u16).to_be_bytes());
            packet.extend(header.identification.to_be_bytes());
            packet.extend(word.to_be_bytes());
            packet.extend([header.ttl, header.protocol, 0, 0]);
            packet.extend(source.octets());
            packet.extend(target.octets());
            sum_up_header(&mut packet);
        }
        (source, target) => {
            let in_fragments = more || offset != 0;
            let length = payload.len() as u16 + if in_fragments { 8 } else { 0 };
            packet.extend((0x6000_0000 | u32::from(header.traffic_class) << 20).to_be_bytes());
            packet.extend(length.to_be_bytes());
            packet.push(if in_fragments {
                FRAGMENT
            } else {
                header.protocol
            });
            packet.push(header.ttl);
            packet.extend(octets(source));
            packet.extend(octets(target));
            if in_fragments {
                packet.extend([header.protocol, 0]);
                packet.extend((offset as u16 | u16::from(more)).to_be_bytes());
                packet.extend(u32::from(header.identification).to_be_bytes());
            }
        }
    }
    packet.extend(payload);
    packet
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    }
}

/// Writes the checksum of an IPv4 header without options.
pub(super) fn sum_up_header(packet: &mut [u8]) {
    if packet[0] >> 4 == 4 {
        packet[10..12].fill(0);
        let sum = !folded(&[&packet[..20]]);
        packet[10..12].copy_from_slice(&sum.to_be_bytes());
    }
}

/// Writes the checksum of a whole payload whose checksum field is zero.
fn sum_up(header: &Header, payload: &mut [u8]) {
    let place = match header.protocol {
        TCP => 16,
        UDP => 6,
        _ => 2,
    };
    let pseudo = [
        &octets(header.source)[..],
        &octets(header.target)[..],
        &[0, header.protocol],
        &(payload.len() as u16).to_be_bytes(),
    ]
    .concat();
    let mut sum = match header.protocol {
        ICMP => !folded(&[payload]),
        _ => !folded(&[&pseudo, payload]),
    };
    if header.protocol == UDP && sum == 0 {
        sum = 0xffff; // RFC 768: zero would mean that there is none.
    }
    payload[place..place + 2].copy_from_slice(&sum.to_be_bytes());
}

/// RFC 9260, appendix A, bit by bit.
fn crc32c(bytes: &[u8]) -> u32 {
    let one = |crc: u32| crc >> 1 ^ if crc & 1 == 0 { 0 } else { 0x82f6_3b78 };
    !bytes.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| one(crc))
    })
}

/// RFC 1071. All pieces but the last must have an even length.
pub(super) fn folded(pieces: &[&[u8]]) -> u16 {
    let mut sum: u32 = 0;
    for pair in pieces.iter().flat_map(|piece| piece.chunks(2)) {
        let low = pair.get(1).copied().unwrap_or(0);
        sum += u32::from(u16::from_be_bytes([pair[0], low]));
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

#[cfg(test)]
mod tests {
    use shunt_lab::verify_checksums;

    use super::*;

    #[test]
    fn what_is_made_has_right_checksums_and_is_read_back() {
        for (source, target) in [
            ("198.51.100.20", "192.0.2.17"),
            ("2001:db8:c::1", "2001:db8:2::1"),
        ] {
            for protocol in [TCP, UDP] {
                let header = header(source, target, protocol);

                let made = datagram(header, [1000, 80], whole(37));

                let whole = frame([2; 6], [3; 6], &made[0]);
                verify_checksums(&whole).unwrap();
                let read = Packet::read(&made[0]).unwrap();
                assert_eq!(read.ports(), Some([1000, 80]));
                assert_eq!((read.source, read.target), (header.source, header.target));
                let protocol = if header.source.is_ipv4() { ICMP } else { ICMP6 };
                let quote = error(Header { protocol, ..header }, Error::TimeExceeded, &made[0]);
                verify_checksums(&frame([2; 6], [3; 6], &quote)).unwrap();
            }
        }
    }

    #[test]
    fn fragments_cover_the_payload_and_only_the_last_has_none_after_it() {
        for (source, target) in [
            ("198.51.100.20", "192.0.2.17"),
            ("2001:db8:c::1", "2001:db8:2::1"),
        ] {
            let pieces = Datagram {
                pieces: 3,
                ..whole(100)
            };

            let made = datagram(header(source, target, UDP), [1000, 53], pieces);

            let read: Vec<_> = made.iter().map(|one| Packet::read(one).unwrap()).collect();
            let mut at = 0;
            for packet in &read {
                assert_eq!(packet.fragment.unwrap().offset, at);
                at += packet.payload.len();
            }
            assert_eq!(at, 108);
            let more: Vec<_> = read.iter().map(|one| one.fragment.unwrap().more).collect();
            assert_eq!(more, [true, true, false]);
        }
    }

    fn header(source: &str, target: &str, protocol: u8) -> Header {
        Header {
            source: source.parse().unwrap(),
            target: target.parse().unwrap(),
            protocol,
            ttl: 64,
            traffic_class: 0,
            dont_fragment: false,
            identification: 7,
        }
    }

    fn whole(payload: u16) -> Datagram {
        Datagram {
            flags: SYN,
            payload,
            ttl: 64,
            traffic_class: 0,
            dont_fragment: false,
            pieces: 1,
        }
    }
}
