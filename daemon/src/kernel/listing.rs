//! Connections in the operator's words: their listing, and how many are in each state.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use shunt_control::director::Names;
use shunt_datapath::connection;
use shunt_datapath::flows::{Layout, Narrow, Record, Wide};
use shunt_datapath::sctp;
use shunt_datapath::sweep::{self, server_of_call};
use shunt_datapath::table::call::{Call, CallKey};
use shunt_model::{Connection, EngineData, Family, Protocol, ServiceKey, State};
use tracing::error;

use super::sweep::Look;
use crate::chain::chain;

/// How many connections are in each state; changes nothing.
#[must_use]
pub fn states(look: Look<'_>) -> Vec<(State, u64)> {
    let mut counts = look.states();
    calls(look, &mut |_, call| {
        let state = match look.is_assured_call(call) {
            true => connection::TEMPLATE_ASSURED,
            false => connection::TEMPLATE,
        };
        counts[state as usize] += 1;
        true
    });
    let mut states: Vec<(State, u64)> = Vec::new();
    for (state, number) in (0u32..).zip(counts) {
        let state = self::state(Protocol::Tcp, state);
        match states.iter_mut().find(|(other, _)| *other == state) {
            Some((_, sum)) => *sum += number,
            None => states.push((state, number)),
        }
    }
    states
}

/// How many templates name each server.
#[must_use]
pub fn templates(look: Look<'_>) -> BTreeMap<u32, u32> {
    let mut counts = look.templates();
    calls(look, &mut |_, call| {
        *counts.entry(server_of_call(call)).or_insert(0) += 1;
        true
    });
    counts
}

/// Calls `each` with every connection, and then every call, until it says false.
pub fn list(look: Look<'_>, names: &Names, each: &mut dyn FnMut(Connection) -> bool) {
    let goes_on = table::<Narrow>(look, names, each) && table::<Wide>(look, names, each);
    if !goes_on {
        return;
    }
    calls(look, &mut |key, call| {
        let told = tell_call(look, key, call, names);
        told.is_none_or(&mut *each)
    });
}

/// Calls `each` with every call whose time is not over, until it says false.
fn calls(look: Look<'_>, each: &mut dyn FnMut(&CallKey, &Call) -> bool) {
    let done = look.tables.calls.each(&mut |key, call| {
        let lives = look.rest_of_call(call).is_some();
        !lives || each(key, call)
    });
    if let Err(error) = done {
        error!(error = chain(&error), "calls not looked at");
    }
}

fn table<L: Layout>(
    look: Look<'_>,
    names: &Names,
    each: &mut dyn FnMut(Connection) -> bool,
) -> bool {
    look.living::<L>(&mut |record, left| {
        let told = tell::<L>(look, record, left, names);
        told.is_none_or(&mut *each)
    })
}

/// An entry in the operator's words.
fn tell<L: Layout>(
    look: Look<'_>,
    record: &Record,
    left: u32,
    names: &Names,
) -> Option<Connection> {
    if look.has_ended(record.target) {
        return None;
    }
    let told = Told {
        service: record.key.endpoint::<L>(),
        server: record.target,
        client: sweep::client::<L>(record),
        left,
    };
    let connection = told.tell(names, look.tick_ns)?;
    let client = SocketAddr::new(connection.client.ip(), u16::from_be(record.key.port::<L>()));
    Some(Connection {
        client,
        state: state(connection.protocol, record.meta.state()),
        ..connection
    })
}

/// A call in the operator's words; `None` if its time is over.
fn tell_call(look: Look<'_>, key: &CallKey, call: &Call, names: &Names) -> Option<Connection> {
    let template = Told {
        service: key.service,
        server: server_of_call(call),
        client: key.client,
        left: look.rest_of_call(call)?,
    };
    let bytes = key.id.iter().flat_map(|word| word.to_le_bytes());
    let data = bytes.take(key.length as usize).map(char::from).collect();
    let state = if look.is_assured_call(call) {
        State::Assured
    } else {
        State::None
    };
    Some(Connection {
        state,
        engine: Some(EngineData {
            name: "sip".to_owned(),
            data,
        }),
        ..template.tell(names, look.tick_ns)?
    })
}

/// What is told of an entry.
#[derive(Clone, Copy, Debug)]
struct Told {
    /// By which endpoint it was found.
    pub service: u32,
    pub server: u32,
    /// In wire order.
    pub client: [u64; 2],
    /// Ticks that it has left.
    pub left: u32,
}

impl Told {
    /// In the operator's words, as if it were a client's template.
    pub(crate) fn tell(self, names: &Names, tick_ns: u64) -> Option<Connection> {
        let (key, asked) = names.service(self.service)?;
        let (protocol, at, mark) = match key {
            ServiceKey::Address {
                protocol,
                address,
                port,
            } => (
                protocol,
                SocketAddr::new(address, asked.unwrap_or(port)),
                None,
            ),
            // A template of a mark's client: the mark stands in place of the virtual address
            // (`ip_vs_sched_persist`).
            ServiceKey::Mark { mark, family } => (
                Protocol::Tcp,
                address_of(mark.get(), family),
                Some(mark.get()),
            ),
        };
        let (_, server) = names.servers.get(&self.server)?;
        let [a, b] = self.client;
        let client = match key.family() {
            Family::Ipv4 => IpAddr::V4(Ipv4Addr::from((a as u32).to_ne_bytes())),
            Family::Ipv6 => IpAddr::from((u128::from(a) | u128::from(b) << 64).to_ne_bytes()),
        };
        // The clock's tick is a little longer than a second: never more is shown than was asked.
        let expires_s = u64::from(self.left) * tick_ns / 1_000_000_000;
        Some(Connection {
            protocol,
            client: SocketAddr::new(client, 0),
            virtual_address: at,
            server: SocketAddr::new(server.address, port_of(server.port, at.port())),
            state: State::None,
            expires_s: u32::try_from(expires_s).unwrap_or(u32::MAX),
            mark,
            engine: None,
        })
    }
}

/// A mark in the first four bytes of an address.
fn address_of(mark: u32, family: Family) -> SocketAddr {
    let address = match family {
        Family::Ipv4 => IpAddr::from(mark.to_be_bytes()),
        Family::Ipv6 => IpAddr::from((u128::from(mark) << 96).to_be_bytes()),
    };
    SocketAddr::new(address, 0)
}

/// A server without a port has the one that the client asked.
fn port_of(port: u16, asked: u16) -> u16 {
    if port == 0 { asked } else { port }
}

/// A state by its name.
#[must_use]
pub fn state(protocol: Protocol, state: connection::State) -> State {
    match state {
        connection::TEMPLATE => State::None,
        connection::TEMPLATE_ASSURED => State::Assured,
        _ if protocol == Protocol::Udp => State::Udp,
        connection::ESTABLISHED => State::Established,
        connection::SYN_SENT => State::SynSent,
        connection::SYN_RECV => State::SynRecv,
        connection::FIN_WAIT => State::FinWait,
        connection::TIME_WAIT => State::TimeWait,
        connection::CLOSE => State::Close,
        connection::CLOSE_WAIT => State::CloseWait,
        connection::LAST_ACK => State::LastAck,
        connection::LISTEN => State::Listen,
        connection::SYNACK => State::Synack,
        connection::UDP | connection::UDP_FIRST => State::Udp,
        sctp::INIT1 => State::Init1,
        sctp::INIT => State::Init,
        sctp::COOKIE_SENT => State::CookieSent,
        sctp::COOKIE_REPLIED => State::CookieReplied,
        sctp::COOKIE_WAIT => State::CookieWait,
        sctp::COOKIE => State::Cookie,
        sctp::COOKIE_ECHOED => State::CookieEchoed,
        sctp::ESTABLISHED => State::Established,
        sctp::SHUTDOWN_SENT => State::ShutdownSent,
        sctp::SHUTDOWN_RECEIVED => State::ShutdownReceived,
        sctp::SHUTDOWN_ACK_SENT => State::ShutdownAckSent,
        sctp::REJECTED => State::Rejected,
        sctp::CLOSED => State::Closed,
        _ => State::None,
    }
}
