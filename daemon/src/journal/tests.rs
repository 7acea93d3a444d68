//! Tests of journals that end anywhere, contain wrong bytes, or grow.

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt;
use std::time::Instant;

use proptest::prelude::*;
use shunt_control::director::{Clock, Director, Output, Running, Sizes, Step};
use shunt_datapath::entry::{self, PoolWord};
use shunt_model::change::{Change, server, service, setting};
use shunt_model::{
    Method, Protocol, Scheduler, SchedulerFlags, Server, ServerAddress, Service, ServiceKey,
    Timeouts,
};

use super::*;

struct Empty;

impl Running for Empty {
    fn counters(&self, _: u32) -> shunt_model::Counters {
        shunt_model::Counters::default()
    }

    fn is_overloaded(&self, _: u32) -> bool {
        false
    }

    fn counts(&self, _: u32) -> u64 {
        0
    }

    fn pool_word(&self, _at: u32) -> u64 {
        0
    }

    fn server(&self, _id: u32) -> Option<entry::Server> {
        None
    }
}

fn table() -> Table {
    Table::new(Limits::default())
}

const SIZES: Sizes = Sizes {
    services: 8,
    servers: 16,
    pool_words: 4096,
};
const CLOCK: Clock = Clock {
    tick_ns: 1_000_000_000,
};

fn director() -> Director {
    Director::new(table(), SIZES, CLOCK, Instant::now())
}

fn key(number: u16) -> ServiceKey {
    ServiceKey::Address {
        protocol: Protocol::Tcp,
        address: "192.0.2.1".parse().unwrap(),
        port: 80 + number,
    }
}

fn at(number: u8) -> ServerAddress {
    ServerAddress {
        address: [10, 1, 0, number].into(),
        port: 80,
    }
}

fn add_service(number: u16, scheduler: Scheduler) -> Change {
    let service = Service {
        key: key(number),
        scheduler,
        flags: SchedulerFlags::default(),
        persistence: None,
        one_packet: false,
        settings: Default::default(),
        idle_engine: None,
        announce: None,
    };
    Change::Service(service::Change::Add { service })
}

fn server(number: u8, weight: u32, masquerade: bool) -> Server {
    Server {
        at: at(number),
        method: match masquerade {
            true => Method::Masquerade,
            false => Method::Route,
        },
        weight,
        upper_threshold: 0,
        lower_threshold: 0,
    }
}

/// An event of a director.
#[derive(Clone, Debug)]
enum Event {
    Change(Change),
    /// A scan found flows of these services and servers.
    Scan(BTreeSet<u32>, BTreeSet<u32>),
}

fn event() -> impl Strategy<Value = Event> {
    let ids = || prop::collection::btree_set(1_u32..12, 0..4);
    let service = 0_u16..4;
    let to_server = (0_u16..4, 1_u8..5, 0_u32..3, any::<bool>());
    prop_oneof![
        3 => service.clone().prop_map(|n| Event::Change(add_service(n, Scheduler::Rr))),
        1 => service.clone().prop_map(|n| {
            let Change::Service(service::Change::Add { service }) = add_service(n, Scheduler::Wlc) else { panic!() };
            Event::Change(Change::Service(service::Change::Edit { service }))
        }),
        1 => service.clone().prop_map(|n| Event::Change(Change::Service(service::Change::Delete { key: key(n) }))),
        6 => to_server.clone().prop_map(|(n, s, weight, nat)| {
            Event::Change(Change::Server(server::Change::Add { key: key(n), server: server(s, weight, nat) }))
        }),
        4 => to_server.clone().prop_map(|(n, s, weight, nat)| {
            Event::Change(Change::Server(server::Change::Edit { key: key(n), server: server(s, weight, nat) }))
        }),
        3 => to_server.prop_map(|(n, s, ..)| {
            Event::Change(Change::Server(server::Change::Delete { key: key(n), at: at(s) }))
        }),
        1 => Just(Event::Change(Change::Service(service::Change::Zero { key: None }))),
        1 => (1_u32..99).prop_map(|tcp_s| {
            let timeouts = Timeouts { tcp_s, tcp_fin_s: 0, udp_s: 0 };
            Event::Change(Change::Setting(setting::Change::Timeouts { timeouts }))
        }),
        1 => Just(Event::Change(Change::Service(service::Change::Flush))),
        3 => (ids(), ids()).prop_map(|(services, servers)| Event::Scan(services, servers)),
    ]
}

/// Makes an event happen, and returns the records of each step.
fn happen(director: &mut Director, event: &Event) -> Vec<Vec<Record>> {
    match event {
        Event::Change(change) => drop(director.change(change, &Empty, Instant::now())),
        Event::Scan(services, servers) => director.unused(services, servers),
    }
    let outputs = std::iter::from_fn(|| director.poll());
    let steps = outputs.filter_map(|output| match output {
        Output::Remember(step) => Some(records(step)),
        _ => None,
    });
    steps.collect()
}

fn records(step: Step) -> Vec<Record> {
    step.records().into_iter().map(Record::Director).collect()
}

/// The whole state of a director as a journal.
fn begun(director: &Director) -> Vec<u8> {
    saved(director).text().unwrap()
}

fn saved(director: &Director) -> Saved {
    Saved {
        memory: director.snapshot(),
        ..Saved::default()
    }
}

fn resumed(memory: Snapshot) -> Director {
    let pool = |_| PoolWord(0);
    Director::resume(memory, table(), SIZES, CLOCK, &Empty, pool, Instant::now()).unwrap()
}

/// A folder that its drop removes.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        static NUMBER: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let name = format!("shunt-journal-{}-{number}", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn journal(&self) -> PathBuf {
        self.0.join("state.journal")
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn a_journal_cut_anywhere_says_what_was_answered_before_the_cut(
        events in prop::collection::vec(event(), 1..40),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 16),
    ) {
        let mut director = director();
        let mut text = begun(&director);
        // The state after each record, and the offset at which the record ends.
        let mut answered = vec![(text.len(), director.snapshot())];
        for event in &events {
            let steps = happen(&mut director, event);
            prop_assert!(steps.len() <= 1, "{steps:?}");
            for step in steps {
                text.extend(line::of(&step).unwrap());
                answered.push((text.len(), director.snapshot()));
            }
            prop_assert_eq!(&answered.last().unwrap().1, &director.snapshot(), "not remembered");
        }
        let first = answered[0].0;
        let mut places: Vec<usize> = answered.iter().map(|(end, _)| *end).collect();
        places.extend(cuts.iter().map(|cut| first + cut.index(text.len() - first + 1)));
        for cut in places {
            let (end, wanted) = answered.iter().rfind(|(end, _)| *end <= cut).unwrap();
            let told = read(&text[..cut]);
            prop_assert_eq!((told.torn, told.faults), (cut - end, Vec::new()));
            let memory = told.saved.memory;
            prop_assert_eq!(&memory, wanted);
            prop_assert_eq!(&resumed(memory).snapshot(), wanted);
        }
    }

    #[test]
    fn one_damaged_byte_of_a_memory_costs_one_line_and_is_named(
        events in prop::collection::vec(event(), 1..30),
        place in any::<prop::sample::Index>(),
        change in 1_u8..,
    ) {
        let mut director = director();
        for event in &events {
            happen(&mut director, event);
        }
        let text = begun(&director);
        let lines = text.iter().filter(|byte| **byte == b'\n').count();
        let place = place.index(text.len());
        let mut damaged = text.clone();
        damaged[place] ^= change;
        let told = read(&damaged);
        // If the line feed of the last line is damaged, the line counts as torn.
        prop_assert!(told.faults.len() + usize::from(told.torn > 0) >= 1 || place == text.len() - 1
            || damaged[place] != b'\n' && text[place] == b'\n');
        if let Some(fault) = told.faults.first() {
            let begin = text[..place].iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
            prop_assert_eq!(fault.at, begin);
        }
        // The services of undamaged lines are present.
        let kept = told.saved.memory.changes.len();
        let all = director.snapshot().changes.len();
        let of_service = 1 + 4;
        prop_assert!(kept + of_service >= all, "{kept} of {all} changes in {lines} lines");
        let memory = resumed(told.saved.memory.clone()).snapshot();
        prop_assert_eq!(memory.changes, told.saved.memory.changes);
    }

    #[test]
    fn damage_never_makes_a_journal_that_no_director_can_resume(
        events in prop::collection::vec(event(), 1..30),
        lost in prop::collection::vec(any::<prop::sample::Index>(), 1..4),
    ) {
        let mut director = director();
        let mut text = begun(&director);
        for event in &events {
            for step in happen(&mut director, event) {
                text.extend(line::of(&step).unwrap());
            }
        }
        let lines: Vec<&[u8]> = text.split_inclusive(|byte| *byte == b'\n').collect();
        let lost: BTreeSet<usize> = lost.iter().map(|lost| lost.index(lines.len())).collect();
        let kept = lines.iter().enumerate().filter(|(at, _)| !lost.contains(at));
        let kept: Vec<u8> = kept.flat_map(|(_, line)| line.iter().copied()).collect();
        let told = read(&kept);
        let mut resumed = resumed(told.saved.memory);
        for event in &events {
            happen(&mut resumed, event);
        }
    }
}

#[test]
fn a_batch_is_read_back_whole_or_not_at_all() {
    let director = director();
    let mut text = begun(&director);
    let first = text.len();
    let mut batch = vec![add_service(0, Scheduler::Rr)];
    batch.extend((1..=5).map(|number| {
        let (key, server) = (key(0), server(number, 1, true));
        Change::Server(server::Change::Add { key, server })
    }));
    let records = shunt_control::director::records(&batch).into_iter();
    let records: Vec<Record> = records.map(Record::Director).collect();
    text.extend(line::of(&records).unwrap());

    for end in first..=text.len() {
        let told = read(&text[..end]);
        let wanted = if end == text.len() { 1 + 5 } else { 0 };
        // The first change sets the timeouts.
        assert_eq!(told.saved.memory.changes.len(), 1 + wanted, "{end}");
    }
    let damaged = |mut text: Vec<u8>| {
        text[first + 40] ^= 1;
        read(&text)
    };
    assert_eq!(damaged(text).saved.memory.changes.len(), 1);
}

#[test]
fn a_file_without_any_record_says_nothing_and_fails_nobody() {
    for text in [
        &b""[..],
        b"\0\0\0",
        b"{\"changes\": 7}\n",
        b"\n",
        b"garbage",
    ] {
        let told = read(text);
        let services = told.saved.memory.services;
        assert_eq!((told.records, services.len()), (0, 0));
    }
}

/// A journal of one service, and a place where a line may stand beside its lines.
fn journal() -> (Vec<u8>, Director) {
    let mut director = director();
    let mut text = begun(&director);
    for step in happen(&mut director, &Event::Change(add_service(1, Scheduler::Rr))) {
        text.extend(line::of(&step).unwrap());
    }
    (text, director)
}

#[test]
fn garbage_and_records_of_a_later_version_cost_themselves_alone() {
    let (text, director) = journal();
    let later = br#"[{"vrrp/1":{"router":51}},{"change/9":{}},7]"#;
    for (line, faults) in [
        (&b"garbage here\n"[..], 1),
        (b"\0\xff\n", 1),
        (&line::with_checksum(later), 3),
        (&line::with_checksum(b"[]"), 0),
        (&line::with_checksum(b"{}"), 0),
        (&line::with_checksum(b"null"), 1),
    ] {
        let mut between = line.to_vec();
        between.extend(&text);
        between.extend(line);
        let told = read(&between);
        assert_eq!(told.saved.memory, director.snapshot());
        assert_eq!(told.faults.len(), 2 * faults, "{:?}", told.faults);
    }
    let told = read(&[&text[..], &line::with_checksum(later)].concat());
    let first = told.faults[0].to_string();
    assert!(first.contains("unknown variant `vrrp/1`"), "{first}");
}

/// A file of version 0.1.0: a state, and steps whose records had no names.
#[test]
fn a_journal_of_the_first_format_is_read_to_its_end() {
    let text = include_bytes!("tests/first.journal");
    let told = read(text);
    assert_eq!((told.torn, told.faults), (0, Vec::new()));
    let said: Vec<String> = told
        .saved
        .memory
        .changes
        .iter()
        .map(Change::to_string)
        .collect();
    assert_eq!(
        said,
        [
            "timeouts set (0 stays): tcp 77 tcpfin 120 udp 300",
            "mark 7 for tcp 192.0.2.7:80 added",
            "service tcp 192.0.2.1:80 added, rr",
            "server 10.1.0.11:80 added to tcp 192.0.2.1:80, masquerade, weight 1",
            "service tcp 192.0.2.2:80 added, wlc",
        ]
    );
    let memory = told.saved.memory.clone();
    assert_eq!(resumed(memory.clone()).snapshot(), memory);
    assert!(memory.services.values().all(|slot| slot.ids.id != 0));
}

#[test]
fn checksums_are_those_of_iso_3309() {
    // The check value of CRC-32.
    assert_eq!(line::checksum(b"123456789"), 0xcbf4_3926);
}

#[test]
fn a_journal_is_packed_while_steps_go_on_and_stays_short() {
    let folder = Folder::new();
    let mut director = director();
    let mut journal = Journal::begin(&folder.journal(), &saved(&director), None).unwrap();
    let add = Event::Change(add_service(1, Scheduler::Rr));
    for step in happen(&mut director, &add) {
        journal.add(&step).unwrap();
    }
    let mut longest = 0;
    for round in 0..30_000_u32 {
        let server = server(1, round % 7, false);
        let key = key(1);
        let change = match round {
            0 => Change::Server(server::Change::Add { key, server }),
            _ => Change::Server(server::Change::Edit { key, server }),
        };
        for step in happen(&mut director, &Event::Change(change)) {
            journal.add(&step).unwrap();
        }
        if round % 1000 == 0 {
            // The packing thread must not lose records that are added meanwhile.
            journal.tend();
        }
        if round % 5000 == 0 {
            journal.settle();
        }
        longest = longest.max(fs::metadata(folder.journal()).unwrap().len());
    }
    journal.settle();
    let told = read(&fs::read(folder.journal()).unwrap());
    let memory = told.saved.memory;
    assert_eq!(
        (told.torn, told.faults.len(), memory),
        (0, 0, director.snapshot())
    );
    let mode = fs::metadata(folder.journal()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert!(longest < 4 * SLACK, "{longest} bytes");
    let length = fs::metadata(folder.journal()).unwrap().len();
    assert!(length <= 2 * SLACK, "{length} bytes");
}
