//! Makes a scenario from a seed: services and servers, clients that come and go, an operator who
//! makes changes meanwhile, and occasional odd events.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use shunt_lab::Family;

use super::additions;
use super::bed;
use super::random::Random;
use super::scenario::{Flow, MARKED, Rule, SERVERS, Scenario, Slot, Step, Transport};
use super::vocabulary::{
    Extra, LISTINGS, METHODS, Method, ODD, OF_SERVERS, OF_SERVICES, SCHEDULERS, TIMEOUTS,
    TRANSPORTS, WEIGHTS,
};

/// The number of events between the beginning and the last listing.
const ACTS: [usize; 2] = [8, 28];
/// Closed connections last ten seconds and should outlive a scenario.
const MOST_SLOW: usize = 1;
const SERVICE_PORTS: [u16; 3] = [80, 443, 53];
/// A service of every port is persistent.
const EVERY_PORT: &str = " -p 300";
const SERVER_PORTS: [u16; 3] = [80, 8080, 8081];

/// The scenario of a seed, with the addresses of a slot.
pub(super) fn scenario(seed: u64, slot: Slot) -> Scenario {
    let mut writer = Writer {
        random: Random::new(seed),
        slot,
        services: Vec::new(),
        talks: Vec::new(),
        half_open: BTreeSet::new(),
        slow: 0,
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
    let steps = additions::all(seed, slot, &mut writer.flows, writer.steps);
    Scenario {
        seed,
        slot,
        steps,
        flows: writer.flows,
    }
}

/// A service as it was requested, whether or not the director accepted it.
#[derive(Clone)]
pub(super) struct Service {
    pub transport: Transport,
    pub family: Family,
    pub at: SocketAddr,
    scheduler: &'static str,
    method: Method,
    servers: Vec<(SocketAddr, Method)>,
    one_packet: bool,
    /// A firewall mark, and the packets that have it.
    mark: Option<u32>,
    rules: Vec<Rule>,
    /// Masqueraded servers may have their own ports.
    maps: bool,
}

/// The state of a flow, as far as it is known.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    Opening,
    Open,
    Closing,
}

/// A scenario under construction.
pub(super) struct Writer {
    pub random: Random,
    pub slot: Slot,
    pub services: Vec<Service>,
    pub talks: Vec<Phase>,
    /// Flows whose client has opened or reopened them and sent nothing since.
    pub half_open: BTreeSet<usize>,
    /// The number of commands that must wait for the kernel's counters.
    slow: usize,
    pub flows: Vec<Flow>,
    pub steps: Vec<Step>,
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
        if self.random.once_in(6) {
            return self.add_marked();
        }
        let family = self.random.one_of(&Family::BOTH);
        let number = self.random.below(usize::from(MARKED)) as u8;
        let port = match self.random.once_in(12) {
            true => 0,
            false => self.random.one_of(&SERVICE_PORTS),
        };
        let service = Service {
            transport: self.random.one_of(&TRANSPORTS),
            family,
            at: SocketAddr::new(self.slot.virtual_address(family, number), port),
            scheduler: self.random.one_of(&SCHEDULERS),
            method: self.random.one_of(&METHODS),
            servers: Vec::new(),
            one_packet: false,
            mark: None,
            rules: Vec::new(),
            maps: port != 0,
        };
        let extra = match port {
            0 => EVERY_PORT.to_owned(),
            _ => self.extra(&OF_SERVICES, &service),
        };
        let service = Service {
            one_packet: extra.contains("-o"),
            ..service
        };
        self.enter(service, &extra);
    }

    /// A service of a firewall mark: one port, or two ports that belong together.
    fn add_marked(&mut self) {
        let family = self.random.one_of(&Family::BOTH);
        let transport = self.random.one_of(&TRANSPORTS);
        let mark = u32::from(self.slot.0) * 8 + 1 + self.random.below(2) as u32;
        let first = self.random.below(SERVICE_PORTS.len());
        let mut ports = vec![SERVICE_PORTS[first]];
        if self.random.once_in(2) {
            ports.push(SERVICE_PORTS[(first + 1) % SERVICE_PORTS.len()]);
        }
        let address = self.slot.virtual_address(family, MARKED);
        let rule = |port: u16| Rule {
            transport,
            at: SocketAddr::new(address, port),
        };
        let is_it = |other: &Service| other.mark.is_some() && other.family == family;
        if self.services.iter().any(is_it) {
            return;
        }
        let service = Service {
            transport,
            family,
            at: rule(ports[0]).at,
            scheduler: self.random.one_of(&SCHEDULERS),
            method: self.random.one_of(&METHODS),
            servers: Vec::new(),
            one_packet: false,
            mark: Some(mark),
            rules: ports.into_iter().map(rule).collect(),
            maps: self.random.once_in(2),
        };
        for rule in service.rules.clone() {
            self.steps.push(Step::Mark { mark, rule });
        }
        let extra = self.extra(&OF_SERVICES, &service);
        self.enter(service, &extra);
    }

    fn enter(&mut self, service: Service, extra: &str) {
        self.command(format!(
            "-A {} -s {}{extra}",
            service.name(),
            service.scheduler
        ));
        // The second service with the same key is refused, and later steps concern the first.
        let is_it = |other: &Service| other.name() == service.name();
        let index = match self.services.iter().position(is_it) {
            Some(index) => index,
            None => {
                self.services.push(service);
                self.services.len() - 1
            }
        };
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
        // A server that exists or existed keeps its method: "changed methods" in standards.md.
        let known = service.servers.iter().find(|(at, _)| *at == server);
        let method = known.map_or(method, |(_, method)| *method);
        self.command(format!(
            "-a {} -r {server} {}{weight}{extra}",
            service.name(),
            method.option
        ));
        if known.is_none() {
            self.services[index].servers.push((server, method));
        }
    }

    /// A server that would be valid for the service.
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
        // A director does not see how TCP connections of a local server end ("answers of a local
        // server" in standards.md), nor its errors about datagrams of one-packet services.
        let is_seen = service.transport == Transport::Udp && !service.one_packet;
        if is_seen && self.random.once_in(15) {
            let own = bed::director_address(family);
            return (SocketAddr::new(own, service.port()), method);
        }
        let port = match method.any_port && service.maps {
            true => self.random.one_of(&SERVER_PORTS),
            false => service.port(),
        };
        (SocketAddr::new(address, port), method)
    }

    fn extra(&mut self, of: &[Extra], service: &Service) -> String {
        let fits = |extra: &&Extra| {
            extra.fits(service.scheduler, service.transport)
                && service.takes(extra.words(service.family))
        };
        let mut words = String::new();
        for extra in of.iter().filter(fits) {
            if words.is_empty() && self.random.once_in(extra.once_in) {
                words = format!(" {}", extra.words(service.family));
            }
        }
        words
    }

    pub(super) fn any_service(&mut self) -> Service {
        let index = self.random.below(self.services.len());
        self.services[index].clone()
    }

    fn change(&mut self) {
        let index = self.random.below(self.services.len());
        let name = self.services[index].name();
        let act = match self.random.below(14) {
            10 | 13 if self.covers(index) => 3,
            act => act,
        };
        let is_slow = matches!(act, 10 | 11 | 13);
        self.slow += usize::from(is_slow);
        if is_slow && self.slow > MOST_SLOW {
            return self.edit_server(index);
        }
        match act {
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

    /// Whether a service and one of every port have an address in common: see "a deleted service
    /// beside one of every port" in standards.md.
    fn covers(&self, index: usize) -> bool {
        let at = |service: &Service| (service.transport, service.at.ip());
        let service = &self.services[index];
        let mut same = self
            .services
            .iter()
            .filter(|other| at(other) == at(service));
        let is_wide = same.clone().any(|other| other.at.port() == 0);
        is_wide && same.nth(1).is_some()
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

    /// The server may come back later by an edit, which is refused, or be added again.
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

    /// Deletes everything, and adds one service again as it was.
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
        if self.services[index].mark.is_some() {
            return self.change();
        }
        let (server, _) = self.server(index);
        let line = self.random.one_of(&ODD);
        let at = self.services[index].at.to_string();
        let line = line.replace("{service}", &at);
        self.command(line.replace("{server}", &server.to_string()));
    }
}

impl Service {
    /// Whether packets to this address belong to the service.
    pub(super) fn has(&self, flow: &Flow) -> bool {
        if self.mark.is_some() {
            return self.rules.iter().any(|rule| rule.has(flow));
        }
        let has_port = self.at.port() == 0 || self.at == flow.service;
        self.transport == flow.transport && self.at.ip() == flow.service.ip() && has_port
    }

    /// The port that clients use.
    pub(super) fn ends(&self) -> Vec<SocketAddr> {
        match self.mark {
            Some(_) => self.rules.iter().map(|rule| rule.at).collect(),
            None => vec![self.at],
        }
    }

    /// The datagrams of a mark are not scheduled one by one here, and "ports of a persistent mark"
    /// is a known difference.
    fn takes(&self, words: &str) -> bool {
        let is_port_lost = words.contains("-p") && self.maps;
        self.mark.is_none() || !(words.contains("-o") || is_port_lost)
    }

    /// A mark has no port.
    fn port(&self) -> u16 {
        self.mark.map_or(self.at.port(), |_| 0)
    }

    fn name(&self) -> String {
        match (self.mark, self.family) {
            (Some(mark), Family::V4) => return format!("-f {mark}"),
            (Some(mark), Family::V6) => return format!("-f {mark} -6"),
            (None, _) => {}
        }
        let option = match self.transport {
            Transport::Tcp => "-t",
            Transport::Udp => "-u",
            Transport::Sctp => "--sctp-service",
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
            "chunk 1",
            "mark 1 for",
            "-A -f 1 -6",
            "answer to sctp",
        ];
        for kind in kinds {
            assert!(has(kind), "{kind}");
        }
    }
}
