//! The forwarding methods: what is rewritten or wrapped, and where the packet goes.
//!
//! Every check comes before the first write: a packet that cannot be forwarded is answered or
//! dropped as it came.

use crate::plain::{self, Side};
use crate::table::entry::{Server, Ways, method, server_flag};
use crate::table::family::Family;
use crate::verdict::{Bounce, Drop, Pass, Word};
use crate::wire::checksum;
use crate::wire::frame::{Edit, Frame, Over, Room, Transport};
use crate::wire::length;
use crate::wire::link;
use crate::wire::packet::{Packet, Part, TCP, checksum_at};
use crate::wire::sctp;

/// Forwards a packet from a client to its server, whose id is `id`.
#[inline(always)]
pub fn forward<F: Family, P: Frame>(
    frame: &mut P,
    packet: &Packet<F>,
    server: &Server,
    id: u32,
) -> Word {
    if server.method >= method::LOCAL {
        return if server.method == method::LOCAL {
            Word::pass(Pass::Local)
        } else if server.method >= method::TRANSLATE {
            Word::translate(id)
        } else {
            Word::tunnel(id)
        };
    }
    if !server.ways.is_usable() {
        return Word::drop(Drop::NoNextHop);
    }
    if packet.ttl <= 1 {
        return Word::answer(Bounce::TimeExceeded, 0);
    }
    let overhead = if server.method == method::TUNNEL {
        overhead(server)
    } else {
        0
    };
    if does_not_fit(frame, packet, server.ways.mtu(), overhead) {
        let mtu = server.ways.mtu().saturating_sub(overhead);
        return Word::answer(Bounce::TooBig, mtu);
    }
    if server.method == method::MASQUERADE && is_cut(packet, server) {
        return Word::drop(Drop::CutChecksum);
    }
    let done = match server.method {
        method::MASQUERADE if packet.plain => {
            let side = Side::Target(F::from_words(server.address), server.port);
            let deltas = (server.address_delta as u32, server.port_delta as u32);
            return plain::rewrite::<F, P>(frame, packet, side, deltas, &server.ways);
        }
        method::MASQUERADE => masquerade::<F, P>(frame, packet, server),
        method::TUNNEL if server.flags & server_flag::IPV6 != 0 => tunnel6(frame, packet, server),
        method::TUNNEL => tunnel4(frame, packet, server),
        _ if packet.plain => return plain::send::<F, P>(frame, &server.ways),
        _ => route(frame, packet),
    };
    finish(frame, done, &server.ways)
}

/// Forwards an answer of a masqueraded server to the client, with the virtual address as its
/// source.
#[inline(always)]
pub fn back<F: Family, P: Frame>(
    frame: &mut P,
    packet: &Packet<F>,
    server: &Server,
    ways: &Ways,
) -> Word {
    if is_cut(packet, server) {
        return Word::drop(Drop::CutChecksum);
    }
    let from = F::from_words(server.virtual_address);
    let delta = !(server.address_delta as u32) & 0xffff;
    let port = !(server.port_delta as u32) & 0xffff;
    let side = Side::Source(from, server.virtual_port);
    if packet.plain {
        return plain::rewrite::<F, P>(frame, packet, side, (delta, port), ways);
    }
    let done = rewrite::<F, P>(frame, packet, side, (delta, port), 1);
    finish(frame, done, ways)
}

/// Rewrites between a service and its server on the director itself. A request gets the server's
/// address and port; an answer (`answers`) gets the service's. The TTL stays, since the packet
/// crosses no router.
#[inline(always)]
pub fn exchange<F: Family, P: Frame>(
    frame: &mut P,
    packet: &Packet<F>,
    server: &Server,
    answers: bool,
) -> Option<()> {
    let (address, port) = (server.address_delta as u32, server.port_delta as u32);
    if answers {
        let from = F::from_words(server.virtual_address);
        let side = Side::Source(from, server.virtual_port);
        return rewrite::<F, P>(frame, packet, side, (!address & 0xffff, !port & 0xffff), 0);
    }
    let side = Side::Target(F::from_words(server.address), server.port);
    rewrite::<F, P>(frame, packet, side, (address, port), 0)
}

/// Whether the packet is a fragment of SCTP whose port must be rewritten. The checksum covers the
/// whole packet (RFC 9260, 6.8), so a fragment's cannot be updated. It does not cover the
/// addresses.
#[inline(always)]
pub fn is_cut<F: Family>(packet: &Packet<F>, server: &Server) -> bool {
    packet.is_sctp() && packet.part != Part::Whole && server.port != server.virtual_port
}

/// Writes the MAC addresses of the next hop and sends the frame. Drops it if `done` is `None`.
#[inline(always)]
pub fn finish<P: Frame>(frame: &mut P, done: Option<()>, ways: &Ways) -> Word {
    if done.is_none() {
        return Word::drop(Drop::NoRoom);
    }
    match link::address(frame, ways.target, ways.source) {
        Some(()) => Word::send(ways.interface),
        None => Word::drop(Drop::NoRoom),
    }
}

/// Bytes of the header that a tunnel puts in front of the packet.
#[inline(always)]
#[must_use]
fn overhead(server: &Server) -> u32 {
    if server.flags & server_flag::IPV6 != 0 {
        40
    } else {
        20
    }
}

/// Whether a packet with `overhead` bytes in front exceeds the MTU of its way. A GSO frame is as
/// big as its largest segment.
#[inline(always)]
pub fn does_not_fit<F: Family, P: Frame>(
    frame: &P,
    packet: &Packet<F>,
    mtu: u32,
    overhead: u32,
) -> bool {
    if packet.length.wrapping_add(overhead) <= mtu {
        return false;
    }
    let segment = frame.segment() as u32;
    if segment == 0 {
        return true;
    }
    if packet.is_sctp() {
        // `GSO_BY_FRAGS`: the sender cut the packets in this frame to fit.
        return false;
    }
    // The segments of a frame beyond 64 kB lack its jumbo header.
    let network = if F::V6 && packet.is_beyond() {
        40
    } else {
        (packet.l4 as u32).wrapping_sub(packet.l3 as u32)
    };
    let transport = if packet.protocol == TCP {
        match frame.view::<20>(packet.l4) {
            Some(tcp) => ((tcp.u8::<12>() >> 4) as u32) << 2,
            None => 20,
        }
    } else {
        8
    };
    segment
        .wrapping_add(network)
        .wrapping_add(transport)
        .wrapping_add(overhead)
        > mtu
}

/// Decrements the TTL, with the checksum of the IPv4 header, or the hop limit.
#[inline(always)]
pub fn count_down<F: Family, P: Frame>(frame: &mut P, l3: usize) -> Option<()> {
    if F::V6 {
        let mut ip = frame.edit::<8>(l3)?;
        let limit = ip.view().u8::<7>();
        ip.set_u8::<7>(limit.wrapping_sub(1));
    } else {
        let mut ip = frame.edit::<20>(l3)?;
        let ttl = ip.view().u8::<8>();
        let sum = ip.view().u16::<10>();
        ip.set_u8::<8>(ttl.wrapping_sub(1));
        ip.set_u16::<10>(plain::one_less(sum));
    }
    Some(())
}

/// Direct routing: changes only the MAC addresses and, as a router does, the TTL.
#[inline(always)]
fn route<F: Family, P: Frame>(frame: &mut P, packet: &Packet<F>) -> Option<()> {
    count_down::<F, P>(frame, packet.l3)
}

#[inline(always)]
fn masquerade<F: Family, P: Frame>(
    frame: &mut P,
    packet: &Packet<F>,
    server: &Server,
) -> Option<()> {
    let to = F::from_words(server.address);
    let (address, port) = (server.address_delta as u32, server.port_delta as u32);
    let side = Side::Target(to, server.port);
    rewrite::<F, P>(frame, packet, side, (address, port), 1)
}

/// Rewrites one address and port, updates the checksums and lowers the TTL by `hops`, a constant at
/// each call.
#[inline(always)]
fn rewrite<F: Family, P: Frame>(
    frame: &mut P,
    packet: &Packet<F>,
    side: Side<F>,
    (address_delta, port_delta): (u32, u32),
    hops: u8,
) -> Option<()> {
    if packet.is_sctp() {
        // A fragment's port never changes here: see [`is_cut`].
        if packet.part == Part::Whole {
            let given = frame.view::<4>(packet.l4)?.u32::<0>();
            let ports = match side {
                Side::Source(_, 0) | Side::Target(_, 0) => given,
                Side::Source(_, port) => given & 0xffff_0000 | port as u32,
                Side::Target(_, port) => given & 0xffff | (port as u32) << 16,
            };
            associate::<F, P>(frame, packet, ports)?;
        }
    } else if packet.part != Part::Later {
        match side {
            // Port 0 stands for every port: the packet keeps its own.
            Side::Source(_, 0) | Side::Target(_, 0) => {}
            Side::Source(_, port) => frame.edit::<8>(packet.l4)?.set_u16::<0>(port),
            Side::Target(_, port) => frame.edit::<8>(packet.l4)?.set_u16::<2>(port),
        }
        let mut transport: Transport = checksum_at(packet);
        // RFC 8200, 8.1: UDP over IPv6 always has a checksum. A zero stays zero here too, since no
        // valid sender sends one.
        transport.optional &= true;
        frame.carry(transport, address_delta, port_delta);
    }
    if F::V6 {
        let mut ip = frame.edit::<40>(packet.l3)?;
        match side {
            Side::Source(address, _) => {
                let [a, b] = F::words(address);
                ip.set_u64::<8>(a);
                ip.set_u64::<16>(b);
            }
            Side::Target(address, _) => {
                let [a, b] = F::words(address);
                ip.set_u64::<24>(a);
                ip.set_u64::<32>(b);
            }
        }
        let limit = ip.view().u8::<7>();
        ip.set_u8::<7>(limit.wrapping_sub(hops));
    } else {
        let mut ip = frame.edit::<20>(packet.l3)?;
        match side {
            Side::Source(address, _) => ip.set_u32::<12>(F::words(address)[0] as u32),
            Side::Target(address, _) => ip.set_u32::<16>(F::words(address)[0] as u32),
        }
        let old = ip.view().u16::<8>();
        let new = (old & 0xff00) | (old & 0xff).wrapping_sub(hops as u16);
        let delta = checksum::add(address_delta, checksum::change_u16(old, new));
        let sum = checksum::update(ip.view().u16::<10>(), delta);
        ip.set_u16::<8>(new);
        ip.set_u16::<10>(sum);
    }
    Some(())
}

/// Writes both ports into a whole SCTP packet and updates the checksum, which has no pseudo-header
/// (RFC 9260, 6.8). `ports`: wire order, the source in the low half.
#[inline(always)]
pub fn associate<F: Family, P: Frame>(frame: &mut P, packet: &Packet<F>, ports: u32) -> Option<()> {
    let mut header = frame.edit::<{ sctp::LEAST }>(packet.l4)?;
    let changed = header.view().u32::<0>() ^ ports;
    header.set_u32::<0>(ports);
    let length = (packet.length as usize)
        .wrapping_add(packet.l3)
        .wrapping_sub(packet.l4) as u32;
    let field = packet.l4.wrapping_add(8);
    if changed as u16 != 0 {
        frame.carry_crc(field, changed as u16, length.wrapping_sub(2));
    }
    if changed >> 16 != 0 {
        frame.carry_crc(field, (changed >> 16) as u16, length.wrapping_sub(4));
    }
    Some(())
}

const IPIP: u8 = 4;
const IPV6_IN: u8 = 41;

/// Fields of the inner header that the outer header takes over.
#[derive(Clone, Copy, Debug)]
pub struct Inner {
    service: u8,
    ttl: u8,
    /// Wire order; only the "don't fragment" bit.
    fragmentation: u16,
    /// Wire order; 0 for an atomic packet (RFC 6864).
    identification: u16,
    /// The protocol number of the outer header.
    pub protocol: u8,
}

/// Reads the fields of a header of family `$of` at byte `$at` that the outer header takes over, and
/// decrements its TTL before (RFC 2003, 3.1; `ip_vs_tunnel_xmit`). A macro, since the places of
/// fields are constants.
macro_rules! descend {
    ($of:ident, $headers:ident, $at:literal) => {{
        const DONT_FRAGMENT: u16 = 0x4000u16.to_be();
        if $of::V6 {
            let first = u16::from_be($headers.view().u16::<$at>());
            let ttl = $headers.view().u8::<{ $at + 7 }>().wrapping_sub(1);
            $headers.set_u8::<{ $at + 7 }>(ttl);
            Inner {
                service: (first >> 4) as u8,
                ttl,
                // A packet that does not fit was answered already, so the outer packet is never
                // fragmented.
                fragmentation: DONT_FRAGMENT,
                identification: 0,
                protocol: IPV6_IN,
            }
        } else {
            let fragmentation = $headers.view().u16::<{ $at + 6 }>() & DONT_FRAGMENT;
            let ttl = $headers.view().u8::<{ $at + 8 }>().wrapping_sub(1);
            let sum = $headers.view().u16::<{ $at + 10 }>();
            $headers.set_u8::<{ $at + 8 }>(ttl);
            $headers.set_u16::<{ $at + 10 }>(plain::one_less(sum));
            Inner {
                service: $headers.view().u8::<{ $at + 1 }>(),
                ttl,
                fragmentation,
                // RFC 6864: an atomic packet needs no identification.
                identification: if fragmentation == 0 {
                    $headers.view().u16::<{ $at + 4 }>()
                } else {
                    0
                },
                protocol: IPIP,
            }
        }
    }};
}

/// Reads the fields that the outer header takes over, and decrements the TTL before.
#[inline(always)]
pub fn descend<F: Family, P: Frame>(frame: &mut P, l3: usize) -> Option<Inner> {
    let mut headers = frame.edit::<20>(l3)?;
    Some(descend!(F, headers, 0))
}

/// IP in IPv4: 4 in 4 (RFC 2003), 6 in 4 (RFC 4213).
#[inline(always)]
fn tunnel4<F: Family, P: Frame>(frame: &mut P, packet: &Packet<F>, server: &Server) -> Option<()> {
    if packet.is_jumbo() {
        return None;
    }
    let l3 = packet.l3;
    let room = Room::Tunnel {
        v6: false,
        over: Over::Ip,
    };
    // Room first: it is the only step that can fail.
    if !frame.open(l3, 20, room) {
        return None;
    }
    let mut headers = frame.edit::<42>(l3.wrapping_sub(2))?;
    let inner = descend!(F, headers, 22);
    write_outer4(&mut headers, server, &inner, packet.length);
    Some(())
}

/// Writes the outer header of an IPv4 tunnel in front of `length` bytes.
#[inline(always)]
pub fn outer4<P: Frame>(
    frame: &mut P,
    l3: usize,
    server: &Server,
    inner: &Inner,
    length: u32,
) -> Option<()> {
    let mut headers = frame.edit::<22>(l3.wrapping_sub(2))?;
    write_outer4(&mut headers, server, inner, length);
    Some(())
}

/// Writes an ethertype and the outer header of an IPv4 tunnel behind it.
#[inline(always)]
fn write_outer4<const N: usize>(
    headers: &mut Edit<'_, N>,
    server: &Server,
    inner: &Inner,
    length: u32,
) {
    let total = length::field(length.wrapping_add(20));
    let service = 0x45u16 | (inner.service as u16) << 8;
    let life = inner.ttl as u16 | (inner.protocol as u16) << 8;
    let mut sum = server.outer_sum as u32;
    sum = sum.wrapping_add(total as u32).wrapping_add(service as u32);
    sum = sum
        .wrapping_add(life as u32)
        .wrapping_add(inner.fragmentation as u32);
    sum = sum.wrapping_add(inner.identification as u32);
    headers.set_u16::<0>(link::IPV4);
    headers.set_u16::<2>(service);
    headers.set_u16::<4>(total);
    headers.set_u16::<6>(inner.identification);
    headers.set_u16::<8>(inner.fragmentation);
    headers.set_u16::<10>(life);
    headers.set_u16::<12>(!checksum::fold(sum));
    headers.set_u32::<14>(server.outer_source[0] as u32);
    headers.set_u32::<18>(server.address[0] as u32);
}

/// IP in IPv6 (RFC 2473): 6 in 6, 4 in 6.
#[inline(always)]
fn tunnel6<F: Family, P: Frame>(frame: &mut P, packet: &Packet<F>, server: &Server) -> Option<()> {
    if packet.is_jumbo() {
        return None;
    }
    let l3 = packet.l3;
    let room = Room::Tunnel {
        v6: true,
        over: Over::Ip,
    };
    if !frame.open(l3, 40, room) {
        return None;
    }
    let mut headers = frame.edit::<62>(l3.wrapping_sub(2))?;
    let inner = descend!(F, headers, 42);
    write_outer6(&mut headers, server, &inner, packet.length);
    Some(())
}

/// Writes the outer header of an IPv6 tunnel in front of `length` bytes.
#[inline(always)]
pub fn outer6<P: Frame>(
    frame: &mut P,
    l3: usize,
    server: &Server,
    inner: &Inner,
    length: u32,
) -> Option<()> {
    let mut headers = frame.edit::<42>(l3.wrapping_sub(2))?;
    write_outer6(&mut headers, server, inner, length);
    Some(())
}

/// Writes an ethertype and the outer header of an IPv6 tunnel behind it.
#[inline(always)]
fn write_outer6<const N: usize>(
    headers: &mut Edit<'_, N>,
    server: &Server,
    inner: &Inner,
    length: u32,
) {
    let first = (0x6000_0000u32 | (inner.service as u32) << 20).to_be();
    headers.set_u16::<0>(link::IPV6);
    headers.set_u32::<2>(first);
    headers.set_u16::<6>(length::field(length));
    headers.set_u8::<8>(inner.protocol);
    headers.set_u8::<9>(inner.ttl);
    headers.set_u64::<10>(server.outer_source[0]);
    headers.set_u64::<18>(server.outer_source[1]);
    headers.set_u64::<26>(server.address[0]);
    headers.set_u64::<34>(server.address[1]);
}

/// Writes the ethertype (wire order), which lies just before the network header, with or without
/// VLAN tags.
#[inline(always)]
pub fn set_ethertype<P: Frame>(frame: &mut P, l3: usize, ethertype: u16) -> Option<()> {
    frame.edit::<2>(l3.wrapping_sub(2))?.set_u16::<0>(ethertype);
    Some(())
}
