//! Endpoints that also match the origin of a packet: a network of clients, an input device, or
//! both.
//!
//! The walk looks here only if rules ask for an origin, and only for a packet that matches no
//! ordinary endpoint. The narrowest rule wins: first a port before every port, then a device before
//! any device, then the longest prefix of the source.

use crate::reread::reread;
use crate::steps::Choices;
use crate::table::Tables;
use crate::table::entry::{NONE, kind, with_port};
use crate::table::family::Family;
use crate::table::origin::{OriginKey, wide_flag};
use crate::wire::frame::Frame;
use crate::wire::packet::Packet;

/// The endpoint that matches the origin of this frame, else the endpoint of every port, else
/// [`NONE`]. `word` is the frame's [`crate::entry::endpoint_word`]. Parses the frame again: in the
/// kernel this is a separate function.
#[inline(always)]
pub fn of_frame<P: Frame, T: Choices>(frame: &P, tables: &T, word: u32) -> u32 {
    let interface = frame.interface();
    reread!(
        frame,
        tables,
        |packet: F| or_wide::<F, T>(tables, &packet, word, interface),
        NONE
    )
}

#[inline(always)]
fn or_wide<F: Family, T: Choices>(
    tables: &T,
    packet: &Packet<F>,
    word: u32,
    interface: u32,
) -> u32 {
    match tables.find_origin::<F>(packet.target, word, packet.source, interface) {
        NONE => tables.wide::<F>(packet.target, word),
        id => id,
    }
}

/// The endpoint of a target for packets from this source and interface, or [`NONE`].
#[inline(always)]
pub fn find<F: Family, T: Tables>(
    tables: &T,
    target: F::Address,
    word: u32,
    source: F::Address,
    interface: u32,
) -> u32 {
    let Some(settings) = tables.settings() else {
        return NONE;
    };
    // Most packets that come here match no endpoint, and this look-up is the cheapest way to know.
    let address = word & 0x00ff_0000 | (kind::ADDRESS as u32) << 24;
    if F::endpoint(tables, target, address) == NONE {
        return NONE;
    }
    let mut key = OriginKey::new::<F>(target, word, source, interface);
    if settings.wide & wide_flag::ORIGIN_PORT != 0 {
        let id = by_device(tables, settings.wide, &mut key);
        if id != NONE {
            return id;
        }
    }
    if settings.wide & wide_flag::ORIGIN_EVERY_PORT == 0 {
        return NONE;
    }
    let mut key = OriginKey::new::<F>(target, word & !0xffff, source, interface);
    match by_device(tables, settings.wide, &mut key) {
        NONE => NONE,
        id => with_port(id, word as u16),
    }
}

#[inline(always)]
fn by_device<T: Tables>(tables: &T, wide: u32, key: &mut OriginKey) -> u32 {
    if wide & wide_flag::ORIGIN_DEVICE != 0 {
        let id = tables.origin(key);
        if id != NONE {
            return id;
        }
    }
    key.interface &= OriginKey::V6;
    tables.origin(key)
}
