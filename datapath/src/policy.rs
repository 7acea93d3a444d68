//! The settings' decisions about packets without a live connection: whether a packet opens one,
//! whether the connection of a deleted or quiesced server continues, and which error is answered.

use crate::connection::sctp;
use crate::connection::{self, flag};
use crate::table::Tables;
use crate::table::entry::{Server, Service, Settings, fate, service_switch, switch};
use crate::table::family::Family;
use crate::table::flows::{Entry, Words};
use crate::track;
use crate::verdict::{Bounce, Drop, Pass, Word};
use crate::wire;
use crate::wire::packet::{Packet, Ports, TCP, UDP};

/// The server of a found entry if the entry's connection lives. `None` if the packet is treated as
/// one without an entry, and the verdict if the packet is dropped.
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
    // This check comes before the state changes: a packet that a deleted server does not get leaves
    // the state as it is (`ip_vs_in`).
    if server.is_present() {
        Ok(Some(server))
    } else if has_ended(server, protocol) {
        Ok(None)
    } else {
        Err(Word::drop(Drop::ServerGone))
    }
}

/// The server with this id, if it is in its pool; otherwise a verdict.
#[inline(always)]
pub fn present<T: Tables>(tables: &T, id: u32) -> Result<&Server, Word> {
    let server = tables.server(id).ok_or(Word::drop(Drop::Internal))?;
    if server.is_present() {
        Ok(server)
    } else {
        Err(Word::drop(Drop::ServerGone))
    }
}

/// Whether a packet opens a connection (`tcp_conn_schedule`, `sctp_conn_schedule`). Every UDP
/// datagram does.
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

/// Whether a packet aborts a connection: RST of TCP, ABORT of SCTP.
#[inline(always)]
fn ends<F: Family>(packet: &Packet<F>, flags: u8) -> bool {
    if packet.is_sctp() {
        wire::sctp::is_abort(flags)
    } else {
        packet.protocol == TCP && flags & flag::RST != 0
    }
}

/// Whether this new connection is dropped by drop_packet (`ip_vs_todrop`), which drops one of
/// [`Settings::drop_rate`] at random.
#[inline(always)]
pub fn is_unlucky<T: Tables>(tables: &T) -> bool {
    let rate = tables.settings().map_or(0, |settings| settings.drop_rate);
    rate != 0 && (tables.random() as u64).wrapping_mul(rate as u64) >> 32 == 0
}

/// The verdict for a packet that no server can take (`ip_vs_leave`).
#[inline(always)]
pub fn unserved(service: &Service) -> Word {
    if service.switches & service_switch::BYPASS != 0 {
        Word::pass(Pass::Bypassed)
    } else {
        Word::answer(Bounce::Unreachable, 0)
    }
}

/// Whether connections of this protocol end when the server is deleted.
#[inline(always)]
pub fn has_ended(server: &Server, protocol: u8) -> bool {
    server.fate & fate::ENDED != 0 && (server.fate & fate::UDP_ONLY == 0 || protocol == UDP)
}

/// Whether a SYN or INIT for this entry begins another connection: the kernel's
/// `is_new_conn_expected`, and the checks of `ip_vs_in_hook` before it.
#[inline(always)]
fn is_reused(meta: connection::Meta, server: &Server) -> bool {
    if server.fate & (fate::RESET | fate::OPENED_ANEW) != 0 {
        return true;
    }
    // A connection that is controlled by a template is not replaced.
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

/// The answer to a packet whose connection ended with its server: a reset for TCP, else an ICMP
/// error. A RST is not answered, so that no two hosts reset each other for ever.
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

/// The verdict for a masqueraded server's packet that belongs to no flow. The packet passes, or
/// with `nat_icmp_send` the server gets an ICMP error (`ip_vs_out_hook`).
#[inline(always)]
pub fn unasked<F: Family>(settings: &Settings, packet: &Packet<F>, ports: Ports) -> Word {
    if settings.switches & switch::NAT_ICMP_SEND == 0 || ends(packet, ports.flags) {
        Word::pass(Pass::NotOurs)
    } else {
        Word::answer(Bounce::Unreachable, 0)
    }
}
