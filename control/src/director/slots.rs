//! The owners of ids in the packet path: services, their servers, and the endpoints that
//! masqueraded servers answer from.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use shunt_model::service::Granularity;
use shunt_model::{Method, Protocol, ServerAddress, ServiceKey};

/// A place of a mark's service: a protocol's number and an address.
pub(super) type Place = (u8, IpAddr);

/// The ids that were freed.
#[derive(Debug, Default)]
pub(super) struct Freed {
    /// Ids of servers, including ids of earlier methods.
    pub servers: Vec<u32>,
    /// Servers whose ids changed or that have none left.
    pub slots: Vec<(ServiceKey, ServerAddress)>,
    pub services: Vec<ServiceKey>,
    pub nat: Vec<NatKey>,
    pub endpoints: Vec<(IpAddr, u32)>,
}

impl Freed {
    pub(super) fn is_empty(&self) -> bool {
        self.servers.is_empty() && self.services.is_empty() && self.nat.is_empty()
    }
}

/// Ids without a known owner that flows may use. They must not be given away.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Nobodys {
    /// Ids of services.
    pub services: Vec<u32>,
    /// Ids of servers.
    pub servers: Vec<u32>,
    /// Endpoint ids of services of every port, and of masqueraded servers.
    pub endpoints: Vec<u32>,
}

/// The endpoint that a masqueraded server answers from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct NatKey {
    /// The source address of the answers.
    pub address: IpAddr,
    /// The source port of the answers; 0 for a server of every port.
    pub port: u16,
    /// The protocol number (IANA).
    pub protocol: u8,
}

/// Whether a service has every port of its address.
pub(super) fn is_wide(key: &ServiceKey) -> bool {
    matches!(key, ServiceKey::Address { port: 0, .. })
}

/// The port of a server in the packet path. A server without a port has the service's port; 0 keeps
/// the port that the client asked for.
pub(super) fn port(service: &ServiceKey, server: ServerAddress) -> u16 {
    match *service {
        ServiceKey::Address { port, .. } if server.port == 0 => port,
        ServiceKey::Address { .. } | ServiceKey::Mark { .. } => server.port,
    }
}

impl NatKey {
    /// All endpoints that a server may answer from. A mark's server may answer by every protocol.
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

/// Whether the flows of a server are translated one by one. Then the rewrite of an answer does not
/// follow from its endpoint.
pub(crate) fn translates(service: &ServiceKey, at: ServerAddress, method: Method) -> bool {
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
    /// The id of its templates; 0 if the service was never persistent.
    #[serde(default)]
    pub template: u32,
    /// The granularity of its templates. It stays after persistence is switched off: connections
    /// keep their templates.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub granularity: Option<Granularity>,
    /// The endpoint id of a service of every port; 0 for a service with a port.
    #[serde(default)]
    pub wide: u32,
    /// Incremented when its scheduler forgets its cached targets.
    #[serde(default)]
    pub epoch: u32,
}

impl ServiceIds {
    /// The id that its endpoint holds and flows are keyed by.
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
    /// For a mark's service: the first id of each place of its rules.
    #[serde(default, with = "pairs")]
    pub places: BTreeMap<Place, u32>,
    /// False after its deletion, while flows still use its ids.
    pub present: bool,
    #[serde(with = "pairs")]
    pub servers: BTreeMap<ServerAddress, ServerSlot>,
}

/// A server that has ids.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerSlot {
    /// The id for connections that are opened.
    pub id: u32,
    /// Ids of earlier methods, which existing connections keep.
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

/// The server ids that a service freed.
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

    /// Whether it has ids that may be freed.
    pub fn is_doubtful(&self) -> bool {
        let of_server = |server: &ServerSlot| !server.present || !server.former.is_empty();
        !self.present || self.servers.values().any(of_server)
    }

    /// Removes servers and former ids that are neither present nor in use.
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

/// Serializes maps whose keys are not strings as lists of pairs.
pub(super) mod pairs {
    use std::collections::BTreeMap;

    use serde::de::{Deserialize, Deserializer};
    use serde::ser::{Serialize, Serializer};

    pub(crate) fn serialize<K: Serialize, V: Serialize, S: Serializer>(
        map: &BTreeMap<K, V>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(map)
    }

    pub(crate) fn deserialize<'de, K, V, D>(deserializer: D) -> Result<BTreeMap<K, V>, D::Error>
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
