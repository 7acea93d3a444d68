//! The walk of a packet: frame, flow, connection or schedule, method, verdict.
//!
//! Read this file to know what becomes of a packet; the others say how. IPv4 and IPv6 are one
//! walk with a type parameter.

use crate::connection::{self, flag};
use crate::entry::{NONE, Server, Service, Settings, Ways, endpoint_word, kind, method};
use crate::entry::{server_flag, service_flag};
use crate::family::{Family, V4, V6};
use crate::flows::{self, Entry, Key};
use crate::fragment;
use crate::frame::Frame;
use crate::icmp;
use crate::link;
use crate::method as methods;
use crate::packet::{self, ICMP, ICMPV6, Packet, Part, Ports, TCP, UDP, Unread};
use crate::reply;
use crate::schedule::{self, Client};
use crate::tables::Tables;
use crate::track::{self, Place};
use crate::verdict::{Drop, Note, Pass, Verdict};

/// What becomes of this frame.
#[inline(always)]
pub fn walk<P: Frame, T: Tables>(frame: &mut P, tables: &T) -> Verdict {
    let Some(link) = link::parse(frame) else { return Verdict::Pass(Pass::NotIp) };
    match link.ethertype {
        link::IPV4 => match packet::parse4(frame, link.l3) {
            Ok(packet) => network::<V4, P, T>(frame, tables, &packet),
            Err(why) => unread(why),
        },
        link::IPV6 => match packet::parse6(frame, link.l3) {
            Ok(packet) => network::<V6, P, T>(frame, tables, &packet),
            Err(why) => unread(why),
        },
        _ => Verdict::Pass(Pass::NotIp),
    }
}

/// What could not be read is the kernel's: it drops and counts it, or knows better.
#[inline(always)]
fn unread(why: Unread) -> Verdict {
    match why {
        Unread::NotUnderstood => Verdict::Pass(Pass::NotUnderstood),
        Unread::BadChecksum => Verdict::Drop(Drop::BadChecksum),
    }
}

#[inline(always)]
fn network<F: Family, P: Frame, T: Tables>(
    frame: &mut P,
    tables: &T,
    packet: &Packet<F>,
) -> Verdict {
    if packet.protocol != TCP && packet.protocol != UDP {
        let icmp = if F::V6 { ICMPV6 } else { ICMP };
        return if packet.protocol == icmp {
            icmp::follow(frame, tables, packet)
        } else {
            Verdict::Pass(Pass::NotOurs)
        };
    }
    let ports = if let Part::Later(_) = packet.part {
        match fragment::recall(tables, packet) {
            Ok(ports) => ports,
            Err(verdict) => return verdict,
        }
    } else {
        match packet::ports(frame, packet) {
            Some(ports) => ports,
            None => return Verdict::Pass(Pass::NotUnderstood),
        }
    };
    let Some(settings) = tables.settings() else { return Verdict::Drop(Drop::Internal) };
    let word = endpoint_word(ports.target, packet.protocol, kind::SERVICE);
    let service = F::endpoint(tables, packet.target, word);
    if service != NONE {
        if packet.part == Part::First {
            fragment::remember(tables, packet, &ports);
        }
        return to_service(frame, tables, packet, ports, settings, service);
    }
    if settings.masquerades != 0 {
        let word = endpoint_word(ports.source, packet.protocol, kind::MASQUERADED);
        let endpoint = F::endpoint(tables, packet.source, word);
        if endpoint != NONE {
            if packet.part == Part::First {
                fragment::remember(tables, packet, &ports);
            }
            return from_server(frame, tables, packet, ports, settings, endpoint);
        }
    }
    Verdict::Pass(Pass::NotOurs)
}

/// A packet from a client to a service.
#[inline(always)]
fn to_service<F: Family, P: Frame, T: Tables>(
    frame: &mut P,
    tables: &T,
    packet: &Packet<F>,
    ports: Ports,
    settings: &Settings,
    service: u32,
) -> Verdict {
    let now = tables.now();
    let key = F::key(packet.source, ports.source, service);
    let hash = track::hash(tables, &key);
    let found = track::find::<F, T>(tables, &key, hash);
    let known = match found {
        Some(entry) if goes_on(settings, &entry, packet, ports.flags, now) => Some(entry),
        _ => None,
    };
    let id = match known {
        Some(mut entry) => {
            let state = match packet.part {
                // A later fragment has no flags to tell.
                Part::Later(_) => entry.meta().state(),
                _ => track::follow(entry.meta(), packet.protocol, false, ports.flags),
            };
            track::note::<F, T>(tables, &mut entry, state, now);
            entry.target()
        }
        None => {
            let request = Request { settings, service, ports, key, hash, now, stale: found };
            match open(frame, tables, packet, &request) {
                Ok(id) => id,
                Err(verdict) => return verdict,
            }
        }
    };
    let Some(server) = tables.server(id) else { return Verdict::Drop(Drop::Internal) };
    if !is_present(server) {
        return Verdict::Drop(Drop::ServerGone);
    }
    count_in(tables, id, packet.length);
    methods::forward(frame, tables, packet, server)
}

/// Whether a found entry still stands for the connection that the packet belongs to.
#[inline(always)]
fn goes_on<F: Family, W: flows::Words>(
    settings: &Settings,
    entry: &Entry<W>,
    packet: &Packet<F>,
    flags: u8,
    now: u32,
) -> bool {
    let meta = entry.meta();
    if meta.tick() != now && meta.age(now) > track::limit(settings, meta.state()) {
        return false;
    }
    packet.protocol != TCP || flags & flag::SYN == 0 || !is_reused(settings, meta)
}

/// `is_new_conn_expected` of the kernel: a SYN here begins another connection.
#[inline(always)]
fn is_reused(settings: &Settings, meta: connection::Meta) -> bool {
    match meta.state() {
        connection::TIME_WAIT | connection::CLOSE => settings.reuse_mode != 0,
        connection::FIN_WAIT => {
            settings.reuse_mode & 2 != 0 && meta.has(connection::Meta::NO_OUTPUT)
        }
        _ => false,
    }
}

/// What is known of a packet that asks for a new connection.
struct Request<'a, W> {
    settings: &'a Settings,
    service: u32,
    ports: Ports,
    key: Key,
    hash: u64,
    now: u32,
    /// An entry of the same key whose time is over.
    stale: Option<Entry<W>>,
}

/// Schedules a new connection and enters it; says which server has it.
#[inline(always)]
fn open<F: Family, P: Frame, T: Tables>(
    frame: &mut P,
    tables: &T,
    packet: &Packet<F>,
    request: &Request<'_, T::Words>,
) -> Result<u32, Verdict> {
    let Some(service) = tables.service(request.service) else {
        return Err(Verdict::Drop(Drop::Internal));
    };
    if service.flags & service_flag::PRESENT == 0 {
        return Err(Verdict::Pass(Pass::NotOurs));
    }
    let place = match request.stale {
        None => track::place::<F, T>(tables, request.settings, request.hash, request.now),
        Some(_) => Place::Nowhere,
    };
    let opens = packet.protocol != TCP || request.ports.flags & flag::SYN != 0;
    if !opens {
        let full = request.stale.is_none() && matches!(place, Place::Nowhere);
        return if full {
            without_entry(tables, service, request.hash)
        } else {
            Err(Verdict::Pass(Pass::NotOpening))
        };
    }
    if !F::may_be_client(packet.source) || packet.source == packet.target {
        return Err(Verdict::Drop(Drop::BadSource));
    }
    let client =
        Client { address: F::folded(packet.source), port: u16::from_be(request.ports.source) };
    let id = schedule::pick(tables, service, client);
    if id == NONE {
        return Err(reply::unreachable(frame, tables, packet));
    }
    match enter::<F, P, T>(frame, tables, request, place, id, packet) {
        true => Ok(id),
        false => without_entry(tables, service, request.hash),
    }
}

/// Forwards by hash a flow that can have no entry.
#[inline(always)]
fn without_entry<T: Tables>(tables: &T, service: &Service, hash: u64) -> Result<u32, Verdict> {
    let id = schedule::by_hash(tables, service, hash);
    let Some(server) = tables.server(id) else { return Err(Verdict::Drop(Drop::TableFull)) };
    // The answers of a masqueraded server could not be told apart.
    if id == NONE || server.method == method::MASQUERADE {
        return Err(Verdict::Drop(Drop::TableFull));
    }
    tables.count(Note::Untracked.counter());
    Ok(id)
}

/// Puts a connection into the table, with its way back if its answers come through here. False
/// if there is no room.
#[inline(always)]
fn enter<F: Family, P: Frame, T: Tables>(
    frame: &P,
    tables: &T,
    request: &Request<'_, T::Words>,
    place: Place<T::Words>,
    id: u32,
    packet: &Packet<F>,
) -> bool {
    let Some(server) = tables.server(id) else { return false };
    let seat = match (request.stale, place) {
        (Some(stale), _) => {
            let seat = stale.seize(&request.key);
            if seat.is_some() {
                track::release::<F, T>(tables, request.key.first, stale.value);
                tables.count(Note::Reused.counter());
            }
            seat
        }
        (None, Place::At(offer)) => track::take::<F, T>(tables, offer),
        (None, Place::Nowhere) => None,
    };
    let Some(seat) = seat else { return false };
    let masquerade = server.method == method::MASQUERADE;
    if masquerade && !enter_back::<F, P, T>(frame, tables, request, server, id, packet) {
        seat.give_up();
        return false;
    }
    let state = if packet.protocol == TCP {
        connection::next(connection::NONE, connection::Direction::Input, request.ports.flags)
    } else {
        connection::UDP_FIRST
    };
    let meta = track::begin(tables, id, request.now, state, masquerade);
    seat.fill::<F::Layout>(&request.key, flows::value(id, request.key.tag, meta));
    tables.traffic(id, |traffic| traffic.connections = traffic.connections.wrapping_add(1));
    tables.count(Note::Opened.counter());
    true
}

/// The entry of the way back: from the server's endpoint to the client, with the hop that leads
/// there where one is prepared.
#[inline(always)]
fn enter_back<F: Family, P: Frame, T: Tables>(
    frame: &P,
    tables: &T,
    request: &Request<'_, T::Words>,
    server: &Server,
    id: u32,
    packet: &Packet<F>,
) -> bool {
    let key = F::key(packet.source, request.ports.source, server.endpoint);
    let hash = track::hash(tables, &key);
    let hop = F::route(tables, packet.source) & 0x3ff;
    if hop == 0 {
        if let Some(ways) = link::came_from(frame) {
            tables.learn(F::words(packet.source), ways);
        }
    }
    let meta = connection::Meta::new(request.now, hop, 0);
    let value = flows::value(id, key.tag, meta);
    let seat = match track::find::<F, T>(tables, &key, hash) {
        Some(entry) => entry.seize(&key),
        None => match track::place::<F, T>(tables, request.settings, hash, request.now) {
            Place::At(offer) => track::take::<F, T>(tables, offer),
            Place::Nowhere => None,
        },
    };
    match seat {
        Some(seat) => {
            seat.fill::<F::Layout>(&key, value);
            true
        }
        None => false,
    }
}

/// A packet from a masqueraded server, to a client if its flow is known.
#[inline(always)]
fn from_server<F: Family, P: Frame, T: Tables>(
    frame: &mut P,
    tables: &T,
    packet: &Packet<F>,
    ports: Ports,
    settings: &Settings,
    endpoint: u32,
) -> Verdict {
    let now = tables.now();
    let key = F::key(packet.target, ports.target, endpoint);
    let hash = track::hash(tables, &key);
    // Not a flow of ours: the server speaks for itself.
    let Some(mut entry) = track::find::<F, T>(tables, &key, hash) else {
        return Verdict::Pass(Pass::NotOurs);
    };
    let id = entry.target();
    let Some(server) = tables.server(id) else { return Verdict::Drop(Drop::Internal) };
    let telling = ports.flags & (flag::SYN | flag::FIN | flag::RST) != 0;
    if telling || entry.meta().tick() != now || packet.protocol != TCP {
        if !visit::<F, T>(tables, packet, ports, settings, server, id) {
            entry.remove(&key);
            return Verdict::Pass(Pass::NotOurs);
        }
        if entry.meta().tick() != now {
            let meta = entry.meta().seen(now);
            entry.update::<F::Layout>(meta);
        }
    }
    let Some(ways) = way_back::<F, P, T>(frame, tables, entry.meta().low(), packet.target) else {
        return Verdict::Drop(Drop::NoWayBack);
    };
    if packet.ttl <= 1 {
        return reply::time_exceeded(frame, tables, packet);
    }
    if methods::does_not_fit(frame, packet, ways.mtu(), 0) {
        return reply::too_big(frame, tables, packet, ways.mtu());
    }
    count_out(tables, id, packet.length);
    methods::back(frame, packet, server, &ways)
}

/// Tells the connection of an answer. False if there is no such connection any more.
#[inline(always)]
fn visit<F: Family, T: Tables>(
    tables: &T,
    packet: &Packet<F>,
    ports: Ports,
    settings: &Settings,
    server: &Server,
    id: u32,
) -> bool {
    let now = tables.now();
    let key = F::key(packet.target, ports.target, server.service);
    let hash = track::hash(tables, &key);
    let Some(mut entry) = track::find::<F, T>(tables, &key, hash) else { return false };
    let meta = entry.meta();
    if entry.target() != id || meta.age(now) > track::limit(settings, meta.state()) {
        return false;
    }
    let state = match packet.part {
        Part::Later(_) => meta.state(),
        _ => track::follow(meta, packet.protocol, true, ports.flags),
    };
    track::note::<F, T>(tables, &mut entry, state, now);
    true
}

/// The way to a client: by its prepared hop, or as the kernel's routes have it, or where its own
/// packets came from.
#[inline(always)]
pub fn way_back<F: Family, P: Frame, T: Tables>(
    frame: &P,
    tables: &T,
    hop: u32,
    client: F::Address,
) -> Option<Ways> {
    if hop != 0 {
        if let Some(hop) = tables.hop(hop) {
            if hop.ways.is_usable() {
                return Some(hop.ways);
            }
        }
    }
    frame.route(F::V6, F::words(client)).or_else(|| tables.learned(F::words(client)))
}

#[inline(always)]
#[must_use]
pub fn is_present(server: &Server) -> bool {
    server.flags & server_flag::PRESENT != 0
}

#[inline(always)]
pub fn count_in<T: Tables>(tables: &T, server: u32, bytes: u32) {
    tables.traffic(server, |traffic| {
        traffic.in_packets = traffic.in_packets.wrapping_add(1);
        traffic.in_bytes = traffic.in_bytes.wrapping_add(bytes as u64);
    });
}

#[inline(always)]
pub fn count_out<T: Tables>(tables: &T, server: u32, bytes: u32) {
    tables.traffic(server, |traffic| {
        traffic.out_packets = traffic.out_packets.wrapping_add(1);
        traffic.out_bytes = traffic.out_bytes.wrapping_add(bytes as u64);
    });
}
