//! The changes that make one state out of another, in an order in which each can be made.
//!
//! What goes first is what may be in the way: services, marks and local addresses that are not
//! wanted. Marks come before services, services before their servers. Within a service, servers
//! that come are added before others are deleted, so that a service that has servers always keeps
//! some. A service or server that stays is edited in place and keeps its connections.
//!
//! A table at its limit of servers needs room for those that come before others go.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::{Pool, Wanted};
use crate::change::{Change, local, mark, server, service, setting};
use crate::{LocalAddress, MarkRule, Server, ServerAddress, ServiceKey, Timeouts};

pub(super) fn changes(present: &Wanted, wanted: &Wanted) -> Vec<Change> {
    let mut changes = Vec::new();
    values(present, wanted, &mut changes);
    delete_services(present, wanted, &mut changes);
    marks(present, wanted, &mut changes);
    locals(present, wanted, &mut changes);
    let known = present.services.iter();
    let known: BTreeMap<ServiceKey, &Pool> = known.map(|pool| (pool.service.key, pool)).collect();
    for pool in &wanted.services {
        put_service(known.get(&pool.service.key).copied(), pool, &mut changes);
    }
    changes
}

/// Settings and timeouts.
fn values(present: &Wanted, wanted: &Wanted, changes: &mut Vec<Change>) {
    if let Some(timeouts) = timeouts(present.timeouts, wanted.timeouts) {
        changes.push(Change::Setting(setting::Change::Timeouts { timeouts }));
    }
    let settings = present
        .settings
        .all()
        .into_iter()
        .zip(wanted.settings.all());
    for (_, setting) in settings.filter(|(present, wanted)| present != wanted) {
        changes.push(Change::Setting(setting::Change::Set { setting }));
    }
}

/// The timeouts to set, if any differs. A zero leaves a timeout as it is.
fn timeouts(present: Timeouts, wanted: Timeouts) -> Option<Timeouts> {
    let differs = |present: u32, wanted: u32| wanted != 0 && wanted != present;
    let any = differs(present.tcp_s, wanted.tcp_s)
        || differs(present.tcp_fin_s, wanted.tcp_fin_s)
        || differs(present.udp_s, wanted.udp_s);
    any.then_some(wanted)
}

fn delete_services(present: &Wanted, wanted: &Wanted, changes: &mut Vec<Change>) {
    let stay = wanted.services.iter();
    let stay: BTreeSet<ServiceKey> = stay.map(|pool| pool.service.key).collect();
    let go = present.services.iter().map(|pool| pool.service.key);
    for key in go.filter(|key| !stay.contains(key)) {
        changes.push(Change::Service(service::Change::Delete { key }));
    }
}

fn marks(present: &Wanted, wanted: &Wanted, changes: &mut Vec<Change>) {
    let known: BTreeSet<MarkRule> = present.marks.iter().copied().collect();
    let stay: BTreeSet<MarkRule> = wanted.marks.iter().copied().collect();
    let go = present.marks.iter().filter(|rule| !stay.contains(rule));
    changes.extend(go.map(|rule| Change::Mark(mark::Change::Delete { rule: *rule })));
    let come = wanted.marks.iter().filter(|rule| !known.contains(rule));
    changes.extend(come.map(|rule| Change::Mark(mark::Change::Add { rule: *rule })));
}

fn locals(present: &Wanted, wanted: &Wanted, changes: &mut Vec<Change>) {
    let stay: BTreeSet<IpAddr> = wanted.locals.iter().map(|local| local.address).collect();
    let go = present.locals.iter().map(|local| local.address);
    for address in go.filter(|address| !stay.contains(address)) {
        changes.push(Change::Local(local::Change::Delete { address }));
    }
    let is_known = |local: &&LocalAddress| present.locals.contains(local);
    let come = wanted.locals.iter().filter(|local| !is_known(local));
    changes.extend(come.map(|local| Change::Local(local::Change::Set { local: *local })));
}

fn put_service(present: Option<&Pool>, wanted: &Pool, changes: &mut Vec<Change>) {
    let key = wanted.service.key;
    let service = || wanted.service.clone();
    match present {
        None => {
            let service = service();
            changes.push(Change::Service(service::Change::Add { service }));
        }
        Some(present) if present.service != wanted.service => {
            let service = service();
            changes.push(Change::Service(service::Change::Edit { service }));
        }
        Some(_) => {}
    }
    let present = present.map_or(&[][..], |present| &present.servers);
    let known: BTreeMap<ServerAddress, &Server> =
        present.iter().map(|server| (server.at, server)).collect();
    for server in &wanted.servers {
        let put = server.clone();
        match known.get(&server.at) {
            None => changes.push(Change::Server(server::Change::Add { key, server: put })),
            Some(known) if *known != server => {
                changes.push(Change::Server(server::Change::Edit { key, server: put }));
            }
            Some(_) => {}
        }
    }
    let stay: BTreeSet<ServerAddress> = wanted.servers.iter().map(|server| server.at).collect();
    let go = present.iter().map(|server| server.at);
    for at in go.filter(|at| !stay.contains(at)) {
        changes.push(Change::Server(server::Change::Delete { key, at }));
    }
}
