//! A masqueraded server that is the director itself, at another address or port than the service.
//!
//! Packets for the server are rewritten and passed to the kernel. Its answers arrive by no device,
//! so a separate program translates them on egress; it is attached only while there is such a
//! server ([`nat::HERE`]). A server with a loopback address serves only processes on the director:
//! packets that arrive by a device are dropped (`ip_vs_nat_xmit`).

use crate::fragment;
use crate::icmp;
use crate::method as methods;
use crate::reread::reread;
use crate::steps::{Choices, Steps};
use crate::table::entry::{NONE, Server, endpoint_word, kind, method, nat, with_port};
use crate::table::family::Family;
use crate::table::lookup;
use crate::track::{self, Heard};
use crate::traffic;
use crate::verdict::{Drop, Pass, Word};
use crate::wire::frame::Frame;
use crate::wire::packet::{ICMP, ICMPV6, Packet, Part};

/// Rewrites a client's packet and passes it to the kernel.
#[inline(always)]
pub fn deliver<F: Family, P: Frame>(frame: &mut P, packet: &Packet<F>, server: &Server) -> Word {
    if !F::may_be_client(F::from_words(server.address)) {
        return Word::drop(Drop::NoNextHop);
    }
    if methods::is_cut(packet, server) {
        return Word::drop(Drop::CutChecksum);
    }
    match methods::exchange::<F, P>(frame, packet, server, false) {
        Some(()) => Word::pass(Pass::Local),
        None => Word::drop(Drop::NoRoom),
    }
}

/// The verdict for a frame that leaves the machine: [`Pass::Local`] for an answer, which is
/// translated. A frame that is no such answer stays as it is.
#[inline(always)]
pub fn leave<P: Steps, T: Choices>(frame: &mut P, tables: &T) -> Word {
    let not_ours = Word::pass(Pass::NotOurs);
    match tables.settings() {
        Some(settings) if settings.masquerades & nat::HERE != 0 => {}
        _ => return not_ours,
    }
    reread!(
        frame,
        tables,
        |packet: F| answer::<F, P, T>(frame, tables, &packet),
        not_ours
    )
}

#[inline(always)]
fn answer<F: Family, P: Steps, T: Choices>(frame: &mut P, tables: &T, packet: &Packet<F>) -> Word {
    let not_ours = Word::pass(Pass::NotOurs);
    if packet.protocol == if F::V6 { ICMPV6 } else { ICMP } {
        return Word::RELATED;
    }
    let Ok(ports) = fragment::ports(frame, tables, packet) else {
        return not_ours;
    };
    let Some(settings) = tables.settings() else {
        return not_ours;
    };
    let word = endpoint_word(ports.source, packet.protocol, kind::MASQUERADED);
    let endpoint = lookup::endpoint::<F, T>(tables, settings, packet.source, word);
    if endpoint == NONE {
        return not_ours;
    }
    if packet.part == Part::First {
        frame.first(tables);
    }
    let now = tables.now();
    let key = F::key(packet.target, ports.target, endpoint);
    let hash = track::hash::<F, T>(tables, &key);
    let Some(mut entry) = track::find::<F, T>(tables, &key, hash) else {
        return not_ours;
    };
    let id = entry.target();
    let Some(server) = tables.server(id) else {
        return not_ours;
    };
    if server.method != method::HERE {
        return not_ours;
    }
    let flow = F::key(
        packet.target,
        ports.target,
        with_port(server.service, ports.source),
    );
    let heard = Heard::of(packet, ports);
    let Some(told) = track::tell::<F, T>(tables, settings, &flow, id, heard) else {
        return not_ours;
    };
    let meta = track::way_back(settings, entry.meta(), told.yields(), now);
    if meta != entry.meta() {
        entry.update::<F::Layout>(meta);
    }
    if methods::is_cut(packet, server) {
        return Word::drop(Drop::CutChecksum);
    }
    traffic::count_out(tables, server, id, packet.length);
    match methods::exchange::<F, P>(frame, packet, server, true) {
        Some(()) => Word::pass(Pass::Local),
        None => Word::drop(Drop::NoRoom),
    }
}

/// Runs [`leave`], and [`icmp::follow`] for an ICMP error of the machine's own stack about a
/// client's packet. In the kernel the two steps are separate functions.
pub fn run<P: Steps, T: Choices>(frame: &mut P, tables: &T) -> Word {
    let word = match leave(frame, tables) {
        Word::RELATED => icmp::follow(frame, tables),
        word => word,
    };
    // A step is for packets that arrive: the frame is no answer of such a server.
    if word.step().is_some() {
        return Word::pass(Pass::NotOurs);
    }
    word
}
