//! Every line of the recording that the carried schedulers can answer, replayed digit for digit.
//!
//! `schedulers.txt` says in its own first lines what the words mean.

use std::collections::BTreeMap;

use super::*;

const RECORDING: &str = include_str!("../../../tests/oracle/schedulers.txt");

/// What became of the lines with a sequence of choices.
#[derive(Debug, Default, PartialEq, Eq)]
struct Tally {
    replayed: usize,
    /// Of schedulers that are not carried.
    other_schedulers: usize,
    /// Connection thresholds are not carried.
    thresholds: usize,
    /// Firewall marks are not carried.
    marks: usize,
    /// Lines of ipvsadm's listing that were compared with the live counts.
    listed: usize,
}

#[test]
fn recording_of_ipvs_is_replayed_digit_for_digit() {
    let mut tally = Tally::default();
    let mut section = "";
    let mut replay = None;
    for (number, line) in (1..).zip(RECORDING.lines()) {
        if let Some(title) = line.strip_prefix("== ") {
            section = title;
            replay = None;
        } else if let Some((what, sequence)) = sequence(line) {
            replay = one_sequence(&mut tally, section, what, sequence, replay, number);
        } else if let (Some((server, active, inactive)), Some(replay)) = (listed(line), &replay) {
            let counts = replay.memory.counts(server);
            assert_eq!(counts, (active, inactive), "line {number}: {line}");
            tally.listed += 1;
        }
    }

    let expected = Tally {
        replayed: 134,
        other_schedulers: 78,
        thresholds: 8,
        marks: 2,
        listed: 48,
    };
    assert_eq!(tally, expected);
    // No line with a sequence is missing in these numbers: each ends with its counts in brackets.
    let sequences = RECORDING
        .lines()
        .filter(|line| line.starts_with("  ") && line.ends_with(')'));
    assert_eq!(sequences.count(), 134 + 78 + 8 + 2);
}

/// A line's words and its choices; the counts in brackets after them are left to the choices.
fn sequence(line: &str) -> Option<(&str, &str)> {
    let (rest, counts) = line.strip_prefix("  ")?.rsplit_once("  (")?;
    let (what, sequence) = rest.rsplit_once(' ')?;
    let digits = sequence.chars().all(|c| "123-".contains(c));
    (counts.ends_with(')') && digits).then_some((what.trim(), sequence))
}

/// A server of a listing with its counts.
fn listed(line: &str) -> Option<(u32, u32, u32)> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let ["->", server, "Masq", _weight, active, inactive] = words[..] else {
        return None;
    };
    let (address, _port) = server.rsplit_once(':')?;
    let number: u32 = address.rsplit_once(".1")?.1.parse().ok()?;
    Some((number, active.parse().ok()?, inactive.parse().ok()?))
}

fn one_sequence(
    tally: &mut Tally,
    section: &str,
    what: &str,
    sequence: &str,
    running: Option<Replay>,
    number: usize,
) -> Option<Replay> {
    // The IPv6 section names the scheduler in each line.
    let ipv6 = section.starts_with("IPv6");
    let (scheduler, what) = if ipv6 {
        what.split_once(": ").unwrap()
    } else {
        let title = section.split_once(':').map_or(section, |(title, _)| title);
        (title, what)
    };
    let (name, flags) = scheduler.split_once(" -b ").unwrap_or((scheduler, ""));
    let scheduler: Scheduler = name.parse().unwrap();
    if !crate::carried::SCHEDULERS.contains(&scheduler) {
        tally.other_schedulers += 1;
        return None;
    }
    if what.starts_with("thresholds") {
        tally.thresholds += 1;
        return None;
    }
    if what.starts_with("targets") {
        tally.marks += 1;
        return None;
    }
    let flags = SchedulerFlags {
        fallback: flags.ends_with("-fallback"),
        port: flags.ends_with("-port"),
        third: false,
    };
    let family = if ipv6 { Family::Ipv6 } else { Family::Ipv4 };
    let (mut replay, how) = begin(scheduler, flags, family, what, running);
    let chosen = replay.run(how, sequence.len());
    assert_eq!(chosen, sequence, "line {number}: {section}: {what}");
    tally.replayed += 1;
    Some(replay)
}

/// Sets up the service that a line speaks of, or changes the running one. Gives back the words
/// that say which connections come.
fn begin(
    scheduler: Scheduler,
    flags: SchedulerFlags,
    family: Family,
    what: &str,
    running: Option<Replay>,
) -> (Replay, &str) {
    let fresh = |servers: [(u32, u32); 3]| Replay::new(scheduler, flags, family, servers);
    let usual = [(1, 3), (2, 2), (3, 1)];
    if let Some(change) = what.strip_prefix("then ") {
        let mut replay = running.expect("a change follows a run");
        replay.change(change.strip_suffix("; 12 more").unwrap());
        return (replay, "ports, held");
    }
    if let Some(how) = what.strip_prefix("rs2 deleted: ") {
        let mut replay = running.expect("a change follows a run");
        replay.change("rs2 deleted");
        return (replay, how);
    }
    if let Some(rest) = what.strip_prefix("weights ") {
        let (weights, how) = rest.split_once(": ").unwrap();
        let weights: Vec<u32> = weights.split(", ").map(|w| w.parse().unwrap()).collect();
        let [first, second, third] = weights[..] else {
            panic!("three weights: {what}");
        };
        return (fresh([(1, first), (2, second), (3, third)]), how);
    }
    if let Some(how) = what.strip_prefix("servers added as rs3, rs2, rs1: ") {
        return (fresh([(3, 1), (2, 2), (1, 3)]), how);
    }
    let how = what.strip_suffix("; 12 connections").unwrap_or(what);
    (fresh(usual), how)
}

/// A service that the recording speaks of. Server rs1 has the id 1.
struct Replay {
    scheduler: Scheduler,
    family: Family,
    memory: Memory,
    members: Vec<Member>,
    connections: u16,
}

impl Replay {
    /// The servers are added one by one, in this order.
    fn new(
        scheduler: Scheduler,
        flags: SchedulerFlags,
        family: Family,
        servers: [(u32, u32); 3],
    ) -> Self {
        let mut replay = Self {
            scheduler,
            family,
            memory: Memory::new(4, flags),
            members: Vec::new(),
            connections: 0,
        };
        replay.compile(Vec::new());
        for (id, weight) in servers {
            replay.add(id, weight);
        }
        replay
    }

    fn add(&mut self, id: u32, weight: u32) {
        let address = match self.family {
            Family::Ipv4 => format!("10.0.2.1{id}"),
            Family::Ipv6 => format!("fd00:2::1{id}"),
        };
        let at = ServerAddress {
            address: address.parse().unwrap(),
            port: 80,
        };
        let member = Member {
            id,
            at,
            weight,
            last_weight: weight,
        };
        let mut members = self.members.clone();
        members.insert(0, member);
        self.compile(members);
    }

    fn change(&mut self, change: &str) {
        let words: Vec<&str> = change.split(' ').collect();
        let id: u32 = words[0].strip_prefix("rs").unwrap().parse().unwrap();
        let mut members = self.members.clone();
        match words[1..] {
            ["to", "weight", weight] => {
                let member = members.iter_mut().find(|m| m.id == id).unwrap();
                member.weight = weight.parse().unwrap();
                if member.weight > 0 {
                    member.last_weight = member.weight;
                }
            }
            ["deleted"] => members.retain(|member| member.id != id),
            // With the weight that it had.
            ["added", "again"] => {
                return self.add(id, BTreeMap::from([(1, 3), (2, 2), (3, 1)])[&id]);
            }
            _ => panic!("unknown change: {change}"),
        }
        self.compile(members);
    }

    fn compile(&mut self, members: Vec<Member>) {
        let turn = if self.members.is_empty() {
            Turn::Start
        } else {
            let pool = self.memory.read_back();
            turn(self.scheduler, &self.members, &pool, self.memory.cursor())
        };
        let compiled = compile(self.scheduler, self.family, &members, &turn);
        self.memory.switch(&compiled);
        self.members = members;
    }

    fn run(&mut self, how: &str, count: usize) -> String {
        let (sources, fate) = how.rsplit_once(", ").unwrap();
        let held = match fate {
            "held" => true,
            "closed" => false,
            _ => panic!("unknown fate: {how}"),
        };
        let client: u32 = match self.family {
            Family::Ipv4 => 0x0a00_010a,
            // fd00:1::10, its words one over the other.
            Family::Ipv6 => 0xfd00_0001 ^ 0x10,
        };
        let first = u16::try_from(count).unwrap();
        let chosen = (0..first).map(|index| {
            let number = self.connections + index;
            let id = match sources {
                "ports" => self.memory.pick(client, 40_000 + number),
                "clients" => self.memory.pick(client + u32::from(index), 40_000),
                "clients (source port 42000)" => {
                    self.memory.pick(client + u32::from(index), 42_000)
                }
                _ => panic!("unknown sources: {how}"),
            };
            if id == 0 {
                return '-';
            }
            self.memory.add(id, held.into(), (!held).into());
            char::from_digit(id, 10).unwrap()
        });
        let chosen = chosen.collect();
        self.connections += first;
        chosen
    }
}
