//! Schedules ICMP errors about answers of an unknown connection (`schedule_icmp`).
//!
//! As in `ip_vs_in_icmp`, the quoted answer opens a connection in the opposite direction, and the
//! error goes to the server of that connection.

use crate::icmp::{self, Quote};
use crate::open::{self, by};
use crate::policy;
use crate::reread::reread;
use crate::schedule::Client;
use crate::steps::Choices;
use crate::table::entry::{NONE, service_flag};
use crate::table::family::Family;
use crate::table::lookup;
use crate::traffic;
use crate::verdict::{Drop, Pass, Word};
use crate::wire::frame::Frame;
use crate::wire::packet::{Packet, Part, Ports, UDP};

/// RFC 792: parameter problem, which IPVS ignores.
const PARAMETER_PROBLEM: u8 = 12;

/// Opens a connection for the quoted answer. Returns its server, or a verdict on the error.
/// `endpoint` is the service's endpoint. Parses the frame again.
#[inline(always)]
pub fn schedule<P: Frame, T: Choices>(frame: &P, tables: &T, endpoint: u32) -> Word {
    let opened = reread!(
        frame,
        tables,
        |packet: F| of_packet::<F, P, T>(frame, tables, &packet, endpoint),
        Err(Word::drop(Drop::Internal))
    );
    match opened {
        Ok(id) => Word::server(id),
        Err(verdict) => verdict,
    }
}

#[inline(always)]
fn of_packet<F: Family, P: Frame, T: Choices>(
    frame: &P,
    tables: &T,
    packet: &Packet<F>,
    endpoint: u32,
) -> Result<u32, Word> {
    let kind = frame.view::<1>(packet.l4).map_or(0, |kind| kind.u8::<0>());
    let quote = icmp::quoted::<F, P>(frame, packet).ok_or(Word::drop(Drop::Internal))?;
    if !F::V6 && kind == PARAMETER_PROBLEM {
        return Err(Word::pass(Pass::Icmp));
    }
    let number = lookup::service_of(tables, endpoint);
    let service = tables.service(number).ok_or(Word::drop(Drop::Internal))?;
    if policy::is_unlucky(tables) {
        return Err(Word::drop(Drop::Defence));
    }
    if !F::may_be_client(quote.target) || quote.target == quote.source {
        return Err(Word::drop(Drop::BadSource));
    }
    // A persistence engine finds no Call-ID in an ICMP error.
    if service.flags & service_flag::CALLS != 0 {
        return Err(Word::drop(Drop::NoCallId));
    }
    let mut id = NONE;
    if service.persistence != 0 {
        id = tables.recall::<F>(number, quote.target, NONE);
    }
    if id == NONE {
        let client = Client {
            address: F::folded(quote.target),
            port: u16::from_be(quote.target_port),
            // As in IPVS, dh, lblc and lblcr use the quoted packet's destination as it is.
            target: F::words(quote.target),
        };
        id = tables.schedule(number, client);
        if id != NONE && service.persistence != 0 {
            id = tables.recall::<F>(number, quote.target, id);
        }
    }
    if id == NONE {
        // ip_vs_leave: an error is never answered with an error.
        return Err(Word::drop(Drop::NoServer));
    }
    if service.flags & service_flag::ONE_PACKET != 0 && quote.protocol == UDP {
        traffic::count_connection(tables, id);
        return Ok(id);
    }
    let (packet, ports) = turned(packet, &quote);
    open::request::<F, P, T, { by::ERROR }>(frame, tables, &packet, ports, id, endpoint)
}

/// Swaps source and target of the quoted answer, so that the client is its source.
#[inline(always)]
fn turned<F: Family>(packet: &Packet<F>, quote: &Quote<F>) -> (Packet<F>, Ports) {
    let packet = Packet {
        source: quote.target,
        target: quote.source,
        protocol: quote.protocol,
        part: Part::Whole,
        ..*packet
    };
    let ports = Ports {
        source: quote.target_port,
        target: quote.source_port,
        flags: 0,
    };
    (packet, ports)
}
