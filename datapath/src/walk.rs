//! The walk of a packet: frame, flow, connection or schedule, method, verdict.
//!
//! This file decides what becomes of a packet; the other files do it. IPv4 and IPv6 share one walk
//! with a type parameter.

use crate::call;
use crate::claim;
use crate::connection::{self, flag};
use crate::device;
use crate::fragment;
use crate::icmp;
use crate::method as methods;
use crate::plain;
use crate::policy;
use crate::quoted;
use crate::reply;
use crate::schedule::Client;
use crate::secured;
use crate::steps::{Choices, Steps};
use crate::table::entry::{
    NONE, Server, Settings, endpoint_word, fate, kind, nat, service_flag, service_switch, with_port,
};
use crate::table::family::{Family, V4, V6};
use crate::table::flows::Entry;
use crate::table::lookup;
use crate::track::{self, Heard};
use crate::traffic::{count_connection, count_in, count_out};
use crate::translate;
use crate::tunnel;
use crate::verdict::{Bounce, Drop, Note, Pass, Step, Word};
use crate::way::way_back;
use crate::wire::link;
use crate::wire::packet::{self, ICMP, ICMPV6, Packet, Part, Ports, TCP, UDP, Unread};

/// Walks a frame to its verdict. In the kernel the steps behind [`walk`] are separate functions or
/// programs, which the verifier checks one by one.
pub fn run<P: Steps, T: Choices>(frame: &mut P, tables: &T) -> Word {
    let mut word = walk(frame, tables);
    // Nearly every packet: no step is due.
    if word.sent().is_some() {
        return word;
    }
    while let Some(step) = word.step() {
        word = match step {
            Step::Rest => rest(frame, tables),
            Step::Related => icmp::follow(frame, tables),
            Step::Secured => secured::carry(frame, tables),
            Step::Quoted(endpoint) => match quoted::schedule(frame, tables, endpoint).open() {
                Ok(server) => icmp::bring_to(frame, tables, server),
                Err(word) => word,
            },
            Step::Call(endpoint) => match call::choose(frame, tables, endpoint).open() {
                Ok(server) => call::carry(frame, tables, endpoint, server),
                Err(word) => word,
            },
            Step::Tunnel(server) => tunnel::wrap(frame, tables, server),
            Step::Translate(server) => translate::run(frame, tables, server),
            Step::Answer(bounce, mtu) => reply::answer(frame, tables, bounce, mtu),
            // Only `translate::run` takes these steps.
            Step::Enter(_)
            | Step::Disown
            | Step::Announce
            | Step::Introduce
            | Step::Put(_)
            | Step::Cross(_) => Word::drop(Drop::Internal),
        };
    }
    word
}

/// Walks a frame to a verdict, or to a step that is due.
///
/// Most frames have no tag and no option, are no fragment and carry TCP or UDP. In these every
/// header is at an offset that the compiler knows, which halves the cost of reading them. All other
/// frames that may match are left to [`rest`], which in the kernel is a separate program.
#[inline(always)]
pub fn walk<P: Steps, T: Choices>(frame: &mut P, tables: &T) -> Word {
    if frame.beside() != 0 {
        return Word::REST;
    }
    if let Some((packet, ports)) = plain::read4(frame) {
        return transport::<V4, P, T>(frame, tables, &packet, ports);
    }
    if let Some((packet, ports)) = plain::read6(frame) {
        return transport::<V6, P, T>(frame, tables, &packet, ports);
    }
    if link::may_be_ip(frame) {
        Word::REST
    } else {
        Word::pass(Pass::NotIp)
    }
}

/// Walks any frame that may match, as [`walk`] does plain ones.
#[inline(always)]
pub fn rest<P: Steps, T: Choices>(frame: &mut P, tables: &T) -> Word {
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
    // If the kernel gets the first fragment, it gets the later ones too. This is noted here, where
    // nothing else is on the stack: Linux 6.1 has no more of it.
    if verdict == Word::pass(Pass::NotOurs) || verdict == Word::pass(Pass::NotUnderstood) {
        frame.first(tables);
    }
    verdict
}

/// A packet that cannot be parsed goes to the kernel, except one with a wrong checksum.
#[inline(always)]
fn unread(why: Unread) -> Word {
    match why {
        Unread::NotUnderstood => Word::pass(Pass::NotUnderstood),
        Unread::BadChecksum => Word::drop(Drop::BadChecksum),
    }
}

#[inline(always)]
fn network<F: Family, P: Steps, T: Choices>(frame: &mut P, tables: &T, packet: &Packet<F>) -> Word {
    let icmp = if F::V6 { ICMPV6 } else { ICMP };
    if packet.protocol == TCP || packet.protocol == UDP || packet.is_sctp() {
        let ports = match fragment::ports(frame, tables, packet) {
            Ok(ports) => ports,
            Err(verdict) => return verdict,
        };
        if packet.part == Part::Later {
            tables.count(Note::FragmentFollowed.counter());
        }
        transport(frame, tables, packet, ports)
    } else if packet.protocol == icmp {
        Word::RELATED
    } else if packet.protocol == secured::ESP || packet.protocol == secured::AH {
        Word::SECURED
    } else {
        Word::pass(Pass::NotOurs)
    }
}

#[inline(always)]
fn transport<F: Family, P: Steps, T: Choices>(
    frame: &mut P,
    tables: &T,
    packet: &Packet<F>,
    ports: Ports,
) -> Word {
    let word = endpoint_word(ports.target, packet.protocol, kind::SERVICE);
    let mut service = F::endpoint(tables, packet.target, word);
    // A known flow asks for no setting.
    if service == NONE {
        service = match tables.settings() {
            Some(settings) => {
                lookup::wider::<F, P, T>(frame, tables, settings, packet.target, word)
            }
            None => return Word::drop(Drop::Internal),
        };
    }
    if service != NONE {
        if device::is_foreign(frame, tables, packet) {
            return Word::pass(Pass::OtherHost);
        }
        if packet.part == Part::First {
            frame.first(tables);
        }
        return to_service(frame, tables, packet, ports, service);
    }
    let Some(settings) = tables.settings() else {
        return Word::drop(Drop::Internal);
    };
    if settings.masquerades != 0 {
        let word = endpoint_word(ports.source, packet.protocol, kind::MASQUERADED);
        let endpoint = lookup::endpoint::<F, T>(tables, settings, packet.source, word);
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

/// Handles a packet from a client to a service.
#[inline(always)]
fn to_service<F: Family, P: Steps, T: Choices>(
    frame: &mut P,
    tables: &T,
    packet: &Packet<F>,
    ports: Ports,
    service: u32,
) -> Word {
    let now = tables.now();
    let key = F::key(packet.source, ports.source, service);
    let hash = track::hash::<F, T>(tables, &key);
    let found = track::find::<F, T>(tables, &key, hash);
    let steady = match &found {
        Some(entry) if track::is_steady(entry.meta(), Heard::of(packet, ports), now) => {
            policy::present(tables, entry.target()).map(|server| (entry.target(), server))
        }
        Some(_) | None => Err(Word::REST),
    };
    let known = match steady {
        Ok(known) => Ok(known),
        Err(_) => unsteady(frame, tables, packet, ports, service, found),
    };
    let (id, server) = match known {
        Ok(known) => known,
        Err(verdict) => return verdict,
    };
    count_in(tables, id, packet.length);
    methods::forward(frame, packet, server, id)
}

/// The server of a packet that opens a connection, or that may change something of one.
#[inline(always)]
fn unsteady<'a, F: Family, P: Steps, T: Choices>(
    frame: &P,
    tables: &'a T,
    packet: &Packet<F>,
    ports: Ports,
    service: u32,
    found: Option<Entry<T::Words>>,
) -> Result<(u32, &'a Server), Word> {
    let settings = tables.settings().ok_or(Word::drop(Drop::Internal))?;
    let now = tables.now();
    let known = match found {
        Some(entry) => {
            let (protocol, flags) = (packet.protocol, ports.flags);
            let server = policy::lives(tables, settings, &entry, protocol, flags, now)?;
            server.map(|server| (entry, server))
        }
        None => None,
    };
    let Some((mut entry, server)) = known else {
        let id = open(frame, tables, packet, ports, service)?;
        return Ok((id, policy::present(tables, id)?));
    };
    let before = entry.meta();
    let state = track::follow(tables, settings, before, Heard::of(packet, ports), false);
    track::note::<F, T>(tables, &mut entry, state, now, false);
    if (ports.flags & flag::SYN) as u32 | track::turns(before, entry.meta()) != 0
        || may_have_settled(packet, before, now)
    {
        // The SYN was retransmitted, or the packet changes whether a new flow may displace the
        // entry: repair the way-back entry and the template.
        frame.begin(tables, ports, entry.target(), service);
    }
    Ok((entry.target(), server))
}

/// Whether an association's template may have to be assured, asked once a tick: only the server
/// makes an association established.
#[inline(always)]
fn may_have_settled<F: Family>(packet: &Packet<F>, before: connection::Meta, now: u32) -> bool {
    packet.is_sctp() && before.has(connection::Meta::CONTROLLED) && before.tick() != now
}

/// Handles a packet without a live entry. The server is chosen here; [`crate::open::begin`] enters
/// the connection.
#[inline(always)]
fn open<F: Family, P: Steps, T: Choices>(
    frame: &P,
    tables: &T,
    packet: &Packet<F>,
    ports: Ports,
    endpoint: u32,
) -> Result<u32, Word> {
    let service = lookup::service_of(tables, endpoint);
    let entry = tables.service(service).ok_or(Word::drop(Drop::Internal))?;
    if entry.flags & service_flag::PRESENT == 0 {
        return Err(Word::pass(Pass::NotOurs));
    }
    let mut id = NONE;
    if policy::opens(entry, packet, ports.flags) {
        if packet.part == Part::Later && entry.flags & service_flag::ONE_PACKET != 0 {
            // A later fragment goes to the server of the first one.
            return frame.one_packet(tables, NONE).open();
        }
        if entry.switches & service_switch::PEERS != 0
            && frame.forwarded(tables, service, F::words(packet.source))
        {
            return Err(Word::pass(Pass::Local));
        }
        if policy::is_unlucky(tables) {
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
            id = tables.recall::<F>(service, packet.source, NONE);
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
                id = tables.recall::<F>(service, packet.source, id);
            }
        }
        if id == NONE {
            return Err(policy::unserved(entry));
        }
        // A packet whose TTL ends here opens nothing, unless its server is the director itself.
        if ends && !policy::present(tables, id)?.is_director() {
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

/// Handles a packet from a masqueraded server: an answer to a client if its flow is known.
#[inline(always)]
fn from_server<F: Family, P: Steps, T: Choices>(
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
    // The flow is not masqueraded: it may be a call or translated, else it is the server's own.
    let Some(mut entry) = track::find::<F, T>(tables, &key, hash) else {
        return if settings.masquerades & nat::CALLS != 0 && packet.protocol == UDP {
            Word::call(endpoint)
        } else if settings.masquerades & nat::TRANSLATES != 0 {
            Word::translate(NONE)
        } else {
            policy::unasked(settings, packet, ports)
        };
    };
    let id = entry.target();
    let Some(server) = tables.server(id) else {
        return Word::drop(Drop::Internal);
    };
    if device::is_astray::<F, P, T>(frame, tables, server) {
        return Word::pass(Pass::WrongDevice);
    }
    if !server.is_present() && server.fate & fate::RESET != 0 {
        return policy::told(packet.protocol, ports.flags);
    }
    let telling = ports.flags & (flag::SYN | flag::FIN | flag::RST) != 0;
    if telling || entry.meta().tick() != now || packet.protocol != TCP {
        let service = with_port(server.service, ports.source);
        let flow = F::key(packet.target, ports.target, service);
        let heard = Heard::of(packet, ports);
        let Some(told) = track::tell::<F, T>(tables, settings, &flow, id, heard) else {
            // The connection has ended, or is being replaced: the daemon's sweep removes the
            // way-back entry.
            return policy::unasked(settings, packet, ports);
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
