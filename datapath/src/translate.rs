//! Packets of translated flows: full NAT, masquerading for firewall marks, and masquerading to a
//! fixed port for a service of every port.
//!
//! The walk finds the flow and its server and leaves the packet here: in the kernel to a separate
//! program, so that no other packet pays for it. A look-up by the packet's own addresses and ports
//! gives what it is rewritten to ([`Tuple`]); [`enter`] decides it for the first packet of a flow.
//! [`error`] handles ICMP errors; [`cross`] handles flows between IPv4 and IPv6.

pub mod announce;
pub mod cross;
pub mod disown;
pub mod enter;
pub mod error;
pub mod proxy;

use crate::connection::flag as tcp;
use crate::device;
use crate::fragment;
use crate::here;
use crate::method as methods;
use crate::policy;
use crate::reread::reread;
use crate::steps::{Choices, Steps};
use crate::table::Tables;
use crate::table::entry::{self, NONE, Server, server_flag};
use crate::table::family::Family;
use crate::table::flows::Words;
use crate::table::translation::{Tuple, ends, flag, word};
use crate::track::{self, Heard};
use crate::traffic;
use crate::verdict::{Bounce, Drop, Pass, Word};
use crate::way;
use crate::wire::checksum;
use crate::wire::frame::Frame;
use crate::wire::packet::{Packet, Part, Ports, TCP, UDP, checksum_at};

/// Added to a server's id: the packet has been through [`announce`] or [`proxy`] already.
pub const ANNOUNCED: u32 = 1 << 31;

/// Added to a server's id: the packet has been through [`disown`].
pub const DISOWNED: u32 = 1 << 30;

impl Tuple {
    /// The tuple of a packet.
    #[inline(always)]
    pub fn of<F: Family>(packet: &Packet<F>, ports: &Ports) -> Self {
        Self {
            source: F::words(packet.source),
            target: F::words(packet.target),
            ends: ends(ports.source, ports.target, packet.protocol, F::V6),
        }
    }
}

/// Takes a packet of a translated flow through all steps: to the server with this id or, with
/// [`NONE`], to its client.
#[inline(always)]
pub fn run<P: Steps, T: Choices>(frame: &mut P, tables: &T, server: u32) -> Word {
    let mut word = frame.translate(tables, server);
    if let Some(ports) = word.entering() {
        let service = frame.asked(tables, ports);
        word = frame.enter(tables, ports, server, service);
        if word.open().is_ok() {
            word = frame.translate(tables, server);
        }
    }
    let mut server = server;
    if word == Word::DISOWN {
        word = frame.disown(tables);
        if word.open().is_ok() {
            server |= DISOWNED;
            word = frame.translate(tables, server);
        }
    }
    if word == Word::ANNOUNCE {
        word = frame.announce(tables);
        if word.open().is_ok() {
            word = frame.translate(tables, server | ANNOUNCED);
        }
    }
    if word == Word::INTRODUCE {
        word = if server == NONE {
            frame.acknowledge(tables)
        } else {
            frame.introduce(tables)
        };
        if let Some(keeps) = word.putting() {
            word = frame.put(tables, keeps);
        }
        if word.open().is_ok() {
            word = frame.translate(tables, server | ANNOUNCED);
        }
    }
    word = match word.crossing() {
        Some(false) => frame.cross4(tables),
        Some(true) => frame.cross6(tables),
        None => word,
    };
    if word == Word::RELATED {
        word = frame.translate_error(tables);
        word = match word.crossing() {
            Some(false) => frame.cross_error4(tables),
            Some(true) => frame.cross_error6(tables),
            None => word,
        };
    }
    word
}

/// Forwards a packet of a translated flow: to the server with this id, or, with [`NONE`], an answer
/// to its client. Parses the frame again.
///
/// The returned word may ask for a step: [`Word::enter`] for [`enter::enter`], [`Word::ANNOUNCE`]
/// for [`announce`], [`Word::INTRODUCE`] for [`proxy`]. Afterwards this function is called again,
/// with [`ANNOUNCED`] after the latter two. [`Word::RELATED`] leaves an ICMP message to
/// [`error::follow`]. [`Word::cross`] leaves a packet to [`cross`] if its other end is of the other
/// family.
#[inline(always)]
pub fn carry<P: Steps, T: Choices>(frame: &mut P, tables: &T, server: u32) -> Word {
    reread!(
        frame,
        tables,
        |packet: F| either::<F, P, T>(frame, tables, &packet, server),
        Word::drop(Drop::Internal)
    )
}

#[inline(always)]
fn either<F: Family, P: Steps, T: Choices>(
    frame: &mut P,
    tables: &T,
    packet: &Packet<F>,
    server: u32,
) -> Word {
    if packet.protocol != TCP && packet.protocol != UDP && !packet.is_sctp() {
        return Word::RELATED;
    }
    let ports = match fragment::ports(frame, tables, packet) {
        Ok(ports) => ports,
        Err(verdict) => return verdict,
    };
    let tuple = Tuple::of(packet, &ports);
    if server & !(ANNOUNCED | DISOWNED) == NONE {
        to_client(frame, tables, packet, ports, &tuple, server)
    } else {
        to_server(frame, tables, packet, ports, &tuple, server)
    }
}

#[inline(always)]
fn to_server<F: Family, P: Frame, T: Tables>(
    frame: &mut P,
    tables: &T,
    packet: &Packet<F>,
    ports: Ports,
    tuple: &Tuple,
    id: u32,
) -> Word {
    let (id, announced, disowned) = (id & !(ANNOUNCED | DISOWNED), id & ANNOUNCED, id & DISOWNED);
    let Some(server) = tables.server(id) else {
        return Word::drop(Drop::Internal);
    };
    if server.method == entry::method::HERE {
        return here::deliver(frame, packet, server);
    }
    if !server.ways.is_usable() {
        return Word::drop(Drop::NoNextHop);
    }
    if packet.ttl <= 1 {
        return Word::answer(Bounce::TimeExceeded, 0);
    }
    let crosses = (server.flags & server_flag::IPV6 != 0) != F::V6;
    let mtu = if crosses {
        cross::limit(packet, server.ways.mtu())
    } else {
        server.ways.mtu()
    };
    if methods::does_not_fit(frame, packet, mtu, 0) {
        return Word::answer(Bounce::TooBig, mtu);
    }
    let words = tables.translation(tuple);
    let Some(words) = words.filter(|words| leads_to(*words, server, id)) else {
        return Word::enter(ports);
    };
    let time = words.load(word::TIME);
    let asks = ports.flags & (tcp::SYN | tcp::ACK) == tcp::SYN;
    if asks && disowned == 0 && packet.protocol == TCP && server.flags & server_flag::FULL_NAT != 0
    {
        return Word::DISOWN;
    }
    let opening = asks && ports.flags & tcp::RST == 0;
    if opening && announced == 0 && time & flag::TOA != 0 {
        return Word::ANNOUNCE;
    }
    if is_cut(packet, ports, words) {
        return Word::drop(Drop::CutChecksum);
    }
    if announced == 0 && time & flag::PROXY != 0 {
        return Word::INTRODUCE;
    }
    touch(words, tables.now());
    if crosses {
        return Word::cross(F::V6);
    }
    let done = rewrite::<F, P, T::Words>(frame, packet, words);
    methods::finish(frame, done, &server.ways)
}

/// Whether a translation leads to the other family.
#[inline(always)]
fn crosses<F: Family, W: Words>(words: W) -> bool {
    (words.load(word::ENDS) >> 40 & 1 != 0) != F::V6
}

/// Whether a translation leads to this server. Its id may have been another server's before.
#[inline(always)]
fn leads_to<W: Words>(words: W, server: &Server, id: u32) -> bool {
    let port = (words.load(word::ENDS) >> 16) as u16;
    (words.load(word::NAMES) >> 32) as u32 == id
        && words.load(word::TARGET) == server.address[0]
        && words.load(word::TARGET.wrapping_add(1)) == server.address[1]
        && (server.port == 0 || server.port == port)
}

/// Notes that a translation is in use.
#[inline(always)]
fn touch<W: Words>(words: W, now: u32) {
    let before = words.load(word::TIME);
    if before as u32 != now {
        words.store(word::TIME, before & flag::ALL | now as u64);
    }
}

#[inline(always)]
fn to_client<F: Family, P: Steps, T: Choices>(
    frame: &mut P,
    tables: &T,
    packet: &Packet<F>,
    ports: Ports,
    tuple: &Tuple,
    announced: u32,
) -> Word {
    let Some(settings) = tables.settings() else {
        return Word::drop(Drop::Internal);
    };
    let Some(words) = tables.translation(tuple) else {
        return policy::unasked(settings, packet, ports);
    };
    let time = words.load(word::TIME);
    if time & flag::FORWARD != 0 {
        return Word::pass(Pass::NotOurs);
    }
    if announced == 0 && time & flag::PROXY != 0 {
        return Word::INTRODUCE;
    }
    if crosses::<F, T::Words>(words) {
        return Word::cross(F::V6);
    }
    let now = tables.now();
    let names = words.load(word::NAMES);
    let id = (names >> 32) as u32;
    let Some(server) = tables.server(id) else {
        return Word::drop(Drop::Internal);
    };
    if device::is_astray::<F, P, T>(frame, tables, server) {
        return Word::pass(Pass::WrongDevice);
    }
    if !server.is_present() && server.fate & entry::fate::RESET != 0 {
        return policy::told(packet.protocol, ports.flags);
    }
    let client = address::<F, T::Words>(words, word::TARGET);
    let telling = ports.flags & (tcp::SYN | tcp::FIN | tcp::RST) != 0;
    let must_tell = telling || time as u32 != now || packet.protocol != TCP;
    if must_tell && time & flag::ONE_PACKET == 0 {
        let port = (words.load(word::ENDS) >> 16) as u16;
        let key = F::key(client, port, names as u32);
        let heard = Heard::of(packet, ports);
        if track::tell::<F, T>(tables, settings, &key, id, heard).is_none() {
            // The connection has ended: the daemon's sweep removes the translation.
            return policy::unasked(settings, packet, ports);
        }
    }
    touch(words, now);
    let hop = F::route(tables, client) & 0x3ff;
    let from = address::<F, T::Words>(words, word::SOURCE);
    let Some(ways) = way::way_back::<F, P, T>(frame, tables, hop, from, client) else {
        return Word::drop(Drop::NoWayBack);
    };
    if packet.ttl <= 1 {
        return Word::answer(Bounce::TimeExceeded, 0);
    }
    if methods::does_not_fit(frame, packet, ways.mtu(), 0) {
        return Word::answer(Bounce::TooBig, ways.mtu());
    }
    if is_cut(packet, ports, words) {
        return Word::drop(Drop::CutChecksum);
    }
    traffic::count_out(tables, server, id, packet.length);
    let done = rewrite::<F, P, T::Words>(frame, packet, words);
    methods::finish(frame, done, &ways)
}

/// An address of a translation.
#[inline(always)]
fn address<F: Family, W: Words>(words: W, at: usize) -> F::Address {
    F::from_words([words.load(at), words.load(at.wrapping_add(1))])
}

/// Whether a packet is a fragment whose checksum would have to be updated ([`methods::is_cut`]).
#[inline(always)]
fn is_cut<F: Family, W: Words>(packet: &Packet<F>, ports: Ports, words: W) -> bool {
    packet.is_sctp() && packet.part != Part::Whole && words.load(word::ENDS) as u32 != ports.both()
}

/// Writes both addresses and ports, updates the checksums and decrements the TTL.
#[inline(always)]
fn rewrite<F: Family, P: Frame, W: Words>(
    frame: &mut P,
    packet: &Packet<F>,
    words: W,
) -> Option<()> {
    let source = address::<F, W>(words, word::SOURCE);
    let target = address::<F, W>(words, word::TARGET);
    let delta = checksum::add(
        checksum::change(F::sum(packet.source), F::sum(source)),
        checksum::change(F::sum(packet.target), F::sum(target)),
    );
    let ports = words.load(word::ENDS) as u32;
    if packet.is_sctp() {
        if packet.part == Part::Whole {
            methods::associate::<F, P>(frame, packet, ports)?;
        }
    } else if packet.part != Part::Later {
        let mut header = frame.edit::<8>(packet.l4)?;
        let before = header.view().u32::<0>();
        header.set_u32::<0>(ports);
        frame.carry(checksum_at(packet), delta, checksum::change(before, ports));
    }
    addresses::<F, P>(frame, packet.l3, source, target, delta)?;
    methods::count_down::<F, P>(frame, packet.l3)
}

/// Writes both addresses into a network header. `delta` is what they add to its checksum.
#[inline(always)]
fn addresses<F: Family, P: Frame>(
    frame: &mut P,
    l3: usize,
    source: F::Address,
    target: F::Address,
    delta: u32,
) -> Option<()> {
    let ([a, b], [c, d]) = (F::words(source), F::words(target));
    if F::V6 {
        let mut ip = frame.edit::<40>(l3)?;
        ip.set_u64::<8>(a);
        ip.set_u64::<16>(b);
        ip.set_u64::<24>(c);
        ip.set_u64::<32>(d);
    } else {
        let mut ip = frame.edit::<20>(l3)?;
        ip.set_u32::<12>(a as u32);
        ip.set_u32::<16>(c as u32);
        let sum = checksum::update(ip.view().u16::<10>(), delta);
        ip.set_u16::<10>(sum);
    }
    Some(())
}
