//! IPsec: ESP and AH packets follow the connection of the IKE daemons, UDP from port 500 to port
//! 500, as in `ah_esp_conn_in_get` (net/netfilter/ipvs/ip_vs_proto_ah_esp.c).
//!
//! They have no ports, open no connection and change no state. Masquerading rewrites only their
//! address. In the kernel this is a separate program.

use crate::method as methods;
use crate::policy;
use crate::reread::reread;
use crate::steps::{Choices, Steps};
use crate::table::Tables;
use crate::table::entry::{NONE, Settings, endpoint_word, kind, method, with_port};
use crate::table::family::Family;
use crate::table::lookup;
use crate::track::{self, Heard};
use crate::traffic;
use crate::verdict::{Bounce, Drop, Pass, Word};
use crate::way;
use crate::wire::frame::Frame;
use crate::wire::packet::{Packet, Part, Ports, UDP};

/// ESP's protocol number (RFC 4303).
pub const ESP: u8 = 50;
/// AH's protocol number (RFC 4302).
pub const AH: u8 = 51;

/// `PORT_ISAKMP`, in wire order (RFC 7296, 2).
const IKE: u16 = 500u16.to_be();

/// Forwards a packet that the walk has left as [`Word::SECURED`]. Parses the frame again.
#[inline(always)]
pub fn carry<P: Steps, T: Choices>(frame: &mut P, tables: &T) -> Word {
    reread!(
        frame,
        tables,
        |packet: F| either::<F, P, T>(frame, tables, &packet),
        Word::drop(Drop::Internal)
    )
}

#[inline(always)]
fn either<F: Family, P: Steps, T: Choices>(frame: &mut P, tables: &T, packet: &Packet<F>) -> Word {
    let Some(settings) = tables.settings() else {
        return Word::drop(Drop::Internal);
    };
    // The packet is treated as a later fragment: nothing behind its network header is read or
    // written.
    let packet = &Packet {
        part: Part::Later,
        ..*packet
    };
    let word = endpoint_word(IKE, UDP, kind::SERVICE);
    let service = lookup::service::<F, P, T>(frame, tables, settings, packet.target, word);
    if service != NONE {
        return to_server(frame, tables, packet, settings, service);
    }
    if settings.masquerades != 0 {
        let word = endpoint_word(IKE, UDP, kind::MASQUERADED);
        let endpoint = lookup::endpoint::<F, T>(tables, settings, packet.source, word);
        if endpoint != NONE {
            return to_client(frame, tables, packet, settings, endpoint);
        }
    }
    Word::pass(Pass::NotOurs)
}

#[inline(always)]
fn to_server<F: Family, P: Frame, T: Tables>(
    frame: &mut P,
    tables: &T,
    packet: &Packet<F>,
    settings: &Settings,
    service: u32,
) -> Word {
    let now = tables.now();
    let key = F::key(packet.source, IKE, service);
    let hash = track::hash::<F, T>(tables, &key);
    let Some(mut entry) = track::find::<F, T>(tables, &key, hash) else {
        return Word::pass(Pass::NotOurs);
    };
    let server = match policy::lives(tables, settings, &entry, UDP, 0, now) {
        Ok(Some(server)) => server,
        Ok(None) => return Word::pass(Pass::NotOurs),
        Err(verdict) => return verdict,
    };
    if server.method == method::TRANSLATE {
        return Word::pass(Pass::NotOurs);
    }
    let state = entry.meta().state();
    track::note::<F, T>(tables, &mut entry, state, now, false);
    let id = entry.target();
    traffic::count_in(tables, id, packet.length);
    methods::forward(frame, packet, server, id)
}

#[inline(always)]
fn to_client<F: Family, P: Steps, T: Choices>(
    frame: &mut P,
    tables: &T,
    packet: &Packet<F>,
    settings: &Settings,
    endpoint: u32,
) -> Word {
    let now = tables.now();
    let key = F::key(packet.target, IKE, endpoint);
    let hash = track::hash::<F, T>(tables, &key);
    let Some(mut entry) = track::find::<F, T>(tables, &key, hash) else {
        return Word::pass(Pass::NotOurs);
    };
    let id = entry.target();
    let Some(server) = tables.server(id) else {
        return Word::drop(Drop::Internal);
    };
    let flow = F::key(packet.target, IKE, with_port(server.service, IKE));
    let ports = Ports {
        source: IKE,
        target: IKE,
        flags: 0,
    };
    let heard = Heard::of(packet, ports);
    let Some(told) = track::tell::<F, T>(tables, settings, &flow, id, heard) else {
        return Word::pass(Pass::NotOurs);
    };
    let meta = track::way_back(settings, entry.meta(), told.yields(), now);
    if meta != entry.meta() {
        entry.update::<F::Layout>(meta);
    }
    let hop = entry.meta().low();
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
