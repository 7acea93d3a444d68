//! What settings say of a packet that no living connection answers for: whether it opens one,
//! whether the connection of a server that is gone or quiesced still stands, and who is told.

use crate::connection::{self, flag};
use crate::entry::{Server, Service, Settings, fate, service_switch, switch};
use crate::family::Family;
use crate::flows::{Entry, Words};
use crate::packet::{Packet, Ports, TCP, UDP};
use crate::sctp;
use crate::tables::Tables;
use crate::track;
use crate::verdict::{Bounce, Drop, Pass, Word};
use crate::walk;

/// The server of a found entry if it still stands for the connection that the packet belongs to;
/// `None` if the packet is as one without an entry.
#[inline(always)]
pub fn lives<'a, W: Words, T: Tables>(
    tables: &'a T,
    settings: &Settings,
    entry: &Entry<W>,
    protocol: u8,
    flags: u8,
    now: u32,
) -> Result<Option<&'a Server>, Word> {
    let meta = entry.meta();
    if meta.tick() != now && meta.age(now) > track::limit(settings, meta.state()) {
        return Ok(None);
    }
    let server = tables
        .server(entry.target())
        .ok_or(Word::drop(Drop::Internal))?;
    if protocol != UDP && flags & flag::SYN != 0 && is_reused(meta, server) {
        return Ok(None);
    }
    // Before the state: what a deleted server does not hear changes nothing (`ip_vs_in`).
    if walk::is_present(server) {
        Ok(Some(server))
    } else if has_ended(server, protocol) {
        Ok(None)
    } else {
        Err(Word::drop(Drop::ServerGone))
    }
}

/// Whether a packet opens a connection (`tcp_conn_schedule`, `sctp_conn_schedule`). Every datagram
/// of UDP does.
#[inline(always)]
pub fn opens<F: Family>(service: &Service, packet: &Packet<F>, flags: u8) -> bool {
    let sloppy = if packet.is_sctp() {
        service_switch::SLOPPY_SCTP
    } else {
        service_switch::SLOPPY_TCP
    };
    packet.protocol == UDP
        || !ends(packet, flags) && (flags & flag::SYN != 0 || service.switches & sloppy != 0)
}

/// Whether a packet does nothing but end a connection at once.
#[inline(always)]
fn ends<F: Family>(packet: &Packet<F>, flags: u8) -> bool {
    if packet.is_sctp() {
        sctp::is_abort(flags)
    } else {
        packet.protocol == TCP && flags & flag::RST != 0
    }
}

/// Whether this new connection is the one of so many that is dropped (`ip_vs_todrop`).
#[inline(always)]
pub fn is_unlucky<T: Tables>(tables: &T) -> bool {
    let rate = tables.settings().map_or(0, |settings| settings.drop_rate);
    rate != 0 && (tables.random() as u64).wrapping_mul(rate as u64) >> 32 == 0
}

/// What becomes of a packet that no server can take (`ip_vs_leave`).
#[inline(always)]
pub fn unserved(service: &Service) -> Word {
    if service.switches & service_switch::BYPASS != 0 {
        Word::pass(Pass::Bypassed)
    } else {
        Word::answer(Bounce::Unreachable, 0)
    }
}

/// Whether the connections of a server that is gone are no more.
#[inline(always)]
pub fn has_ended(server: &Server, protocol: u8) -> bool {
    server.fate & fate::ENDED != 0 && (server.fate & fate::UDP_ONLY == 0 || protocol == UDP)
}

/// Whether a SYN or an INIT here begins another connection: `is_new_conn_expected` of the kernel,
/// and what `ip_vs_in_hook` asks before.
#[inline(always)]
fn is_reused(meta: connection::Meta, server: &Server) -> bool {
    if server.fate & (fate::RESET | fate::OPENED_ANEW) != 0 {
        return true;
    }
    // None does if the client has a template that holds the old one.
    if meta.has(connection::Meta::CONTROLLED) {
        return false;
    }
    let reused = match meta.state() {
        connection::TIME_WAIT | connection::CLOSE | sctp::CLOSED => fate::REUSED,
        connection::FIN_WAIT if meta.has(connection::Meta::NO_OUTPUT) => fate::REUSED_FIN_WAIT,
        _ => 0,
    };
    server.fate & (fate::LEFT_BY_SYN | reused) != 0
}

/// What is said to the sender of a packet whose connection ended with its server. A reset is not
/// answered, so that two never speak of it for ever.
#[inline(always)]
pub fn told(protocol: u8, flags: u8) -> Word {
    if protocol != TCP {
        Word::answer(Bounce::Unreachable, 0)
    } else if flags & flag::RST == 0 {
        Word::answer(Bounce::Reset, 0)
    } else {
        Word::drop(Drop::ServerGone)
    }
}

/// What a masqueraded server sends that is of no flow: it speaks for itself, or is told that nobody
/// listens (`ip_vs_out_hook`, `nat_icmp_send`).
#[inline(always)]
pub fn unasked<F: Family>(settings: &Settings, packet: &Packet<F>, ports: Ports) -> Word {
    if settings.switches & switch::NAT_ICMP_SEND == 0 || ends(packet, ports.flags) {
        Word::pass(Pass::NotOurs)
    } else {
        Word::answer(Bounce::Unreachable, 0)
    }
}
