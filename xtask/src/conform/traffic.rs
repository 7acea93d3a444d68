//! The packets that clients and servers of a scenario send.

use std::net::SocketAddr;

use super::grammar::{Phase, Service, Writer};
use super::scenario::{
    ACK, CLIENTS, Datagram, Error, FIN, Flow, PUSH, RST, SYN, Step, Transport, chunk,
};
use super::vocabulary::{PAYLOADS, TRAFFIC_CLASSES, TRANSPORTS, TTLS};

/// The payload that fits a device of 1500 bytes after the headers of IPv6 and TCP.
const MOST_OF_IPV6: u16 = 1440;
/// The ports that clients use of a service of every port.
const ASKED: [u16; 4] = [21, 80, 443, 50000];

impl Writer {
    /// Opens new flows to one service, from different clients or from different ports of one
    /// client.
    pub(super) fn clients_come(&mut self) {
        let service = self.any_service();
        let count = 1 + self.random.below(7);
        let one = self.random.once_in(2);
        let mut number = self.random.below(usize::from(CLIENTS)) as u8;
        for _ in 0..count {
            if !one {
                number = self.random.below(usize::from(CLIENTS)) as u8;
            }
            let port = 1024 + self.random.below(64000) as u16;
            let flow = Flow {
                transport: service.transport,
                client: SocketAddr::new(self.slot.client(service.family, number), port),
                service: self.asked(&service),
            };
            let flow = self.flow(flow);
            self.open(flow);
        }
    }

    /// The port that a client of a service uses.
    fn asked(&mut self, service: &Service) -> SocketAddr {
        let mut at = self.random.one_of(&service.ends());
        if at.port() == 0 {
            at.set_port(self.random.one_of(&ASKED));
        }
        at
    }

    fn flow(&mut self, flow: Flow) -> usize {
        self.flows.push(flow);
        self.talks.push(Phase::Opening);
        self.flows.len() - 1
    }

    /// The first packet, and often the rest of the handshake.
    fn open(&mut self, flow: usize) {
        if self.is_sctp(flow) {
            return self.associate(flow);
        }
        let datagram = self.datagram(SYN);
        self.client(flow, datagram);
        if self.random.once_in(3) {
            self.talks[flow] = Phase::Opening;
            return;
        }
        let answer = self.datagram(SYN | ACK);
        self.server_sends(flow, answer);
        if self.flows[flow].transport == Transport::Tcp {
            let datagram = self.datagram(ACK);
            self.client(flow, datagram);
        }
        self.talks[flow] = Phase::Open;
    }

    /// The next packet of a flow: usually one that fits its state, sometimes any.
    pub(super) fn talk(&mut self) {
        if self.flows.is_empty() {
            return self.clients_come();
        }
        let flow = self.random.below(self.flows.len());
        if self.is_sctp(flow) {
            return self.talk_in_chunks(flow);
        }
        if self.flows[flow].transport == Transport::Udp || self.random.once_in(8) {
            return self.say_anything(flow);
        }
        match (self.talks[flow], self.random.below(6)) {
            (Phase::Opening, 0..=1) => self.open(flow),
            (Phase::Opening, 2..=3) => {
                self.says(flow, [SYN | ACK, ACK]);
                self.talks[flow] = Phase::Open;
            }
            (Phase::Opening, _) => self.says(flow, [0, RST | ACK]),
            (Phase::Open, 0..=2) => self.says(flow, [ACK | PUSH, ACK]),
            (Phase::Open, 3) => {
                self.says(flow, [RST | ACK, 0]);
                self.talks[flow] = Phase::Closing;
            }
            (Phase::Open, 4) => {
                self.says(flow, [0, FIN | ACK]);
                self.talks[flow] = Phase::Closing;
            }
            (Phase::Open, _) => {
                self.says(flow, [FIN | ACK, FIN | ACK]);
                self.says(flow, [ACK, 0]);
                self.talks[flow] = Phase::Closing;
            }
            (Phase::Closing, 0..=1) => self.open(flow),
            (Phase::Closing, 2) => self.says(flow, [FIN | ACK, ACK]),
            (Phase::Closing, 3) => self.says(flow, [0, FIN | ACK]),
            (Phase::Closing, _) => self.says(flow, [ACK, ACK]),
        }
    }

    fn is_sctp(&self, flow: usize) -> bool {
        self.flows[flow].transport == Transport::Sctp
    }

    /// An INIT, and often the whole handshake.
    fn associate(&mut self, flow: usize) {
        self.says_chunk(flow, chunk::INIT, true);
        // A connection that nobody answers ends four seconds after its only INIT. Some scenarios
        // take longer.
        if self.random.once_in(3) {
            return self.says_chunk(flow, chunk::INIT, true);
        }
        self.says_chunk(flow, chunk::INIT_ACK, false);
        self.says_chunk(flow, chunk::COOKIE_ECHO, true);
        self.says_chunk(flow, chunk::COOKIE_ACK, false);
    }

    /// Usually data, sometimes an end, or any chunk from either side.
    fn talk_in_chunks(&mut self, flow: usize) {
        let by_client = self.random.once_in(2);
        match self.random.below(8) {
            0 => self.associate(flow),
            1 => {
                self.says_chunk(flow, chunk::SHUTDOWN, by_client);
                self.says_chunk(flow, chunk::SHUTDOWN_ACK, !by_client);
                self.says_chunk(flow, chunk::SHUTDOWN_COMPLETE, by_client);
            }
            2..=4 => self.says_chunk(flow, chunk::DATA, by_client),
            _ => {
                // When a client aborts an association that the server opened, it ends as soon.
                let kind = match self.random.one_of(&chunk::ALL) {
                    chunk::INIT if !by_client => chunk::DATA,
                    kind => kind,
                };
                self.says_chunk(flow, kind, by_client);
            }
        }
    }

    /// Never in fragments: see "fragments of SCTP" in standards.md.
    fn says_chunk(&mut self, flow: usize, kind: u8, by_client: bool) {
        let plain = self.datagram(if kind == chunk::DATA { ACK | PUSH } else { ACK });
        let datagram = Datagram {
            flags: kind,
            payload: plain.payload & !3,
            pieces: 1,
            ..plain
        };
        if by_client {
            self.client(flow, datagram);
        } else {
            self.server_sends(flow, datagram);
        }
    }

    /// The client with the first flags, then the server with the second; 0 means no packet.
    fn says(&mut self, flow: usize, [client, server]: [u8; 2]) {
        if client != 0 {
            let datagram = self.datagram(client);
            self.client(flow, datagram);
        }
        if server != 0 {
            let datagram = self.datagram(server);
            self.server_sends(flow, datagram);
        }
    }

    fn say_anything(&mut self, flow: usize) {
        let mut flags = self.random.below(32) as u8;
        // No stack sends a SYN together with a FIN or RST.
        if flags & SYN != 0 {
            flags &= SYN | ACK;
        }
        let flags = self.random.one_of(&[flags, ACK, ACK | PUSH]);
        let datagram = self.datagram(flags);
        if self.random.once_in(2) {
            self.client(flow, datagram);
        } else {
            self.server_sends(flow, datagram);
        }
    }

    fn client(&mut self, flow: usize, mut datagram: Datagram) {
        if self.flows[flow].client.is_ipv6() {
            datagram.payload = datagram.payload.min(MOST_OF_IPV6);
        }
        let sent = self.flows[flow];
        // Fragments for the director's own stack are late: "fragments for nobody" in standards.md.
        let is_it = |other: &Service| other.has(&sent);
        if !self.services.iter().any(is_it) {
            datagram.pieces = 1;
        }
        match datagram.flags & (SYN | RST | FIN | ACK) {
            _ if self.is_sctp(flow) => false,
            flags if flags & SYN != 0 => self.half_open.insert(flow),
            _ => self.half_open.remove(&flow),
        };
        // One that ends at the director opens nothing here: "packets at their end" in standards.md.
        let is_known = self.flows[flow].transport == Transport::Tcp
            && self.talks[flow] == Phase::Open
            && datagram.flags & SYN == 0;
        let ttl = if is_known {
            datagram.ttl
        } else {
            datagram.ttl.max(2)
        };
        let datagram = Datagram { ttl, ..datagram };
        self.steps.push(Step::Client { flow, datagram });
    }

    fn server_sends(&mut self, flow: usize, datagram: Datagram) {
        let mut datagram = Datagram {
            pieces: 1,
            payload: datagram.payload.min(MOST_OF_IPV6),
            ..datagram
        };
        // A server never accepts without a SYN. See "answers between ticks" in standards.md.
        if self.half_open.contains(&flow) && datagram.flags & (FIN | RST) == 0 {
            datagram.flags |= SYN;
        }
        // IPVS does not see packets that the stack does not forward: "answers that expire".
        if self.is_sctp(flow) || datagram.flags & (SYN | FIN | RST) != 0 {
            datagram.ttl = datagram.ttl.max(2);
        }
        self.steps.push(Step::Server { flow, datagram });
    }

    /// Usually plain, because a rare property would hide a frequent one.
    fn datagram(&mut self, flags: u8) -> Datagram {
        let plain = Datagram {
            flags,
            payload: if flags & PUSH == 0 { 0 } else { 100 },
            ttl: 64,
            traffic_class: 0,
            dont_fragment: true,
            pieces: 1,
        };
        if !self.random.once_in(4) {
            return plain;
        }
        let carries = flags & (SYN | RST) == 0;
        let payload = self.random.one_of(&PAYLOADS);
        let in_pieces = carries && payload >= 100 && self.random.once_in(3);
        Datagram {
            payload: if carries { payload } else { 0 },
            // An error about a fragment quotes it, or quotes the whole packet if it was
            // reassembled.
            ttl: if in_pieces {
                64
            } else {
                self.random.one_of(&TTLS)
            },
            traffic_class: self.random.one_of(&TRAFFIC_CLASSES),
            dont_fragment: !in_pieces && !self.random.once_in(3),
            pieces: if in_pieces {
                self.random.one_of(&[2, 3])
            } else {
                1
            },
            ..plain
        }
    }

    pub(super) fn refuse(&mut self) {
        if self.flows.is_empty() {
            return;
        }
        let flow = self.random.below(self.flows.len());
        let error = self.random.one_of(&[
            Error::PortUnreachable,
            Error::HostUnreachable,
            Error::TimeExceeded,
            Error::TooBig { mtu: 1400 },
        ]);
        self.steps.push(match self.random.once_in(2) {
            true => Step::ServerError { flow, error },
            false => Step::ClientError { flow, error },
        });
    }

    /// A packet to a port without a service, or in the middle of a connection that nobody opened.
    pub(super) fn odd_packet(&mut self) {
        let service = self.any_service();
        let client = self.random.below(usize::from(CLIENTS)) as u8;
        let port = 1024 + self.random.below(64000) as u16;
        let mut at = self.asked(&service);
        if self.random.once_in(2) {
            at.set_port(7);
        }
        let transport = self.random.one_of(&TRANSPORTS);
        let flow = self.flow(Flow {
            transport,
            client: SocketAddr::new(self.slot.client(service.family, client), port),
            service: at,
        });
        if self.is_sctp(flow) {
            return match self.random.one_of(&chunk::ALL) {
                chunk::INIT => self.associate(flow),
                kind => self.says_chunk(flow, kind, true),
            };
        }
        let flags = self
            .random
            .one_of(&[SYN, ACK, FIN | ACK, RST, SYN | ACK, 0]);
        let datagram = self.datagram(flags);
        self.client(flow, datagram);
    }
}
