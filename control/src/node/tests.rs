//! The node as a whole, and that a recording of it replays to the same outputs.

use std::cell::Cell;
use std::time::Duration;

use proptest::prelude::*;
use shunt_datapath::entry::{self, PoolWord, counts};
use shunt_model::api::Reason;
use shunt_model::batch::Mode;
use shunt_model::change::{local, server, service, setting};
use shunt_model::{Method, Scheduler, SchedulerFlags, Server, ServerAddress, Service, Setting};

use super::recording::{Fresh, Head, MOST, Recorded, Recording, Unfaithful};
use super::*;
use crate::director::{Clock, Sizes, Snapshot};
use crate::network::neighbours::State;
use crate::network::routes::{Path, Prefix, RouteEntry};
use crate::network::{Link, Neighbour};
use crate::table::{Limits, Table};

mod refused;

/// The sizes are small, so that changes also find no room.
const SIZES: Sizes = Sizes {
    services: 6,
    servers: 24,
    pool_words: 1 << 12,
};
const CLOCK: Clock = Clock {
    tick_ns: 1_000_000_000,
};
const INTERFACE: u32 = 2;

/// A packet path in which everything moves: no two questions have the same answer.
#[derive(Default)]
struct Lively(Cell<u64>);

impl Lively {
    fn next(&self) -> u64 {
        let next = self.0.get().wrapping_mul(6_364_136_223_846_793_005);
        self.0.set(next.wrapping_add(1_442_695_040_888_963_407));
        self.0.get() >> 33
    }
}

impl Running for Lively {
    fn pool_word(&self, _: u32) -> u64 {
        self.next() % 7
    }

    fn is_overloaded(&self, _: u32) -> bool {
        self.next().is_multiple_of(2)
    }

    fn counts(&self, _: u32) -> u64 {
        self.next() % 100 * counts::ACTIVE
    }

    fn server(&self, _: u32) -> Option<entry::Server> {
        None
    }

    fn counters(&self, _: u32) -> Counters {
        counted(self.next() % 100)
    }
}

fn counted(connections: u64) -> Counters {
    Counters {
        connections,
        ..Counters::default()
    }
}

/// A node, the packet path and whoever else answers its questions.
struct World {
    node: Node,
    recording: Recording,
    running: Lively,
    now: Instant,
    /// Why the journal takes nothing, if it does not.
    journal: Result<(), Refusal>,
    outputs: Vec<Output>,
    path: refused::Path,
}

impl World {
    fn new() -> Self {
        Self::of(node(BTreeSet::new(), Instant::now()))
    }

    /// Begins to record a node in the middle of its life.
    fn of(node: Node) -> Self {
        let now = node.now;
        Self {
            node,
            recording: Recording::new(None, now),
            running: Lively::default(),
            now,
            journal: Ok(()),
            outputs: Vec::new(),
            path: refused::Path::default(),
        }
    }

    /// With a link to the servers' network.
    fn connected() -> Self {
        let mut world = Self::new();
        for input in network() {
            world.take(Input::Network(input));
        }
        world
    }

    fn hand(&mut self, input: Input) {
        let Self { node, running, .. } = self;
        self.recording.handle(node, input, self.now, running);
    }

    /// Hands an input to the node and carries out its outputs, as the daemon does. Returns them.
    fn take(&mut self, input: Input) -> Vec<Output> {
        let before = self.outputs.len();
        self.hand(input);
        self.settle();
        self.outputs[before..].to_vec()
    }

    fn settle(&mut self) {
        while let Some(output) = self.recording.poll(&mut self.node) {
            match &output {
                Output::Write(write) => {
                    if let Err(why) = self.path.write(write) {
                        self.hand(Input::Refused { why });
                    }
                }
                Output::Compile(service) => self.hand(Input::Compile(*service)),
                Output::Reserve { .. } | Output::WriteDown { .. } => {
                    self.hand(Input::Reserved(self.journal.clone()));
                }
                Output::LetPacketsPass => self.hand(Input::PacketsPassed(true)),
                Output::Confirm(made) => {
                    if *made == Made::Undone {
                        self.path.begin(&self.node.forward.snapshot());
                    }
                    self.hand(Input::Confirmed(self.journal.clone()));
                }
                _ => {}
            }
            self.path.remember(&output);
            self.outputs.push(output);
        }
    }

    fn change(&mut self, ticket: u64, change: Change) -> Vec<Output> {
        let change = Box::new(change);
        self.take(Input::Change { ticket, change })
    }

    fn batch(&mut self, ticket: u64, mode: Mode, changes: Vec<Change>) -> Vec<Output> {
        let batch = Batch { mode, changes };
        self.take(Input::Batch { ticket, batch })
    }
}

fn node(missing: BTreeSet<Program>, now: Instant) -> Node {
    let table = Table::new(Limits::default());
    let (running, pool) = (Lively::default(), |_| PoolWord(0));
    let snapshot = Snapshot::default();
    let forward = Director::resume(snapshot, table, SIZES, CLOCK, &running, pool, now).unwrap();
    let start = Start {
        missing,
        flows: [1024, 1024],
        ..Start::default()
    };
    Node::new(forward, start, now)
}

fn key(number: u32) -> ServiceKey {
    let port = 80 + number % 3;
    format!("tcp/192.0.2.1:{port}").parse().unwrap()
}

fn at(number: u32) -> ServerAddress {
    let last = 1 + number / 3 % 9;
    format!("10.1.0.{last}:80").parse().unwrap()
}

fn server(number: u32) -> Server {
    let methods = [Method::Masquerade, Method::Route, Method::FullNat];
    Server {
        at: at(number),
        method: methods[number as usize / 16 % 3],
        weight: number / 32 % 4,
        upper_threshold: number / 128 % 3,
        lower_threshold: 0,
    }
}

fn service(number: u32) -> Service {
    let schedulers = [Scheduler::Rr, Scheduler::Wrr, Scheduler::Wlc, Scheduler::Mh];
    Service {
        key: key(number),
        scheduler: schedulers[number as usize / 3 % 4],
        flags: SchedulerFlags::default(),
        persistence: None,
        one_packet: false,
        settings: Default::default(),
        idle_engine: None,
        announce: None,
    }
}

fn add_service(number: u32) -> Change {
    let service = service(number);
    Change::Service(service::Change::Add { service })
}

fn add_server(number: u32) -> Change {
    let (key, server) = (key(number), server(number));
    Change::Server(server::Change::Add { key, server })
}

fn zero(number: u32) -> Change {
    let key = Some(key(number));
    Change::Service(service::Change::Zero { key })
}

/// The account of a link with the servers' network.
fn network() -> Vec<network::Input> {
    let link = Link::card(INTERFACE, "eth0", [2, 0, 0, 0, 0, 1]);
    let path = Path {
        interface: INTERFACE,
        gateway: None,
    };
    let route = RouteEntry::unicast(Prefix::new([10, 1, 0, 0].into(), 16), vec![path]);
    let replace = false;
    vec![
        network::Input::ResyncBegin,
        network::Input::LinkChanged(link),
        network::Input::RouteAdded { route, replace },
        network::Input::ResyncEnd,
    ]
}

fn neighbour(number: u32) -> network::Input {
    let is_known = (number / 32).is_multiple_of(2);
    network::Input::NeighbourChanged(Neighbour {
        interface: INTERFACE,
        address: at(number).address,
        mac: is_known.then_some([2, 0, 0, 0, 1, (number / 64) as u8]),
        state: match is_known {
            true => State::Reachable,
            false => State::Failed,
        },
    })
}

fn found(number: u32) -> Swept {
    let some = |bits: u32| (1..9).filter(|id| bits >> id & 1 != 0).collect();
    Swept {
        used: u64::from(number % 2000),
        // More entries of IPv6 than entries is nonsense.
        used6: u64::from(number % 3000),
        services: some(number / 3),
        servers: some(number / 5),
        ..Swept::default()
    }
}

/// A change that this random number stands for. Many are refused.
fn change(number: u32) -> Change {
    let (kind, number) = (number % 12, number / 12);
    let (key, server) = (key(number), server(number));
    match kind {
        0..=2 => add_service(number),
        3..=6 => add_server(number),
        7 => Change::Server(server::Change::Edit { key, server }),
        8 => Change::Server(server::Change::Delete {
            key,
            at: at(number),
        }),
        9 if number.is_multiple_of(3) => Change::Service(service::Change::Delete { key }),
        9 if number.is_multiple_of(16) => Change::Service(service::Change::Flush),
        9 => zero(number),
        10 => Change::Setting(setting::Change::Set {
            setting: Setting::ScheduleIcmp(number.is_multiple_of(2)),
        }),
        _ => Change::Local(local::Change::Delete {
            address: "10.1.0.1".parse().unwrap(),
        }),
    }
}

/// An input that this random number stands for. Some answer a question that nobody asked, and some
/// are nonsense.
fn input(number: u32) -> Input {
    let (kind, number) = (number % 27, number / 27);
    let ticket = u64::from(number);
    let refusal = Refusal {
        reason: Reason::NotKept,
        text: "no space left on device".to_owned(),
    };
    match kind {
        0..=9 => Input::Change {
            ticket,
            change: Box::new(change(number)),
        },
        10..=12 => {
            let numbers = (0..number % 5).map(|more| number.wrapping_mul(7 + more));
            let changes = numbers.map(change).collect();
            let mode = match number.is_multiple_of(2) {
                true => Mode::Whole,
                false => Mode::Each,
            };
            let batch = Batch { mode, changes };
            Input::Batch { ticket, batch }
        }
        13..=15 => Input::Network(neighbour(number)),
        16 => Input::Swept(Box::new(found(number))),
        17 => Input::SweepDue { random: number },
        18 => Input::Loaded {
            program: Program::ALL[number as usize % 4],
            result: match number.is_multiple_of(3) {
                true => Err("E2BIG".to_owned()),
                false => Ok(()),
            },
        },
        19 => Input::DevicesAttached,
        20 => Input::Reserved(Err(refusal)),
        21 => Input::Confirmed(Ok(())),
        22 => Input::PacketsPassed(number.is_multiple_of(2)),
        23 => Input::Sampled(vec![counted(number.into()); number as usize % 9]),
        24 => Input::TakeSample,
        25 => Input::Refused {
            why: "full".to_owned(),
        },
        _ => match number % 4 {
            0 => Input::Compile(key(number)),
            1 => Input::Network(network::Input::LinkRemoved { interface: number }),
            2 => Input::Network(network::Input::ResyncBegin),
            _ => Input::Network(network::Input::Tick),
        },
    }
}

/// Drives a node through inputs that take some time each. Now and then the journal takes nothing,
/// or the outputs are not carried out at once.
fn drive(world: &mut World, numbers: &[u32]) {
    for number in numbers {
        world.now += Duration::from_millis(u64::from(number % 700));
        world.journal = match number / 700 % 8 {
            0 => Err(Refusal {
                reason: Reason::NotKept,
                text: "no space left on device".to_owned(),
            }),
            _ => Ok(()),
        };
        let input = input(*number);
        match number / 5600 % 8 {
            0 => world.hand(input),
            _ => drop(world.take(input)),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_recording_replays_to_the_same_outputs_from_where_it_began(
        before in prop::collection::vec(any::<u32>(), 0..60),
        numbers in prop::collection::vec(any::<u32>(), 0..120),
        loads in any::<bool>(),
    ) {
        let missing = if loads { Program::ALL.into() } else { BTreeSet::new() };
        let mut first = World::of(node(missing, Instant::now()));
        for input in network() {
            first.hand(Input::Network(input));
        }
        drive(&mut first, &before);

        let mut recorded = World::of(first.node);
        let (mut fresh, begun) = (recorded.node.clone(), recorded.now);
        drive(&mut recorded, &numbers);

        // The text that the API shows is enough.
        let lines = recorded.recording.inputs().map(|input| serde_json::to_string(input).unwrap());
        let lines: Vec<String> = lines.collect();
        let read = lines.iter().map(|line| serde_json::from_str(line).unwrap());
        let read: Vec<Recorded> = read.collect();
        // Samples are not recorded, and may come before the first input.
        let polls = recorded.recording.head(0).polls;
        let mut outputs: Vec<Output> = (0..polls).filter_map(|_| fresh.poll()).collect();
        for (number, recorded) in read.iter().enumerate() {
            outputs.extend(recorded.replay(number, &mut fresh, begun).unwrap());
        }
        prop_assert_eq!(outputs, recorded.outputs);
        prop_assert_eq!(fresh.forward.snapshot(), recorded.node.forward.snapshot());
        prop_assert_eq!(fresh.retired.all(), recorded.node.retired.all());
        prop_assert_eq!(fresh.deadline(), recorded.node.deadline());
    }
}

#[test]
fn a_recording_of_a_fresh_node_replays_from_its_text_alone() {
    let fresh = Fresh {
        sizes: SIZES,
        tick_ns: CLOCK.tick_ns,
        missing: Program::ALL.into(),
        flows: [1024, 1024],
    };
    let mut world = World::of(fresh.node(Instant::now()));
    world.recording = Recording::new(Some(fresh), world.now);
    world.settle();
    drive(&mut world, &[10, 36, 400, 5_000, 62, 88, 700_000, 18]);

    let head = world.recording.head(7);
    let text = serde_json::to_string(&head).unwrap();
    assert_eq!(serde_json::from_str::<Head>(&text).unwrap(), head);
    let later = world.now + Duration::from_secs(60);
    let (mut node, mut outputs) = head.node(later).unwrap();
    for (number, recorded) in world.recording.inputs().enumerate() {
        outputs.extend(recorded.replay(number, &mut node, later).unwrap());
    }
    assert_eq!(outputs, world.outputs);
    let resumed = Head {
        fresh: None,
        ..head
    };
    assert_eq!(resumed.node(later).err(), Some(Unfaithful::NotFresh));
}

#[test]
fn a_recording_is_bounded_and_says_what_it_lost() {
    let mut world = World::new();
    let fresh = world.node.clone();
    for _ in 0..MOST + 100 {
        world.hand(Input::Network(network::Input::Tick));
    }
    let kept = world.recording.inputs().count();
    assert_eq!(kept as u64 + world.recording.lost(), MOST as u64 + 100);
    assert!(kept <= MOST);
    let lost = Unfaithful::Incomplete(world.recording.lost());
    let replayed = world.recording.replay(&mut fresh.clone(), world.now);
    assert_eq!(replayed, Err(lost));
}

#[test]
fn an_input_larger_than_the_recording_is_made_and_not_kept() {
    let mut world = World::connected();
    let before = world.recording.inputs().count() as u64;
    let changes = vec![add_service(0); 100_000];
    let outputs = world.batch(1, Mode::Whole, changes);
    let is_answer = |output: &Output| matches!(output, Output::Answer { ticket: 1, .. });
    assert!(outputs.iter().any(is_answer));
    assert_eq!(world.recording.inputs().count(), 0);
    assert_eq!(world.recording.lost(), before + 1);
}

#[test]
fn a_node_that_reads_other_things_than_the_recorded_one_is_found_out() {
    let mut world = World::connected();
    world.change(1, add_service(0));
    let (node, now) = (world.node.clone(), world.now);
    let mut world = World::of(node);
    world.change(2, add_server(0));
    let mut other = World::connected().node;
    let replayed = world.recording.replay(&mut other, now);
    assert_eq!(replayed, Err(Unfaithful::Diverged(1)));
}

/// The places in a batch of the changes that its answer, the last output, says were refused.
fn refused_of(outputs: &[Output]) -> Vec<usize> {
    let Some(Output::Answer {
        reply: Reply::Batch(Ok(answer)),
        ..
    }) = outputs.last()
    else {
        panic!("{outputs:?}");
    };
    answer.refused.iter().map(|refused| refused.index).collect()
}

fn names(outputs: &[Output]) -> Vec<&'static str> {
    let name = |output: &Output| match output {
        Output::Write(_) => "write",
        Output::Probe { .. } => "probe",
        Output::Devices => "devices",
        Output::Compile(_) => "compile",
        Output::Remember { .. } => "remember",
        Output::Reserve { .. } => "reserve",
        Output::WriteDown { .. } => "write down",
        Output::LetPacketsPass => "packets",
        Output::Confirm(_) => "confirm",
        Output::Event(_) => "event",
        Output::Answer { .. } => "answer",
        Output::Sweep(_) => "sweep",
    };
    let mut names: Vec<_> = outputs.iter().map(name).collect();
    names.dedup();
    names
}

#[test]
fn a_change_is_reserved_remembered_written_confirmed_and_answered_in_this_order() {
    let mut world = World::connected();
    let outputs = world.change(7, add_service(0));
    let order = ["reserve", "remember", "write", "confirm", "event", "answer"];
    assert_eq!(names(&outputs), order);
    let reply = Reply::Change(Ok(Done {}));
    assert_eq!(outputs.last(), Some(&Output::Answer { ticket: 7, reply }));
}

#[test]
fn the_answer_waits_for_the_next_hop_and_not_for_ever() {
    for is_found in [true, false] {
        let mut world = World::connected();
        world.change(1, add_service(0));
        let outputs = world.change(2, add_server(0));
        assert!(!names(&outputs).contains(&"answer"), "{outputs:?}");
        let outputs = match is_found {
            true => world.take(Input::Network(neighbour(0))),
            false => {
                let deadlines = std::iter::repeat_with(|| {
                    world.now = world.node.deadline().unwrap();
                    world.take(Input::Network(network::Input::Tick))
                });
                let mut answered = deadlines.take(10);
                answered
                    .find(|outputs| names(outputs).contains(&"answer"))
                    .unwrap()
            }
        };
        let reply = Reply::Change(Ok(Done {}));
        assert_eq!(outputs.last(), Some(&Output::Answer { ticket: 2, reply }));
    }
}

#[test]
fn a_change_that_the_journal_has_no_room_for_is_not_made() {
    let mut world = World::connected();
    let refusal = Refusal {
        reason: Reason::NotKept,
        text: "no space left on device".to_owned(),
    };
    world.journal = Err(refusal.clone());
    let outputs = world.change(1, add_service(0));
    assert_eq!(names(&outputs), ["reserve", "answer"]);
    let reply = Reply::Change(Err(refusal));
    assert_eq!(outputs.last(), Some(&Output::Answer { ticket: 1, reply }));
    assert_eq!(world.node.forward().table().len(), 0);
}

#[test]
fn a_whole_batch_is_made_or_nothing_of_it() {
    let mut world = World::connected();
    let good = vec![add_service(0), add_service(1)];
    let bad = vec![add_service(2), add_service(0)];
    let outputs = world.batch(1, Mode::Whole, good);
    let part = ["remember", "write", "event", "confirm"];
    let order = [&["write down"][..], &part, &part, &["answer"]].concat();
    assert_eq!(names(&outputs), order);
    assert_eq!(world.node.forward().table().len(), 2);
    let outputs = world.batch(2, Mode::Whole, bad.clone());
    assert_eq!(names(&outputs), ["answer"]);
    assert_eq!(world.node.forward().table().len(), 2);
    let outputs = world.batch(3, Mode::Each, bad);
    assert_eq!(refused_of(&outputs), [1]);
    assert_eq!(world.node.forward().table().len(), 3);
}

#[test]
fn a_change_waits_for_its_program_and_the_changes_behind_it_wait_too() {
    let now = Instant::now();
    let mut world = World::of(node(Program::ALL.into(), now));
    world.settle();
    let quoted = Setting::ScheduleIcmp(true);
    let quoted = Change::Setting(setting::Change::Set { setting: quoted });
    assert_eq!(world.change(1, quoted), []);
    assert_eq!(world.change(2, add_service(0)), []);
    let (program, result) = (Program::Quoted, Err("E2BIG".to_owned()));
    let outputs = world.take(Input::Loaded { program, result });
    let answers = outputs.iter().filter_map(|output| match output {
        Output::Answer { ticket, reply } => Some((*ticket, matches!(reply, Reply::Change(Ok(_))))),
        _ => None,
    });
    assert_eq!(answers.collect::<Vec<_>>(), [(1, false), (2, true)]);
}

#[test]
fn a_deleted_server_is_counted_until_its_service_is_zeroed() {
    let mut world = World::connected();
    let (key, at) = (key(0), at(0));
    world.change(1, add_service(0));
    world.change(2, add_server(0));
    let delete = Change::Server(server::Change::Delete { key, at });
    let outputs = world.change(3, delete);
    let retired = world.node.retired().of(&key);
    assert_ne!(retired, Counters::default());
    let told = outputs.iter().find_map(|output| match output {
        Output::Remember { retired, .. } => Some(retired.clone()),
        _ => None,
    });
    assert_eq!(told, Some(vec![(key, Some(retired))]));
    let outputs = world.change(4, zero(0));
    assert!(outputs.contains(&Output::Write(Write::Forget { server: 1 })));
    assert_eq!(world.node.retired().of(&key), Counters::default());
}
