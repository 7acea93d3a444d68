//! The first packet of a translated flow: chooses its local address and port.
//!
//! The key of the answers is entered only if it is free, which only one packet can do. So whole
//! tuples are unique, and one local port serves one flow at each server.

use crate::reread::reread;
use crate::steps::{Choices, Steps};
use crate::table::entry::{NONE, Server, endpoint_word, kind, server_flag, service_flag};
use crate::table::family::Family;
use crate::table::flows::Words;
use crate::table::hash;
use crate::table::lookup;
use crate::table::translation::{Translation, Tuple, ends, flag, word};
use crate::table::{Tables, entered};
use crate::verdict::{Drop, Word};
use crate::wire::frame::Frame;
use crate::wire::link;
use crate::wire::packet::{Packet, Ports};

/// Local ports that are tried for a flow. With four of five in use, one flow in 1,200 finds none
/// free.
pub const TRIES: u32 = 32;

/// The endpoint in the key of a packet's flow; [`NONE`] without a service. In the kernel this is a
/// separate function beside [`enter`], since together they exceed the stack.
#[inline(always)]
pub fn asked<P: Steps, T: Choices>(frame: &P, tables: &T, ports: Ports) -> u32 {
    let Some(settings) = tables.settings() else {
        return NONE;
    };
    reread!(
        frame,
        tables,
        |packet: F| {
            let word = endpoint_word(ports.target, packet.protocol, kind::SERVICE);
            lookup::service::<F, P, T>(frame, tables, settings, packet.target, word)
        },
        NONE
    )
}

/// Enters both translations of a flow to this server, or returns a verdict. `service` is what
/// [`asked`] returned. Parses the frame again: in the kernel this is a separate function.
#[inline(always)]
pub fn enter<P: Frame, T: Tables>(
    frame: &P,
    tables: &T,
    ports: Ports,
    id: u32,
    service: u32,
) -> Word {
    let Some(server) = tables.server(id) else {
        return Word::drop(Drop::Internal);
    };
    // Both families share one tuple from here on, since each would take stack of its own.
    let given = reread!(
        frame,
        tables,
        |packet: F| Some(given::<F, P, T>(frame, tables, &packet, ports)),
        None
    );
    let service = service as u64;
    match given {
        Some(given) => both(tables, &Flow { given, service }, server, id),
        None => Word::drop(Drop::Internal),
    }
}

/// A flow to be entered: the tuple of its packets, and the endpoint in its key.
struct Flow {
    given: Tuple,
    service: u64,
}

#[inline(always)]
fn given<F: Family, P: Frame, T: Tables>(
    frame: &P,
    tables: &T,
    packet: &Packet<F>,
    ports: Ports,
) -> Tuple {
    if F::route(tables, packet.source) & 0x3ff == 0
        && let Some(ways) = link::came_from(frame)
    {
        tables.learn(F::words(packet.source), ways);
    }
    Tuple::of(packet, &ports)
}

#[inline(always)]
fn both<T: Tables>(tables: &T, flow: &Flow, server: &Server, id: u32) -> Word {
    let given = &flow.given;
    let mut translation = Translation {
        to: given.turned(),
        names: flow.service | (id as u64) << 32,
        time: tables.now() as u64 | flags::<T>(tables, flow.service as u32, server),
        ..Translation::default()
    };
    let port = if server.port == 0 {
        given.target_port()
    } else {
        server.port
    };
    // The server answers in its own family.
    let v6 = server.flags & server_flag::IPV6 != 0;
    // The key of the answers. It has the client's own address and port unless full NAT draws
    // others.
    let mut answer = Tuple {
        source: server.address,
        target: given.source,
        ends: ends(port, given.source_port(), given.protocol(), v6),
    };
    let found = if server.flags & server_flag::FULL_NAT == 0 {
        claim(tables, &answer, &translation)
    } else {
        draw(tables, &mut answer, &translation)
    };
    if found != entered::DONE {
        return Word::drop(refused(found));
    }
    translation.to = answer.turned();
    translation.time |= flag::FORWARD;
    settle(tables, given, &answer, &translation, server)
}

#[inline(always)]
fn flags<T: Tables>(tables: &T, service: u32, server: &Server) -> u64 {
    let mut flags = 0;
    if server.flags & server_flag::FULL_NAT != 0 {
        flags |= flag::LOCAL;
    }
    let service = tables.service(lookup::service_of(tables, service));
    let asked = service.map_or(0, |service| service.flags);
    if asked & service_flag::ONE_PACKET != 0 {
        flags |= flag::ONE_PACKET;
    }
    if asked & service_flag::TOA != 0 {
        flags |= (flags & flag::LOCAL) << 2;
    }
    if asked & service_flag::PROXY != 0 {
        flags |= (flags & flag::LOCAL) << 3;
    }
    flags
}

/// Enters the translation of answers, unless another flow has this key. Returns a code of
/// [`entered`].
#[inline(always)]
fn claim<T: Tables>(tables: &T, answer: &Tuple, translation: &Translation) -> u32 {
    let done = tables.translate(answer, translation, true);
    if done != entered::THERE {
        return done;
    }
    let Some(words) = tables.translation(answer) else {
        return entered::THERE;
    };
    // The key belongs to this flow: an earlier connection or another CPU entered it.
    if same(words, &translation.to) {
        words.store(word::NAMES, translation.names);
        words.store(word::TIME, translation.time);
        return entered::DONE;
    }
    entered::THERE
}

#[inline(always)]
fn same<W: Words>(words: W, to: &Tuple) -> bool {
    words.load(word::SOURCE) == to.source[0]
        && words.load(word::SOURCE.wrapping_add(1)) == to.source[1]
        && words.load(word::TARGET) == to.target[0]
        && words.load(word::TARGET.wrapping_add(1)) == to.target[1]
        && words.load(word::ENDS) == to.ends
}

/// Draws local addresses and ports until one is free at this server, and writes it into `answer`.
#[inline(always)]
fn draw<T: Tables>(tables: &T, answer: &mut Tuple, translation: &Translation) -> u32 {
    let v6 = answer.is_v6();
    let count = tables.local(v6, 0).map_or(0, |first| first.count);
    if count == NONE {
        return entered::THERE;
    }
    let seed = tables.shape().seed;
    let mut drawn = hash::wide(answer.target, answer.ends & 0xffff_ffff, seed);
    let (mut found, ends) = (entered::THERE, answer.ends & !0xffff_0000);
    tables.repeat(TRIES, |_| {
        drawn = hash::wide(answer.source, 0, drawn ^ seed);
        let number = ((drawn & 0xffff_ffff).wrapping_mul(count as u64) >> 32) as u32;
        let Some(local) = tables.local(v6, number) else {
            return false;
        };
        let within = (drawn >> 32).wrapping_mul(local.ports as u64) >> 32;
        let port = (local.first as u16).wrapping_add(within as u16).to_be();
        answer.target = local.address;
        answer.ends = ends | (port as u64) << 16;
        found = claim(tables, answer, translation);
        found == entered::THERE
    });
    found
}

/// Enters the translation of the client's packets. If another CPU entered the same flow first, its
/// choice stands.
#[inline(always)]
fn settle<T: Tables>(
    tables: &T,
    given: &Tuple,
    answer: &Tuple,
    translation: &Translation,
    server: &Server,
) -> Word {
    let mut done = tables.translate(given, translation, true);
    if done == entered::THERE {
        let before = tables.translation(given);
        let id = (translation.names >> 32) as u32;
        if let Some(words) = before
            && super::leads_to(words, server, id)
        {
            if !same(words, &translation.to) {
                tables.forget_translation(answer);
            }
            return Word::server(id);
        }
        // This translation belongs to an earlier connection to another server. The sweep removes
        // the entry of its answers.
        done = tables.translate(given, translation, false);
    }
    if done != entered::DONE {
        tables.forget_translation(answer);
        return Word::drop(refused(done));
    }
    Word::server((translation.names >> 32) as u32)
}

/// Why a translation was not entered.
#[inline(always)]
fn refused(code: u32) -> Drop {
    if code == entered::THERE {
        Drop::NoLocalPort
    } else {
        Drop::NoTranslation
    }
}
