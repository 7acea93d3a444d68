//! What the table cannot say no to, but the packet path must: it has limits of its own.

use std::net::IpAddr;

use shunt_datapath::entry;
use shunt_model::api::{Change, Reason, Refusal};
use shunt_model::{Method, Server, ServiceKey};

use super::{Director, entries, ids};

impl Director {
    /// Refuses what there is no room for, and what is not carried here.
    pub(super) fn admit(&self, change: &Change) -> Result<(), Refusal> {
        if let Change::AddServer { server, .. } = change {
            self.admit_address(server.at.address)?;
        }
        if let Some((what, key)) = wide_in(change)
            && !self.ids.has_room_for_wide()
        {
            return Err(Refusal {
                reason: Reason::NoRoom,
                text: format!(
                    "{what} {key}: there are {} endpoints of every port already, and no room for \
                     more",
                    entry::WIDES
                ),
            });
        }
        if let Change::AddMark { rule } = change
            && self.needs_place(rule)
            && !self.ids.has_room_for_wide()
        {
            return Err(Refusal {
                reason: Reason::NoRoom,
                text: format!(
                    "{rule}: there are rules and services of every port for {} addresses already, \
                     and no room for more",
                    entry::WIDES
                ),
            });
        }
        if let Change::AddMark { rule } = change {
            self.admit_origin(rule)?;
        }
        let full = match change {
            Change::AddService { service } => {
                self.ids.services_left() < 1 + usize::from(service.persistence.is_some())
                    || !self.pools.has_room_for(service.into(), std::iter::empty())
            }
            Change::EditService { service } => {
                let servers = self.table.service(&service.key).map(|entry| &entry.servers);
                let weights = servers.into_iter().flatten().map(|server| server.weight);
                let persistent = usize::from(service.persistence.is_some());
                self.ids.services_left() < persistent
                    || !self.pools.has_room_for(service.into(), weights)
            }
            Change::AddServer { key, server } | Change::EditServer { key, server } => {
                self.admit_server(key, server)?;
                // An edit may take a second id while flows keep the first.
                self.ids.servers_left() == 0 || !self.has_room_with(key, server)
            }
            _ => false,
        };
        if full {
            return Err(Refusal {
                reason: Reason::NoRoom,
                text: "the packet path has no room for another service or server; start shuntd \
                       with larger tables (--services, --servers, --pool-words)"
                    .to_owned(),
            });
        }
        Ok(())
    }

    fn has_room_with(&self, key: &ServiceKey, server: &Server) -> bool {
        let Some(entry) = self.table.service(key) else {
            return true;
        };
        let others = entry.servers.iter().filter(|other| other.at != server.at);
        let weights = others.map(|other| other.weight).chain([server.weight]);
        self.pools.has_room_for((&entry.service).into(), weights)
    }

    /// `ip_vs_new_dest`: what of a server's address the table cannot know, since it depends on the
    /// networks that this machine is in.
    fn admit_address(&self, address: IpAddr) -> Result<(), Refusal> {
        if !self.network.is_of_many(address) {
            return Ok(());
        }
        Err(Refusal {
            reason: Reason::BadAddress,
            text: format!("server address {address} is not unicast"),
        })
    }

    fn admit_server(&self, key: &ServiceKey, server: &Server) -> Result<(), Refusal> {
        let asked = match key {
            ServiceKey::Address { port, .. } => *port,
            ServiceKey::Mark { .. } => 0,
        };
        let moved = server.method.rewrites()
            && self.local.contains(&server.at.address)
            && ids::port(key, server.at) != asked
            && !entries::is_exchanged(key, server);
        if moved {
            return Err(Refusal {
                reason: Reason::NotSupported,
                text: format!(
                    "server {} is this machine itself: another port is carried there by masquerade \
                     and for a service of one port alone",
                    server.at
                ),
            });
        }
        Ok(())
    }
}

/// What of a change needs an endpoint of every port.
fn wide_in(change: &Change) -> Option<(&'static str, ServiceKey)> {
    match change {
        Change::AddService { service } if ids::is_wide(&service.key) => {
            Some(("service", service.key))
        }
        Change::AddServer { key, server } | Change::EditServer { key, server }
            if ids::is_wide(key)
                && server.method == Method::Masquerade
                && !ids::translates(key, server.at, server.method) =>
        {
            Some(("a server of service", *key))
        }
        _ => None,
    }
}
