//! Batches: what a rehearsal finds, and what is written.

use std::collections::BTreeSet;

use shunt_model::api::Reason;
use shunt_model::change::server;
use shunt_model::{Method, Server, ServiceKey};

use super::super::tests::{Empty, SMALL, director, outputs};
use super::*;
use crate::director::{Clock, Recollection, Write};
use crate::table::{Limits, Table};

fn key(port: u16) -> ServiceKey {
    format!("tcp/192.0.2.1:{port}").parse().expect("a key")
}

fn add_service(port: u16) -> Change {
    let service = shunt_model::Service {
        key: key(port),
        scheduler: shunt_model::Scheduler::Rr,
        flags: Default::default(),
        persistence: None,
        idle_engine: None,
        one_packet: false,
        settings: Default::default(),
        announce: None,
    };
    Change::Service(service::Change::Add { service })
}

fn add_server(port: u16, last: u8) -> Change {
    let at = format!("10.1.0.{last}:80").parse().expect("a server");
    let server = Server {
        at,
        method: Method::Masquerade,
        weight: 1,
        upper_threshold: 0,
        lower_threshold: 0,
    };
    Change::Server(server::Change::Add {
        key: key(port),
        server,
    })
}

fn rehearse(director: &mut Director, changes: &[Change]) -> Vec<(usize, Reason)> {
    let now = director.seen;
    let refused = director.rehearse(changes, &Empty, now);
    let refused = refused.into_iter();
    refused
        .map(|refused| (refused.index, refused.refusal.reason))
        .collect()
}

#[test]
fn each_change_is_rehearsed_after_the_ones_before_it_and_nothing_stays() {
    let mut director = director(SMALL);
    let before = format!("{director:?}");
    let batch = [
        add_service(80),
        add_server(80, 1),
        add_server(81, 1),
        add_server(80, 1),
        Change::Service(service::Change::Flush),
        add_service(80),
    ];

    let refused = rehearse(&mut director, &batch);

    let wanted = [(2, Reason::NoSuchService), (3, Reason::ServerExists)];
    assert_eq!(refused, wanted);
    assert_eq!(format!("{director:?}"), before);
}

// Server 0 is nobody's, so that 15 of 16 have room.
#[test]
fn the_room_for_a_batch_is_that_for_all_its_changes_together() {
    let mut director = director(SMALL);
    let mut batch = vec![add_service(80)];
    batch.extend((1..=16).map(|last| add_server(80, last)));

    assert_eq!(rehearse(&mut director, &batch), [(16, Reason::NoRoom)]);

    // Two services that share their servers share the endpoints of their answers.
    let mut batch = vec![add_service(80), add_service(81)];
    let servers = (1..=7).flat_map(|last| [add_server(80, last), add_server(81, last)]);
    batch.extend(servers);
    assert_eq!(rehearse(&mut director, &batch), []);
}

#[test]
fn a_rehearsal_needs_no_room_for_the_pools_between_its_changes() {
    let sizes = super::super::Sizes {
        services: 4,
        servers: 256,
        pool_words: 512,
    };
    let mut director = director(sizes);
    let mut batch = vec![add_service(80)];
    batch.extend((1..=120).map(|last| add_server(80, last)));

    assert_eq!(rehearse(&mut director, &batch), []);
}

#[test]
fn a_batch_writes_what_its_changes_write_one_by_one() {
    let batch: Vec<Change> = [add_service(80)]
        .into_iter()
        .chain((1..=5).map(|last| add_server(80, last)))
        .collect();
    let writes = |outputs: Vec<Output>| -> Vec<Write> {
        let writes = outputs.into_iter().filter_map(|output| match output {
            Output::Write(write) => Some(write),
            Output::Probe { .. }
            | Output::Devices
            | Output::Pool(_)
            | Output::Remember(_)
            | Output::Event(_) => None,
        });
        writes.collect()
    };
    let (mut alone, mut together) = (director(SMALL), director(SMALL));
    let now = alone.seen;
    assert_eq!(rehearse(&mut together, &batch), []);
    for change in &batch {
        alone.change(change, &Empty, now).expect("a change");
        together.perform(change, &Empty, now).expect("a change");
        let performed = outputs(&mut together);
        let kept = performed.iter().filter_map(|output| match output {
            Output::Remember(step) => Some(step.clone().records()),
            Output::Write(_)
            | Output::Probe { .. }
            | Output::Devices
            | Output::Pool(_)
            | Output::Event(_) => None,
        });
        assert!(
            !kept
                .flatten()
                .any(|record| matches!(record, Record::Change(_))),
            "the batch was written down before"
        );
        assert_eq!(writes(performed), writes(outputs(&mut alone)));
    }
    assert_eq!(alone.table().wanted(), together.table().wanted());
}

#[test]
fn a_batch_that_was_written_down_is_ended_by_the_next_daemon() {
    let batch = [add_service(80), add_server(80, 1), add_server(80, 2)];
    let mut recollection = Recollection::new(Table::new(Limits::default()));
    for record in records(&batch) {
        recollection.take(record).expect("a record");
    }

    let (table, clock) = (
        Table::new(Limits::default()),
        Clock {
            tick_ns: 1_000_000_000,
        },
    );
    let pool = |_| shunt_datapath::entry::PoolWord(0);
    let now = Instant::now();
    let snapshot = recollection.snapshot();
    let resumed = Director::resume(snapshot, table, SMALL, clock, &Empty, pool, now);

    let mut resumed = resumed.expect("a director");
    assert_eq!(resumed.table().servers(), 2);
    let forgotten = outputs(&mut resumed).into_iter().filter_map(|output| {
        let Output::Write(Write::Forget { server }) = output else {
            return None;
        };
        Some(server)
    });
    assert_eq!(forgotten.collect::<BTreeSet<u32>>(), BTreeSet::from([1, 2]));
}

#[test]
fn counters_that_are_zeroed_are_not_written_down() {
    let zero = Change::Service(service::Change::Zero { key: None });
    assert_eq!(records(&[zero]), []);
}
