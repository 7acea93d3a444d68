//! Additions to a scenario: settings, SIP calls, IPsec, ICMP errors about unknown connections. Each
//! uses random numbers of its own, so that the rest of the scenario does not depend on it.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use shunt_lab::Family;

use super::packet::CALL_BYTES;
use super::random::Random;
use super::scenario::{Datagram, Error, Flow, MARKED, SERVERS, Secured, Slot, Step, Transport};
use super::vocabulary::{LAST, OF_CALLS, SETTINGS};

/// The port of the daemons that agree on keys (RFC 7296, 2).
const IKE: u16 = 500;

/// Returns a scenario's steps with all additions.
pub(super) fn all(seed: u64, slot: Slot, flows: &mut Vec<Flow>, steps: Vec<Step>) -> Vec<Step> {
    let steps = with_calls(seed, flows, steps);
    let steps = with_secured(seed, slot, flows, with_settings(seed, steps));
    with_errors(seed, flows, steps)
}

/// In one scenario of three, two clients agree on keys with a service for IKE, and use IPsec with
/// the server that they got.
fn with_secured(seed: u64, slot: Slot, flows: &mut Vec<Flow>, mut steps: Vec<Step>) -> Vec<Step> {
    let mut random = Random::new(seed ^ 0x1ce_5ec0);
    if !random.once_in(3) {
        return steps;
    }
    let family = random.one_of(&Family::BOTH);
    let address = slot.virtual_address(family, random.below(MARKED.into()) as u8);
    let service = SocketAddr::new(address, IKE);
    let mut command = |line: String| {
        let input = String::new();
        steps.push(Step::Command { line, input });
    };
    command(format!(
        "-A -u {service} -s rr{}",
        random.one_of(&["", " -p 100"])
    ));
    let (one, other) = (
        random.below(SERVERS.into()),
        1 + random.below(SERVERS as usize - 1),
    );
    for number in [one, (one + other) % usize::from(SERVERS)] {
        let server = SocketAddr::new(slot.server(family, number as u8), IKE);
        let method = random.one_of(&["-m", "-m", "-g", "-i"]);
        command(format!("-a -u {service} -r {server} {method}"));
    }
    let begun = flows.len();
    for number in 0..2 {
        let client = SocketAddr::new(slot.client(family, number as u8), IKE);
        let transport = Transport::Udp;
        flows.push(Flow {
            transport,
            client,
            service,
        });
    }
    for at in 0..6 + random.below(10) {
        let flow = begun + if at < 2 { at } else { random.below(2) };
        steps.push(secured(&mut random, flow, at < 2));
    }
    for line in ["-Lnc", "-Ln --stats"] {
        let (line, input) = (line.to_owned(), String::new());
        steps.push(Step::Command { line, input });
    }
    steps
}

/// A packet from one of the two ends.
fn secured(random: &mut Random, flow: usize, is_first: bool) -> Step {
    let datagram = Datagram {
        flags: 0,
        payload: 20,
        ttl: 60,
        traffic_class: 0,
        dont_fragment: false,
        pieces: 1,
    };
    let secured = Secured {
        authenticated: random.once_in(3),
        payload: random.one_of(&[16, 64, 1100]),
        ttl: random.one_of(&[2, 60, 64]),
    };
    match random.below(8) {
        _ if is_first && !random.once_in(5) => Step::Client { flow, datagram },
        0 => Step::Client { flow, datagram },
        1 => Step::Server { flow, datagram },
        2..=4 => Step::ClientSecured { flow, secured },
        _ => Step::ServerSecured { flow, secured },
    }
}

/// One scenario in three ends with ICMP errors about connections that nobody opened, while a
/// setting lets ICMP open them.
fn with_errors(seed: u64, flows: &mut Vec<Flow>, mut steps: Vec<Step>) -> Vec<Step> {
    let mut random = Random::new(seed ^ 0x1c3b_0e44);
    if flows.is_empty() || !random.once_in(3) {
        return steps;
    }
    steps.push(Step::Setting {
        name: LAST.to_owned(),
        value: 1,
    });
    for _ in 0..3 + random.below(5) {
        let known = flows[random.below(flows.len())];
        let mut client = known.client;
        client.set_port(1024 + random.below(64000) as u16);
        flows.push(Flow { client, ..known });
        let error = random.one_of(&[
            Error::PortUnreachable,
            Error::HostUnreachable,
            Error::TimeExceeded,
            Error::TooBig { mtu: 1400 },
        ]);
        let flow = flows.len() - 1;
        steps.push(Step::ClientError { flow, error });
    }
    steps
}

/// In one scenario of three, the UDP services that are added without a persistence template have
/// calls. Most datagrams to them then contain a Call-ID.
fn with_calls(seed: u64, flows: &[Flow], mut steps: Vec<Step>) -> Vec<Step> {
    // Separate random numbers, as below.
    let mut random = Random::new(seed ^ 0x0ca1_1ed5);
    if !random.once_in(3) {
        return steps;
    }
    let mut with = BTreeSet::new();
    for step in &mut steps {
        match step {
            Step::Command { line, .. } if line.starts_with("-A -u ") && !line.contains(" -p ") => {
                with.extend(line.split_whitespace().nth(2).map(str::to_owned));
                *line += random.one_of(&OF_CALLS);
            }
            Step::Client { flow, datagram } | Step::Server { flow, datagram } => {
                let to = flows
                    .get(*flow)
                    .filter(|flow| flow.transport == Transport::Udp);
                let named = to.is_some_and(|flow| with.contains(&flow.service.to_string()));
                if named && datagram.payload < CALL_BYTES && !random.once_in(6) {
                    datagram.payload = 60;
                }
            }
            _ => {}
        }
    }
    steps
}

/// One scenario in two changes its settings, at any step.
fn with_settings(seed: u64, mut steps: Vec<Step>) -> Vec<Step> {
    // Separate random numbers: the rest of the scenario does not depend on them.
    let mut random = Random::new(seed ^ 0x5e77_1965);
    if random.once_in(2) {
        return steps;
    }
    for _ in 0..1 + random.below(3) {
        let (name, values) = random.one_of(&SETTINGS);
        // See "a server that comes back" in standards.md.
        if name == "expire_nodest_conn" && comes_back(&steps) {
            continue;
        }
        let setting = Step::Setting {
            name: name.to_owned(),
            value: random.one_of(values),
        };
        let at = random.below(steps.len() / 2);
        steps.insert(at, setting);
    }
    steps
}

/// Whether a server is added twice, perhaps with a deletion in between.
fn comes_back(steps: &[Step]) -> bool {
    let mut added = BTreeSet::new();
    let mut lines = steps.iter().flat_map(|step| match step {
        Step::Command { line, input } => [line.as_str(), input.as_str()],
        _ => ["", ""],
    });
    lines.any(|text| {
        let mut adds = text.lines().filter(|line| line.starts_with("-a "));
        adds.any(|line| {
            let words: Vec<&str> = line.split_whitespace().take(5).collect();
            !added.insert(words.join(" "))
        })
    })
}
