//! Ids of services, servers and NAT endpoints in the packet path: who has which, and since when
//! nobody needs it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use shunt_datapath::entry::{self, BACK, ID_LIMIT, endpoint_word, kind};
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
    /// The id of its templates, since it first was persistent; 0 before.
    #[serde(default)]
    pub template: u32,
    /// The id by which a service of every port is found; 0 for one with a port.
    #[serde(default)]
    pub wide: u32,
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

impl ServiceSlot {
    /// The id by which packets find it, and flows are keyed.
    pub fn endpoint(&self) -> u32 {
        if self.wide == 0 { self.id } else { self.wide }
    }
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

/// All ids in use.
#[derive(Clone, Debug)]
pub struct Ids {
    sizes: Sizes,
    pub services: BTreeMap<ServiceKey, ServiceSlot>,
    pub endpoints: BTreeMap<NatKey, u32>,
    used_services: BTreeSet<u32>,
    used_servers: BTreeSet<u32>,
    used_endpoints: BTreeSet<u32>,
    /// Numbers of endpoints of every port: of services, and behind NAT.
    wide_services: BTreeMap<u32, u32>,
    wide_endpoints: BTreeSet<u32>,
    /// How many endpoints an address has, for the entry that says that it has any.
    addresses: BTreeMap<(IpAddr, u32), u32>,
}

/// Whether a service has every port of its address.
pub fn is_wide(key: &ServiceKey) -> bool {
    matches!(key, ServiceKey::Address { port: 0, .. })
}

/// The port that a server has in the packet path. One without a port has that of the service; 0 is
/// the port that the client asked.
pub fn port(service: &ServiceKey, server: ServerAddress) -> u16 {
    match *service {
        ServiceKey::Address { port, .. } if server.port == 0 => port,
        _ => server.port,
    }
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
            sizes,
            services: BTreeMap::new(),
            endpoints: BTreeMap::new(),
            used_services: BTreeSet::new(),
            used_servers: BTreeSet::new(),
            used_endpoints: BTreeSet::new(),
            wide_services: BTreeMap::new(),
            wide_endpoints: BTreeSet::new(),
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
            return (slot.id, false);
        }
        let id = lowest(&self.used_services);
        self.used_services.insert(id);
        let mut wide = 0;
        if is_wide(key) {
            let number = (0..).find(|number| !self.wide_services.contains_key(number));
            let number = number.unwrap_or(0);
            self.wide_services.insert(number, id);
            wide = entry::wide(number);
        }
        let slot = ServiceSlot {
            id,
            present: true,
            template: 0,
            wide,
            servers: BTreeMap::new(),
        };
        self.services.insert(*key, slot);
        (id, true)
    }

    /// The id of a service's templates, a new one if it has none.
    pub fn template(&mut self, key: &ServiceKey) -> u32 {
        let id = lowest(&self.used_services);
        let Some(slot) = self.services.get_mut(key) else {
            return 0;
        };
        if slot.template == 0 {
            slot.template = id;
            self.used_services.insert(id);
        }
        slot.template
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
        self.used_servers.insert(id);
        let endpoint = self.endpoint(key, server, protocol);
        Put {
            id,
            fresh,
            endpoint,
        }
    }

    fn endpoint(
        &mut self,
        service: &ServiceKey,
        server: &Server,
        protocol: u8,
    ) -> Option<NatEndpoint> {
        if server.method != Method::Masquerade {
            return None;
        }
        let key = NatKey {
            address: server.at.address,
            port: port(service, server.at),
            protocol,
        };
        if self.endpoints.contains_key(&key) {
            return None;
        }
        let id = if key.port == 0 {
            let mut numbers = 0..;
            let number = numbers.find(|number| !self.wide_endpoints.contains(number));
            let number = number.unwrap_or(0);
            self.wide_endpoints.insert(number);
            entry::wide(number) | BACK
        } else {
            let id = lowest(&self.used_endpoints);
            self.used_endpoints.insert(id);
            id | BACK
        };
        self.endpoints.insert(key, id);
        Some(NatEndpoint { key, id })
    }

    /// Whether there is room for another service of every port, or server of every port behind
    /// NAT.
    pub fn has_room_for_wide(&self) -> bool {
        let limit = entry::WIDES as usize;
        self.wide_services.len() < limit && self.wide_endpoints.len() < limit
    }

    /// Whether packets must be looked for by address alone.
    pub fn has_wide(&self) -> bool {
        !self.wide_services.is_empty() || !self.wide_endpoints.is_empty()
    }

    /// The endpoint's id of a masqueraded server.
    pub fn endpoint_of(&self, key: &ServiceKey, server: &Server) -> u32 {
        let ServiceKey::Address { protocol, .. } = key else {
            return 0;
        };
        let key = NatKey {
            address: server.at.address,
            port: port(key, server.at),
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
    pub fn release(
        &mut self,
        used_services: &BTreeSet<u32>,
        used_servers: &BTreeSet<u32>,
    ) -> Freed {
        let mut freed = Freed::default();
        let mut gone = Vec::new();
        for (key, slot) in &mut self.services {
            slot.servers.retain(|_, server| {
                let unused: Vec<u32> = server
                    .former
                    .iter()
                    .copied()
                    .filter(|id| !used_servers.contains(id))
                    .collect();
                server.former.retain(|id| used_servers.contains(id));
                freed.servers.extend(unused);
                let keep = server.present
                    || used_servers.contains(&server.id)
                    || !server.former.is_empty();
                if !keep {
                    freed.servers.push(server.id);
                }
                keep
            });
            let keep = slot.present
                || !slot.servers.is_empty()
                || used_services.contains(&slot.id)
                || used_services.contains(&slot.template)
                || used_services.contains(&slot.wide);
            if !keep {
                gone.push((*key, slot.id, slot.template));
            }
        }
        for (key, id, template) in gone {
            self.services.remove(&key);
            self.used_services.remove(&id);
            self.used_services.remove(&template);
            self.wide_services.retain(|_, service| *service != id);
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
                    port: port(key, *at),
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
            if id & entry::WIDE == 0 {
                self.used_endpoints.remove(&(id & !BACK));
            } else {
                self.wide_endpoints.remove(&entry::wide_number(id));
            }
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
            if slot.template != 0 {
                self.used_services.insert(slot.template);
            }
            if slot.wide != 0 {
                self.wide_services
                    .insert(entry::wide_number(slot.wide), slot.id);
            }
            for server in slot.servers.values() {
                self.used_servers.extend(server.all());
            }
        }
        for id in endpoints.values() {
            if id & entry::WIDE == 0 {
                self.used_endpoints.insert(id & !BACK);
            } else {
                self.wide_endpoints.insert(entry::wide_number(*id));
            }
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
