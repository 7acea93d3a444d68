//! What a change of the table means for the packet path, write by write.
//!
//! In an order in which each step leaves the packet path consistent: entries before pools, pools
//! before what is found by them; and the other way round when something goes.

use shunt_datapath::entry::{self, PoolWord};
use shunt_model::{Server, ServerAddress, ServiceKey};

use super::{Director, Running, Write, entries, pools};

impl Director {
    pub(super) fn add_service(&mut self, key: &ServiceKey, running: &dyn Running) {
        let (id, _) = self.ids.service(key);
        if let Some(slot) = self.ids.services.get_mut(key) {
            slot.present = true;
        }
        let Some(entry) = entries::service(key, PoolWord::new(0, 0, entry::scheduler::EMPTY), 0)
        else {
            return;
        };
        self.write(Write::Service { id, entry });
        self.renew_pool(key, running);
        if let Some((address, word)) = entries::endpoint(key) {
            self.write(Write::EndpointAdd { address, word, id });
            let word = entries::address_word(key);
            if self.ids.hold_address(address, word) {
                self.write(Write::EndpointAdd {
                    address,
                    word,
                    id: 1,
                });
            }
        }
    }

    /// The service is no longer there: its flows find their servers gone, new ones go to the
    /// kernel. The ids stay until no flow has them.
    pub(super) fn delete_service(&mut self, key: &ServiceKey) {
        let Some(slot) = self.ids.services.get_mut(key) else {
            return;
        };
        slot.present = false;
        let id = slot.id;
        let servers: Vec<ServerAddress> = slot.servers.keys().copied().collect();
        if let Some(word) = self.pools.drop_service(id) {
            self.write(Write::Switch {
                service: id,
                pool: word,
            });
        }
        let empty = PoolWord::new(0, 0, entry::scheduler::EMPTY);
        if let Some(entry) = entries::service(key, empty, 0) {
            let flags = entry.flags & !entry::service_flag::PRESENT;
            self.write(Write::Service {
                id,
                entry: entry::Service { flags, ..entry },
            });
        }
        self.ids.doubt(key);
        for at in servers {
            self.absent(key, at);
        }
    }

    /// Writes the entry of a server that came or was edited, then the pool.
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
        let put = self.ids.server(key, &server, super::ids::protocol(key));
        if put.fresh {
            self.write(Write::Forget { server: put.id });
        }
        self.write_server(key, &server);
        if let Some(nat) = put.endpoint {
            let word = entry::endpoint_word(
                nat.key.port.to_be(),
                nat.key.protocol,
                entry::kind::MASQUERADED,
            );
            self.write(Write::EndpointAdd {
                address: nat.key.address,
                word,
                id: nat.id,
            });
            let word = entry::endpoint_word(0, nat.key.protocol, entry::kind::ADDRESS);
            if self.ids.hold_address(nat.key.address, word) {
                self.write(Write::EndpointAdd {
                    address: nat.key.address,
                    word,
                    id: 1,
                });
            }
        }
        self.renew_pool(key, running);
    }

    pub(super) fn delete_server(
        &mut self,
        key: &ServiceKey,
        server: &Server,
        running: &dyn Running,
    ) {
        self.renew_pool(key, running);
        self.absent(key, server.at);
    }

    /// Marks every entry of a server as gone.
    pub(super) fn absent(&mut self, key: &ServiceKey, at: ServerAddress) {
        self.ids.doubt(key);
        self.unreached.remove(&(*key, at));
        let Some(slot) = self.ids.slot_mut(key, at) else {
            return;
        };
        slot.present = false;
        for id in slot.all() {
            if let Some(mut entry) = self.written.get(&id).copied() {
                entry.flags &= !entry::server_flag::PRESENT;
                self.written.insert(id, entry);
                self.write(Write::Server { id, entry });
            }
        }
    }

    /// Writes the entry of a server as it must be, if it is not so.
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
            service: service.id,
            endpoint: self.ids.endpoint_of(key, server),
            before: self.written.get(&slot.id).copied(),
        };
        let Some(entry) = entries::server(key, server, &to) else {
            return;
        };
        let (id, present, former) = (slot.id, slot.present, slot.former.clone());
        if present && self.written.get(&id) != Some(&entry) {
            self.written.insert(id, entry);
            self.write(Write::Server { id, entry });
        }
        if present {
            self.note_reach(key, server.at, &entry);
        }
        // Flows of an earlier method go on by it, over the way as it is.
        for id in former {
            let Some(mut old) = self.written.get(&id).copied() else {
                continue;
            };
            old.ways = entry.ways;
            if self.written.insert(id, old) != Some(old) {
                self.write(Write::Way { id, ways: old.ways });
            }
        }
    }

    /// Compiles the pool of a service anew and switches to it, if it differs.
    pub(super) fn renew_pool(&mut self, key: &ServiceKey, running: &dyn Running) {
        let Some(entry) = self.table.service(key) else {
            return;
        };
        let Some(slot) = self.ids.services.get(key) else {
            return;
        };
        let (id, members) = (slot.id, self.reached(slot.members(entry)));
        let (service, scheduler) = (&entry.service, entry.service.scheduler);
        let flags = entries::service_flags(service);
        self.stale.remove(key);
        let switched = self
            .pools
            .renew(id, scheduler, key.family(), members.clone(), running);
        if !self.pools.is_of(id, scheduler, &members) {
            self.crowded.insert(*key);
        }
        let word = match switched {
            Some(pools::Switched { base, words, word }) => {
                self.write(Write::Pool { base, words });
                word
            }
            None => self.pools.word(id),
        };
        if let Some(entry) = entries::service(key, word, flags) {
            self.write(Write::Service { id, entry });
        }
    }
}
