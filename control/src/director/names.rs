//! The services and servers that the packet path's ids stand for.

use std::collections::BTreeMap;

use shunt_datapath::entry;
use shunt_model::{Protocol, ServerAddress, ServiceKey};

use super::Director;

/// Services and servers by their ids.
#[derive(Clone, Debug, Default)]
pub struct Names {
    /// By endpoint id, and by the id of the service's templates.
    pub services: BTreeMap<u32, ServiceKey>,
    /// By server id. A server has one for each protocol that it needs.
    pub servers: BTreeMap<u32, (ServiceKey, ServerAddress)>,
}

impl Names {
    /// The service of an endpoint id. For a service of every port also the port that the client
    /// asked for.
    #[must_use]
    pub fn service(&self, endpoint: u32) -> Option<(ServiceKey, Option<u16>)> {
        if endpoint & entry::WIDE == 0 {
            return Some((*self.services.get(&endpoint)?, None));
        }
        let key = self.services.get(&entry::with_port(endpoint, 0))?;
        Some((*key, Some(endpoint as u16)))
    }
}

impl Director {
    /// All ids with their services and servers, including deleted ones.
    #[must_use]
    pub fn names(&self) -> Names {
        let mut names = Names::default();
        for (key, slot) in &self.ids.services {
            names.services.insert(slot.ids.endpoint(), *key);
            for ((protocol, address), base) in &slot.places {
                if let Some(protocol) = Protocol::from_number(*protocol) {
                    let place = ServiceKey::Address {
                        protocol,
                        address: *address,
                        port: 0,
                    };
                    names.services.insert(*base, place);
                }
            }
            if slot.ids.template != 0 {
                names.services.insert(slot.ids.template, *key);
            }
            for (at, server) in &slot.servers {
                for id in server.all() {
                    names.servers.insert(id, (*key, *at));
                }
            }
        }
        names
    }
}
