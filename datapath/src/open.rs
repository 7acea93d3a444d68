//! Opens connections: schedules and enters a packet for which there is no live entry, or refuses
//! it.
//!
//! This code parses the frame again from the start: in the kernel it is a separate function, which
//! the verifier checks on its own. Only a packet that opens a connection or changes how easily it
//! may be displaced pays for it.

use crate::connection::sctp;
use crate::connection::{self, flag};
use crate::policy;
use crate::reread::reread;
use crate::schedule;
use crate::steps::Choices;
use crate::table::entry::{NONE, Server, Service, Settings, fate, method, server_flag, with_port};
use crate::table::family::Family;
use crate::table::flows::{self, Entry, Key, Price};
use crate::table::lookup;
use crate::table::{Tables, entered};
use crate::template;
use crate::track::{self, Place};
use crate::traffic;
use crate::verdict::{Drop, Note, Pass, Word};
use crate::wire::frame::Frame;
use crate::wire::link;
use crate::wire::packet::{Packet, Ports, UDP};

/// Opens a connection to `id`, the chosen server. Returns the server that has the connection, or a
/// verdict.
///
/// With [`NONE`] the packet opens nothing. It is then forwarded only if its connection has an entry
/// or finds no room for one. `service` is the endpoint that the packet matched.
#[inline(always)]
pub fn begin<P: Frame, T: Choices>(
    frame: &P,
    tables: &T,
    ports: Ports,
    id: u32,
    service: u32,
) -> Word {
    of_frame::<P, T, { by::CLIENT }>(frame, tables, ports, id, service)
}

/// Opens a connection with a packet that this server is the first to send to its client.
#[inline(always)]
pub fn start<P: Frame, T: Choices>(
    frame: &P,
    tables: &T,
    ports: Ports,
    id: u32,
    service: u32,
) -> Word {
    let ports = Ports {
        source: ports.target,
        target: ports.source,
        ..ports
    };
    of_frame::<P, T, { by::SERVER }>(frame, tables, ports, id, service)
}

/// Who causes a connection to be opened.
pub mod by {
    /// A packet of the client.
    pub const CLIENT: u8 = 0;
    /// A packet of the server.
    pub const SERVER: u8 = 1;
    /// An ICMP error about an answer.
    pub const ERROR: u8 = 2;
}

/// Opens a connection with a packet of the client or, if `BY` says so, of the server.
#[inline(always)]
fn of_frame<P: Frame, T: Choices, const BY: u8>(
    frame: &P,
    tables: &T,
    ports: Ports,
    id: u32,
    service: u32,
) -> Word {
    let begun = reread!(
        frame,
        tables,
        |packet: F| {
            let packet = of_client::<F, BY>(packet);
            request::<F, P, T, BY>(frame, tables, &packet, ports, id, service)
        },
        Err(Word::drop(Drop::Internal))
    );
    match begun {
        Ok(id) => Word::server(id),
        Err(verdict) => verdict,
    }
}

/// Swaps source and target of a server's packet, so that the client is its source.
#[inline(always)]
fn of_client<F: Family, const BY: u8>(packet: Packet<F>) -> Packet<F> {
    if BY != by::SERVER {
        return packet;
    }
    Packet {
        source: packet.target,
        target: packet.source,
        ..packet
    }
}

/// Opens a connection with a packet whose source is the client.
#[inline(always)]
pub fn request<F: Family, P: Frame, T: Choices, const BY: u8>(
    frame: &P,
    tables: &T,
    packet: &Packet<F>,
    ports: Ports,
    id: u32,
    service: u32,
) -> Result<u32, Word> {
    let settings = tables.settings().ok_or(Word::drop(Drop::Internal))?;
    let now = tables.now();
    let key = F::key(packet.source, ports.source, service);
    let hash = track::hash::<F, T>(tables, &key);
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
        // The client retransmitted, or another CPU entered the same flow first.
        let (protocol, flags) = (packet.protocol, ports.flags);
        if policy::lives(tables, settings, entry, protocol, flags, now)?.is_some() {
            mend::<F, P, T, BY>(frame, tables, packet, &request, entry);
            return Ok(entry.target());
        }
        if let Some(verdict) = end::<F, T>(tables, packet, &request, entry, id) {
            return Err(verdict);
        }
    }
    open::<F, P, T, BY>(frame, tables, packet, &request, id)
}

/// Ends a connection whose server is gone. `None` if another connection may be opened in its place.
///
/// With `fate::RESET` the client gets a TCP reset or an ICMP error: for TCP at each packet, since
/// more may be in flight, for UDP once. `id` is the server chosen for another connection, or
/// [`NONE`].
#[inline(always)]
fn end<F: Family, T: Tables>(
    tables: &T,
    packet: &Packet<F>,
    request: &Request<'_, T::Words>,
    entry: &Entry<T::Words>,
    id: u32,
) -> Option<Word> {
    let server = tables.server(entry.target())?;
    let meta = entry.meta();
    let opens = packet.protocol != UDP && request.ports.flags & flag::SYN != 0;
    let is_over = meta.age(request.now) > track::limit(request.settings, meta.state());
    if server.is_present() || opens || is_over {
        return None;
    }
    let tells = server.fate & fate::RESET != 0;
    let leaves = if tells {
        packet.protocol == UDP
    } else {
        id == NONE && policy::has_ended(server, packet.protocol)
    };
    if leaves && entry.remove::<F::Layout>(&request.key) {
        track::release::<F, T>(tables, request.key.first, entry.value);
    }
    if !tells {
        return None;
    }
    Some(policy::told(packet.protocol, request.ports.flags))
}

/// Repairs the way-back entry and the template of a live connection, so that neither is easier to
/// displace than the connection.
#[inline(always)]
fn mend<F: Family, P: Frame, T: Choices, const BY: u8>(
    frame: &P,
    tables: &T,
    packet: &Packet<F>,
    request: &Request<'_, T::Words>,
    entry: &Entry<T::Words>,
) {
    let id = entry.target();
    let yields = entry.meta().yields();
    if entry.meta().has(connection::Meta::CONTROLLED)
        && !connection::may_give_way(entry.meta().state())
        && let Some(service) = tables.service(lookup::service_of(tables, request.service))
    {
        template::assure::<F, T>(tables, service, packet.source, yields == 0);
    }
    let Some(server) = tables.server(id) else {
        return;
    };
    if !server.has_way_back() {
        return;
    }
    let back = back_key(request, server, packet);
    let hash = track::hash::<F, T>(tables, &back);
    match track::find::<F, T>(tables, &back, hash) {
        Some(mut way) if way.target() == id => {
            let meta = track::way_back(request.settings, way.meta(), yields, request.now);
            way.update::<F::Layout>(meta);
        }
        Some(_) | None => {
            enter_back::<F, P, T, BY>(frame, tables, request, server, id, packet, yields);
        }
    }
}

/// A packet that asks for a connection, and what was looked up for it.
struct Request<'a, W> {
    settings: &'a Settings,
    service: u32,
    ports: Ports,
    key: Key,
    hash: u64,
    now: u32,
    /// The entry found under this key. Where [`open`] gets it, it is not live.
    stale: Option<Entry<W>>,
}

/// Enters a connection; returns the id of its server.
#[inline(always)]
fn open<F: Family, P: Frame, T: Choices, const BY: u8>(
    frame: &P,
    tables: &T,
    packet: &Packet<F>,
    request: &Request<'_, T::Words>,
    id: u32,
) -> Result<u32, Word> {
    let service = tables
        .service(lookup::service_of(tables, request.service))
        .ok_or(Word::drop(Drop::Internal))?;
    if id == NONE {
        let full = request.stale.is_none()
            && matches!(
                track::place::<F, T>(tables, request.settings, request.hash, request.now),
                Place::Nowhere
            );
        return if full {
            without_entry(tables, service, request.hash)
        } else {
            Err(Word::pass(Pass::NotOpening))
        };
    }
    let controlled = if service.persistence == 0 {
        0
    } else {
        connection::Meta::CONTROLLED
    };
    match enter::<F, P, T, BY>(frame, tables, request, id, packet, controlled) {
        entered::DONE => Ok(id),
        entered::THERE => Err(Word::drop(Drop::NoLocalPort)),
        _ => without_entry(tables, service, request.hash),
    }
}

/// Picks a server by hash for a flow that can have no entry.
#[inline(always)]
fn without_entry<T: Tables>(tables: &T, service: &Service, hash: u64) -> Result<u32, Word> {
    let id = schedule::by_hash(tables, service, hash);
    let Some(server) = tables.server(id) else {
        return Err(Word::drop(Drop::TableFull));
    };
    // Without an entry, the answers of a masqueraded or translated server cannot be matched to
    // clients.
    if id == NONE || server.has_way_back() || server.method == method::TRANSLATE {
        return Err(Word::drop(Drop::TableFull));
    }
    tables.count(Note::Untracked.counter());
    Ok(id)
}

/// Enters a connection, and its way-back entry if the answers pass the director. Returns a code of
/// [`entered`].
#[inline(always)]
fn enter<F: Family, P: Frame, T: Choices, const BY: u8>(
    frame: &P,
    tables: &T,
    request: &Request<'_, T::Words>,
    id: u32,
    packet: &Packet<F>,
    controlled: u32,
) -> u32 {
    let Some(server) = tables.server(id) else {
        return entered::FULL;
    };
    let masquerade = server.has_way_back();
    let needs_entry = masquerade || server.method == method::TRANSLATE;
    let most = if needs_entry {
        Price::NEVER
    } else {
        Price::LAST
    };
    let seat = match request.stale {
        Some(stale) => {
            let seat = stale.seize::<F::Layout>(&request.key);
            if seat.is_some() {
                track::release::<F, T>(tables, request.key.first, stale.value);
                tables.count(Note::Reused.counter());
            }
            seat
        }
        None => track::claim::<F, T>(tables, request.settings, request.hash, request.now, most),
    };
    let Some(seat) = seat else {
        return entered::FULL;
    };
    let answers = if needs_entry {
        0
    } else {
        connection::Meta::NO_OUTPUT
    };
    let state = first_state::<F, T, BY>(tables, request, packet, answers);
    // A server that sends first has proved that it is there.
    let proved = if BY == by::SERVER {
        connection::Meta::PROVED
    } else {
        0
    };
    let yields = connection::gives_way(state) | (proved == 0) as u32;
    if masquerade {
        let back = enter_back::<F, P, T, BY>(frame, tables, request, server, id, packet, yields);
        if back != entered::DONE {
            seat.give_up();
            return back;
        }
    }
    let meta = track::begin(
        tables,
        id,
        request.now,
        state,
        controlled | answers | proved,
    );
    seat.fill::<F::Layout>(&request.key, flows::value(id, request.key.tag, meta));
    if server.flags & server_flag::LIMITED != 0 {
        schedule::overload::opened(tables, id);
    }
    traffic::count_connection(tables, id);
    entered::DONE
}

/// The state of a connection after its first packet. `answers`: [`connection::Meta::NO_OUTPUT`] or
/// 0.
#[inline(always)]
fn first_state<F: Family, T: Choices, const BY: u8>(
    tables: &T,
    request: &Request<'_, T::Words>,
    packet: &Packet<F>,
    answers: u32,
) -> connection::State {
    if BY == by::ERROR {
        // No packet of the flow itself was seen (`ip_vs_conn_new`).
        return quoted(packet);
    }
    if packet.protocol == UDP {
        return connection::UDP_FIRST;
    }
    let sctp = packet.is_sctp();
    let none = if sctp { sctp::NONE } else { connection::NONE };
    let none = connection::Meta::new(request.now, none, answers);
    let flags = request.ports.flags;
    track::advance(tables, request.settings, none, sctp, false, flags)
}

/// The state of a connection that is known only from an ICMP error.
#[inline(always)]
fn quoted<F: Family>(packet: &Packet<F>) -> connection::State {
    if packet.is_sctp() {
        sctp::NONE
    } else {
        connection::NONE
    }
}

/// The key of the way-back entry. A server of every port answers from the port that the client
/// asked for.
#[inline(always)]
fn back_key<F: Family, W>(request: &Request<'_, W>, server: &Server, packet: &Packet<F>) -> Key {
    let endpoint = with_port(server.endpoint, request.ports.target);
    F::key(packet.source, request.ports.source, endpoint)
}

/// Enters the way-back entry: from the server's endpoint to the client, with the prepared hop to
/// the client if there is one. Returns a code of [`entered`].
#[inline(always)]
fn enter_back<F: Family, P: Frame, T: Choices, const BY: u8>(
    frame: &P,
    tables: &T,
    request: &Request<'_, T::Words>,
    server: &Server,
    id: u32,
    packet: &Packet<F>,
    yields: u32,
) -> u32 {
    let key = back_key(request, server, packet);
    let hash = track::hash::<F, T>(tables, &key);
    let before = track::find::<F, T>(tables, &key, hash);
    if let Some(entry) = &before
        && entry.target() != id
    {
        // These answers belong, or belonged, to another connection: [`crate::claim`] decides.
        return entered::THERE;
    }
    let hop = F::route(tables, packet.source) & 0x3ff;
    if hop == 0
        && BY == by::CLIENT
        && let Some(ways) = link::came_from(frame)
    {
        tables.learn(F::words(packet.source), ways);
    }
    let meta = connection::Meta::new(request.now, hop, 0);
    let meta = track::way_back(request.settings, meta, yields, request.now);
    let value = flows::value(id, key.tag, meta);
    let seat = match before {
        Some(entry) => entry.seize::<F::Layout>(&key),
        None => track::claim::<F, T>(tables, request.settings, hash, request.now, Price::NEVER),
    };
    match seat {
        Some(seat) => {
            seat.fill::<F::Layout>(&key, value);
            entered::DONE
        }
        None => entered::FULL,
    }
}
