//! Makes a scenario of a seed: services and servers, clients that come and go, an operator who
//! changes things meanwhile, and now and then something odd.

use std::net::SocketAddr;

use shunt_lab::Family;

use super::bed;
use super::random::Random;
use super::scenario::{
    ACK, CLIENTS, Datagram, Error, FIN, Flow, PUSH, RST, SERVERS, SYN, Scenario, Slot, Step,
    Transport, VIRTUALS,
};
use super::vocabulary::{
    Extra, LISTINGS, METHODS, Method, ODD, OF_SERVERS, OF_SERVICES, PAYLOADS, SCHEDULERS, TIMEOUTS,
    TRAFFIC_CLASSES, TRANSPORTS, TTLS, WEIGHTS,
};

/// How many things happen between the beginning and the last look.
const ACTS: [usize; 2] = [8, 28];
const SERVICE_PORTS: [u16; 3] = [80, 443, 53];
/// What fits a device of 1500 bytes behind the headers of IPv6 and TCP.
const MOST_OF_IPV6: u16 = 1440;
const SERVER_PORTS: [u16; 3] = [80, 8080, 8081];

/// The scenario of a seed, with the addresses of a slot.
pub fn scenario(seed: u64, slot: Slot) -> Scenario {
    let mut writer = Writer {
        random: Random::new(seed),
        slot,
        services: Vec::new(),
        talks: Vec::new(),
        flows: Vec::new(),
        steps: Vec::new(),
    };
    for _ in 0..1 + writer.random.below(3) {
        writer.add_service();
    }
    let [least, most] = ACTS;
    for _ in 0..least + writer.random.below(most - least) {
        writer.act();
    }
    for line in ["-Ln", "-Lnc", "-Sn", "-Ln --stats --exact"] {
        writer.command(line);
    }
    Scenario {
        seed,
        slot,
        flows: writer.flows,
        steps: writer.steps,
    }
}

/// A service as it was asked for; whether the director took it does not matter.
#[derive(Clone)]
struct Service {
    transport: Transport,
    family: Family,
    at: SocketAddr,
    scheduler: &'static str,
    method: Method,
    servers: Vec<(SocketAddr, Method)>,
}

/// How far a flow is, as far as it is known.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    Opening,
    Open,
    Closing,
}

struct Writer {
    random: Random,
    slot: Slot,
    services: Vec<Service>,
    talks: Vec<Phase>,
    flows: Vec<Flow>,
    steps: Vec<Step>,
}

impl Writer {
    fn act(&mut self) {
        match self.random.below(20) {
            0..=4 => self.clients_come(),
            5..=10 => self.talk(),
            11 => self.refuse(),
            12 => self.odd_packet(),
            13..=16 => self.change(),
            17 => self.odd_command(),
            _ => {
                let line = self.random.one_of(&LISTINGS);
                self.command(line);
            }
        }
    }

    fn command(&mut self, line: impl Into<String>) {
        self.steps.push(Step::Command {
            line: line.into(),
            input: String::new(),
        });
    }

    fn add_service(&mut self) {
        let family = self.random.one_of(&Family::BOTH);
        let number = self.random.below(usize::from(VIRTUALS)) as u8;
        let port = self.random.one_of(&SERVICE_PORTS);
        let service = Service {
            transport: self.random.one_of(&TRANSPORTS),
            family,
            at: SocketAddr::new(self.slot.virtual_address(family, number), port),
            scheduler: self.random.one_of(&SCHEDULERS),
            method: self.random.one_of(&METHODS),
            servers: Vec::new(),
        };
        let extra = self.extra(&OF_SERVICES, &service);
        self.command(format!(
            "-A {} -s {}{extra}",
            service.name(),
            service.scheduler
        ));
        self.services.push(service);
        let index = self.services.len() - 1;
        for _ in 0..self.random.below(5) {
            self.add_server(index);
        }
    }

    fn add_server(&mut self, index: usize) {
        let (server, method) = self.server(index);
        let service = self.services[index].clone();
        let weight = match self.random.once_in(4) {
            true => String::new(),
            false => format!(" -w {}", self.random.one_of(&WEIGHTS)),
        };
        let extra = self.extra(&OF_SERVERS, &service);
        self.command(format!(
            "-a {} -r {server} {}{weight}{extra}",
            service.name(),
            method.option
        ));
        self.services[index].servers.push((server, method));
    }

    /// Some server that would be possible for a service.
    fn server(&mut self, index: usize) -> (SocketAddr, Method) {
        let service = self.services[index].clone();
        let method = match self.random.once_in(5) {
            true => self.random.one_of(&METHODS),
            false => service.method,
        };
        let family = match method.any_family && self.random.once_in(4) {
            true => self.random.one_of(&Family::BOTH),
            false => service.family,
        };
        let number = self.random.below(usize::from(SERVERS)) as u8;
        let address = self.slot.server(family, number);
        if self.random.once_in(20) {
            let own = bed::director_address(family);
            return (SocketAddr::new(own, service.at.port()), method);
        }
        let port = match method.any_port {
            true => self.random.one_of(&SERVER_PORTS),
            false => service.at.port(),
        };
        (SocketAddr::new(address, port), method)
    }

    fn extra(&mut self, of: &[Extra], service: &Service) -> String {
        let fits = |extra: &&Extra| extra.fits(service.scheduler, service.transport);
        let mut words = String::new();
        for extra in of.iter().filter(fits) {
            if words.is_empty() && self.random.once_in(extra.once_in) {
                words = format!(" {}", extra.words(service.family));
            }
        }
        words
    }

    /// New flows to one service, from different clients or from different ports of one.
    fn clients_come(&mut self) {
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
                service: service.at,
            };
            let flow = self.flow(flow);
            self.open(flow);
        }
    }

    fn flow(&mut self, flow: Flow) -> usize {
        self.flows.push(flow);
        self.talks.push(Phase::Opening);
        self.flows.len() - 1
    }

    /// The first packet, and often the rest of the handshake.
    fn open(&mut self, flow: usize) {
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

    /// The next packet of a flow: mostly one that fits, now and then any.
    fn talk(&mut self) {
        if self.flows.is_empty() {
            return self.clients_come();
        }
        let flow = self.random.below(self.flows.len());
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

    /// The client with the first flags, then the server with the second; 0 is silence.
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
        let flags = self.random.below(32) as u8;
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
        self.steps.push(Step::Client { flow, datagram });
    }

    fn server_sends(&mut self, flow: usize, datagram: Datagram) {
        let datagram = Datagram {
            pieces: 1,
            payload: datagram.payload.min(MOST_OF_IPV6),
            ..datagram
        };
        self.steps.push(Step::Server { flow, datagram });
    }

    /// Plain mostly, for what is rare hides what is frequent.
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
            ttl: self.random.one_of(&TTLS),
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

    fn refuse(&mut self) {
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

    /// To a port without a service, or in the middle of a connection that nobody opened.
    fn odd_packet(&mut self) {
        let service = self.any_service();
        let client = self.random.below(usize::from(CLIENTS)) as u8;
        let port = 1024 + self.random.below(64000) as u16;
        let mut at = service.at;
        if self.random.once_in(2) {
            at.set_port(7);
        }
        let transport = self.random.one_of(&TRANSPORTS);
        let flow = self.flow(Flow {
            transport,
            client: SocketAddr::new(self.slot.client(service.family, client), port),
            service: at,
        });
        let flags = self
            .random
            .one_of(&[SYN, ACK, FIN | ACK, RST, SYN | ACK, 0]);
        let datagram = self.datagram(flags);
        self.client(flow, datagram);
    }

    fn any_service(&mut self) -> Service {
        let index = self.random.below(self.services.len());
        self.services[index].clone()
    }

    fn change(&mut self) {
        let index = self.random.below(self.services.len());
        let name = self.services[index].name();
        match self.random.below(14) {
            0..=1 => self.add_server(index),
            2..=6 => self.edit_server(index),
            7..=8 => self.delete_server(index),
            9 => {
                let scheduler = self.random.one_of(&SCHEDULERS);
                self.services[index].scheduler = scheduler;
                let service = self.services[index].clone();
                let extra = self.extra(&OF_SERVICES, &service);
                self.command(format!("-E {name} -s {scheduler}{extra}"));
            }
            10 => {
                let service = self.services[index].clone();
                self.command(format!("-D {name}"));
                if self.random.once_in(2) {
                    self.command(format!("-A {name} -s {}", service.scheduler));
                    for (server, method) in service.servers {
                        self.command(format!("-a {name} -r {server} {}", method.option));
                    }
                }
            }
            11 => match self.random.once_in(2) {
                true => self.command("-Z"),
                false => self.command(format!("-Z {name}")),
            },
            12 => {
                let line = self.random.one_of(&TIMEOUTS);
                self.command(line);
            }
            _ => self.restore(index),
        }
    }

    fn edit_server(&mut self, index: usize) {
        let service = self.services[index].clone();
        if service.servers.is_empty() {
            return self.add_server(index);
        }
        let (server, method) = self.random.one_of(&service.servers);
        let weight = self.random.one_of(&WEIGHTS);
        let extra = self.extra(&OF_SERVERS, &service);
        self.command(format!(
            "-e {} -r {server} {} -w {weight}{extra}",
            service.name(),
            method.option
        ));
    }

    /// It may come back later by an edit, which is refused, or be added again.
    fn delete_server(&mut self, index: usize) {
        let service = self.services[index].clone();
        if service.servers.is_empty() {
            return self.add_server(index);
        }
        let (server, method) = self.random.one_of(&service.servers);
        let name = service.name();
        self.command(format!("-d {name} -r {server}"));
        if self.random.once_in(3) {
            self.command(format!("-a {name} -r {server} {}", method.option));
        }
    }

    /// Everything goes, and one service comes back as it was.
    fn restore(&mut self, index: usize) {
        let service = self.services[index].clone();
        let name = service.name();
        let mut input = format!("-A {name} -s {}\n", service.scheduler);
        for (server, method) in &service.servers {
            input += &format!("-a {name} -r {server} {} -w 1\n", method.option);
        }
        self.command("-C");
        let line = "-R".to_owned();
        self.steps.push(Step::Command { line, input });
    }

    fn odd_command(&mut self) {
        let index = self.random.below(self.services.len());
        let (server, _) = self.server(index);
        let line = self.random.one_of(&ODD);
        let at = self.services[index].at.to_string();
        let line = line.replace("{service}", &at);
        self.command(line.replace("{server}", &server.to_string()));
    }
}

impl Service {
    fn name(&self) -> String {
        let option = match self.transport {
            Transport::Tcp => "-t",
            Transport::Udp => "-u",
        };
        format!("{option} {}", self.at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_scenario_and_another_gives_another() {
        let made = |seed| format!("{:?}", scenario(seed, Slot(0)));

        assert_eq!(made(7), made(7));
        assert_ne!(made(7), made(8));
    }

    #[test]
    fn every_method_scheduler_and_kind_of_step_comes_up() {
        let lines: Vec<String> = (0..200)
            .flat_map(|seed| {
                let scenario = scenario(seed, Slot(0));
                let describe = |step| scenario.describe(step);
                scenario.steps.iter().map(describe).collect::<Vec<_>>()
            })
            .collect();
        let has = |word: &str| lines.iter().any(|line| line.contains(word));

        for scheduler in SCHEDULERS {
            assert!(has(&format!("-s {scheduler}")), "{scheduler}");
        }
        for method in METHODS {
            assert!(has(&format!(" {} -w", method.option)), "{}", method.option);
        }
        let kinds = [
            "SYN",
            "RST",
            "fragments",
            "answer",
            "server",
            "client",
            "-R",
            "-Z",
            "--set",
            "[2001:",
        ];
        for kind in kinds {
            assert!(has(kind), "{kind}");
        }
    }
}
