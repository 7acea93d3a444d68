//! What a scenario gets besides: settings, calls of SIP, errors about nothing. Each by numbers of
//! its own, so that what the scenario does otherwise does not depend on them.

use std::collections::BTreeSet;

use super::packet::CALL_BYTES;
use super::random::Random;
use super::scenario::{Error, Flow, Step, Transport};
use super::vocabulary::{LAST, OF_CALLS, SETTINGS};

/// A scenario's steps with all of these.
pub fn all(seed: u64, flows: &mut Vec<Flow>, steps: Vec<Step>) -> Vec<Step> {
    let steps = with_calls(seed, flows, steps);
    with_errors(seed, flows, with_settings(seed, steps))
}

/// One scenario in three ends with errors about connections that nobody has opened, where ICMP
/// opens them.
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

/// In one scenario of three, services of UDP have calls: all that are added without a template of
/// their own. Most datagrams to them name one then.
fn with_calls(seed: u64, flows: &[Flow], mut steps: Vec<Step>) -> Vec<Step> {
    // Numbers of its own, as below.
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

/// One scenario in two has settings other than those that it begins with, from any step on.
fn with_settings(seed: u64, mut steps: Vec<Step>) -> Vec<Step> {
    // Numbers of its own: what a scenario does otherwise does not depend on them.
    let mut random = Random::new(seed ^ 0x5e77_1965);
    if random.once_in(2) {
        return steps;
    }
    for _ in 0..1 + random.below(3) {
        let (name, values) = random.one_of(&SETTINGS);
        // "a server that comes back" in standards.md.
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

/// Whether a server is added twice, in between perhaps deleted.
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
