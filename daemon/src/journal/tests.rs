//! Journals that end anywhere, have wrong bytes, or grow.

use std::collections::BTreeSet;
use std::time::Instant;

use proptest::prelude::*;
use shunt_control::director::{Clock, Director, Output, Running, Sizes};
use shunt_datapath::entry::{self, PoolWord};
use shunt_model::api::Change;
use shunt_model::{
    Method, Protocol, Scheduler, SchedulerFlags, Server, ServerAddress, Service, ServiceKey,
    Timeouts,
};

use super::*;

struct Empty;

impl Running for Empty {
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
    Change::AddService { service }
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

/// What may happen to a director.
#[derive(Clone, Debug)]
enum Event {
    Change(Change),
    /// A scan found flows of these.
    Scan(BTreeSet<u32>, BTreeSet<u32>),
}

fn event() -> impl Strategy<Value = Event> {
    let ids = || prop::collection::btree_set(1_u32..12, 0..4);
    let service = 0_u16..4;
    let to_server = (0_u16..4, 1_u8..5, 0_u32..3, any::<bool>());
    prop_oneof![
        3 => service.clone().prop_map(|n| Event::Change(add_service(n, Scheduler::Rr))),
        1 => service.clone().prop_map(|n| {
            let Change::AddService { service } = add_service(n, Scheduler::Wlc) else { panic!() };
            Event::Change(Change::EditService { service })
        }),
        1 => service.clone().prop_map(|n| Event::Change(Change::DeleteService { key: key(n) })),
        6 => to_server.clone().prop_map(|(n, s, weight, nat)| {
            Event::Change(Change::AddServer { key: key(n), server: server(s, weight, nat) })
        }),
        4 => to_server.clone().prop_map(|(n, s, weight, nat)| {
            Event::Change(Change::EditServer { key: key(n), server: server(s, weight, nat) })
        }),
        3 => to_server.prop_map(|(n, s, ..)| {
            Event::Change(Change::DeleteServer { key: key(n), at: at(s) })
        }),
        1 => Just(Event::Change(Change::Zero { key: None })),
        1 => (1_u32..99).prop_map(|tcp_s| {
            let timeouts = Timeouts { tcp_s, tcp_fin_s: 0, udp_s: 0 };
            Event::Change(Change::SetTimeouts { timeouts })
        }),
        1 => Just(Event::Change(Change::Flush)),
        3 => (ids(), ids()).prop_map(|(services, servers)| Event::Scan(services, servers)),
    ]
}

/// Lets it happen, and gives what is to be remembered.
fn happen(director: &mut Director, event: &Event) -> Vec<Step> {
    match event {
        Event::Change(change) => drop(director.change(change, &Empty, Instant::now())),
        Event::Scan(services, servers) => director.unused(services, servers),
    }
    let outputs = std::iter::from_fn(|| director.poll());
    let steps = outputs.filter_map(|output| match output {
        Output::Remember(step) => Some(step),
        _ => None,
    });
    steps.collect()
}

fn resumed(memory: Memory) -> Director {
    let pool = |_| PoolWord(0);
    Director::resume(memory, table(), SIZES, CLOCK, &Empty, pool, Instant::now()).unwrap()
}

/// A folder that goes with it.
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
        let mut text = record(&director.memory()).unwrap();
        // The memory after each record, and where the record ends.
        let mut answered = vec![(text.len(), director.memory())];
        for event in &events {
            let steps = happen(&mut director, event);
            prop_assert!(steps.len() <= 1, "{steps:?}");
            for step in steps {
                text.extend(record(&step).unwrap());
                answered.push((text.len(), director.memory()));
            }
            prop_assert_eq!(&answered.last().unwrap().1, &director.memory(), "not remembered");
        }
        let first = answered[0].0;
        let mut places: Vec<usize> = answered.iter().map(|(end, _)| *end).collect();
        places.extend(cuts.iter().map(|cut| first + cut.index(text.len() - first + 1)));
        for cut in places {
            let (end, wanted) = answered.iter().rfind(|(end, _)| *end <= cut).unwrap();
            let told = read(&text[..cut]).unwrap();
            prop_assert_eq!(told.torn, cut - end);
            prop_assert_eq!(&told.memory, wanted);
            prop_assert_eq!(&resumed(told.memory).memory(), wanted);
        }
    }

    #[test]
    fn a_journal_with_a_wrong_byte_is_refused_or_says_a_prefix(
        events in prop::collection::vec(event(), 1..12),
        place in any::<prop::sample::Index>(),
        change in 1_u8..,
    ) {
        let mut director = director();
        let mut text = record(&director.memory()).unwrap();
        let mut memories = vec![director.memory()];
        for event in &events {
            for step in happen(&mut director, event) {
                text.extend(record(&step).unwrap());
                memories.push(director.memory());
            }
        }
        let place = place.index(text.len());
        text[place] ^= change;
        if let Ok(told) = read(&text) {
            prop_assert!(memories.contains(&told.memory));
        }
    }
}

#[test]
fn an_empty_file_and_one_without_its_first_record_are_unreadable() {
    let whole = record(&director().memory()).unwrap();
    for text in [
        &b""[..],
        b"\0\0\0",
        b"{\"changes\": 7}\n",
        &whole[..whole.len() - 1],
        b"\n",
    ] {
        assert!(read(text).is_err(), "{}", String::from_utf8_lossy(text));
    }
}

#[test]
fn a_broken_record_is_named() {
    let mut text = record(&director().memory()).unwrap();
    let place = text.len();
    text.extend(record(&Step::default()).unwrap());
    text[place] ^= 1;
    let said = read(&text).unwrap_err().to_string();
    let wanted = "its checksum or its length does not fit";
    assert_eq!(said, format!("record 2 at byte {place}: {wanted}"));
}

#[test]
fn checksums_are_those_of_iso_3309() {
    // The check value of CRC-32.
    assert_eq!(checksum(b"123456789"), 0xcbf4_3926);
}

#[test]
fn a_journal_is_packed_while_steps_go_on_and_stays_short() {
    let folder = Folder::new();
    let mut director = director();
    let mut journal = Journal::begin(&folder.journal(), &director.memory()).unwrap();
    let add = Event::Change(add_service(1, Scheduler::Rr));
    for step in happen(&mut director, &add) {
        journal.add(&step).unwrap();
    }
    let mut longest = 0;
    for round in 0..30_000_u32 {
        let server = server(1, round % 7, false);
        let key = key(1);
        let change = match round {
            0 => Change::AddServer { key, server },
            _ => Change::EditServer { key, server },
        };
        for step in happen(&mut director, &Event::Change(change)) {
            journal.add(&step).unwrap();
        }
        if round % 1000 == 0 {
            // A packing that is under way must not lose what is added meanwhile.
            journal.tend();
        }
        if round % 5000 == 0 {
            journal.settle();
        }
        longest = longest.max(fs::metadata(folder.journal()).unwrap().len());
    }
    journal.settle();
    let told = read(&fs::read(folder.journal()).unwrap()).unwrap();
    assert_eq!((told.torn, told.memory), (0, director.memory()));
    assert!(longest < 4 * SLACK, "{longest} bytes");
    let length = fs::metadata(folder.journal()).unwrap().len();
    assert!(length <= 2 * SLACK, "{length} bytes");
}
