//! The sweep over tables in plain memory. The clock stands still; a test ages the entries instead.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::vec::Vec;

use super::{Found, Memory, Stretch, pause};
use crate::connection::{
    self, CLOSE, ESTABLISHED, Meta, SYN_RECV, State, TEMPLATE, TIMEOUTS_S, UDP_FIRST,
};
use crate::host::{HostTables, NewServer, Sizes};
use crate::table::call::{Call, CallKey};
use crate::table::entry::{counts, method, server_flag};
use crate::table::family::{Family, V4, V6};
use crate::table::flows::{self, Key};
use crate::table::region;
use crate::table::translation::{Translation, Tuple, ends, flag};
use crate::table::{Tables, entered};
use crate::template;
use crate::track::{self, Place};
use crate::wire::packet::TCP;

const NOW: u32 = 100_000;
const PORT: u16 = 4242;

/// One service with one server, and what is entered into its tables.
struct Bed {
    tables: HostTables,
    memory: Memory,
    ended: BTreeSet<u32>,
    service: u32,
    server: u32,
}

impl Bed {
    fn new(how: u8, buckets: usize) -> Self {
        let mut tables = HostTables::new(Sizes {
            flows: buckets,
            ..Sizes::default()
        });
        tables.clock = NOW.into();
        let service = tables.add_service("192.0.2.1".parse().unwrap(), 80, TCP, 0);
        let server = tables.add_server(
            service,
            &NewServer {
                method: how,
                ..NewServer::default()
            },
        );
        Self {
            tables,
            memory: Memory::default(),
            ended: BTreeSet::new(),
            service,
            server,
        }
    }

    fn sweep(&mut self) -> Found {
        self.tables.sweep(&mut self.memory, &self.ended, None)
    }

    fn enter<F: Family>(&self, key: &Key, meta: Meta) {
        let tables = &&self.tables;
        let hash = track::hash::<F, _>(tables, key);
        let place = track::place::<F, _>(tables, &self.tables.settings, hash, NOW);
        let Place::At(offer) = place else {
            panic!("no room for {key:?}");
        };
        let seat = track::take::<F, _>(tables, offer).expect("nobody else is here");
        seat.fill::<F::Layout>(key, flows::value(self.server, key.tag, meta));
    }

    /// Enters a connection of this client, and counts it by its state.
    fn connection<F: Family>(&self, client: F::Address, state: State, flags: u32) -> Key {
        let key = F::key(client, PORT, self.service);
        let meta = track::begin(&&self.tables, self.server, NOW, state, flags);
        self.enter::<F>(&key, meta);
        key
    }

    fn is_there<F: Family>(&self, key: &Key) -> bool {
        let tables = &&self.tables;
        track::find::<F, _>(tables, key, track::hash::<F, _>(tables, key)).is_some()
    }

    fn live(&self) -> (u32, u32) {
        let words = Tables::counts(&&self.tables, self.server).unwrap();
        let word = flows::Words::load(words, 0);
        (counts::active(word), counts::inactive(word))
    }
}

fn client<F: Family>(number: u32) -> F::Address {
    F::from_words([u64::from(number.to_be()), 0])
}

fn every_state_expires_after_its_time<F: Family>() {
    for state in [connection::NONE, ESTABLISHED, SYN_RECV, CLOSE, UDP_FIRST] {
        let mut bed = Bed::new(method::ROUTE, 64);
        let key = bed.connection::<F>(client::<F>(1), state, 0);
        bed.tables.age(TIMEOUTS_S[state as usize]);
        let found = bed.sweep();
        assert_eq!((found.used, found.expired), (1, 0), "state {state}");
        assert_eq!(found.used6, u64::from(F::V6));
        assert_eq!(found.services, BTreeSet::from([bed.service]));
        assert_eq!(found.servers, BTreeSet::from([bed.server]));
        assert!(bed.is_there::<F>(&key));

        bed.tables.age(1);
        let found = bed.sweep();
        assert_eq!((found.used, found.expired), (0, 1), "state {state}");
        assert!(!bed.is_there::<F>(&key));
        assert_eq!(bed.live(), (0, 0));
        assert_eq!(bed.sweep(), Found::default());
    }
}

#[test]
fn every_state_expires_after_its_time_and_gives_back_its_count() {
    every_state_expires_after_its_time::<V4>();
    every_state_expires_after_its_time::<V6>();
}

#[test]
fn connections_of_a_server_that_has_ended_go_and_of_one_that_came_back_stay() {
    let mut bed = Bed::new(method::ROUTE, 64);
    bed.connection::<V4>(client::<V4>(1), ESTABLISHED, 0);
    bed.ended.insert(bed.server);
    assert_eq!(bed.sweep().used, 1);
    bed.tables.servers[bed.server as usize].flags &= !server_flag::PRESENT;
    assert_eq!(bed.sweep().expired, 1);
    assert_eq!(bed.live(), (0, 0));
}

#[test]
fn drop_entry_takes_what_is_half_open_within_its_stretch() {
    let mut bed = Bed::new(method::ROUTE, 64);
    let keep = [
        bed.connection::<V4>(client::<V4>(1), ESTABLISHED, 0),
        bed.connection::<V4>(client::<V4>(2), UDP_FIRST, 0),
    ];
    let drop = bed.connection::<V4>(client::<V4>(3), SYN_RECV, 0);
    let nowhere = Some(Stretch { from: 0, length: 0 });
    let found = bed.tables.sweep(&mut bed.memory, &bed.ended, nowhere);
    assert_eq!(found.dropped, 0);
    let everywhere = Some(Stretch::new(0, 32));
    let found = bed.tables.sweep(&mut bed.memory, &bed.ended, everywhere);
    assert_eq!((found.dropped, found.expired, found.used), (1, 0, 2));
    assert!(!bed.is_there::<V4>(&drop));
    assert!(keep.iter().all(|key| bed.is_there::<V4>(key)));
    // A single datagram is dropped after a minute.
    bed.tables.age(60);
    let found = bed.tables.sweep(&mut bed.memory, &bed.ended, everywhere);
    assert_eq!((found.dropped, found.used), (1, 1));
}

#[test]
fn a_32nd_of_the_table_a_second_is_in_the_stretch() {
    let stretch = Stretch::new(u32::MAX, 1);
    let inside = (0..1024).filter(|bucket| stretch.has(*bucket, 1023));
    assert_eq!(inside.count(), 32);
}

/// A masqueraded connection with its way back, whose hop is 5.
fn masqueraded<F: Family>(bed: &Bed, state: State) -> (Key, Key) {
    let endpoint = bed.tables.servers[bed.server as usize].endpoint;
    let back = F::key(client::<F>(1), PORT, endpoint);
    bed.enter::<F>(&back, Meta::new(NOW, 5, 0));
    (bed.connection::<F>(client::<F>(1), state, 0), back)
}

fn a_way_back_ends_with_its_connection<F: Family>() {
    let mut bed = Bed::new(method::MASQUERADE, 64);
    let (key, back) = masqueraded::<F>(&bed, ESTABLISHED);
    bed.tables.age(800);
    let found = bed.sweep();
    assert_eq!((found.used, found.hops[0]), (2, 1 << 5));

    bed.tables.age(104);
    assert_eq!(bed.sweep().expired, 1);
    bed.sweep();
    assert!(!bed.is_there::<F>(&key) && !bed.is_there::<F>(&back));
    assert_eq!(bed.sweep().used, 0);
}

#[test]
fn a_way_back_ends_with_its_connection_in_both_families() {
    a_way_back_ends_with_its_connection::<V4>();
    a_way_back_ends_with_its_connection::<V6>();
}

#[test]
fn a_young_way_back_without_a_connection_is_left_alone() {
    let mut bed = Bed::new(method::MASQUERADE, 64);
    let endpoint = bed.tables.servers[bed.server as usize].endpoint;
    let back = V4::key(client::<V4>(1), PORT, endpoint);
    bed.enter::<V4>(&back, Meta::new(NOW, 0, 0));
    bed.tables.age(2);
    bed.sweep();
    assert!(bed.is_there::<V4>(&back));
    bed.tables.age(1);
    bed.sweep();
    assert!(!bed.is_there::<V4>(&back));
}

#[test]
fn the_way_back_of_a_closed_connection_gives_way() {
    let mut bed = Bed::new(method::MASQUERADE, 64);
    let (_, back) = masqueraded::<V4>(&bed, CLOSE);
    bed.tables.age(5);
    bed.sweep();
    let tables = &&bed.tables;
    let entry = track::find::<V4, _>(tables, &back, track::hash::<V4, _>(tables, &back)).unwrap();
    assert!(entry.meta().age(NOW) > track::limit(&bed.tables.settings, connection::WAY_BACK));
}

fn a_template_lives_while_its_client_has_connections<F: Family>() {
    let mut bed = Bed::new(method::ROUTE, 64);
    let service = &mut bed.tables.services[bed.service as usize];
    (service.template, service.granularity) = (40, [u64::MAX; 2]);
    service.persistence = 20;
    let service = *service;
    let key = template::key::<F>(&service, client::<F>(1));
    bed.enter::<F>(&key, Meta::template(NOW, 20, TEMPLATE));
    let held = bed.connection::<F>(client::<F>(1), ESTABLISHED, Meta::CONTROLLED);
    // One sweep sees that the template expires soon; the last sweep before that finds it held.
    bed.tables.age(15);
    assert_eq!(bed.sweep().used, 2);
    bed.tables.age(4);
    bed.sweep();
    bed.tables.age(50);
    bed.sweep();
    assert!(bed.is_there::<F>(&key));
    let view = bed.tables.view(&bed.ended, None);
    assert_eq!(view.templates().get(&bed.server), Some(&1));
    assert_eq!(view.states()[TEMPLATE as usize], 1);

    let tables = &&bed.tables;
    let entry = track::find::<F, _>(tables, &held, track::hash::<F, _>(tables, &held)).unwrap();
    assert!(entry.remove::<F::Layout>(&held));
    bed.tables.age(11);
    assert_eq!(bed.sweep().expired, 1);
    assert!(!bed.is_there::<F>(&key));
}

#[test]
fn a_template_lives_while_its_client_has_connections_in_both_families() {
    a_template_lives_while_its_client_has_connections::<V4>();
    a_template_lives_while_its_client_has_connections::<V6>();
}

#[test]
fn a_slot_is_free_again_only_when_no_flow_lies_elsewhere_because_of_it() {
    let mut bed = Bed::new(method::ROUTE, 2);
    let mask = bed.tables.shape.flow4_mask;
    let hash = |number| {
        let key = V4::key(client::<V4>(number), PORT, bed.service);
        flows::hash::<<V4 as Family>::Layout>(&key, bed.tables.shape.seed)
    };
    // Five flows with the same first and the same second bucket.
    let apart = |number: &u32| flows::first(hash(*number), mask) == 0;
    let both = |number: &u32| apart(number) && flows::second(hash(*number), mask) == 1;
    let numbers: Vec<u32> = (1..1000).filter(both).take(5).collect();
    let keys: Vec<Key> = numbers
        .iter()
        .map(|number| bed.connection::<V4>(client::<V4>(*number), ESTABLISHED, 0))
        .collect();
    let tables = &&bed.tables;
    let first =
        track::find::<V4, _>(tables, &keys[0], track::hash::<V4, _>(tables, &keys[0])).unwrap();
    assert!(first.remove::<<V4 as Family>::Layout>(&keys[0]));
    for _ in 0..3 {
        bed.sweep();
        assert!(bed.is_there::<V4>(&keys[4]));
    }
    let tables = &&bed.tables;
    let last =
        track::find::<V4, _>(tables, &keys[4], track::hash::<V4, _>(tables, &keys[4])).unwrap();
    assert!(last.remove::<<V4 as Family>::Layout>(&keys[4]));
    (0..2).for_each(|_| drop(bed.sweep()));
    let words = Tables::flows4(&&bed.tables, 0).unwrap();
    let free = (0..4).filter(|at| flows::Words::load(words, at * 2) == flows::FREE);
    assert_eq!(free.count(), 1);
}

/// Enters both entries of a translated flow that was last seen `age` ticks ago.
fn translated(bed: &Bed, age: u32, flags: u64) -> (Tuple, Tuple) {
    let ways = |v: [u8; 4]| [u64::from(u32::from_le_bytes(v)), 0];
    let request = Tuple {
        source: ways([198, 51, 100, 1]),
        target: ways([192, 0, 2, 1]),
        ends: ends(PORT, 80, TCP, false),
    };
    let onward = Tuple {
        source: ways([10, 1, 0, 1]),
        target: ways([10, 1, 0, 7]),
        ends: ends(40_000, 80, TCP, false),
    };
    let names = u64::from(bed.service) | u64::from(bed.server) << 32;
    let time = u64::from(NOW - age);
    let of = |to: Tuple, flags: u64| Translation {
        to,
        names,
        time: time | flags,
        reserved: [0; 3],
    };
    let answer = onward.turned();
    let tables = &&bed.tables;
    let there = [
        (request, of(onward, flag::FORWARD | flags)),
        (answer, of(request.turned(), flags)),
    ];
    for (tuple, translation) in there {
        let done = tables.translate(&tuple, &translation, true);
        assert_eq!(done, entered::DONE);
    }
    (request, answer)
}

#[test]
fn translations_end_with_their_flow() {
    let mut bed = Bed::new(method::TRANSLATE, 64);
    translated(&bed, 100, 0);
    let address = u32::from_le_bytes([198, 51, 100, 1]);
    let key = bed.connection::<V4>(address, ESTABLISHED, 0);
    assert_eq!(bed.sweep().translations, 2);
    let tables = &&bed.tables;
    let entry = track::find::<V4, _>(tables, &key, track::hash::<V4, _>(tables, &key)).unwrap();
    assert!(entry.remove::<<V4 as Family>::Layout>(&key));
    bed.sweep();
    assert_eq!(bed.sweep().translations, 0);
}

#[test]
fn translations_without_a_flow_wait_a_little_and_of_one_datagram_longer() {
    for (flags, stays) in [(0, 2), (flag::ONE_PACKET, 10)] {
        for age in [stays, stays + 1] {
            let mut bed = Bed::new(method::TRANSLATE, 64);
            translated(&bed, age, flags);
            bed.sweep();
            let left = bed.sweep().translations;
            assert_eq!(left, if age == stays { 2 } else { 0 }, "age {age}");
        }
    }
}

#[test]
fn an_answers_translation_without_the_clients_goes_within_eight_sweeps() {
    let mut bed = Bed::new(method::TRANSLATE, 64);
    let (request, _) = translated(&bed, 100, 0);
    (&&bed.tables).forget_translation(&request);
    let swept = (0..9).map(|_| bed.sweep().translations);
    assert_eq!(swept.last(), Some(0));
}

#[test]
fn a_call_expires_unless_its_last_connection_lives() {
    let mut bed = Bed::new(method::ROUTE, 64);
    let held = bed.connection::<V4>(client::<V4>(1), ESTABLISHED, 0);
    let call = |key: &Key| Call {
        value: flows::value(bed.server, 0, Meta::template(NOW, 20, TEMPLATE)),
        connection: [key.first, key.address[0], key.address[1], key.tag],
    };
    let named = |service| CallKey {
        service,
        length: 3,
        ..CallKey::default()
    };
    let nothing = Key::v4(7, 7, bed.service);
    bed.tables.calls.put(&named(40), &call(&held));
    bed.tables.calls.put(&named(41), &call(&nothing));
    let found = bed.sweep();
    assert_eq!((found.calls, found.services.len()), (2, 3));
    // The connection counts in the last two sweeps before the call expires.
    bed.tables.age(18);
    assert_eq!(bed.sweep().calls, 2);
    bed.tables.age(20);
    let found = bed.sweep();
    assert_eq!((found.calls, found.expired), (1, 1));
    assert_eq!(bed.tables.calls.all()[0].0, named(40));
}

fn words_that_are_not_empty(bed: &Bed) -> usize {
    let all = [&bed.tables.occupied4, &bed.tables.occupied6];
    let words = all.into_iter().flatten();
    let words = words.filter(|word| word.load(Ordering::SeqCst) != region::EMPTY);
    words.count()
}

#[test]
fn a_region_is_looked_at_from_its_first_entry_until_it_is_free_again() {
    let mut bed = Bed::new(method::ROUTE, 1024);
    assert_eq!(words_that_are_not_empty(&bed), 0);
    let numbers = 1..=5;
    for number in numbers.clone() {
        bed.connection::<V4>(client::<V4>(number), CLOSE, 0);
        bed.connection::<V6>(client::<V6>(number), CLOSE, 0);
    }
    let marked = words_that_are_not_empty(&bed);
    assert!((2..=10).contains(&marked), "{marked}");
    (0..4).for_each(|_| assert_eq!(bed.sweep().used, 10));
    assert_eq!(words_that_are_not_empty(&bed), marked);
    bed.tables.age(11);
    assert_eq!(bed.sweep().expired, 10);
    // Three sweeps: slots are freed, the region is doubted, the region is empty.
    (0..3).for_each(|_| drop(bed.sweep()));
    assert_eq!(words_that_are_not_empty(&bed), 0);
    bed.connection::<V4>(client::<V4>(1), CLOSE, 0);
    assert_eq!(bed.sweep().used, 1);
}

#[test]
fn a_walk_that_saw_the_mark_before_it_was_doubted_is_not_forgotten() {
    let mut bed = Bed::new(method::ROUTE, 64);
    bed.tables.occupied4[0].store(region::ENTERED, Ordering::SeqCst);
    bed.sweep();
    assert!(bed.memory.has_doubts());
    assert_eq!(
        bed.tables.occupied4[0].load(Ordering::SeqCst),
        region::DOUBTED
    );
    // A walk reads the mark, a sweep doubts it, and only then the walk enters its flow.
    let key = V4::key(client::<V4>(1), PORT, bed.service);
    bed.enter::<V4>(&key, Meta::new(NOW, CLOSE, 0));
    bed.tables.occupied4[0].store(region::DOUBTED, Ordering::SeqCst);
    (0..3).for_each(|_| assert_eq!(bed.sweep().used, 1));
    assert!(!bed.memory.has_doubts());
}

#[test]
fn an_entry_between_two_looks_keeps_its_region() {
    let mut bed = Bed::new(method::ROUTE, 64);
    bed.tables.occupied4[0].store(region::ENTERED, Ordering::SeqCst);
    bed.sweep();
    bed.connection::<V4>(client::<V4>(1), CLOSE, 0);
    assert_eq!(
        bed.tables.occupied4[0].load(Ordering::SeqCst),
        region::ENTERED
    );
    (0..3).for_each(|_| assert_eq!(bed.sweep().used, 1));
}

#[test]
fn sweeps_take_three_percent_of_a_cpu_unless_expiry_would_be_late() {
    let ms = Duration::from_millis;
    for (took, waits) in [
        (0, 500),
        (10, 500),
        (25, 800),
        (100, 3200),
        (400, 4000),
        (2000, 8000),
    ] {
        assert_eq!(pause(ms(took)), ms(waits), "after {took} ms");
    }
}
