//! Ids of services, servers and NAT endpoints in the packet path: who has which, and since when
//! nobody needs it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use shunt_datapath::entry::{BACK, ID_LIMIT, endpoint_word, kind};
use shunt_model::{Method, Server, ServerAddress, ServiceKey};

use super::entries;

/// How large the packet path's tables are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sizes {
    pub services: u32,
    pub servers: u32,
    pub pool_words: u32,
}

/// What answers of a masqueraded server are known by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct NatKey {
    pub address: IpAddr,
    pub port: u16,
    pub protocol: u8,
}

/// A service that has an id.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceSlot {
    pub id: u32,
    /// False once it was deleted, while flows still have its id.
    pub present: bool,
    #[serde(with = "pairs")]
    pub servers: BTreeMap<ServerAddress, ServerSlot>,
}

/// A server that has ids.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerSlot {
    /// The id that new connections get.
    pub id: u32,
    /// Ids by which older connections are forwarded by an earlier method.
    pub former: Vec<u32>,
    pub present: bool,
    pub method: Method,
    /// The last weight that was not 0 (`last_weight` of the kernel's destination).
    pub last_weight: u32,
}

impl ServerSlot {
    pub fn all(&self) -> impl Iterator<Item = u32> + use<> {
        std::iter::once(self.id).chain(self.former.clone())
    }
}

/// A NAT endpoint that has an id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NatEndpoint {
    pub key: NatKey,
    pub id: u32,
}

/// What putting a server came to.
#[derive(Clone, Copy, Debug)]
pub struct Put {
    pub id: u32,
    /// The id was nobody's before.
    pub fresh: bool,
    /// A NAT endpoint that is not in the packet path yet.
    pub endpoint: Option<NatEndpoint>,
}

/// What was given back.
#[derive(Debug, Default)]
pub struct Freed {
    pub servers: Vec<u32>,
    pub services: Vec<u32>,
    pub endpoints: Vec<(IpAddr, u32)>,
}

impl Freed {
    pub fn is_empty(&self) -> bool {
        self.servers.is_empty() && self.services.is_empty()
    }
}

/// What was neither present nor in use at a look at the flows.
#[derive(Clone, Debug, Default)]
struct Idle {
    services: BTreeSet<u32>,
    servers: BTreeSet<u32>,
}

/// All ids in use.
#[derive(Clone, Debug)]
pub struct Ids {
    idle: Idle,
    sizes: Sizes,
    pub services: BTreeMap<ServiceKey, ServiceSlot>,
    pub endpoints: BTreeMap<NatKey, u32>,
    used_services: BTreeSet<u32>,
    used_servers: BTreeSet<u32>,
    used_endpoints: BTreeSet<u32>,
    /// How many endpoints an address has, for the entry that says that it has any.
    addresses: BTreeMap<(IpAddr, u32), u32>,
}

/// The lowest id from 1 that is not in use. Sets are dense at the low end, so this ends early.
fn lowest(used: &BTreeSet<u32>) -> u32 {
    let mut id = 1;
    for taken in used {
        if *taken != id {
            break;
        }
        id += 1;
    }
    id
}

impl Ids {
    pub fn new(sizes: Sizes) -> Self {
        Self {
            idle: Idle::default(),
            sizes,
            services: BTreeMap::new(),
            endpoints: BTreeMap::new(),
            used_services: BTreeSet::new(),
            used_servers: BTreeSet::new(),
            used_endpoints: BTreeSet::new(),
            addresses: BTreeMap::new(),
        }
    }

    /// Id 0 is nobody's, so one less than the table has.
    pub fn services_left(&self) -> usize {
        (self.sizes.services.min(ID_LIMIT) as usize - 1).saturating_sub(self.used_services.len())
    }

    pub fn servers_left(&self) -> usize {
        (self.sizes.servers.min(ID_LIMIT) as usize - 1).saturating_sub(self.used_servers.len())
    }

    /// The id of a service, a new one if it has none.
    pub fn service(&mut self, key: &ServiceKey) -> (u32, bool) {
        if let Some(slot) = self.services.get(key) {
            // In use again, so the next look alone may not take it away.
            self.idle.services.remove(&slot.id);
            return (slot.id, false);
        }
        let id = lowest(&self.used_services);
        self.used_services.insert(id);
        let slot = ServiceSlot {
            id,
            present: true,
            servers: BTreeMap::new(),
        };
        self.services.insert(*key, slot);
        (id, true)
    }

    pub fn slot_mut(&mut self, key: &ServiceKey, at: ServerAddress) -> Option<&mut ServerSlot> {
        self.services.get_mut(key)?.servers.get_mut(&at)
    }

    /// The id of a server as it is wanted. A server of another method than before gets another
    /// id, so that connections go on by the method they began with.
    pub fn server(&mut self, key: &ServiceKey, server: &Server, protocol: u8) -> Put {
        let fresh_id = lowest(&self.used_servers);
        let Some(service) = self.services.get_mut(key) else {
            return Put {
                id: 0,
                fresh: false,
                endpoint: None,
            };
        };
        let mut fresh = false;
        let slot = service.servers.entry(server.at).or_insert_with(|| {
            fresh = true;
            ServerSlot {
                id: fresh_id,
                former: Vec::new(),
                present: true,
                method: server.method,
                last_weight: 0,
            }
        });
        slot.present = true;
        if server.weight != 0 {
            slot.last_weight = server.weight;
        }
        if slot.method != server.method {
            slot.method = server.method;
            slot.former.insert(0, slot.id);
            slot.id = fresh_id;
            fresh = true;
        }
        let id = slot.id;
        self.idle.servers.remove(&id);
        self.used_servers.insert(id);
        let endpoint = self.endpoint(server, protocol);
        Put {
            id,
            fresh,
            endpoint,
        }
    }

    fn endpoint(&mut self, server: &Server, protocol: u8) -> Option<NatEndpoint> {
        if server.method != Method::Masquerade {
            return None;
        }
        let key = NatKey {
            address: server.at.address,
            port: server.at.port,
            protocol,
        };
        if self.endpoints.contains_key(&key) {
            return None;
        }
        let id = lowest(&self.used_endpoints);
        self.used_endpoints.insert(id);
        self.endpoints.insert(key, id | BACK);
        Some(NatEndpoint { key, id: id | BACK })
    }

    /// The endpoint's id of a masqueraded server.
    pub fn endpoint_of(&self, key: &ServiceKey, server: &Server) -> u32 {
        let ServiceKey::Address { protocol, .. } = key else {
            return 0;
        };
        let key = NatKey {
            address: server.at.address,
            port: server.at.port,
            protocol: protocol.number(),
        };
        self.endpoints.get(&key).copied().unwrap_or(0)
    }

    /// Whether answers of any server must be looked for.
    pub fn masquerades(&self) -> bool {
        !self.endpoints.is_empty()
    }

    /// Counts one more endpoint on an address; true if it is the first.
    pub fn hold_address(&mut self, address: IpAddr, word: u32) -> bool {
        let count = self.addresses.entry((address, word)).or_insert(0);
        *count += 1;
        *count == 1
    }

    fn let_go_address(&mut self, address: IpAddr, word: u32) -> bool {
        let Some(count) = self.addresses.get_mut(&(address, word)) else {
            return false;
        };
        *count -= 1;
        if *count == 0 {
            self.addresses.remove(&(address, word));
            return true;
        }
        false
    }

    /// Gives back the ids of what is neither present nor in use by a flow.
    ///
    /// A look at the flows takes time: one that began before something was deleted may have missed
    /// its youngest flows. So an id goes only when two looks in a row found it idle.
    pub fn release(
        &mut self,
        used_services: &BTreeSet<u32>,
        used_servers: &BTreeSet<u32>,
    ) -> Freed {
        let idle = self.idle(used_services, used_servers);
        let before = std::mem::replace(&mut self.idle, idle);
        let is_used = |id: &u32| !before.servers.contains(id) || used_servers.contains(id);
        let is_service_used =
            |id: &u32| !before.services.contains(id) || used_services.contains(id);
        let mut freed = Freed::default();
        let mut gone = Vec::new();
        for (key, slot) in &mut self.services {
            slot.servers.retain(|_, server| {
                let unused: Vec<u32> = server
                    .former
                    .iter()
                    .copied()
                    .filter(|id| !is_used(id))
                    .collect();
                server.former.retain(is_used);
                freed.servers.extend(unused);
                let keep = server.present || is_used(&server.id) || !server.former.is_empty();
                if !keep {
                    freed.servers.push(server.id);
                }
                keep
            });
            let keep = slot.present || !slot.servers.is_empty() || is_service_used(&slot.id);
            if !keep {
                gone.push((*key, slot.id));
            }
        }
        for (key, id) in gone {
            self.services.remove(&key);
            self.used_services.remove(&id);
            freed.services.push(id);
            if let Some((address, word)) = entries::endpoint(&key) {
                freed.endpoints.push((address, word));
                let word = entries::address_word(&key);
                if self.let_go_address(address, word) {
                    freed.endpoints.push((address, word));
                }
            }
        }
        for id in &freed.servers {
            self.used_servers.remove(id);
        }
        if !freed.servers.is_empty() {
            self.release_endpoints(&mut freed);
        }
        freed
    }

    fn idle(&self, used_services: &BTreeSet<u32>, used_servers: &BTreeSet<u32>) -> Idle {
        let mut idle = Idle::default();
        for slot in self.services.values() {
            if !slot.present && !used_services.contains(&slot.id) {
                idle.services.insert(slot.id);
            }
            for server in slot.servers.values() {
                let own = (!server.present).then_some(server.id);
                let ids = server.former.iter().copied().chain(own);
                idle.servers
                    .extend(ids.filter(|id| !used_servers.contains(id)));
            }
        }
        idle
    }

    fn release_endpoints(&mut self, freed: &mut Freed) {
        let mut needed = BTreeSet::new();
        for (key, slot) in &self.services {
            let ServiceKey::Address { protocol, .. } = key else {
                continue;
            };
            for at in slot.servers.keys() {
                let protocol = protocol.number();
                needed.insert(NatKey {
                    address: at.address,
                    port: at.port,
                    protocol,
                });
            }
        }
        let gone: Vec<(NatKey, u32)> = self
            .endpoints
            .iter()
            .filter(|(key, _)| !needed.contains(key))
            .map(|(key, id)| (*key, *id))
            .collect();
        for (key, id) in gone {
            self.endpoints.remove(&key);
            self.used_endpoints.remove(&(id & !BACK));
            let word = endpoint_word(key.port.to_be(), key.protocol, kind::MASQUERADED);
            freed.endpoints.push((key.address, word));
            let word = endpoint_word(0, key.protocol, kind::ADDRESS);
            if self.let_go_address(key.address, word) {
                freed.endpoints.push((key.address, word));
            }
        }
    }

    /// Takes ids up again as they were written down.
    pub fn restore(
        &mut self,
        services: BTreeMap<ServiceKey, ServiceSlot>,
        endpoints: BTreeMap<NatKey, u32>,
    ) {
        for slot in services.values() {
            self.used_services.insert(slot.id);
            for server in slot.servers.values() {
                self.used_servers.extend(server.all());
            }
        }
        for id in endpoints.values() {
            self.used_endpoints.insert(id & !BACK);
        }
        self.services = services;
        self.endpoints = endpoints;
    }
}

/// Maps whose keys are no strings, as lists of pairs.
pub mod pairs {
    use std::collections::BTreeMap;

    use serde::de::{Deserialize, Deserializer};
    use serde::ser::{Serialize, Serializer};

    pub fn serialize<K: Serialize, V: Serialize, S: Serializer>(
        map: &BTreeMap<K, V>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(map)
    }

    pub fn deserialize<'de, K, V, D>(deserializer: D) -> Result<BTreeMap<K, V>, D::Error>
    where
        K: Deserialize<'de> + Ord,
        V: Deserialize<'de>,
        D: Deserializer<'de>,
    {
        Ok(Vec::<(K, V)>::deserialize(deserializer)?
            .into_iter()
            .collect())
    }
}

#[cfg(test)]
mod tests {
    use shunt_model::Protocol;

    use super::*;

    /// A look that began before the last flows came, and ended after the server was deleted.
    #[test]
    fn an_id_goes_only_when_two_looks_in_a_row_found_it_idle() {
        let (mut ids, key, server) = one();
        let id = ids.server(&key, &server, 6).id;
        let nothing = BTreeSet::new();
        ids.slot_mut(&key, server.at).unwrap().present = false;

        assert!(ids.release(&nothing, &nothing).is_empty());
        assert!(ids.release(&nothing, &BTreeSet::from([id])).is_empty());
        assert!(ids.release(&nothing, &nothing).is_empty());
        assert_eq!(ids.release(&nothing, &nothing).servers, [id]);
    }

    #[test]
    fn a_server_that_came_back_between_two_looks_is_not_idle() {
        let (mut ids, key, server) = one();
        let id = ids.server(&key, &server, 6).id;
        let nothing = BTreeSet::new();
        ids.slot_mut(&key, server.at).unwrap().present = false;
        ids.release(&nothing, &nothing);

        assert_eq!(ids.server(&key, &server, 6).id, id);
        ids.slot_mut(&key, server.at).unwrap().present = false;

        assert!(ids.release(&nothing, &nothing).is_empty());
    }

    fn one() -> (Ids, ServiceKey, Server) {
        let sizes = Sizes {
            services: 16,
            servers: 16,
            pool_words: 16,
        };
        let key = ServiceKey::Address {
            protocol: Protocol::Tcp,
            address: [192, 0, 2, 1].into(),
            port: 80,
        };
        let at = ServerAddress {
            address: [10, 1, 0, 1].into(),
            port: 80,
        };
        let server = Server {
            at,
            method: Method::Route,
            weight: 1,
            upper_threshold: 0,
            lower_threshold: 0,
        };
        let mut ids = Ids::new(sizes);
        ids.service(&key);
        (ids, key, server)
    }
}
