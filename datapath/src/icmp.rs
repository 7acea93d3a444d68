//! ICMP errors about a known flow: translated and sent to the sender of the quoted packet.
//!
//! There are two kinds. An error about a packet from a server is addressed to the virtual address
//! and goes on to the server. An error about a packet that was translated for a masqueraded server
//! is addressed to the client; its quote must get the virtual address. The quoted header is trusted
//! only as far as it names a flow in the table.

use crate::method as methods;
use crate::reread::reread;
use crate::steps::Choices;
use crate::table::Tables;
use crate::table::entry::{
    NONE, Settings, Ways, endpoint_word, kind, method, nat, service_flag, service_switch, wide_flag,
};
use crate::table::family::Family;
use crate::table::lookup;
use crate::track;
use crate::traffic;
use crate::verdict::{Drop, Note, Pass, Word};
use crate::way;
use crate::wire::checksum;
use crate::wire::frame::{Frame, Transport};
use crate::wire::link;
use crate::wire::packet::{self, Packet, Part, SCTP, TCP, UDP};

/// The quoted packet.
#[derive(Clone, Copy, Debug)]
pub struct Quote<F: Family> {
    /// Offset of the quoted network header in the frame, in bytes.
    pub l3: usize,
    /// Offset of the quoted transport header in the frame, in bytes.
    pub l4: usize,
    /// The quoted source address.
    pub source: F::Address,
    /// The quoted destination address.
    pub target: F::Address,
    /// Protocol number of the quoted transport header.
    pub protocol: u8,
    /// The quoted source port, in wire order.
    pub source_port: u16,
    /// The quoted destination port, in wire order.
    pub target_port: u16,
}

/// RFC 792: destination unreachable, source quench, time exceeded, parameter problem.
/// RFC 4443: types 1 to 4 are the errors with a quote.
#[inline(always)]
fn is_error<F: Family>(kind: u8) -> bool {
    if F::V6 {
        (1..=4).contains(&kind)
    } else {
        kind == 3 || kind == 4 || kind == 11 || kind == 12
    }
}

/// Reads the quoted packet. `end` is where the ICMP packet ends; the frame may continue with
/// padding.
#[inline(always)]
fn quote<F: Family, P: Frame>(frame: &P, l3: usize, end: usize) -> Option<Quote<F>> {
    let (l4, source, target, protocol);
    if F::V6 {
        let ip = frame.view::<40>(l3)?;
        if ip.u8::<0>() >> 4 != 6 {
            return None;
        }
        source = F::from_words([ip.u64::<8>(), ip.u64::<16>()]);
        target = F::from_words([ip.u64::<24>(), ip.u64::<32>()]);
        let behind = l3.wrapping_add(40);
        (protocol, l4) = if ip.u8::<6>() == packet::FRAGMENT {
            let fragment = frame.view::<8>(behind)?;
            if fragment.u16::<2>() & 0xfff8u16.to_be() != 0 {
                return None;
            }
            (fragment.u8::<0>(), behind.wrapping_add(8))
        } else {
            (ip.u8::<6>(), behind)
        };
    } else {
        let ip = frame.view::<20>(l3)?;
        let header = ((ip.u8::<0>() & 15) as usize) << 2;
        let later = ip.u16::<6>() & 0x1fffu16.to_be() != 0;
        if ip.u8::<0>() >> 4 != 4 || header < 20 || later {
            return None;
        }
        l4 = l3.wrapping_add(header);
        source = F::from_words([ip.u32::<12>() as u64, 0]);
        target = F::from_words([ip.u32::<16>() as u64, 0]);
        protocol = ip.u8::<9>();
    }
    if (protocol != TCP && protocol != UDP && protocol != SCTP) || l4.wrapping_add(4) > end {
        return None;
    }
    let ports = frame.view::<4>(l4)?;
    let (source_port, target_port) = (ports.u16::<0>(), ports.u16::<2>());
    Some(Quote {
        l3,
        l4,
        source,
        target,
        protocol,
        source_port,
        target_port,
    })
}

/// The verdict for an ICMP packet. Reads the frame again: ordinary packets do not come here, and in
/// the kernel this is a separate function.
#[inline(always)]
pub fn follow<P: Frame, T: Choices>(frame: &mut P, tables: &T) -> Word {
    reread!(
        frame,
        tables,
        |packet: F| related::<F, P, T>(frame, tables, &packet),
        Word::pass(Pass::NotUnderstood)
    )
}

#[inline(always)]
fn related<F: Family, P: Frame, T: Choices>(frame: &mut P, tables: &T, packet: &Packet<F>) -> Word {
    let not_ours = Word::pass(Pass::Icmp);
    let Some(quote) = quoted::<F, P>(frame, packet) else {
        return not_ours;
    };
    let Some(settings) = tables.settings() else {
        return Word::drop(Drop::Internal);
    };
    if quote.source == packet.target {
        let word = endpoint_word(quote.source_port, quote.protocol, kind::SERVICE);
        let service = service::<F, P, T>(frame, tables, settings, &quote, word);
        if service != NONE {
            return to_server(frame, tables, packet, &quote, service);
        }
    }
    let word = endpoint_word(quote.target_port, quote.protocol, kind::MASQUERADED);
    let endpoint = lookup::endpoint::<F, T>(tables, settings, quote.target, word);
    if endpoint != NONE && quote.source == packet.target {
        return to_client(frame, tables, settings, packet, &quote, endpoint);
    }
    not_ours
}

/// The packet that an ICMP error quotes; `None` if `packet` is no error or the quote has no ports.
#[inline(always)]
pub fn quoted<F: Family, P: Frame>(frame: &P, packet: &Packet<F>) -> Option<Quote<F>> {
    if packet.part != Part::Whole {
        return None;
    }
    let header = frame.view::<8>(packet.l4)?;
    if !is_error::<F>(header.u8::<0>()) {
        return None;
    }
    let end = packet.l3.wrapping_add(packet.length as usize);
    quote::<F, P>(frame, packet.l4.wrapping_add(8), end)
}

/// [`lookup::service`] for a quoted answer, whose source is the service and whose target is the
/// client.
#[inline(always)]
fn service<F: Family, P: Frame, T: Choices>(
    frame: &P,
    tables: &T,
    settings: &Settings,
    quote: &Quote<F>,
    word: u32,
) -> u32 {
    let id = F::endpoint(tables, quote.source, word);
    if id != NONE || settings.wide == 0 {
        return id;
    }
    if settings.wide & !wide_flag::EVERY_PORT != 0 {
        let id = tables.find_origin::<F>(quote.source, word, quote.target, frame.interface());
        if id != NONE {
            return id;
        }
    }
    tables.wide::<F>(quote.source, word)
}

#[inline(always)]
fn to_server<F: Family, P: Frame, T: Tables>(
    frame: &mut P,
    tables: &T,
    packet: &Packet<F>,
    quote: &Quote<F>,
    service: u32,
) -> Word {
    let key = F::key(quote.target, quote.target_port, service);
    let hash = track::hash::<F, T>(tables, &key);
    let Some(entry) = track::find::<F, T>(tables, &key, hash) else {
        return if is_scheduled(tables, quote, service) {
            Word::quoted(service)
        } else {
            Word::pass(Pass::Icmp)
        };
    };
    bring(frame, tables, packet, quote, entry.target())
}

/// Whether an error about an unknown connection of a service opens one (`schedule_icmp`). An error
/// opens none to a mark's service: the mark is the error's own (`ip_vs_service_find`), and rules
/// mark only packets with ports.
#[inline(always)]
fn is_scheduled<F: Family, T: Tables>(tables: &T, quote: &Quote<F>, endpoint: u32) -> bool {
    let Some(service) = tables.service(lookup::service_of(tables, endpoint)) else {
        return false;
    };
    service.switches & service_switch::SCHEDULE_ICMP != 0
        && service.flags & service_flag::PRESENT != 0
        && service.protocol == quote.protocol
}

/// Translates an error and forwards it to the server that [`crate::quoted`] found. Reads the frame
/// again.
#[inline(always)]
pub fn bring_to<P: Frame, T: Tables>(frame: &mut P, tables: &T, id: u32) -> Word {
    reread!(
        frame,
        tables,
        |packet: F| bring_packet::<F, P, T>(frame, tables, &packet, id),
        Word::drop(Drop::Internal)
    )
}

#[inline(always)]
fn bring_packet<F: Family, P: Frame, T: Tables>(
    frame: &mut P,
    tables: &T,
    packet: &Packet<F>,
    id: u32,
) -> Word {
    match quoted::<F, P>(frame, packet) {
        Some(quote) => bring(frame, tables, packet, &quote, id),
        None => Word::drop(Drop::Internal),
    }
}

#[inline(always)]
fn bring<F: Family, P: Frame, T: Tables>(
    frame: &mut P,
    tables: &T,
    packet: &Packet<F>,
    quote: &Quote<F>,
    id: u32,
) -> Word {
    let Some(server) = tables.server(id) else {
        return Word::drop(Drop::Internal);
    };
    if !server.is_present() {
        return Word::drop(Drop::ServerGone);
    }
    if server.method == method::TRANSLATE {
        return Word::translate(NONE);
    }
    traffic::count_in(tables, id, packet.length);
    tables.count(Note::IcmpRelated.counter());
    if server.has_way_back() {
        let address = server.address_delta as u32;
        let port = server.port_delta as u32;
        let to = F::from_words(server.address);
        if translate(
            frame,
            packet,
            quote,
            Turn::ToServer(to, server.port),
            address,
            port,
        )
        .is_none()
        {
            return Word::drop(Drop::NoRoom);
        }
        if server.method == method::HERE {
            return Word::pass(Pass::Local);
        }
        return send(frame, packet, &server.ways);
    }
    methods::forward(frame, packet, server, id)
}

#[inline(always)]
fn to_client<F: Family, P: Frame, T: Tables>(
    frame: &mut P,
    tables: &T,
    settings: &Settings,
    packet: &Packet<F>,
    quote: &Quote<F>,
    endpoint: u32,
) -> Word {
    let key = F::key(quote.source, quote.source_port, endpoint);
    let hash = track::hash::<F, T>(tables, &key);
    let Some(entry) = track::find::<F, T>(tables, &key, hash) else {
        return if settings.masquerades & nat::TRANSLATES != 0 {
            Word::translate(NONE)
        } else {
            Word::pass(Pass::Icmp)
        };
    };
    let id = entry.target();
    let Some(server) = tables.server(id) else {
        return Word::drop(Drop::Internal);
    };
    let is_here = server.method == method::HERE;
    let ways = way::known_way::<F, T>(tables, entry.meta().low(), packet.target);
    let Some(ways) = ways.or(is_here.then(Ways::default)) else {
        return Word::drop(Drop::NoWayBack);
    };
    let address = !(server.address_delta as u32) & 0xffff;
    let port = !(server.port_delta as u32) & 0xffff;
    let to = F::from_words(server.virtual_address);
    let turn = Turn::ToClient(to, server.virtual_port);
    tables.count(Note::IcmpRelated.counter());
    traffic::count_out(tables, server, id, packet.length);
    if translate(frame, packet, quote, turn, address, port).is_none() {
        return Word::drop(Drop::NoRoom);
    }
    if is_here {
        return Word::pass(Pass::Local);
    }
    send(frame, packet, &ways)
}

/// Decrements the TTL of a translated error and sends it to the next hop.
#[inline(always)]
pub fn send<F: Family, P: Frame>(
    frame: &mut P,
    packet: &Packet<F>,
    ways: &crate::table::entry::Ways,
) -> Word {
    if packet.ttl <= 1 {
        // RFC 1122, 3.2.2: no error about an error.
        return Word::drop(Drop::Expired);
    }
    if !ways.is_usable() {
        return Word::drop(Drop::NoNextHop);
    }
    let done = methods::count_down::<F, P>(frame, packet.l3)
        .and_then(|()| link::address(frame, ways.target, ways.source));
    match done {
        Some(()) => Word::send(ways.interface),
        None => Word::drop(Drop::NoRoom),
    }
}

/// The direction of an error, with the address and port to write.
#[derive(Clone, Copy, Debug)]
enum Turn<F: Family> {
    ToServer(F::Address, u16),
    ToClient(F::Address, u16),
}

/// Rewrites the outer and the quoted header. The quoted transport checksum stays as it is: nobody
/// can verify it on a truncated packet (`ip_vs_nat_icmp`).
#[inline(always)]
fn translate<F: Family, P: Frame>(
    frame: &mut P,
    packet: &Packet<F>,
    quote: &Quote<F>,
    turn: Turn<F>,
    address_delta: u32,
    port_delta: u32,
) -> Option<()> {
    let mut ports = frame.edit::<4>(quote.l4)?;
    // Port 0 is a server of every port: the port is not translated.
    match turn {
        Turn::ToServer(_, 0) | Turn::ToClient(_, 0) => {}
        Turn::ToServer(_, port) => ports.set_u16::<0>(port),
        Turn::ToClient(_, port) => ports.set_u16::<2>(port),
    }
    let outer_delta = match turn {
        Turn::ToServer(_, _) => address_delta,
        // The error may come from a router: the virtual address becomes its source all the same.
        Turn::ToClient(to, _) => checksum::change(F::sum(packet.source), F::sum(to)),
    };
    if F::V6 {
        quoted6::<F, P>(frame, quote, turn)?;
        let field = Transport {
            field: packet.l4.wrapping_add(2),
            optional: false,
        };
        frame.carry(field, outer_delta, checksum::add(address_delta, port_delta));
    } else {
        quoted4::<F, P>(frame, quote, turn, address_delta)?;
        let field = Transport {
            field: packet.l4.wrapping_add(2),
            optional: false,
        };
        frame.carry(field, 0, port_delta);
    }
    outer::<F, P>(frame, packet, turn, outer_delta)
}

/// Rewrites the quoted IPv4 header. Its checksum compensates for the address, so that the ICMP
/// checksum does not change.
#[inline(always)]
fn quoted4<F: Family, P: Frame>(
    frame: &mut P,
    quote: &Quote<F>,
    turn: Turn<F>,
    address_delta: u32,
) -> Option<()> {
    let mut ip = frame.edit::<20>(quote.l3)?;
    match turn {
        Turn::ToServer(to, _) => ip.set_u32::<12>(F::words(to)[0] as u32),
        Turn::ToClient(to, _) => ip.set_u32::<16>(F::words(to)[0] as u32),
    }
    let sum = checksum::update(ip.view().u16::<10>(), address_delta);
    ip.set_u16::<10>(sum);
    Some(())
}

#[inline(always)]
fn quoted6<F: Family, P: Frame>(frame: &mut P, quote: &Quote<F>, turn: Turn<F>) -> Option<()> {
    let mut ip = frame.edit::<40>(quote.l3)?;
    match turn {
        Turn::ToServer(to, _) => {
            let [a, b] = F::words(to);
            ip.set_u64::<8>(a);
            ip.set_u64::<16>(b);
        }
        Turn::ToClient(to, _) => {
            let [a, b] = F::words(to);
            ip.set_u64::<24>(a);
            ip.set_u64::<32>(b);
        }
    }
    Some(())
}

#[inline(always)]
fn outer<F: Family, P: Frame>(
    frame: &mut P,
    packet: &Packet<F>,
    turn: Turn<F>,
    delta: u32,
) -> Option<()> {
    if F::V6 {
        let mut ip = frame.edit::<40>(packet.l3)?;
        match turn {
            Turn::ToServer(to, _) => {
                let [a, b] = F::words(to);
                ip.set_u64::<24>(a);
                ip.set_u64::<32>(b);
            }
            Turn::ToClient(to, _) => {
                let [a, b] = F::words(to);
                ip.set_u64::<8>(a);
                ip.set_u64::<16>(b);
            }
        }
        return Some(());
    }
    let mut ip = frame.edit::<20>(packet.l3)?;
    match turn {
        Turn::ToServer(to, _) => ip.set_u32::<16>(F::words(to)[0] as u32),
        Turn::ToClient(to, _) => ip.set_u32::<12>(F::words(to)[0] as u32),
    }
    let sum = checksum::update(ip.view().u16::<10>(), delta);
    ip.set_u16::<10>(sum);
    Some(())
}
