//! Whose connection the answers of a masqueraded server to a port of a client are of.
//!
//! A client may reach one port of a server by two virtual addresses, or by two ports of one, from
//! the same port of its own. The answers of both connections look the same, and the server cannot
//! tell them apart either. The first has the answers for as long as it lives; the second is
//! refused. A connection that is closed gives way.

use crate::addressed;
use crate::connection;
use crate::entry::{NONE, Settings, endpoint_word, kind, method, nat, server_flag, with_port};
use crate::family::Family;
use crate::fate as fates;
use crate::flows::Words;
use crate::frame::Frame;
use crate::packet::{Packet, Ports};
use crate::reread::reread;
use crate::sctp;
use crate::tables::Tables;
use crate::track;
use crate::translation::{Tuple, ends, flag, word};
use crate::verdict::{Drop, Word};

/// Runs [`crate::open::begin`] for a packet, with the server that was chosen, unless another
/// connection has the answers.
#[inline(always)]
pub fn begin<F: Family, P: Frame, T: Tables>(
    frame: &P,
    tables: &T,
    packet: &Packet<F>,
    ports: Ports,
    id: u32,
    endpoint: u32,
) -> Result<u32, Word> {
    let refused = Word::drop(Drop::NoLocalPort);
    // The walk of packets that are not plain has no stack left for more on Linux 6.1.
    if !packet.plain {
        return frame.begin(tables, ports, id, endpoint).open();
    }
    let masquerades = tables.settings().map_or(0, |settings| settings.masquerades);
    if id != NONE && masquerades & nat::TRANSLATES != 0 && frame.taken(tables, ports.both(), id) {
        return Err(refused);
    }
    let mut word = frame.begin(tables, ports, id, endpoint);
    // Asked only where it may be so: it costs a new connection two look-ups.
    if word == refused && !frame.taken(tables, ports.both(), id) {
        word = frame.begin(tables, ports, id, endpoint);
    }
    word.open()
}

/// Whether the answers that this server would send in the connection of a client's packet (whose
/// ports these are, the source in the low half) are those of another server's entry, in a
/// connection that lives. One that does not, or is closed, is taken out. The frame is read anew: in
/// the kernel this is a function of its own.
#[inline(always)]
pub fn taken<P: Frame, T: Tables>(frame: &P, tables: &T, ports: u32, id: u32) -> bool {
    reread!(
        frame,
        tables,
        |packet: F| by::<F, T>(tables, packet.protocol, packet.source, ports, id),
        false
    )
}

#[inline(always)]
fn by<F: Family, T: Tables>(
    tables: &T,
    protocol: u8,
    client: F::Address,
    ports: u32,
    id: u32,
) -> bool {
    let (Some(server), Some(settings)) = (tables.server(id), tables.settings()) else {
        return false;
    };
    let translates = server.method == method::TRANSLATE;
    if server.method != method::MASQUERADE && !translates
        || server.flags & server_flag::FULL_NAT != 0
    {
        return false;
    }
    let asked = (ports >> 16) as u16;
    let port = if server.port == 0 { asked } else { server.port };
    // As the walk will look for the answers.
    let word = endpoint_word(port, protocol, kind::MASQUERADED);
    let address = F::from_words(server.address);
    let endpoint = addressed::endpoint::<F, T>(tables, settings, address, word);
    if endpoint != NONE {
        let key = F::key(client, ports as u16, endpoint);
        let hash = track::hash::<F, T>(tables, &key);
        if let Some(back) = track::find::<F, T>(tables, &key, hash)
            && back.target() != id
            && let Some(other) = tables.server(back.target())
        {
            let service = with_port(other.service, port);
            let flow = Flow {
                service,
                server: back.target(),
                protocol,
            };
            if lives::<F, T>(tables, settings, client, ports as u16, &flow) {
                return true;
            }
            back.remove::<F::Layout>(&key);
        }
    }
    if settings.masquerades & nat::TRANSLATES == 0 {
        return false;
    }
    let answer = Tuple {
        source: server.address,
        target: F::words(client),
        ends: ends(port, ports as u16, protocol, F::V6),
    };
    let Some(words) = tables.translation(&answer) else {
        return false;
    };
    let names = words.load(word::NAMES);
    let flow = Flow {
        service: names as u32,
        server: (names >> 32) as u32,
        protocol,
    };
    if flow.server == id {
        return false;
    }
    // Of single datagrams only the translation itself says that answers are due.
    words.load(word::TIME) & flag::ONE_PACKET != 0
        || lives::<F, T>(tables, settings, client, ports as u16, &flow)
}

/// A connection, but for its client.
struct Flow {
    service: u32,
    server: u32,
    protocol: u8,
}

/// Whether a connection lives. One that is closed is taken out.
#[inline(always)]
fn lives<F: Family, T: Tables>(
    tables: &T,
    settings: &Settings,
    client: F::Address,
    port: u16,
    flow: &Flow,
) -> bool {
    let key = F::key(client, port, flow.service);
    let hash = track::hash::<F, T>(tables, &key);
    let Some(entry) = track::find::<F, T>(tables, &key, hash) else {
        return false;
    };
    if entry.target() != flow.server {
        return false;
    }
    let now = tables.now();
    let stands = fates::lives(tables, settings, &entry, flow.protocol, 0, now);
    if matches!(stands, Ok(Some(_))) && !is_closed(entry.meta().state()) {
        return true;
    }
    // Nothing of it may reach the server among the packets of the next one.
    if entry.remove::<F::Layout>(&key) {
        track::release::<F, T>(tables, key.first, entry.value);
    }
    false
}

/// Whether both sides have closed, or one has at once.
#[inline(always)]
fn is_closed(state: connection::State) -> bool {
    const CLOSED: u32 = 1 << connection::TIME_WAIT | 1 << connection::CLOSE | 1 << sctp::CLOSED;
    CLOSED >> (state & 31) & 1 != 0
}
