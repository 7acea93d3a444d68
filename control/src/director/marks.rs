//! Firewall marks: the endpoints by which packets of a mark's rules find its service.
//!
//! A mark's service has many addresses and ports. Each address and protocol of its rules (a place)
//! has a stretch of ids, as a service of every port has. Each port of a rule is an endpoint with a
//! full id. So a flow's key tells the places of a mark apart, and the packet path needs no
//! knowledge of marks.

use std::collections::{BTreeMap, BTreeSet};

use shunt_datapath::entry::{self, endpoint_word, kind};
use shunt_model::mark::{MarkRule, Ports};
use shunt_model::{Origin, ServiceKey};

use super::origins::{self, Origins, RulesByEndpoint};
use super::orphans::{At, Endpoints};
use super::slots::Place;
use super::{Director, Write};
use crate::table::Applied;

impl Director {
    /// Writes the mark endpoints that rules and services ask for, and removes the others.
    pub(super) fn renew_marks(&mut self) {
        let (mut wanted, ruled, origins) = self.wanted_marks();
        let before = std::mem::take(&mut self.marked);
        self.keep_orphans(&before, &ruled, &mut wanted);
        self.marked.clone_from(&wanted);
        for ((address, word), id) in &wanted {
            if before.get(&(*address, *word)) != Some(id) {
                self.write(Write::EndpointAdd {
                    address: *address,
                    word: *word,
                    id: *id,
                });
            }
        }
        // Endpoints that match the origin are written before the ordinary endpoint of the same
        // place is removed.
        if self.origins != origins {
            self.origins = origins;
            let origins = self.origins.iter();
            let entries = origins.map(|((key, length), id)| (*key, *length, *id));
            self.write(Write::Origins(entries.collect()));
            self.settle();
        }
        for (address, word) in before.into_keys() {
            let is_needed = wanted.contains_key(&(address, word));
            // A service may need the address's own entry too.
            if is_needed || self.ids.addresses.is_held(address, word) {
                continue;
            }
            self.write(match self.ordinary((address, word)) {
                Some(id) => Write::EndpointAdd { address, word, id },
                None => Write::EndpointRemove { address, word },
            });
        }
    }

    /// The ordinary endpoints, the endpoints of all rules, and those that also match the origin.
    fn wanted_marks(&mut self) -> (Endpoints, BTreeSet<At>, Origins) {
        let rules: Vec<MarkRule> = self.table.marks().copied().collect();
        let mut wanted = BTreeMap::new();
        let mut places = RulesByEndpoint::new();
        for rule in rules {
            let (key, target) = (rule.service(), rule.target);
            let protocol = target.protocol.number();
            let Some(base) = self.place(&key, (protocol, target.address)) else {
                continue;
            };
            let Ports { first, last } = target.ports;
            for port in first..=last {
                let word = endpoint_word(port.to_be(), protocol, kind::SERVICE);
                let place = places.entry((target.address, word)).or_default();
                place.push((rule.origin, base | u32::from(port)));
            }
            // Fragments that arrive before their first one are held for known addresses only.
            let word = endpoint_word(0, protocol, kind::ADDRESS);
            wanted.insert((target.address, word), 1);
        }
        let is_plain = |rules: &[(Origin, u32)]| rules.iter().all(|(from, _)| from.is_anywhere());
        for (place, rules) in &places {
            if let ([(_, id), ..], true) = (&rules[..], is_plain(rules)) {
                wanted.insert(*place, *id);
            }
        }
        let minding = places.iter().filter(|(_, rules)| !is_plain(rules));
        let origins = origins::of_places(minding, &self.network);
        (wanted, places.into_keys().collect(), origins)
    }

    /// The first id of a place of a mark's service, with its owner written. A deleted service keeps
    /// the stretches it has while flows use it: its flows go on if it comes back, and the machine's
    /// own stack must not reset them.
    fn place(&mut self, key: &ServiceKey, place: Place) -> Option<u32> {
        let base = if self.table.service(key).is_some() {
            self.ids.place(key, place)?
        } else {
            *self.ids.services.get(key)?.places.get(&place)?
        };
        let service = self.ids.services.get(key)?.ids.id;
        self.write(Write::Wide {
            number: entry::wide_number(base),
            service,
        });
        Some(base)
    }
}

/// Whether a change may alter mark endpoints.
pub(super) fn are_touched(applied: &Applied) -> bool {
    let is_mark = |key: &ServiceKey| matches!(key, ServiceKey::Mark { .. });
    match applied {
        Applied::MarkAdded { .. } | Applied::MarkDeleted { .. } => true,
        Applied::ServiceAdded { key } => is_mark(key),
        Applied::ServiceDeleted { entry } => is_mark(&entry.service.key),
        Applied::Flushed { entries } => entries.iter().any(|entry| is_mark(&entry.service.key)),
        Applied::ServiceEdited { .. }
        | Applied::ServerAdded { .. }
        | Applied::ServerEdited { .. }
        | Applied::ServerDeleted { .. }
        | Applied::Zeroed { .. }
        | Applied::TimeoutsSet { .. }
        | Applied::SettingSet
        | Applied::LocalsChanged { .. } => false,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::time::Instant;

    use shunt_model::change::{Change, mark, server, service};
    use shunt_model::mark::Targets;
    use shunt_model::{
        Method, Persistence, Scheduler, SchedulerFlags, Server, ServerAddress, Service,
        service::Granularity,
    };

    use super::super::tests::{Empty, SMALL, director};
    use super::super::{Director, Output};
    use super::*;

    fn rules(text: &str) -> Vec<Change> {
        let targets: Targets = text.parse().unwrap();
        let rule = |target| MarkRule {
            mark: 7.try_into().unwrap(),
            target,
            origin: Origin::default(),
        };
        let change = |target| Change::Mark(mark::Change::Add { rule: rule(target) });
        targets.0.into_iter().map(change).collect()
    }

    fn service() -> Service {
        Service {
            key: "mark 7".parse().unwrap(),
            scheduler: Scheduler::Rr,
            flags: SchedulerFlags::default(),
            persistence: Some(Persistence {
                timeout_s: 300,
                granularity: Granularity::Mask([255; 4].into()),
                engine: None,
            }),
            one_packet: false,
            settings: Default::default(),
            idle_engine: None,
            announce: None,
        }
    }

    fn endpoints(director: &mut Director) -> (Vec<(String, u32)>, usize) {
        let (mut added, mut removed) = (Vec::new(), 0);
        while let Some(output) = director.poll() {
            match output {
                Output::Write(Write::EndpointAdd { address, word, id })
                    if word >> 24 == u32::from(kind::SERVICE) =>
                {
                    let port = u16::from_be(word as u16);
                    added.push((format!("{address}:{port}"), id));
                }
                Output::Write(Write::EndpointRemove { word, .. })
                    if word >> 24 == u32::from(kind::SERVICE) =>
                {
                    removed += 1;
                }
                _ => {}
            }
        }
        (added, removed)
    }

    fn change(director: &mut Director, change: Change) {
        director.change(&change, &Empty, Instant::now()).unwrap();
    }

    #[test]
    fn places_of_a_mark_are_found_while_its_service_is_there() {
        let mut director = director(SMALL);
        for rule in rules("tcp/192.0.2.1:80,443,8000-8001") {
            change(&mut director, rule);
        }
        assert_eq!(endpoints(&mut director), (vec![], 0));

        let service = service();
        change(
            &mut director,
            Change::Service(service::Change::Add { service }),
        );
        let (added, _) = endpoints(&mut director);
        let base = entry::wide(0);
        let wanted = [80, 443, 8000, 8001].map(|port| {
            let place = format!("192.0.2.1:{port}");
            (place, base | port)
        });
        let mut sorted = added;
        sorted.sort_by_key(|(_, id)| *id);
        assert_eq!(sorted, wanted);

        for rule in rules("udp/192.0.2.1") {
            change(&mut director, rule);
        }
        let (added, _) = endpoints(&mut director);
        assert_eq!(added, [("192.0.2.1:0".to_owned(), entry::wide(1))]);

        let key = "mark 7".parse().unwrap();
        change(
            &mut director,
            Change::Service(service::Change::Delete { key }),
        );
        assert_eq!(endpoints(&mut director), (vec![], 0));
        let used = BTreeSet::from([1]);
        for _ in 0..2 {
            director.unused(&used, &BTreeSet::new());
        }
        assert_eq!(endpoints(&mut director), (vec![], 0), "flows are left");

        for _ in 0..2 {
            director.unused(&BTreeSet::new(), &BTreeSet::new());
        }
        assert_eq!(endpoints(&mut director), (vec![], 5));
    }

    /// The writes of the endpoint at this port: its id, or `None` where it is removed.
    fn said(director: &mut Director, port: u16) -> Vec<Option<u32>> {
        let wanted = endpoint_word(port.to_be(), 6, kind::SERVICE);
        let mut said = Vec::new();
        while let Some(output) = director.poll() {
            match output {
                Output::Write(Write::EndpointAdd { word, id, .. }) if word == wanted => {
                    said.push(Some(id));
                }
                Output::Write(Write::EndpointRemove { word, .. }) if word == wanted => {
                    said.push(None);
                }
                _ => {}
            }
        }
        said
    }

    /// A mark's service with two ports. The rule of the second one is deleted.
    fn one_orphan() -> Director {
        let mut director = director(SMALL);
        for rule in rules("tcp/192.0.2.1:80,443") {
            change(&mut director, rule);
        }
        let service = service();
        change(
            &mut director,
            Change::Service(service::Change::Add { service }),
        );
        assert_eq!(said(&mut director, 443), [Some(entry::wide(0) | 443)]);
        delete_second(&mut director);
        director
    }

    fn delete_second(director: &mut Director) {
        let Some(Change::Mark(mark::Change::Add { rule })) = rules("tcp/192.0.2.1:443").pop()
        else {
            unreachable!("it adds a rule");
        };
        change(director, Change::Mark(mark::Change::Delete { rule }));
    }

    fn look(director: &mut Director, used: &[u32]) {
        let used = used.iter().copied().collect();
        director.unused(&used, &BTreeSet::new());
    }

    #[test]
    fn connections_of_a_deleted_rule_are_found_as_long_as_there_are_any() {
        let mut director = one_orphan();
        let left = entry::wide(0) | 443 | entry::LEFT;
        assert_eq!(said(&mut director, 443), [Some(left)]);
        for _ in 0..3 {
            look(&mut director, &[1, entry::wide(0)]);
        }
        assert_eq!(said(&mut director, 443), []);

        // The rule is back, so the endpoint accepts connections again.
        for rule in rules("tcp/192.0.2.1:443") {
            change(&mut director, rule);
        }
        assert_eq!(said(&mut director, 443), [Some(entry::wide(0) | 443)]);

        delete_second(&mut director);
        assert_eq!(said(&mut director, 443), [Some(left)]);
        look(&mut director, &[1]);
        assert_eq!(said(&mut director, 443), [], "a look may be too early");
        look(&mut director, &[1]);
        assert_eq!(said(&mut director, 443), [None]);
    }

    #[test]
    fn what_a_deleted_rule_left_gives_way_to_who_comes_there() {
        for text in ["tcp/192.0.2.1:443", "tcp/192.0.2.1:0"] {
            let mut director = one_orphan();
            said(&mut director, 443);
            let service = Service {
                key: text.parse().unwrap(),
                ..service()
            };
            change(
                &mut director,
                Change::Service(service::Change::Add { service }),
            );
            let now = said(&mut director, 443);
            match text.ends_with(":0") {
                true => assert_eq!(now, [None]),
                // The endpoint has the service's own id.
                false => assert!(now.last().is_some_and(|id| id.is_some_and(|id| id < 9))),
            }
            for _ in 0..3 {
                look(&mut director, &[1, 2]);
            }
            assert_eq!(said(&mut director, 443), []);
        }
    }

    #[test]
    fn a_rule_and_a_service_of_the_same_place_exclude_each_other() {
        let mut director = director(SMALL);
        for rule in rules("tcp/192.0.2.1:80-90") {
            change(&mut director, rule);
        }
        let service = Service {
            key: "tcp/192.0.2.1:85".parse().unwrap(),
            persistence: None,
            ..service()
        };
        let refused = director.change(
            &Change::Service(service::Change::Add { service }),
            &Empty,
            Instant::now(),
        );
        assert_eq!(
            refused.unwrap_err().text,
            "service tcp 192.0.2.1:85: mark 7 for tcp 192.0.2.1:80-90; delete that rule first"
        );
        for rule in rules("tcp/192.0.2.1:90") {
            let refused = director.change(&rule, &Empty, Instant::now());
            assert_eq!(
                refused.unwrap_err().text,
                "mark 7 for tcp 192.0.2.1:90: there is a rule already, \
                 mark 7 for tcp 192.0.2.1:80-90"
            );
        }
    }

    #[test]
    fn answers_of_a_masqueraded_server_of_a_mark_are_looked_for_by_every_protocol() {
        let mut director = director(SMALL);
        let service = service();
        let key = service.key;
        change(
            &mut director,
            Change::Service(service::Change::Add { service }),
        );
        while director.poll().is_some() {}
        let server = Server {
            at: ServerAddress {
                address: [10, 1, 0, 7].into(),
                port: 0,
            },
            method: Method::Masquerade,
            weight: 1,
            upper_threshold: 0,
            lower_threshold: 0,
        };
        change(
            &mut director,
            Change::Server(server::Change::Add { key, server }),
        );

        let (mut words, mut methods, mut settings) = (Vec::new(), Vec::new(), None);
        while let Some(output) = director.poll() {
            match output {
                Output::Write(Write::EndpointAdd { word, id, .. }) if id == entry::BACK => {
                    words.push(word);
                }
                Output::Write(Write::Server { entry, .. }) => methods.push(entry.method),
                Output::Write(Write::Settings(new)) => settings = Some(new),
                _ => {}
            }
        }
        let wanted = [6, 17, 132].map(|protocol| endpoint_word(0, protocol, kind::MASQUERADED));
        assert_eq!(words, wanted);
        assert_eq!(methods, [entry::method::TRANSLATE]);
        // The servers keep the port that clients asked for, so their answers are found by address
        // alone.
        let settings = settings.unwrap();
        assert_eq!((settings.masquerades, settings.wide), (3, 1));
    }
}
