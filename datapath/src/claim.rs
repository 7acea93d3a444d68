//! Which connection has the answers of a masqueraded server to a client's port.
//!
//! A client may use one source port for two connections that lead to the same port of a server, by
//! two virtual addresses or by two ports of one address. The server's answers have the same tuple
//! in both, and the server cannot distinguish the connections either. The first connection has the
//! answers while it lives, and the second is refused. A first connection that is expired or closed
//! is removed.

use crate::connection;
use crate::connection::sctp;
use crate::policy;
use crate::reread::reread;
use crate::steps::{Choices, Steps};
use crate::table::Tables;
use crate::table::entry::{
    NONE, Settings, endpoint_word, kind, method, nat, server_flag, with_port,
};
use crate::table::family::Family;
use crate::table::flows::Words;
use crate::table::lookup;
use crate::table::translation::{Tuple, ends, flag, word};
use crate::track;
use crate::verdict::{Drop, Word};
use crate::wire::frame::Frame;
use crate::wire::packet::{Packet, Ports};

/// Runs [`crate::open::begin`] for a packet and server `id`. Drops the packet if another connection
/// has the server's answers.
#[inline(always)]
pub fn begin<F: Family, P: Steps, T: Choices>(
    frame: &P,
    tables: &T,
    packet: &Packet<F>,
    ports: Ports,
    id: u32,
    endpoint: u32,
) -> Result<u32, Word> {
    let refused = Word::drop(Drop::NoLocalPort);
    // For a packet that is not plain, the walk has no stack left for `taken` on Linux 6.1.
    if !packet.plain {
        return frame.begin(tables, ports, id, endpoint).open();
    }
    let masquerades = tables.settings().map_or(0, |settings| settings.masquerades);
    if id != NONE && masquerades & nat::TRANSLATES != 0 && frame.taken(tables, ports.both(), id) {
        return Err(refused);
    }
    let mut word = frame.begin(tables, ports, id, endpoint);
    // `taken` costs two look-ups, so without translations it runs only after a refusal.
    if word == refused && !frame.taken(tables, ports.both(), id) {
        word = frame.begin(tables, ports, id, endpoint);
    }
    word.open()
}

/// Whether a live connection of another server's entry has the answers that server `id` would send
/// for this frame. `ports` are the frame's, with the source in the low half. Removes such an entry
/// if its connection is expired or closed. Reads the frame again: in the kernel this is a separate
/// function.
#[inline(always)]
pub fn taken<P: Frame, T: Choices>(frame: &P, tables: &T, ports: u32, id: u32) -> bool {
    reread!(
        frame,
        tables,
        |packet: F| by::<F, T>(tables, packet.protocol, packet.source, ports, id),
        false
    )
}

#[inline(always)]
fn by<F: Family, T: Choices>(
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
    // The walk looks up answers by the same key.
    let word = endpoint_word(port, protocol, kind::MASQUERADED);
    let address = F::from_words(server.address);
    let endpoint = lookup::endpoint::<F, T>(tables, settings, address, word);
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
    // A datagram of a one-packet service has no flow's entry: only its translation shows that an
    // answer is due.
    words.load(word::TIME) & flag::ONE_PACKET != 0
        || lives::<F, T>(tables, settings, client, ports as u16, &flow)
}

/// A connection without its client's address and port.
struct Flow {
    service: u32,
    server: u32,
    protocol: u8,
}

/// Whether a connection lives. Removes its entry if it is expired or closed.
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
    let stands = policy::lives(tables, settings, &entry, flow.protocol, 0, now);
    if matches!(stands, Ok(Some(_))) && !is_closed(entry.meta().state()) {
        return true;
    }
    // Packets of the ended connection must not reach the server among those of its successor.
    if entry.remove::<F::Layout>(&key) {
        track::release::<F, T>(tables, key.first, entry.value);
    }
    false
}

/// Whether both sides have closed the connection, or one has reset it.
#[inline(always)]
fn is_closed(state: connection::State) -> bool {
    const CLOSED: u32 = 1 << connection::TIME_WAIT | 1 << connection::CLOSE | 1 << sctp::CLOSED;
    CLOSED >> (state & 31) & 1 != 0
}
