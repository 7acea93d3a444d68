//! A packet that no living entry answers for: scheduled anew and entered, or not.
//!
//! The frame is read once more from the start: in the kernel this is a function of its own, which
//! the verifier sees alone, and only the first packet of a connection pays for it.

use crate::connection;
use crate::entry::{NONE, Server, Service, Settings, endpoint_word, kind, method, server_flag};
use crate::family::{Family, V4, V6};
use crate::flows::{self, Entry, Key};
use crate::frame::Frame;
use crate::link;
use crate::packet::{self, Packet, Ports, TCP};
use crate::schedule;
use crate::tables::Tables;
use crate::track::{self, Place};
use crate::verdict::{Drop, Note, Pass, Word};
use crate::walk;

/// Begins a connection with the server that was chosen: says which server has it from now on, or
/// the verdict. Without a server ([`NONE`]) the packet opens nothing; it goes on only if its
/// connection could have no entry.
#[inline(always)]
pub fn begin<P: Frame, T: Tables>(frame: &P, tables: &T, ports: Ports, id: u32) -> Word {
    let Some(link) = link::parse(frame, tables) else {
        return Word::pass(Pass::NotIp);
    };
    let begun = if link.ethertype == link::IPV4 {
        match packet::parse4(frame, link.l3) {
            Ok(packet) => request::<V4, P, T>(frame, tables, &packet, ports, id),
            Err(_) => Err(Word::drop(Drop::Internal)),
        }
    } else {
        match packet::parse6(frame, tables, link.l3) {
            Ok(packet) => request::<V6, P, T>(frame, tables, &packet, ports, id),
            Err(_) => Err(Word::drop(Drop::Internal)),
        }
    };
    match begun {
        Ok(id) => Word::server(id),
        Err(verdict) => verdict,
    }
}

#[inline(always)]
fn request<F: Family, P: Frame, T: Tables>(
    frame: &P,
    tables: &T,
    packet: &Packet<F>,
    ports: Ports,
    id: u32,
) -> Result<u32, Word> {
    let settings = tables.settings().ok_or(Word::drop(Drop::Internal))?;
    let word = endpoint_word(ports.target, packet.protocol, kind::SERVICE);
    let service = F::endpoint(tables, packet.target, word);
    let now = tables.now();
    let key = F::key(packet.source, ports.source, service);
    let hash = track::hash(tables, &key);
    let stale = track::find::<F, T>(tables, &key, hash);
    let request = Request {
        settings,
        service,
        ports,
        key,
        hash,
        now,
        stale,
    };
    if let Some(entry) = &stale {
        // The client asks again, or another CPU was faster with the same flow.
        if walk::goes_on(settings, entry, packet.protocol, ports.flags, now) {
            mend::<F, P, T>(frame, tables, packet, &request, entry.target());
            return Ok(entry.target());
        }
    }
    open(frame, tables, packet, &request, id)
}

/// Makes sure that a living connection has its way back.
#[inline(always)]
fn mend<F: Family, P: Frame, T: Tables>(
    frame: &P,
    tables: &T,
    packet: &Packet<F>,
    request: &Request<'_, T::Words>,
    id: u32,
) {
    let Some(server) = tables.server(id) else {
        return;
    };
    if server.method != method::MASQUERADE {
        return;
    }
    let back = F::key(packet.source, request.ports.source, server.endpoint);
    let hash = track::hash(tables, &back);
    if track::find::<F, T>(tables, &back, hash).is_none() {
        enter_back::<F, P, T>(frame, tables, request, server, id, packet);
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

/// Enters a new connection; says which server has it.
#[inline(always)]
fn open<F: Family, P: Frame, T: Tables>(
    frame: &P,
    tables: &T,
    packet: &Packet<F>,
    request: &Request<'_, T::Words>,
    id: u32,
) -> Result<u32, Word> {
    let service = tables
        .service(request.service)
        .ok_or(Word::drop(Drop::Internal))?;
    let place = match request.stale {
        None => track::place::<F, T>(tables, request.settings, request.hash, request.now),
        Some(_) => Place::Nowhere,
    };
    if id == NONE {
        let full = request.stale.is_none() && matches!(place, Place::Nowhere);
        return if full {
            without_entry(tables, service, request.hash)
        } else {
            Err(Word::pass(Pass::NotOpening))
        };
    }
    match enter::<F, P, T>(frame, tables, request, place, id, packet) {
        true => Ok(id),
        false => without_entry(tables, service, request.hash),
    }
}

/// Forwards by hash a flow that can have no entry.
#[inline(always)]
fn without_entry<T: Tables>(tables: &T, service: &Service, hash: u64) -> Result<u32, Word> {
    let id = schedule::by_hash(tables, service, hash);
    let Some(server) = tables.server(id) else {
        return Err(Word::drop(Drop::TableFull));
    };
    // The answers of a masqueraded server could not be told apart.
    if id == NONE || server.method == method::MASQUERADE {
        return Err(Word::drop(Drop::TableFull));
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
    let Some(server) = tables.server(id) else {
        return false;
    };
    let seat = match (request.stale, place) {
        (Some(stale), _) => {
            let seat = stale.seize::<F::Layout>(&request.key);
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
        connection::next(
            connection::NONE,
            connection::Direction::Input,
            request.ports.flags,
        )
    } else {
        connection::UDP_FIRST
    };
    let meta = track::begin(tables, id, request.now, state, masquerade);
    seat.fill::<F::Layout>(&request.key, flows::value(id, request.key.tag, meta));
    if server.flags & server_flag::LIMITED != 0 {
        schedule::overload::opened(tables, id);
    }
    tables.traffic(id, |traffic| {
        traffic.connections = traffic.connections.wrapping_add(1)
    });
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
    if hop == 0
        && let Some(ways) = link::came_from(frame)
    {
        tables.learn(F::words(packet.source), ways);
    }
    let meta = connection::Meta::new(request.now, hop, 0);
    let value = flows::value(id, key.tag, meta);
    let seat = match track::find::<F, T>(tables, &key, hash) {
        Some(entry) => entry.seize::<F::Layout>(&key),
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
