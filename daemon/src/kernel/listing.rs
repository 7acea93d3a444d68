//! Connections in the operator's words: their listing, and how many are in each state.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use shunt_control::director::Names;
use shunt_datapath::connection;
use shunt_datapath::flows::{self, Layout, Narrow, Record, Wide};
use shunt_datapath::sctp;
use shunt_model::{Connection, Family, Protocol, ServiceKey, State};

use super::mapping::{BucketWords, Mapping};
use super::scan::Look;

impl Look<'_> {
    /// How many connections are in each state; changes nothing.
    #[must_use]
    pub fn states(self) -> Vec<(State, u64)> {
        let mut counts = [0u64; 32];
        self.count::<Narrow>(
            &self.tables.flows4,
            self.tables.made.flow4_mask(),
            &mut counts,
        );
        self.count::<Wide>(
            &self.tables.flows6,
            self.tables.made.flow6_mask(),
            &mut counts,
        );
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

    fn count<L: Layout>(self, mapping: &Mapping, mask: u32, counts: &mut [u64; 32]) {
        for bucket in 0..=mask {
            let Some(words) = mapping.value(bucket as usize) else {
                break;
            };
            for at in 0..L::SLOTS {
                let Some((record, _)) = flows::read::<L, _>(BucketWords(words), at) else {
                    continue;
                };
                let state = record.meta.state();
                let alive = record.meta.age(self.now) <= self.limit(state);
                if alive
                    && !record.key.is_back::<L>()
                    && let Some(count) = counts.get_mut(state as usize)
                {
                    *count += 1;
                }
            }
        }
    }

    /// Calls `each` with every connection, until it says false.
    pub fn list(self, names: &Names, tick_ns: u64, each: &mut dyn FnMut(Connection) -> bool) {
        let both: [(&Mapping, u32, bool); 2] = [
            (&self.tables.flows4, self.tables.made.flow4_mask(), false),
            (&self.tables.flows6, self.tables.made.flow6_mask(), true),
        ];
        for (mapping, mask, wide) in both {
            for bucket in 0..=mask {
                let Some(words) = mapping.value(bucket as usize) else {
                    break;
                };
                let words = BucketWords(words);
                for at in 0..4 {
                    let record = if wide {
                        flows::read::<Wide, _>(words, at)
                    } else {
                        flows::read::<Narrow, _>(words, at)
                    };
                    let Some((record, _)) = record else { continue };
                    let told = if wide {
                        self.tell::<Wide>(&record, names, tick_ns)
                    } else {
                        self.tell::<Narrow>(&record, names, tick_ns)
                    };
                    if told.is_some_and(|connection| !each(connection)) {
                        return;
                    }
                }
            }
        }
    }

    /// An entry in the operator's words; `None` for the way back and for what expired.
    fn tell<L: Layout>(self, record: &Record, names: &Names, tick_ns: u64) -> Option<Connection> {
        if record.key.is_back::<L>() {
            return None;
        }
        if self.has_ended(record.target) {
            return None;
        }
        let limit = self.limit(record.meta.state());
        let left = limit.checked_sub(record.meta.age(self.now))?;
        let (key, asked) = names.service(record.key.endpoint::<L>())?;
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
        let (_, server) = names.servers.get(&record.target)?;
        let client = if L::STRIDE == 2 {
            IpAddr::V4(Ipv4Addr::from(
                ((record.key.first >> 32) as u32).to_ne_bytes(),
            ))
        } else {
            let [a, b] = record.key.address;
            IpAddr::from((u128::from(a) | u128::from(b) << 64).to_ne_bytes())
        };
        let client = SocketAddr::new(client, u16::from_be(record.key.port::<L>()));
        // The clock's tick is a little longer than a second: never more is shown than was asked.
        let expires_s = u64::from(left) * tick_ns / 1_000_000_000;
        Some(Connection {
            protocol,
            client,
            virtual_address: at,
            server: SocketAddr::new(server.address, port_of(server.port, at.port())),
            state: state(protocol, record.meta.state()),
            expires_s: u32::try_from(expires_s).unwrap_or(u32::MAX),
            mark,
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
