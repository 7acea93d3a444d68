//! What has ids in the packet path: services, their servers, and where answers of masqueraded
//! servers come from.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use shunt_model::service::Granularity;
use shunt_model::{Method, Protocol, ServerAddress, ServiceKey};

use super::marks::Place;

/// What was given back.
#[derive(Debug, Default)]
pub struct Freed {
    /// Ids of servers, those of earlier methods included.
    pub servers: Vec<u32>,
    /// Servers whose ids are different, or that have none any more.
    pub slots: Vec<(ServiceKey, ServerAddress)>,
    pub services: Vec<ServiceKey>,
    pub nat: Vec<NatKey>,
    pub endpoints: Vec<(IpAddr, u32)>,
}

impl Freed {
    pub fn is_empty(&self) -> bool {
        self.servers.is_empty() && self.services.is_empty() && self.nat.is_empty()
    }
}

/// What answers of a masqueraded server are known by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct NatKey {
    pub address: IpAddr,
    pub port: u16,
    pub protocol: u8,
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

impl NatKey {
    /// All that a server's answers may be known by: one of a mark may answer by every protocol.
    pub fn of(service: &ServiceKey, at: ServerAddress) -> Vec<Self> {
        let protocols = match service {
            ServiceKey::Address { protocol, .. } => vec![*protocol],
            ServiceKey::Mark { .. } => vec![Protocol::Tcp, Protocol::Udp, Protocol::Sctp],
        };
        let key = |protocol: Protocol| Self {
            address: at.address,
            port: port(service, at),
            protocol: protocol.number(),
        };
        protocols.into_iter().map(key).collect()
    }
}

/// Whether the flows of a server are translated one by one: what an answer becomes does not follow
/// from where it comes from.
pub fn translates(service: &ServiceKey, at: ServerAddress, method: Method) -> bool {
    match (method, service) {
        (Method::FullNat, _) => true,
        (Method::Masquerade, ServiceKey::Mark { .. }) => true,
        (Method::Masquerade, ServiceKey::Address { port, .. }) => *port == 0 && at.port != 0,
        (Method::Route | Method::Tunnel(_) | Method::Local, _) => false,
    }
}

/// The ids of a service.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceIds {
    pub id: u32,
    /// The id of its templates, since it first was persistent; 0 before.
    #[serde(default)]
    pub template: u32,
    /// What of a client's address its templates are known by. They are still there, and assured by
    /// their connections, where the service is persistent no longer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub granularity: Option<Granularity>,
    /// The id by which a service of every port is found; 0 for one with a port.
    #[serde(default)]
    pub wide: u32,
    /// One more whenever its scheduler forgets what it knew of targets.
    #[serde(default)]
    pub epoch: u32,
}

impl ServiceIds {
    /// The id by which packets find it, and flows are keyed.
    pub fn endpoint(&self) -> u32 {
        if self.wide == 0 { self.id } else { self.wide }
    }

    fn all(&self) -> impl Iterator<Item = u32> + use<> {
        let all = [self.id, self.template, self.wide];
        all.into_iter().filter(|id| *id != 0)
    }
}

/// A service that has an id.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceSlot {
    #[serde(flatten)]
    pub ids: ServiceIds,
    /// A mark's: the ids that the places of its rules begin at.
    #[serde(default, with = "pairs")]
    pub places: BTreeMap<Place, u32>,
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

/// What a service gave back.
#[derive(Debug, Default)]
pub struct Released {
    pub ids: Vec<u32>,
    pub different: Vec<ServerAddress>,
    pub gone: Vec<ServerAddress>,
}

impl ServiceSlot {
    pub fn new(ids: ServiceIds) -> Self {
        Self {
            ids,
            places: BTreeMap::new(),
            present: true,
            servers: BTreeMap::new(),
        }
    }

    /// The ids that flows may have.
    pub fn all_ids(&self) -> impl Iterator<Item = u32> + '_ {
        self.ids.all().chain(self.places.values().copied())
    }

    /// Whether anything of it may have to be given back.
    pub fn is_doubtful(&self) -> bool {
        let of_server = |server: &ServerSlot| !server.present || !server.former.is_empty();
        !self.present || self.servers.values().any(of_server)
    }

    /// Takes out what is neither present nor in use; gives the servers that are gone.
    pub fn release(&mut self, is_used: &dyn Fn(&u32) -> bool) -> Released {
        let mut released = Released::default();
        self.servers.retain(|at, server| {
            let before = released.ids.len();
            released
                .ids
                .extend(server.former.iter().filter(|id| !is_used(id)));
            server.former.retain(is_used);
            let keep = server.present || is_used(&server.id) || !server.former.is_empty();
            if !keep {
                released.ids.push(server.id);
                released.gone.push(*at);
            }
            if released.ids.len() != before {
                released.different.push(*at);
            }
            keep
        });
        released
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
