//! The walk of a packet: frame, flow, connection or schedule, method, verdict.
//!
//! Read this file to know what becomes of a packet; the others say how. IPv4 and IPv6 are one
//! walk with a type parameter.

use crate::addressed;
use crate::call;
use crate::claim;
use crate::connection::{self, flag};
use crate::device;
use crate::entry::{
    NONE, Server, Settings, endpoint_word, fate, kind, nat, server_flag, service_flag,
    service_switch, with_port,
};
use crate::family::{Family, V4, V6};
use crate::fate as fates;
use crate::frame::Frame;
use crate::icmp;
use crate::link;
use crate::method as methods;
use crate::packet::{self, ICMP, ICMPV6, Packet, Part, Ports, TCP, UDP, Unread};
use crate::quoted;
use crate::reply;
use crate::schedule::Client;
use crate::secured;
use crate::tables::Tables;
use crate::track::{self, Heard};
pub use crate::traffic::{count_connection, count_in, count_out};
use crate::translate;
use crate::tunnel;
use crate::verdict::{Bounce, Drop, Note, Pass, Word};
pub use crate::way::{known_way, way_back};

/// What becomes of this frame, to the end. In the kernel the steps behind [`walk`] are
/// functions of their own, so that the verifier sees each alone.
pub fn run<P: Frame, T: Tables>(frame: &mut P, tables: &T) -> Word {
    let mut verdict = walk(frame, tables);
    if verdict == Word::REST {
        verdict = rest(frame, tables);
    }
    if verdict == Word::RELATED {
        verdict = icmp::follow(frame, tables);
    }
    if verdict == Word::SECURED {
        verdict = secured::carry(frame, tables);
    }
    if let Some(endpoint) = verdict.quoting() {
        verdict = quoted::schedule(frame, tables, endpoint);
        if let Ok(server) = verdict.open() {
            verdict = icmp::bring_to(frame, tables, server);
        }
    }
    if let Some(endpoint) = verdict.calling() {
        verdict = call::choose(frame, tables, endpoint);
        if let Ok(server) = verdict.open() {
            verdict = call::carry(frame, tables, endpoint, server);
        }
    }
    if let Some(server) = verdict.tunnelled() {
        verdict = tunnel::wrap(frame, tables, server);
    }
    if let Some(server) = verdict.translated() {
        verdict = translated(frame, tables, server);
    }
    if let Some((bounce, mtu)) = verdict.due() {
        verdict = reply::answer(frame, tables, Bounce::from(bounce), mtu);
    }
    verdict
}

/// The steps of a translated flow's packet: [`translate`].
fn translated<P: Frame, T: Tables>(frame: &mut P, tables: &T, server: u32) -> Word {
    let mut verdict = translate::carry(frame, tables, server);
    if let Some(ports) = verdict.entering() {
        let service = translate::enter::asked(frame, tables, ports);
        verdict = translate::enter::enter(frame, tables, ports, server, service);
        if verdict.open().is_ok() {
            verdict = translate::carry(frame, tables, server);
        }
    }
    if verdict == Word::ANNOUNCE {
        verdict = translate::announce::announce(frame, tables);
        if verdict.open().is_ok() {
            verdict = translate::carry(frame, tables, server | translate::ANNOUNCED);
        }
    }
    if verdict == Word::INTRODUCE {
        verdict = if server == NONE {
            translate::proxy::acknowledge(frame, tables)
        } else {
            translate::proxy::introduce(frame, tables)
        };
        if let Some(keeps) = verdict.putting() {
            verdict = translate::proxy::put(frame, tables, keeps);
        }
        if verdict.open().is_ok() {
            verdict = translate::carry(frame, tables, server | translate::ANNOUNCED);
        }
    }
    verdict = match verdict.crossing() {
        Some(false) => translate::cross::carry4(frame, tables),
        Some(true) => translate::cross::carry6(frame, tables),
        None => verdict,
    };
    if verdict == Word::RELATED {
        verdict = translate::error::follow(frame, tables);
        verdict = match verdict.crossing() {
            Some(false) => translate::cross::error::follow4(frame, tables),
            Some(true) => translate::cross::error::follow6(frame, tables),
            None => verdict,
        };
    }
    verdict
}

/// What becomes of this frame, up to a step that is due.
///
/// Most frames have no tag, no option, are no fragment and carry TCP or UDP: then every header is
/// at a place that the compiler knows, which halves the cost of looking at them. All others that
/// may be ours are left to [`rest`], which in the kernel is a program of its own.
#[inline(always)]
pub fn walk<P: Frame, T: Tables>(frame: &mut P, tables: &T) -> Word {
    if frame.beside() != 0 {
        return Word::REST;
    }
    if let Some(packet) = packet::plain4(frame) {
        return transport::<V4, P, T>(frame, tables, &packet);
    }
    if let Some(packet) = packet::plain6(frame) {
        return transport::<V6, P, T>(frame, tables, &packet);
    }
    if link::may_be_ip(frame) {
        Word::REST
    } else {
        Word::pass(Pass::NotIp)
    }
}

/// The same for any frame that may be one of ours.
#[inline(always)]
pub fn rest<P: Frame, T: Tables>(frame: &mut P, tables: &T) -> Word {
    if !device::is_ours(frame, tables) {
        return Word::pass(Pass::OtherHost);
    }
    if let Some(verdict) = link::untag(frame) {
        return verdict;
    }
    let Some(link) = link::parse(frame) else {
        return Word::pass(Pass::NotIp);
    };
    let verdict = match link.ethertype {
        link::IPV4 => match packet::parse4(frame, link.l3) {
            Ok(packet) => network::<V4, P, T>(frame, tables, &packet),
            Err(why) => unread(why),
        },
        link::IPV6 => match packet::parse6(frame, tables, link.l3) {
            Ok(packet) => network::<V6, P, T>(frame, tables, &packet),
            Err(why) => unread(why),
        },
        _ => Word::pass(Pass::NotIp),
    };
    // Where the first fragment is the kernel's, so are those that follow it. Asked here, where
    // nothing else is on the stack: Linux 6.1 has no more of it.
    if verdict == Word::pass(Pass::NotOurs) || verdict == Word::pass(Pass::NotUnderstood) {
        frame.first(tables);
    }
    verdict
}

/// What could not be read is the kernel's: it drops and counts it, or knows better.
#[inline(always)]
fn unread(why: Unread) -> Word {
    match why {
        Unread::NotUnderstood => Word::pass(Pass::NotUnderstood),
        Unread::BadChecksum => Word::drop(Drop::BadChecksum),
    }
}

#[inline(always)]
fn network<F: Family, P: Frame, T: Tables>(frame: &mut P, tables: &T, packet: &Packet<F>) -> Word {
    let icmp = if F::V6 { ICMPV6 } else { ICMP };
    if packet.protocol == TCP || packet.protocol == UDP || packet.is_sctp() {
        transport(frame, tables, packet)
    } else if packet.protocol == icmp {
        Word::RELATED
    } else if packet.protocol == secured::ESP || packet.protocol == secured::AH {
        Word::SECURED
    } else {
        Word::pass(Pass::NotOurs)
    }
}

#[inline(always)]
fn transport<F: Family, P: Frame, T: Tables>(
    frame: &mut P,
    tables: &T,
    packet: &Packet<F>,
) -> Word {
    let ports = match ports(frame, tables, packet) {
        Ok(ports) => ports,
        Err(verdict) => return verdict,
    };
    if packet.part == Part::Later {
        tables.count(Note::FragmentFollowed.counter());
    }
    let Some(settings) = tables.settings() else {
        return Word::drop(Drop::Internal);
    };
    let word = endpoint_word(ports.target, packet.protocol, kind::SERVICE);
    let service = addressed::service::<F, P, T>(frame, tables, settings, packet.target, word);
    if service != NONE {
        if device::is_foreign(frame, tables, packet) {
            return Word::pass(Pass::OtherHost);
        }
        if packet.part == Part::First {
            frame.first(tables);
        }
        return to_service(frame, tables, packet, ports, settings, service);
    }
    if settings.masquerades != 0 {
        let word = endpoint_word(ports.source, packet.protocol, kind::MASQUERADED);
        let endpoint = addressed::endpoint::<F, T>(tables, settings, packet.source, word);
        if endpoint != NONE {
            if device::is_foreign(frame, tables, packet) {
                return Word::pass(Pass::OtherHost);
            }
            if packet.part == Part::First {
                frame.first(tables);
            }
            return from_server(frame, tables, packet, ports, settings, endpoint);
        }
    }
    Word::pass(Pass::NotOurs)
}

/// The ports of a packet, by its own header or by its first fragment's.
#[inline(always)]
pub fn ports<F: Family, P: Frame, T: Tables>(
    frame: &P,
    tables: &T,
    packet: &Packet<F>,
) -> Result<Ports, Word> {
    if packet.part == Part::Later {
        let ports = frame.later(tables).open()?;
        return Ok(Ports {
            source: ports as u16,
            target: (ports >> 16) as u16,
            flags: 0,
        });
    }
    packet::ports(frame, packet).ok_or(Word::pass(Pass::NotUnderstood))
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
) -> Word {
    let now = tables.now();
    let key = F::key(packet.source, ports.source, service);
    let hash = track::hash::<F, T>(tables, &key);
    let known = match track::find::<F, T>(tables, &key, hash) {
        None => None,
        Some(entry) => {
            match fates::lives(tables, settings, &entry, packet.protocol, ports.flags, now) {
                Ok(server) => server.map(|server| (entry, server)),
                Err(verdict) => return verdict,
            }
        }
    };
    let (id, server) = match known {
        Some((mut entry, server)) => {
            let before = entry.meta();
            let state = track::follow(tables, settings, before, Heard::of(packet, ports), false);
            track::note::<F, T>(tables, &mut entry, state, now, false);
            if (ports.flags & flag::SYN) as u32 | track::turns(before, entry.meta()) != 0
                || may_have_settled(packet, before, now)
            {
                // The client asks again, or its connection gives way no longer, or does now: way
                // back and template are made sure of, and do as it does.
                frame.begin(tables, ports, entry.target(), service);
            }
            (entry.target(), server)
        }
        None => {
            let opened = open(frame, tables, packet, ports, service);
            match opened.and_then(|id| Ok((id, present(tables, id)?))) {
                Ok(opened) => opened,
                Err(verdict) => return verdict,
            }
        }
    };
    count_in(tables, id, packet.length);
    methods::forward(frame, packet, server, id)
}

/// Whether a template may be due that only a server's consent to an association proves, each tick.
#[inline(always)]
fn may_have_settled<F: Family>(packet: &Packet<F>, before: connection::Meta, now: u32) -> bool {
    packet.is_sctp() && before.has(connection::Meta::CONTROLLED) && before.tick() != now
}

/// A server that is in its pool.
#[inline(always)]
pub fn present<T: Tables>(tables: &T, id: u32) -> Result<&Server, Word> {
    let server = tables.server(id).ok_or(Word::drop(Drop::Internal))?;
    if is_present(server) {
        Ok(server)
    } else {
        Err(Word::drop(Drop::ServerGone))
    }
}

/// A packet that no living entry answers for. The server is chosen here; [`crate::open::begin`]
/// enters the connection.
#[inline(always)]
fn open<F: Family, P: Frame, T: Tables>(
    frame: &P,
    tables: &T,
    packet: &Packet<F>,
    ports: Ports,
    endpoint: u32,
) -> Result<u32, Word> {
    let service = addressed::service_of(tables, endpoint);
    let entry = tables.service(service).ok_or(Word::drop(Drop::Internal))?;
    if entry.flags & service_flag::PRESENT == 0 {
        return Err(Word::pass(Pass::NotOurs));
    }
    let mut id = NONE;
    if fates::opens(entry, packet, ports.flags) {
        if packet.part == Part::Later && entry.flags & service_flag::ONE_PACKET != 0 {
            // It goes where the first one went.
            return frame.one_packet(tables, NONE).open();
        }
        if entry.switches & service_switch::PEERS != 0
            && frame.forwarded(tables, service, F::words(packet.source))
        {
            return Err(Word::pass(Pass::Local));
        }
        if fates::is_unlucky(tables) {
            return Err(Word::drop(Drop::Defence));
        }
        if !F::may_be_client(packet.source) || packet.source == packet.target {
            return Err(Word::drop(Drop::BadSource));
        }
        if entry.flags & service_flag::CALLS != 0 {
            return Err(Word::call(endpoint));
        }
        let port = u16::from_be(ports.source);
        if entry.persistence != 0 {
            id = F::recall(tables, service, packet.source, NONE);
        }
        let ends = packet.ttl <= 1;
        if id == NONE {
            let client = Client {
                address: F::folded(packet.source),
                port,
                target: F::words(packet.target),
            };
            id = tables.schedule(service, client);
            if id != NONE && entry.persistence != 0 && !ends {
                id = F::recall(tables, service, packet.source, id);
            }
        }
        if id == NONE {
            return Err(fates::unserved(entry));
        }
        // What ends here opens nothing, unless it is at its server.
        if ends && !present(tables, id)?.is_director() {
            return Err(Word::answer(Bounce::TimeExceeded, 0));
        }
        if entry.flags & service_flag::ONE_PACKET != 0 && packet.protocol == UDP {
            if packet.part == Part::First {
                return frame.one_packet(tables, id).open();
            }
            count_connection(tables, id);
            return Ok(id);
        }
    }
    claim::begin(frame, tables, packet, ports, id, endpoint)
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
) -> Word {
    let now = tables.now();
    let key = F::key(packet.target, ports.target, endpoint);
    let hash = track::hash::<F, T>(tables, &key);
    // Not a flow that is masqueraded: a translated one maybe, else the server speaks for itself.
    let Some(mut entry) = track::find::<F, T>(tables, &key, hash) else {
        return if settings.masquerades & nat::CALLS != 0 && packet.protocol == UDP {
            Word::call(endpoint)
        } else if settings.masquerades & nat::TRANSLATES != 0 {
            Word::translate(NONE)
        } else {
            fates::unasked(settings, packet, ports)
        };
    };
    let id = entry.target();
    let Some(server) = tables.server(id) else {
        return Word::drop(Drop::Internal);
    };
    if !is_present(server) && server.fate & fate::RESET != 0 {
        return fates::told(packet.protocol, ports.flags);
    }
    let telling = ports.flags & (flag::SYN | flag::FIN | flag::RST) != 0;
    if telling || entry.meta().tick() != now || packet.protocol != TCP {
        let service = with_port(server.service, ports.source);
        let flow = F::key(packet.target, ports.target, service);
        let heard = Heard::of(packet, ports);
        let Some(told) = tell::<F, T>(tables, settings, &flow, id, heard) else {
            // Its connection is gone or just being made again: the daemon's scan takes it out.
            return fates::unasked(settings, packet, ports);
        };
        let meta = track::way_back(settings, entry.meta(), told.yields(), now);
        if meta != entry.meta() {
            entry.update::<F::Layout>(meta);
        }
    }
    let (hop, from) = (entry.meta().low(), F::from_words(server.virtual_address));
    let Some(ways) = way_back::<F, P, T>(frame, tables, hop, from, packet.target) else {
        return Word::drop(Drop::NoWayBack);
    };
    if packet.ttl <= 1 {
        return Word::answer(Bounce::TimeExceeded, 0);
    }
    if methods::does_not_fit(frame, packet, ways.mtu(), 0) {
        return Word::answer(Bounce::TooBig, ways.mtu());
    }
    count_out(tables, server, id, packet.length);
    methods::back(frame, packet, server, &ways)
}

/// Tells the connection of an answer, and says what it remembers then; `None` if there is none any
/// more.
#[inline(always)]
pub fn tell<F: Family, T: Tables>(
    tables: &T,
    settings: &Settings,
    key: &crate::flows::Key,
    id: u32,
    heard: Heard,
) -> Option<connection::Meta> {
    let now = tables.now();
    let hash = track::hash::<F, T>(tables, key);
    let mut entry = track::find::<F, T>(tables, key, hash)?;
    let meta = entry.meta();
    if entry.target() != id || meta.age(now) > track::limit(settings, meta.state()) {
        return None;
    }
    let state = track::follow(tables, settings, meta, heard, true);
    track::note::<F, T>(tables, &mut entry, state, now, true);
    Some(entry.meta())
}

#[inline(always)]
pub fn is_present(server: &Server) -> bool {
    server.flags & server_flag::PRESENT != 0
}
