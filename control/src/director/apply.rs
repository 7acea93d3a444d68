//! A change of the table, and the writes that follow from it.
//!
//! Their order keeps the packet path consistent after each one. Entries are written before pools,
//! and pools before the endpoints that lead to them; removals go the other way round.

use std::net::IpAddr;
use std::time::Instant;

use shunt_datapath::entry::{self, PoolWord, counts};
use shunt_model::api::{Done, Refusal};
use shunt_model::change::Change;
use shunt_model::{Server, ServerAddress, Service, ServiceKey};

use super::{Director, Output, Running, Step, Write, addresses, effects, entries, marks, pools};
use crate::table::Applied;

/// The thresholds and weight of a server in the packet path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Standing {
    upper: u32,
    bounds: u64,
    weight: u32,
}

impl Director {
    /// Carries out a change, wholly or not at all. Refuses what the table does not allow, what the
    /// packet path has no room for, and what it does not support.
    pub fn change(
        &mut self,
        change: &Change,
        running: &dyn Running,
        now: Instant,
    ) -> Result<Done, Refusal> {
        self.table.check(change)?;
        self.admit(change)?;
        let place = self.outputs.len();
        let (done, step) = self.make(change, running)?;
        if let Some(step) = step {
            self.outputs.insert(place, Output::Remember(step));
        }
        self.watch(now);
        Ok(done)
    }

    /// Makes a change that the table and the packet path have room for. The step is what to
    /// remember of it, before the writes.
    pub(super) fn make(
        &mut self,
        change: &Change,
        running: &dyn Running,
    ) -> Result<(Done, Option<Step>), Refusal> {
        let applied = self.table.take(change)?;
        self.follow_servers(&applied);
        self.follow_calls(&applied);
        self.carry_out(&applied, running);
        Ok((Done {}, self.step(change, &applied)))
    }

    fn carry_out(&mut self, applied: &Applied, running: &dyn Running) {
        match applied {
            Applied::ServiceAdded { key } => self.add_service(key, running),
            Applied::ServiceEdited { before } => {
                self.edit_service(before, running);
                self.renew_fates(&before.key);
            }
            Applied::ServiceDeleted { entry } => self.delete_service(&entry.service),
            Applied::Flushed { entries } => {
                for entry in entries {
                    self.delete_service(&entry.service);
                }
            }
            Applied::ServerAdded { key, at } => self.put_server(key, *at, running),
            Applied::ServerEdited { key, before } => self.put_server(key, before.at, running),
            Applied::ServerDeleted { key, server } => self.delete_server(key, server, running),
            Applied::Zeroed { .. } => {}
            Applied::TimeoutsSet { .. } => self.settle(),
            Applied::SettingSet => self.renew_settings(),
            Applied::MarkAdded { .. } | Applied::MarkDeleted { .. } => {}
            Applied::LocalsChanged { family } => self.renew_locals(*family),
        }
        let may_cover = matches!(applied, Applied::ServiceAdded { .. }) && !self.orphans.is_empty();
        if may_cover || marks::are_touched(applied) {
            self.renew_marks();
        }
        self.renew_answerers();
        self.settle();
    }

    pub(super) fn add_service(&mut self, key: &ServiceKey, running: &dyn Running) {
        let (id, fresh) = self.ids.service(key);
        if !fresh {
            self.ids.forget_targets(key);
        }
        let endpoint = self.name_wide(key, id);
        let Some(slot) = self.ids.services.get_mut(key) else {
            return;
        };
        slot.present = true;
        let empty = PoolWord::new(0, 0, entry::scheduler::EMPTY);
        let (ids, settings) = (slot.ids, self.table.settings());
        let of = (empty, &ids);
        let Some(entry) = entries::service(key, None, of, self.clock, &settings) else {
            return;
        };
        self.write(Write::Service { id, entry });
        self.renew_pool(key, running);
        if let Some((address, word)) = addresses::endpoint(key) {
            self.add_endpoint((address, word), endpoint, addresses::address_word(key));
        }
    }

    /// Writes an endpoint, and the address's own entry if it is the first there.
    pub(super) fn add_endpoint(&mut self, at: (IpAddr, u32), id: u32, of_address: u32) {
        let (address, word) = at;
        self.write(Write::EndpointAdd { address, word, id });
        if self.ids.addresses.hold(address, of_address, word) {
            self.write(Write::EndpointAdd {
                address,
                word: of_address,
                id: 1,
            });
        }
    }

    pub(super) fn edit_service(&mut self, before: &Service, running: &dyn Running) {
        let now = self.table.service(&before.key);
        if now.is_some_and(|entry| entry.service.scheduler != before.scheduler) {
            self.ids.forget_targets(&before.key);
        }
        self.renew_pool(&before.key, running);
    }

    /// Writes the owner of the stretch of ids of a service of every port. Returns the service's
    /// endpoint id.
    pub(super) fn name_wide(&mut self, key: &ServiceKey, id: u32) -> u32 {
        let Some(slot) = self.ids.services.get(key) else {
            return id;
        };
        let (wide, endpoint) = (slot.ids.wide, slot.ids.endpoint());
        if wide != 0 {
            let number = entry::wide_number(wide);
            self.write(Write::Wide {
                number,
                service: id,
            });
        }
        endpoint
    }

    /// Deletes a service: its flows find their servers gone, and connections that are opened go to
    /// the kernel's stack. The ids stay taken until no flow uses them.
    pub(super) fn delete_service(&mut self, service: &Service) {
        let key = &service.key;
        let Some(slot) = self.ids.services.get_mut(key) else {
            return;
        };
        slot.present = false;
        let (id, ids) = (slot.ids.id, slot.ids);
        let servers: Vec<ServerAddress> = slot.servers.keys().copied().collect();
        if let Some(word) = self.pools.drop_service(id) {
            self.write(Write::Switch {
                service: id,
                pool: word,
            });
        }
        let empty = PoolWord::new(0, 0, entry::scheduler::EMPTY);
        let settings = self.table.settings().of(&service.settings);
        let of = (empty, &ids);
        if let Some(entry) = entries::service(key, None, of, self.clock, &settings) {
            self.write(Write::Service { id, entry });
        }
        self.ids.doubt(key);
        for at in servers {
            self.absent(key, at, effects::of_gone(&settings));
        }
    }

    /// A deleted service with flows hides a service of every port at its address, so clients would
    /// reach neither. Its endpoint is removed after two scans that saw it hide. A service that a
    /// script deletes and adds again at once keeps its flows.
    pub(super) fn uncover(&mut self) {
        let deleted = self.ids.doubtful().map(|(key, _)| *key);
        let hiding: Vec<ServiceKey> = deleted.filter(|key| self.hides(key)).collect();
        let before = std::mem::take(&mut self.hiding);
        for key in hiding {
            let looks = before.get(&key).map_or(1, |looks| looks.saturating_add(1));
            self.hiding.insert(key, looks);
            if let (2, Some((address, word))) = (looks, addresses::endpoint(&key)) {
                self.write(Write::EndpointRemove { address, word });
            }
        }
    }

    fn hides(&self, key: &ServiceKey) -> bool {
        let ServiceKey::Address {
            protocol,
            address,
            port,
        } = *key
        else {
            return false;
        };
        let other = ServiceKey::Address {
            protocol,
            address,
            port: 0,
        };
        port != 0 && self.table.service(key).is_none() && self.table.service(&other).is_some()
    }

    /// Writes the entry of a server that was added or edited, then the pool.
    pub(super) fn put_server(
        &mut self,
        key: &ServiceKey,
        at: ServerAddress,
        running: &dyn Running,
    ) {
        let Some(server) = self
            .table
            .service(key)
            .and_then(|entry| entry.server(at))
            .cloned()
        else {
            return;
        };
        let put = self.ids.server(key, &server);
        if put.fresh {
            self.write(Write::Forget { server: put.id });
        }
        self.stand(put.id, &server, put.fresh, running);
        self.write_server(key, &server);
        for nat in put.endpoints {
            let word = entry::endpoint_word(
                nat.key.port.to_be(),
                nat.key.protocol,
                entry::kind::MASQUERADED,
            );
            let of_address = entry::endpoint_word(0, nat.key.protocol, entry::kind::ADDRESS);
            self.add_endpoint((nat.key.address, word), nat.id, of_address);
        }
        self.renew_edited(key, true, running);
    }

    /// Writes the thresholds and weight of a server. `__ip_vs_update_dest`: a server whose upper
    /// threshold rises or is removed is relieved. So is a server with fewer connections than its
    /// former lower bound, which the packet path may not have noticed yet.
    pub(super) fn stand(&mut self, id: u32, server: &Server, fresh: bool, running: &dyn Running) {
        let upper = server.upper_threshold;
        let wanted = Standing {
            upper,
            bounds: entry::standing::bounds(upper, server.lower_threshold),
            weight: server.weight,
        };
        let before = self.standings.insert(id, wanted);
        let word = running.counts(id);
        let total = u64::from(counts::active(word)) + u64::from(counts::inactive(word));
        let relieved = before.is_some_and(|before| {
            upper == 0 || upper > before.upper || total < before.bounds >> 32
        });
        if fresh || before != Some(wanted) {
            self.write(Write::Standing {
                id,
                bounds: wanted.bounds,
                weight: wanted.weight,
                anew: fresh || relieved,
            });
        }
    }

    pub(super) fn delete_server(
        &mut self,
        key: &ServiceKey,
        server: &Server,
        running: &dyn Running,
    ) {
        self.renew_pool(key, running);
        let fate = effects::of_gone(&self.settings_of(key));
        self.absent(key, server.at, fate);
    }

    /// Marks every entry of a server as gone.
    pub(super) fn absent(&mut self, key: &ServiceKey, at: ServerAddress, fate: u16) {
        self.ids.doubt(key);
        self.unreached.remove(key, at);
        let Some(slot) = self.ids.slot_mut(key, at) else {
            return;
        };
        slot.present = false;
        self.mixed.insert(*key);
        self.write_gone(key, at, fate);
    }

    /// Writes the entry of a server if it differs.
    pub(super) fn write_server(&mut self, key: &ServiceKey, server: &Server) {
        let Some(service) = self.ids.services.get(key) else {
            return;
        };
        let Some(slot) = service.servers.get(&server.at) else {
            return;
        };
        let to = entries::Surroundings {
            network: &self.network,
            local: &self.local,
            service: service.ids.endpoint(),
            endpoint: self.ids.endpoint_of(key, server),
            before: self.written.get(&slot.id).copied(),
            fate: effects::of_present(server, &self.settings_of(key)),
        };
        let Some(entry) = entries::server(key, server, &to) else {
            return;
        };
        let (id, present, former) = (slot.id, slot.present, slot.former.clone());
        if present && self.written.get(&id) != Some(&entry) {
            self.written.insert(id, entry);
            if entry.method == entry::method::HERE {
                self.here.insert(id);
                self.settle();
            }
            self.write(Write::Server { id, entry });
            self.mixed.insert(*key);
        }
        if present {
            self.note_reach(key, server.at, &entry);
        }
        // Flows of an earlier method keep it, with the current next hop. Templates go on with the
        // current method.
        let entry_id = id;
        for id in former {
            let Some(mut old) = self.written.get(&id).copied() else {
                continue;
            };
            let before = old;
            old.ways = entry.ways;
            old.successor = entry_id;
            old.fate = entry.fate;
            self.written.insert(id, old);
            if before.successor != old.successor || before.fate != old.fate {
                self.write(Write::Server { id, entry: old });
            } else if before != old {
                self.write(Write::Way { id, ways: old.ways });
            }
        }
    }

    /// Recompiles the pool of a service and switches to it if it differs.
    pub(super) fn renew_pool(&mut self, key: &ServiceKey, running: &dyn Running) {
        self.renew_edited(key, false, running);
    }

    fn renew_edited(&mut self, key: &ServiceKey, edited: bool, running: &dyn Running) {
        let Some(entry) = self.table.service(key) else {
            return;
        };
        let Some(slot) = self.ids.services.get(key) else {
            return;
        };
        let (id, members) = (slot.ids.id, self.listed(slot.members(entry)));
        let service = &entry.service.clone();
        self.stale.remove(key);
        let switched = self
            .pools
            .renew(id, service.into(), members.clone(), edited, running);
        if !self.pools.is_of(id, service.into(), &members) {
            self.crowded.insert(*key);
        }
        if let Some(pools::Switched { base, words, .. }) = switched {
            self.write(Write::Pool { base, words });
        }
        self.write_service(key);
    }

    /// Writes the entry of a service with its present pool, also of a deleted service.
    pub(super) fn write_service(&mut self, key: &ServiceKey) {
        let settings = self.settings_of(key);
        let asked = self.table.service(key).map(|entry| entry.service.clone());
        let persistence = asked.as_ref().and_then(|asked| asked.persistence.as_ref());
        if let Some(persistence) = persistence {
            self.ids.template(key, persistence.granularity);
        }
        let Some(ids) = self.ids.services.get(key).map(|slot| slot.ids) else {
            return;
        };
        let of = (self.pools.word(ids.id), &ids);
        if let Some(mut entry) = entries::service(key, asked.as_ref(), of, self.clock, &settings) {
            if self.has_peers(ids.id) {
                entry.switches |= entry::service_switch::PEERS;
            }
            self.write(Write::Service { id: ids.id, entry });
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use shunt_datapath::entry::{SHORT_LENGTH, counts, standing};
    use shunt_model::change::{Change, server, service, setting};
    use shunt_model::service::{Granularity, Persistence};
    use shunt_model::{Method, Protocol, Scheduler, SchedulerFlags};

    use super::*;
    use crate::director::{Clock, Output, Sizes};
    use crate::table::{Limits, Table};

    const KEY: ServiceKey = ServiceKey::Address {
        protocol: Protocol::Tcp,
        address: std::net::IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1)),
        port: 80,
    };

    /// Every server has this many active connections.
    struct Loaded(u64);

    impl Running for Loaded {
        fn counters(&self, _: u32) -> shunt_model::Counters {
            shunt_model::Counters::default()
        }

        fn server(&self, _: u32) -> Option<entry::Server> {
            None
        }

        fn pool_word(&self, _at: u32) -> u64 {
            0
        }

        fn counts(&self, _server: u32) -> u64 {
            self.0 * counts::ACTIVE
        }

        fn is_overloaded(&self, _server: u32) -> bool {
            false
        }
    }

    fn server(number: u32, upper: u32, lower: u32) -> Server {
        let [_, _, high, low] = number.to_be_bytes();
        Server {
            at: format!("10.1.{high}.{low}:80").parse().unwrap(),
            method: Method::Route,
            weight: 1,
            upper_threshold: upper,
            lower_threshold: lower,
        }
    }

    fn director() -> Director {
        let sizes = Sizes {
            services: 16,
            servers: 512,
            pool_words: 1 << 18,
        };
        let table = Table::new(Limits::default());
        let clock = Clock {
            tick_ns: 1_000_000_000,
        };
        let mut director = Director::new(table, sizes, clock, Instant::now());
        let service = service(Scheduler::Wlc);
        written(
            &mut director,
            &Change::Service(service::Change::Add { service }),
            0,
        );
        director
    }

    fn service(scheduler: Scheduler) -> Service {
        Service {
            key: KEY,
            scheduler,
            flags: SchedulerFlags::default(),
            persistence: None,
            one_packet: false,
            settings: Default::default(),
            idle_engine: None,
            announce: None,
        }
    }

    /// The writes of a change while each server has `load` connections.
    fn written(director: &mut Director, change: &Change, load: u64) -> Vec<Write> {
        let now = Instant::now();
        director.change(change, &Loaded(load), now).unwrap();
        writes(director)
    }

    fn writes(director: &mut Director) -> Vec<Write> {
        let outputs = std::iter::from_fn(|| director.poll());
        let writes = outputs.filter_map(|output| match output {
            Output::Write(write) => Some(write),
            _ => None,
        });
        writes.collect()
    }

    #[test]
    fn thresholds_are_written_before_the_pool_that_has_them() {
        let add = Change::Server(server::Change::Add {
            key: KEY,
            server: server(1, 4, 2),
        });

        let writes = written(&mut director(), &add, 0);

        let place = |wanted: fn(&Write) -> bool| writes.iter().position(wanted).unwrap();
        let stands = place(|write| {
            let bounds = standing::bounds(4, 2);
            matches!(write, Write::Standing { id: 1, bounds: b, weight: 1, anew: true } if *b == bounds)
        });
        assert!(stands < place(|write| matches!(write, Write::Pool { .. })));
    }

    // __ip_vs_update_dest, and ip_vs_unbind_dest for connections that closed unnoticed.
    #[test]
    fn an_edit_relieves_a_server_whose_threshold_rises_or_that_has_fewer() {
        for (before, after, load, relieved) in [
            ((4, 2), (5, 2), 4, true),
            ((4, 2), (4, 1), 4, false),
            ((4, 2), (3, 2), 4, false),
            ((4, 2), (4, 1), 1, true),
            ((4, 0), (4, 1), 3, false),
            ((4, 0), (4, 1), 2, true),
            ((4, 2), (0, 0), 4, true),
        ] {
            let mut director = director();
            let key = KEY;
            let add = server(1, before.0, before.1);
            written(
                &mut director,
                &Change::Server(server::Change::Add { key, server: add }),
                load,
            );
            let edit = server(1, after.0, after.1);

            let change = Change::Server(server::Change::Edit { key, server: edit });
            let writes = written(&mut director, &change, load);

            let anew = writes.iter().find_map(|write| match write {
                Write::Standing { anew, .. } => Some(*anew),
                _ => None,
            });
            assert_eq!(anew, Some(relieved), "{before:?} to {after:?} with {load}");
        }
    }

    // ip_vs_wrr_dest_changed; no other scheduler's upd_dest moves a cursor.
    #[test]
    fn an_edit_that_changes_nothing_moves_wrr_alone() {
        for (scheduler, moves) in [(Scheduler::Wrr, true), (Scheduler::Rr, false)] {
            let mut director = director();
            let edited = service(scheduler);
            written(
                &mut director,
                &Change::Service(service::Change::Edit { service: edited }),
                0,
            );
            let (key, server) = (KEY, server(1, 0, 0));
            let add = Change::Server(server::Change::Add {
                key,
                server: server.clone(),
            });
            written(&mut director, &add, 0);

            let writes = written(
                &mut director,
                &Change::Server(server::Change::Edit { key, server }),
                0,
            );

            let moved = writes
                .iter()
                .any(|write| matches!(write, Write::Pool { .. }));
            assert_eq!(moved, moves, "{scheduler:?}");
        }
    }

    // ip_vs_lblc_done_svc, ip_vs_lblcr_done_svc.
    #[test]
    fn a_scheduler_that_begins_anew_knows_no_targets() {
        let mut director = director();
        let mut epoch = |change: &Change| {
            let service = |write: &Write| match write {
                Write::Service { id, entry } => Some((*id, entry.epoch)),
                _ => None,
            };
            let writes = written(&mut director, change, 0);
            writes.iter().rev().find_map(service).unwrap()
        };
        let lblc = service(Scheduler::Lblc);
        let mut persistent = lblc.clone();
        persistent.persistence = Some(Persistence {
            timeout_s: 300,
            granularity: Granularity::Mask([255; 4].into()),
            engine: None,
        });

        let edited = epoch(&Change::Service(service::Change::Edit {
            service: lblc.clone(),
        }));
        let same = epoch(&Change::Service(service::Change::Edit {
            service: persistent,
        }));
        let deleted = epoch(&Change::Service(service::Change::Delete { key: KEY }));
        let added = epoch(&Change::Service(service::Change::Add { service: lblc }));

        assert_eq!(edited, same);
        assert_eq!(edited.0, added.0);
        assert_eq!(edited.1 + 1, added.1);
        assert_eq!(deleted, edited);
        let snapshot = director.snapshot();
        assert_eq!(snapshot.services[&KEY].ids.epoch, added.1);
    }

    #[test]
    fn only_a_large_pool_has_its_short_list_written_again() {
        let mut director = director();
        for number in 1..=257 {
            assert!(!director.has_short_lists(), "with {} servers", number - 1);
            let server = server(number, 0, 0);
            written(
                &mut director,
                &Change::Server(server::Change::Add { key: KEY, server }),
                0,
            );
        }

        let lists = director.short_lists(&Loaded(3), 77);

        assert!(director.is_short(&KEY));
        let [Write::Pool { words, .. }] = &lists[..] else {
            panic!("one list");
        };
        assert_eq!(words[0], 77);
        assert_eq!(words.len(), 1 + SHORT_LENGTH as usize);
        // Of equals the first of the list is taken: the newest.
        assert_eq!(words[1] as u32, 257);
    }

    #[test]
    fn a_setting_reaches_services_and_servers_that_are_gone() {
        let mut director = director();
        let (key, gone) = (KEY, server(1, 0, 0));
        let at = gone.at;
        written(
            &mut director,
            &Change::Server(server::Change::Add { key, server: gone }),
            0,
        );
        let fate = |writes: &[Write]| {
            writes.iter().find_map(|write| match write {
                Write::Server { id: 1, entry } => Some((entry.flags & 1, entry.fate)),
                _ => None,
            })
        };

        let deleted = written(
            &mut director,
            &Change::Server(server::Change::Delete { key, at }),
            0,
        );
        let reused = entry::fate::REUSED;
        let datagrams = entry::fate::RESCHEDULED | entry::fate::UDP_ONLY;
        let by_protocol = datagrams | entry::fate::OPENED_ANEW | reused;
        assert_eq!(fate(&deleted), Some((0, by_protocol)));

        let setting = shunt_model::Setting::OnDown(shunt_model::OnDown::Reset);
        let set = written(
            &mut director,
            &Change::Setting(setting::Change::Set { setting }),
            0,
        );
        assert_eq!(fate(&set), Some((0, entry::fate::RESET | reused)));
        let setting = shunt_model::Setting::SloppyTcp(true);
        let set = written(
            &mut director,
            &Change::Setting(setting::Change::Set { setting }),
            0,
        );
        let sloppy = entry::service_switch::SLOPPY_TCP;
        assert!(set.iter().any(|write| {
            matches!(write, Write::Service { id: 1, entry } if entry.switches == sloppy)
        }));
        assert_eq!(fate(&set), None, "nothing is different for it");

        let changes = director.snapshot().changes;
        assert!(
            changes.contains(&Change::Setting(setting::Change::Set { setting })),
            "{changes:?}"
        );
    }
}
