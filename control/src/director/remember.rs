//! What has to survive the daemon besides the packet path's own tables: the operator's table and
//! who has which id.
//!
//! It is written down before the packet path is changed. A daemon that comes up finds in it what
//! was wanted last, and writes whatever of that is not in the packet path yet.

use std::collections::BTreeMap;
use std::time::Instant;

use serde::{Deserialize, Serialize};
use shunt_datapath::entry::{self, PoolWord};
use shunt_model::api::{Change, Refusal};
use shunt_model::{Server, ServiceKey};

use super::hops::Numbered;
use super::ids::{self, NatKey, ServiceSlot, Sizes};
use super::{Clock, Director, Output, Running, Write, entries};
use crate::table::Table;

/// All of it, as plain data.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Memory {
    /// The changes that make the table from nothing, in order.
    pub changes: Vec<Change>,
    #[serde(with = "ids::pairs")]
    pub services: BTreeMap<ServiceKey, ServiceSlot>,
    #[serde(with = "ids::pairs")]
    pub endpoints: BTreeMap<NatKey, u32>,
    /// The numbers of gateways that connections may remember.
    #[serde(default)]
    pub gateways: BTreeMap<std::net::IpAddr, Numbered>,
}

impl Director {
    /// What has to be written down.
    #[must_use]
    pub fn memory(&self) -> Memory {
        let mut changes = vec![Change::SetTimeouts {
            timeouts: self.table.timeouts(),
        }];
        for entry in self.table.oldest_first() {
            changes.push(Change::AddService {
                service: entry.service.clone(),
            });
            for server in entry.servers.iter().rev() {
                let key = entry.service.key;
                changes.push(Change::AddServer {
                    key,
                    server: server.clone(),
                });
            }
        }
        Memory {
            changes,
            services: self.ids.services.clone(),
            endpoints: self.ids.endpoints.clone(),
            gateways: self.hops.gateways.clone(),
        }
    }

    /// Goes on where an earlier daemon stood. `pool` says which pool the packet path uses for a
    /// service. Whatever in the packet path differs is written again, the rest left as it is.
    pub fn resume(
        memory: Memory,
        table: Table,
        sizes: Sizes,
        clock: Clock,
        running: &dyn Running,
        pool: impl Fn(u32) -> PoolWord,
        now: Instant,
    ) -> Result<Self, Refusal> {
        // Settings of an empty table would stop masquerading for a moment.
        let mut director = Self::silent(table, sizes, clock, now);
        for change in &memory.changes {
            director.table.apply(change)?;
        }
        director.ids.restore(memory.services, memory.endpoints);
        director.hops.restore(memory.gateways);
        let keys: Vec<ServiceKey> = director
            .table
            .services()
            .map(|entry| entry.service.key)
            .collect();
        for key in &keys {
            director.resume_service(key, running, &pool);
        }
        director.resume_ghosts();
        director.resume_endpoints();
        director.settle();
        director.watch(now);
        Ok(director)
    }

    fn resume_service(
        &mut self,
        key: &ServiceKey,
        running: &dyn Running,
        pool: &impl Fn(u32) -> PoolWord,
    ) {
        let (id, _) = self.ids.service(key);
        let Some(entry) = self.table.service(key).cloned() else {
            return;
        };
        let protocol = match key {
            ServiceKey::Address { protocol, .. } => protocol.number(),
            ServiceKey::Mark { .. } => 0,
        };
        for server in &entry.servers {
            self.ids.server(key, server, protocol);
        }
        let Some(slot) = self.ids.services.get(key) else {
            return;
        };
        let members = slot.members(&entry);
        let ids = entry.servers.iter().filter_map(|server| {
            let id = slot.servers.get(&server.at)?.id;
            Some((id, server))
        });
        let ids: Vec<(u32, &Server)> = ids.collect();
        for (id, server) in ids {
            self.stand(id, server, false, running);
        }
        if !self
            .pools
            .adopt(id, pool(id), (&entry.service).into(), members, running)
        {
            self.renew_pool(key, running);
        }
        let template = match entry.service.persistence {
            Some(_) => self.ids.template(key),
            None => entry::NONE,
        };
        let (pool, asked) = (self.pools.word(id), Some(&entry.service));
        if let Some(entry) = entries::service(key, asked, pool, template, self.clock) {
            self.write(Write::Service { id, entry });
        }
    }

    /// What was deleted while flows had it: the entries are there, only the ids must stay taken.
    fn resume_ghosts(&mut self) {
        let present: Vec<(ServiceKey, Vec<Server>)> = self
            .table
            .services()
            .map(|entry| (entry.service.key, entry.servers.clone()))
            .collect();
        for slot in self.ids.services.values_mut() {
            slot.present = false;
            for server in slot.servers.values_mut() {
                server.present = false;
            }
        }
        for (key, servers) in present {
            let Some(slot) = self.ids.services.get_mut(&key) else {
                continue;
            };
            slot.present = true;
            for server in servers {
                if let Some(slot) = slot.servers.get_mut(&server.at) {
                    slot.present = true;
                }
            }
        }
    }

    /// Every endpoint is said again: the shell leaves alone what is there already.
    fn resume_endpoints(&mut self) {
        let services: Vec<(ServiceKey, u32)> = self
            .ids
            .services
            .iter()
            .map(|(key, slot)| (*key, slot.id))
            .collect();
        for (key, id) in services {
            let Some((address, word)) = entries::endpoint(&key) else {
                continue;
            };
            let id = self.name_wide(&key, id);
            self.write(Write::EndpointAdd { address, word, id });
            let word = entries::address_word(&key);
            if self.ids.hold_address(address, word) {
                self.write(Write::EndpointAdd {
                    address,
                    word,
                    id: 1,
                });
            }
        }
        let endpoints: Vec<(NatKey, u32)> = self
            .ids
            .endpoints
            .iter()
            .map(|(key, id)| (*key, *id))
            .collect();
        for (key, id) in endpoints {
            let word =
                entry::endpoint_word(key.port.to_be(), key.protocol, entry::kind::MASQUERADED);
            self.write(Write::EndpointAdd {
                address: key.address,
                word,
                id,
            });
            let word = entry::endpoint_word(0, key.protocol, entry::kind::ADDRESS);
            if self.ids.hold_address(key.address, word) {
                self.write(Write::EndpointAdd {
                    address: key.address,
                    word,
                    id: 1,
                });
            }
        }
    }

    /// After the network is known for the first time: every server's entry as it must be. An
    /// earlier daemon's ways stay in force until then.
    pub fn network_known(&mut self) {
        self.local = self.network.addresses();
        let all: Vec<(ServiceKey, Server)> = self
            .table
            .services()
            .flat_map(|entry| {
                let key = entry.service.key;
                entry
                    .servers
                    .iter()
                    .map(move |server| (key, server.clone()))
            })
            .collect();
        for (key, server) in all {
            self.write_server(&key, &server);
        }
        self.outputs.push_back(Output::Devices);
    }

    /// What the packet path says of a server, from an earlier life.
    pub fn found(&mut self, id: u32, entry: entry::Server) {
        self.written.insert(id, entry);
    }

    /// The server ids that an earlier life may have written.
    #[must_use]
    pub fn all_server_ids(&self) -> Vec<u32> {
        self.names().servers.into_keys().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::carried::Gate;
    use crate::table::Limits;
    use shunt_model::{Method, Protocol, Scheduler, SchedulerFlags, Service, Timeouts};

    struct Empty;

    impl Running for Empty {
        fn counts(&self, _server: u32) -> u64 {
            0
        }

        fn is_overloaded(&self, _server: u32) -> bool {
            false
        }

        fn pool_word(&self, _at: u32) -> u64 {
            0
        }
    }

    const SIZES: Sizes = Sizes {
        services: 16,
        servers: 16,
        pool_words: 1024,
    };
    const CLOCK: Clock = Clock {
        tick_ns: 1_000_000_000,
    };

    fn table() -> Table {
        Table::new(Gate::Carried, Limits::default())
    }

    /// The settings that a director writes, in order.
    fn settings(director: &mut Director) -> Vec<entry::Settings> {
        std::iter::from_fn(|| director.poll())
            .filter_map(|output| match output {
                Output::Write(Write::Settings(settings)) => Some(settings),
                _ => None,
            })
            .collect()
    }

    #[test]
    fn a_resumed_director_says_no_settings_but_those_that_were_in_force() {
        let now = Instant::now();
        let mut first = Director::new(table(), SIZES, CLOCK, now);
        let address = "192.0.2.1".parse().unwrap();
        let key = ServiceKey::Address {
            protocol: Protocol::Tcp,
            address,
            port: 80,
        };
        let service = Service {
            key,
            scheduler: Scheduler::Rr,
            flags: SchedulerFlags::default(),
            persistence: None,
            one_packet: false,
        };
        let server = Server {
            at: "10.1.0.7:80".parse().unwrap(),
            method: Method::Masquerade,
            weight: 1,
            upper_threshold: 0,
            lower_threshold: 0,
        };
        let timeouts = Timeouts {
            tcp_s: 77,
            ..Timeouts::default()
        };
        for change in [
            Change::AddService { service },
            Change::AddServer { key, server },
            Change::SetTimeouts { timeouts },
        ] {
            first.change(&change, &Empty, now).unwrap();
        }
        let last = settings(&mut first).pop().unwrap();
        assert_eq!((last.masquerades, last.timeouts[1]), (1, 77));

        let pool = |_| PoolWord(0);
        let memory = first.memory();
        let mut second =
            Director::resume(memory, table(), SIZES, CLOCK, &Empty, pool, now).unwrap();

        assert_eq!(settings(&mut second), [last]);
    }
}
