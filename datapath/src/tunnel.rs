//! Tunnels with a header of their own between the outer IP header and the packet: GUE and GRE.
//!
//! As from the kernel's `ip_vs_tunnel_xmit`, they have neither keys nor options. The tunnel's
//! checksum covers all that follows. It is computed from the packet's own transport checksum, so
//! that the payload is not read. A remote checksum (`--tun-remcsum`) leaves out what the sender did
//! not compute. A packet from a wire has a complete checksum, so it is sent with a plain one, as
//! the kernel sends it.
//!
//! A GSO frame goes without the tunnel's checksum: the kernel segments the frame later, and no
//! program can ask it for the checksum of each segment.

use crate::method as methods;
use crate::table::Tables;
use crate::table::entry::{Server, method, server_flag};
use crate::table::family::{Family, V4, V6};
use crate::table::hash;
use crate::verdict::{Bounce, Drop, Word};
use crate::wire::checksum;
use crate::wire::frame::{Frame, Over, Room};
use crate::wire::length;
use crate::wire::link;
use crate::wire::packet::{self, Packet, Part, TCP, UDP};

/// RFC 2784: the protocol number in the outer header.
pub const GRE: u8 = 47;
/// A UDP header and a GUE header without options.
const GUE_BYTES: u32 = 12;
const GRE_BYTES: u32 = 4;
/// RFC 2784, 2.1: the checksum and the Reserved1 field.
const GRE_CHECKSUM_BYTES: u32 = 4;

/// Wraps a packet for the server `id` and sends it. Parses the frame again: in the kernel this is a
/// separate function.
#[inline(always)]
pub fn wrap<P: Frame, T: Tables>(frame: &mut P, tables: &T, id: u32) -> Word {
    let (Some(server), Some(link)) = (tables.server(id), link::parse(frame)) else {
        return Word::drop(Drop::Internal);
    };
    if link.ethertype == link::IPV4 {
        match packet::parse4(frame, link.l3) {
            Ok(packet) => send::<V4, P, T>(frame, tables, &packet, server),
            Err(_) => Word::drop(Drop::Internal),
        }
    } else {
        match packet::parse6(frame, tables, link.l3) {
            Ok(packet) => send::<V6, P, T>(frame, tables, &packet, server),
            Err(_) => Word::drop(Drop::Internal),
        }
    }
}

#[inline(always)]
fn send<F: Family, P: Frame, T: Tables>(
    frame: &mut P,
    tables: &T,
    packet: &Packet<F>,
    server: &Server,
) -> Word {
    if !server.ways.is_usable() {
        return Word::drop(Drop::NoNextHop);
    }
    if packet.ttl <= 1 {
        return Word::answer(Bounce::TimeExceeded, 0);
    }
    let overhead = overhead(server);
    if methods::does_not_fit(frame, packet, server.ways.mtu(), overhead) {
        let mtu = server.ways.mtu().saturating_sub(overhead);
        return Word::answer(Bounce::TooBig, mtu);
    }
    let done = outer::<F, P, T>(frame, tables, packet, server);
    methods::finish(frame, done, &server.ways)
}

/// Bytes that are put in front of the packet.
#[inline(always)]
fn overhead(server: &Server) -> u32 {
    let ip = if server.flags & server_flag::IPV6 != 0 {
        40
    } else {
        20
    };
    let own = if server.method == method::GUE {
        GUE_BYTES
    } else if server.flags & server_flag::CHECKSUM != 0 {
        GRE_BYTES.wrapping_add(GRE_CHECKSUM_BYTES)
    } else {
        GRE_BYTES
    };
    own.wrapping_add(ip)
}

/// Writes all headers in front of the packet.
#[inline(always)]
fn outer<F: Family, P: Frame, T: Tables>(
    frame: &mut P,
    tables: &T,
    packet: &Packet<F>,
    server: &Server,
) -> Option<()> {
    if packet.is_jumbo() {
        return None;
    }
    let gue = server.method == method::GUE;
    let v6 = server.flags & server_flag::IPV6 != 0;
    // Each segment of a GSO frame would need a checksum of its own.
    let summed = server.flags & server_flag::CHECKSUM != 0 && frame.segment() == 0;
    let inner_sum = if summed {
        counted_down::<F, P>(frame, packet)?
    } else {
        0
    };
    let port = source_port::<F, P, T>(frame, tables, packet);
    let ip = if v6 { 40usize } else { 20 };
    let own = match (gue, summed) {
        (true, _) => GUE_BYTES,
        (false, true) => GRE_BYTES.wrapping_add(GRE_CHECKSUM_BYTES),
        (false, false) => GRE_BYTES,
    };
    // The verifier forgets the length, so that it checks the rest once for all lengths. A mask
    // bounds the length again: on Linux 6.12 a comparison loses the range.
    let bytes = tables.blur(ip.wrapping_add(own as usize)) & 0x3f;
    let l3 = packet.l3;
    let over = if gue { Over::Udp } else { Over::Gre };
    if !frame.open(l3, bytes, Room::Tunnel { v6, over }) {
        return None;
    }
    let behind = l3.wrapping_add(bytes);
    let mut inner = methods::descend::<F, P>(frame, behind)?;
    let carried = inner.protocol;
    inner.protocol = if gue { UDP } else { GRE };
    let length = packet.length.wrapping_add(own);
    if v6 {
        methods::outer6(frame, l3, server, &inner, length)?;
    } else {
        methods::outer4(frame, l3, server, &inner, length)?;
    }
    let at = behind.wrapping_sub(own as usize);
    let sum = if summed { Some(inner_sum) } else { None };
    if gue {
        gue_header(frame, at, server, port, carried, length, sum)
    } else {
        gre_header(frame, at, F::V6, sum)
    }
}

/// ```text
///  0                   1                   2                   3
///  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// |        Source port            |      Destination port         |
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// |           Length              |          Checksum             |
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// | 0 |C|   Hlen  |  Proto/ctype  |             Flags             |
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// ```
/// draft-ietf-intarea-gue, 3.1: version 0, a data message, no options.
#[inline(always)]
fn gue_header<P: Frame>(
    frame: &mut P,
    at: usize,
    server: &Server,
    port: u16,
    carried: u8,
    length: u32,
    inner_sum: Option<u32>,
) -> Option<()> {
    let length = length::field(length);
    let gue = (carried as u32) << 8;
    let check = match inner_sum {
        // RFC 768; RFC 6935 for IPv6.
        None => 0,
        Some(inner) => {
            // The pseudo-header, then the header: the length is in both.
            let own = (server.outer_sum as u32)
                .wrapping_add((UDP as u16).to_be() as u32)
                .wrapping_add((length as u32) << 1)
                .wrapping_add(port as u32)
                .wrapping_add(server.tunnel_port as u32)
                .wrapping_add(gue);
            match !checksum::fold(checksum::add(own, inner)) {
                0 => 0xffff,
                sum => sum,
            }
        }
    };
    let mut header = frame.edit::<12>(at)?;
    header.set_u16::<0>(port);
    header.set_u16::<2>(server.tunnel_port);
    header.set_u16::<4>(length);
    header.set_u16::<6>(check);
    header.set_u32::<8>(gue);
    Some(())
}

/// ```text
///  0                   1                   2                   3
///  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// |C|       Reserved0       | Ver |         Protocol Type         |
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// |      Checksum (optional)      |       Reserved1 (Optional)    |
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// ```
/// RFC 2784, 2.1.
#[inline(always)]
fn gre_header<P: Frame>(
    frame: &mut P,
    at: usize,
    inner_v6: bool,
    inner_sum: Option<u32>,
) -> Option<()> {
    const CHECKSUM: u16 = 0x8000u16.to_be();
    let protocol = if inner_v6 { link::IPV6 } else { link::IPV4 };
    let Some(inner) = inner_sum else {
        frame.edit::<4>(at)?.set_u32::<0>((protocol as u32) << 16);
        return Some(());
    };
    let own = (CHECKSUM as u32).wrapping_add(protocol as u32);
    let mut header = frame.edit::<8>(at)?;
    header.set_u16::<0>(CHECKSUM);
    header.set_u16::<2>(protocol);
    header.set_u16::<4>(!checksum::fold(checksum::add(own, inner)));
    header.set_u16::<6>(0);
    Some(())
}

/// The checksum's sum over a packet whose TTL or hop limit is decremented.
#[inline(always)]
fn counted_down<F: Family, P: Frame>(frame: &P, packet: &Packet<F>) -> Option<u32> {
    let sum = sum_of::<F, P>(frame, packet)?;
    if !F::V6 {
        // An IPv4 header with its checksum sums to nothing, before and after.
        return Some(sum);
    }
    let before = frame.view::<8>(packet.l3)?.u16::<6>();
    // The hop limit is the second of the two bytes on the wire.
    let counted = checksum::change_u16(before, before.wrapping_sub(0x100));
    Some(checksum::add(sum, counted))
}

/// The checksum's sum over a packet.
///
/// With a right transport checksum, the transport header and payload sum to the complement of the
/// pseudo-header's sum (the kernel's `lco_csum`). A checksum that is left to a device will be
/// right.
#[inline(always)]
pub fn sum_of<F: Family, P: Frame>(frame: &P, packet: &Packet<F>) -> Option<u32> {
    let header = packet.l4.wrapping_sub(packet.l3);
    let transport = match known_sum::<F, P>(frame, packet) {
        Some(sum) => sum,
        None => {
            let rest = packet.length.wrapping_sub(header as u32);
            frame.sum(packet.l4, rest as usize)?
        }
    };
    if !F::V6 {
        return Some(transport);
    }
    let head = frame.sum(packet.l3, header)?;
    Some(checksum::add(head, transport))
}

/// The sum over the transport header and payload, if it follows from their checksum.
#[inline(always)]
fn known_sum<F: Family, P: Frame>(frame: &P, packet: &Packet<F>) -> Option<u32> {
    let header = packet.l4.wrapping_sub(packet.l3);
    // A routing header changes what the pseudo-header is made of.
    if packet.part != Part::Whole || (F::V6 && header != F::HEADER) {
        return None;
    }
    let length = packet.length.wrapping_sub(header as u32);
    if packet.protocol == UDP {
        let udp = frame.view::<8>(packet.l4)?;
        if udp.u16::<6>() == 0 || u16::from_be(udp.u16::<4>()) as u32 != length {
            return None;
        }
    } else if packet.protocol != TCP {
        return None;
    }
    let addresses = checksum::add(F::sum(packet.source), F::sum(packet.target));
    let rest = ((length as u16).to_be() as u32).wrapping_add((packet.protocol as u32) << 8);
    Some(!checksum::fold(checksum::add(addresses, rest)) as u32)
}

/// The UDP source port of a packet's tunnel.
#[inline(always)]
fn source_port<F: Family, P: Frame, T: Tables>(frame: &P, tables: &T, packet: &Packet<F>) -> u16 {
    // All fragments of a datagram take the same path, and later ones have no ports.
    let has_ports = packet.part == Part::Whole
        && (packet.protocol == TCP || packet.protocol == UDP || packet.is_sctp());
    let ports = match frame.view::<4>(packet.l4) {
        Some(ports) if has_ports => ports.u32::<0>(),
        _ => 0,
    };
    let ends = (F::words(packet.source), F::words(packet.target));
    port(tables.shape().seed, ends, packet.protocol, ports).to_be()
}

/// A UDP source port, in host order, that stays with the flow, so that devices and routers spread
/// flows (`udp_flow_src_port`). The range is the kernel's default for ephemeral ports. `ports` are
/// the flow's own, as they lie in its header.
#[inline(always)]
#[must_use]
pub fn port(seed: u64, ends: ([u64; 2], [u64; 2]), protocol: u8, ports: u32) -> u16 {
    const FIRST: u16 = 32768;
    const PORTS: u64 = 28232;
    let mixed = hash::wide(ends.0, ports as u64, seed);
    let mixed = hash::wide(ends.1, protocol as u64, mixed);
    let within = ((mixed as u32) as u64).wrapping_mul(PORTS) >> 32;
    FIRST.wrapping_add(within as u16)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    // net.ipv4.ip_local_port_range is 32768 to 60999 unless somebody changes it.
    #[test]
    fn flows_of_one_client_have_many_source_ports_of_the_kernels_range() {
        let ends = ([0x0964_33c6, 0], [0x0a02_00c0, 0]);
        let ports: BTreeSet<u16> = (1024..3024u16)
            .map(|own| port(0x5eed, ends, TCP, u32::from(own.to_be()) | 0x5000_0000))
            .collect();
        assert!(ports.len() > 1800, "{} ports", ports.len());
        assert!(ports.iter().all(|port| (32768..61000).contains(port)));
    }
}
