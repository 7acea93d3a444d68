//! Replays every line of the recording, digit for digit.
//!
//! The first lines of `schedulers.txt` explain its words.

use std::collections::BTreeMap;

use super::*;

const RECORDING: &str = include_str!("../../../tests/oracle/schedulers.txt");

/// The results of the lines with a sequence of choices.
#[derive(Debug, Default, PartialEq, Eq)]
struct Tally {
    replayed: usize,
    /// The number of lines of ipvsadm's listing that were compared with the live counts.
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
        replayed: 222,
        listed: 132,
    };
    assert_eq!(tally, expected);
    // These numbers include every line with a sequence: each ends with its counts in brackets.
    let sequences = RECORDING
        .lines()
        .filter(|line| line.starts_with("  ") && line.ends_with(')'));
    assert_eq!(sequences.count(), 222);
}

/// A line's words and its choices. The counts in brackets after them follow from the choices.
fn sequence(line: &str) -> Option<(&str, &str)> {
    let (rest, counts) = line.strip_prefix("  ")?.rsplit_once("  (")?;
    let (what, sequence) = rest.rsplit_once(' ')?;
    let digits = sequence.chars().all(|c| "123-".contains(c));
    (counts.ends_with(')') && digits).then_some((what.trim(), sequence))
}

/// A server of a listing with its counts.
fn listed(line: &str) -> Option<(u32, u32, u32)> {
    let words: Vec<&str> = line.split_whitespace().collect();
    // Its method and weight, or its thresholds.
    let ["->", server, _, _, active, inactive] = words[..] else {
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
    let flags = SchedulerFlags {
        fallback: flags.ends_with("-fallback"),
        port: flags.ends_with("-port"),
        ..SchedulerFlags::default()
    };
    let family = if ipv6 { Family::Ipv6 } else { Family::Ipv4 };
    let (mut replay, how) = begin(scheduler, flags, family, what, running);
    let chosen = replay.run(how, sequence.len());
    assert_eq!(chosen, sequence, "line {number}: {section}: {what}");
    tally.replayed += 1;
    Some(replay)
}

/// Sets up the service that a line describes, or changes the running one. Returns the words that
/// name the connections to make.
fn begin(
    scheduler: Scheduler,
    flags: SchedulerFlags,
    family: Family,
    what: &str,
    running: Option<Replay>,
) -> (Replay, &str) {
    let fresh = |servers: [(u32, u32); 3]| {
        let setting = Setting {
            scheduler,
            flags,
            family,
            thresholds: (0, 0),
            port: 80,
        };
        Replay::new(setting, servers)
    };
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
    if let Some(how) = what.strip_prefix("thresholds -x 4 -y 2 on each: ") {
        let mut replay = fresh(usual);
        replay.setting.thresholds = (4, 2);
        return (Replay::new(replay.setting, usual), how);
    }
    if what.starts_with("targets") {
        // A service by mark, whose servers have no port of their own.
        let mut replay = fresh(usual);
        replay.setting.port = 0;
        return (Replay::new(replay.setting, usual), what);
    }
    let how = what.strip_suffix("; 12 connections").unwrap_or(what);
    (fresh(usual), how)
}

#[derive(Clone, Copy)]
struct Setting {
    scheduler: Scheduler,
    flags: SchedulerFlags,
    family: Family,
    thresholds: (u32, u32),
    /// The servers' port.
    port: u16,
}

/// A service of the recording. Server rs1 has the id 1.
struct Replay {
    setting: Setting,
    memory: Memory,
    members: Vec<Member>,
    connections: u16,
}

impl Replay {
    /// The servers are added one by one, in this order.
    fn new(setting: Setting, servers: [(u32, u32); 3]) -> Self {
        let mut replay = Self {
            setting,
            memory: Memory::new(4, setting.flags),
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
        let address = match self.setting.family {
            Family::Ipv4 => format!("10.0.2.1{id}"),
            Family::Ipv6 => format!("fd00:2::1{id}"),
        };
        let at = ServerAddress {
            address: address.parse().unwrap(),
            port: self.setting.port,
        };
        let thresholds = self.setting.thresholds;
        let member = Member {
            id,
            at,
            weight,
            last_weight: weight,
            limited: thresholds.0 != 0,
        };
        self.memory.stand(id, weight, thresholds, false);
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
                let weight = member.weight;
                self.memory.stand(id, weight, (0, 0), false);
            }
            ["deleted"] => {
                members.retain(|member| member.id != id);
                self.memory.absent(id);
            }
            // The server returns with its former weight.
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
            turn(
                self.setting.scheduler,
                &self.members,
                &pool,
                self.memory.cursor(),
            )
        };
        let rule = Rule {
            family: self.setting.family,
            ..rule(self.setting.scheduler)
        };
        let compiled = compile(rule, &members, &turn);
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
        let client: u32 = match self.setting.family {
            Family::Ipv4 => 0x0a00_010a,
            // fd00:1::10, its words folded by XOR.
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
                "targets" => {
                    let target = 0x0a00_0301 + u32::from(index % 24);
                    self.memory.pick_to(client, 40_000 + number, target)
                }
                _ => panic!("unknown sources: {how}"),
            };
            if id == 0 {
                return '-';
            }
            self.memory.open(id, held);
            char::from_digit(id, 10).unwrap()
        });
        let chosen = chosen.collect();
        self.connections += first;
        chosen
    }
}
