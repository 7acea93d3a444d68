//! Calls: templates of the SIP persistence engine, each of a client and a Call-ID.
//!
//! Only datagrams that open a connection to a service with that engine come here; in the kernel a
//! separate program handles them. [`id`] finds the Call-ID. A call names its server and lives as
//! long as a template does (`ip_vs_sched_persist`, `ip_vs_sip_ct_match`). A datagram without a
//! Call-ID is dropped, as in IPVS. A datagram that a masqueraded server sends by itself leaves from
//! the virtual address and becomes a call of that server (`ip_vs_new_conn_out`).

pub mod id;

use crate::claim;
use crate::connection::{self, Meta, TEMPLATE};
use crate::method as methods;
use crate::policy;
use crate::reread::reread;
use crate::schedule::Client;
use crate::steps::{Choices, Steps};
use crate::table::Tables;
use crate::table::call::{desk, word};
use crate::table::entry::{BACK, NONE, Server, Service, Settings, method, nat, service_flag};
use crate::table::family::Family;
use crate::table::flows::{self, Key, Words};
use crate::table::lookup;
use crate::template;
use crate::traffic;
use crate::verdict::{Bounce, Drop, Word};
use crate::way;
use crate::wire::packet::{self, Packet, Part, Ports, UDP};

/// Opens a connection to the server that [`choose`] returned for a packet, and forwards the packet.
/// If `endpoint` has [`BACK`], the server sent the packet. In the kernel, `choose` and `carry` are
/// two functions, called one after the other: nested, they exceed the stack of Linux 6.1.
#[inline(always)]
pub fn carry<P: Steps, T: Choices>(frame: &mut P, tables: &T, endpoint: u32, id: u32) -> Word {
    reread!(
        frame,
        tables,
        |packet: F| go_on::<F, P, T>(frame, tables, &packet, endpoint, id),
        Word::drop(Drop::Internal)
    )
}

#[inline(always)]
fn go_on<F: Family, P: Steps, T: Choices>(
    frame: &mut P,
    tables: &T,
    packet: &Packet<F>,
    endpoint: u32,
    id: u32,
) -> Word {
    let Some(ports) = packet::ports(frame, packet) else {
        return Word::drop(Drop::Internal);
    };
    let Some(server) = tables.server(id) else {
        return Word::drop(Drop::Internal);
    };
    let Some(service) = tables.service(lookup::service_of(tables, server.service)) else {
        return Word::drop(Drop::Internal);
    };
    let once = service.flags & service_flag::ONE_PACKET != 0;
    if endpoint & BACK != 0 {
        return to_client(frame, tables, packet, ports, server, id, once);
    }
    if packet.ttl <= 1 && !server.is_director() {
        return Word::answer(Bounce::TimeExceeded, 0);
    }
    let opened = if once && packet.part == Part::First {
        frame.one_packet(tables, id).open()
    } else if once {
        traffic::count_connection(tables, id);
        Ok(id)
    } else {
        let opened = claim::begin(frame, tables, packet, ports, id, endpoint);
        remember(tables, F::key(packet.source, ports.source, endpoint));
        opened
    };
    let server = opened.and_then(|id| Ok((id, policy::present(tables, id)?)));
    match server {
        Ok((id, server)) => {
            traffic::count_in(tables, id, packet.length);
            methods::forward(frame, packet, server, id)
        }
        Err(verdict) => verdict,
    }
}

/// Forwards the first packet of a call that a server began.
#[inline(always)]
fn to_client<F: Family, P: Steps, T: Choices>(
    frame: &mut P,
    tables: &T,
    packet: &Packet<F>,
    ports: Ports,
    server: &Server,
    id: u32,
    once: bool,
) -> Word {
    if once {
        traffic::count_connection(tables, id);
    } else {
        if let Err(verdict) = frame.start(tables, ports, id, server.service).open() {
            return verdict;
        }
        remember(tables, F::key(packet.target, ports.target, server.service));
    }
    let hop = F::route(tables, packet.target) & 0x3ff;
    let from = F::from_words(server.virtual_address);
    let Some(ways) = way::way_back::<F, P, T>(frame, tables, hop, from, packet.target) else {
        return Word::drop(Drop::NoWayBack);
    };
    if packet.ttl <= 1 {
        return Word::answer(Bounce::TimeExceeded, 0);
    }
    if methods::does_not_fit(frame, packet, ways.mtu(), 0) {
        return Word::answer(Bounce::TooBig, ways.mtu());
    }
    traffic::count_out(tables, server, id, packet.length);
    methods::back(frame, packet, server, &ways)
}

/// Stores a connection's key in the call whose key is on the desk.
#[inline(always)]
fn remember<T: Tables>(tables: &T, key: Key) {
    let Some(words) = tables.call() else {
        return;
    };
    let [a, b] = key.address;
    words.store(word::CONNECTION, key.first);
    words.store(word::CONNECTION.wrapping_add(1), a);
    words.store(word::CONNECTION.wrapping_add(2), b);
    words.store(word::CONNECTION.wrapping_add(3), key.tag);
}

/// The server of a packet's call, or the verdict if there is none. `endpoint` is the endpoint that
/// the packet is for. With [`BACK`] it is the endpoint of the masqueraded server that sent the
/// packet outside any known connection.
#[inline(always)]
pub fn choose<P: Steps, T: Choices>(frame: &P, tables: &T, endpoint: u32) -> Word {
    let chosen = reread!(
        frame,
        tables,
        |packet: F| of_packet::<F, P, T>(frame, tables, &packet, endpoint),
        Err(Word::drop(Drop::Internal))
    );
    match chosen {
        Ok(id) => Word::server(id),
        Err(verdict) => verdict,
    }
}

#[inline(always)]
fn of_packet<F: Family, P: Steps, T: Choices>(
    frame: &P,
    tables: &T,
    packet: &Packet<F>,
    endpoint: u32,
) -> Result<u32, Word> {
    let ports = packet::ports(frame, packet).ok_or(Word::drop(Drop::LostFragment))?;
    let settings = tables.settings().ok_or(Word::drop(Drop::Internal))?;
    if endpoint & BACK != 0 {
        let id = started::<F, P, T>(frame, tables, packet, endpoint);
        return if id == NONE {
            Err(not_started(settings, packet, ports))
        } else {
            Ok(id)
        };
    }
    let id = lookup::service_of(tables, endpoint);
    let service = tables.service(id).ok_or(Word::drop(Drop::Internal))?;
    if !is_read::<F, P, T>(frame, tables, packet, service, packet.source) {
        return Err(Word::drop(Drop::NoCallId));
    }
    let known = tables.recall_call(id, NONE);
    if known != NONE {
        return Ok(known);
    }
    let client = Client {
        address: F::folded(packet.source),
        port: u16::from_be(ports.source),
        target: F::words(packet.target),
    };
    let server = tables.schedule(id, client);
    if server == NONE {
        return Err(policy::unserved(service));
    }
    Ok(tables.recall_call(id, server))
}

/// The server that sent a packet outside any known connection, if its service has calls and the
/// packet has a Call-ID; or [`NONE`].
#[inline(always)]
fn started<F: Family, P: Steps, T: Choices>(
    frame: &P,
    tables: &T,
    packet: &Packet<F>,
    endpoint: u32,
) -> u32 {
    let id = tables.answerer(endpoint & !BACK);
    let Some(server) = tables.server(id) else {
        return NONE;
    };
    let number = lookup::service_of(tables, server.service);
    let Some(service) = tables.service(number) else {
        return NONE;
    };
    // Until the daemon writes the answerer again, it may name a deleted server or a reused id.
    let answers = server.method == method::MASQUERADE && server.endpoint == endpoint;
    if id == NONE || !answers || !server.is_present() {
        return NONE;
    }
    if service.flags & service_flag::CALLS == 0 {
        return NONE;
    }
    if !is_read::<F, P, T>(frame, tables, packet, service, packet.target) {
        return NONE;
    }
    if tables.recall_call(number, NONE) != id {
        tables.recall_call(number, id);
    }
    id
}

/// The verdict for an answer of no known connection, the same as in [`walk`].
#[inline(always)]
fn not_started<F: Family>(settings: &Settings, packet: &Packet<F>, ports: Ports) -> Word {
    if settings.masquerades & nat::TRANSLATES != 0 {
        Word::translate(NONE)
    } else {
        policy::unasked(settings, packet, ports)
    }
}

/// Puts the key of a packet's call on the desk; false if the packet has no Call-ID.
#[inline(always)]
fn is_read<F: Family, P: Steps, T: Tables>(
    frame: &P,
    tables: &T,
    packet: &Packet<F>,
    service: &Service,
    client: F::Address,
) -> bool {
    let Some(desk) = tables.desk() else {
        return false;
    };
    if packet.protocol != UDP || packet.part == Part::Later {
        return false;
    }
    let from = packet.l4.wrapping_add(8);
    let before = from.wrapping_sub(packet.l3) as u32;
    if packet.length <= before {
        return false;
    }
    let length = frame.identify(tables, from, packet.length.wrapping_sub(before));
    let [a, b] = template::masked::<F>(service, client);
    desk.store(desk::CLIENT, a);
    desk.store(desk::CLIENT.wrapping_add(1), b);
    desk.store(desk::NAMES, service.template as u64 | (length as u64) << 32);
    length != 0
}

/// The server of the call on the desk, or [`NONE`] if the call is unknown, expired or has no usable
/// server. If `server` is not [`NONE`], enters the call with this server and returns it. The
/// counterpart of [`template::recall`]; in the kernel a separate function.
#[inline(always)]
pub fn recall<T: Tables>(tables: &T, service: u32, server: u32) -> u32 {
    let Some(entry) = tables.service(service) else {
        return NONE;
    };
    let now = tables.now();
    let found = tables.call();
    if server != NONE {
        let value = flows::value(server, 0, Meta::template(now, entry.persistence, TEMPLATE));
        match found {
            Some(words) => {
                words.swap(word::VALUE, words.load(word::VALUE), value);
            }
            // If the table is full, this datagram is still forwarded, and the call's next datagram
            // is scheduled again.
            None => tables.enter_call(value),
        }
        return server;
    }
    let Some(words) = found else {
        return NONE;
    };
    let before = words.load(word::VALUE);
    let meta = Meta((before >> 32) as u32);
    if meta.age(now) > connection::TEMPLATE_LIVES {
        return NONE;
    }
    let id = template::named(tables, before as u32 & 0xff_ffff);
    let value =
        before & 0xffff_ffff | (Meta::template(now, entry.persistence, TEMPLATE).0 as u64) << 32;
    if id != NONE && value != before {
        words.swap(word::VALUE, before, value);
    }
    id
}
