//! The local addresses of full NAT: their entries in the packet path, their use, and warnings about
//! them.

use std::collections::BTreeMap;

use shunt_datapath::entry::counts;
use shunt_datapath::translation::{Local, place};
use shunt_model::api::LocalPool;
use shunt_model::warning::Warning;
use shunt_model::{Family, LocalAddress, Method, Protocol, ServerAddress, ServiceKey};

use super::{Director, Running, Write, entries};

/// Warn when this percentage of the ports of the local addresses is in use.
const NEARLY_USED: u64 = 80;

impl Director {
    fn locals_of(&self, family: Family) -> Vec<LocalAddress> {
        let locals = self.table.locals();
        let same = |local: &LocalAddress| Family::from(local.address) == family;
        locals.filter(same).collect()
    }

    /// Writes the local addresses of a family. The first entry holds their count and is written
    /// last, so that the count never exceeds the entries written.
    pub(super) fn renew_locals(&mut self, family: Family) {
        let locals = self.locals_of(family);
        let v6 = family == Family::Ipv6;
        let count = u32::try_from(locals.len()).unwrap_or_default();
        let entries = (0..).zip(&locals).map(|(number, local)| {
            let entry = Local {
                address: entries::words(local.address),
                first: u32::from(local.ports.first),
                ports: local.ports.count(),
                count: if number == 0 { count } else { 0 },
                reserved: 0,
            };
            (number, entry)
        });
        let mut entries: Vec<(u32, Local)> = entries.collect();
        if entries.is_empty() {
            entries.push((0, Local::default()));
        }
        for (number, local) in entries.into_iter().rev() {
            let place = place(v6, number);
            self.write(Write::Local { place, local });
        }
    }

    /// The use of the local addresses. Each server can use every port once.
    #[must_use]
    pub fn local_pools(&self, running: &dyn Running) -> Vec<LocalPool> {
        let families = [Family::Ipv4, Family::Ipv6].into_iter();
        let pools = families.filter_map(|family| {
            let locals = self.locals_of(family);
            let (fullest, used) = self.fullest(family, running);
            if locals.is_empty() {
                return None;
            }
            let ports = locals.iter().map(|local| u64::from(local.ports.count()));
            let ports = ports.sum();
            Some(LocalPool {
                family,
                addresses: u32::try_from(locals.len()).unwrap_or_default(),
                ports,
                // A connection that finds no port is counted too.
                used: used.min(ports),
                fullest,
            })
        });
        pools.collect()
    }

    /// The server with the most connections by local addresses of a family, and their number.
    fn fullest(&self, family: Family, running: &dyn Running) -> (Option<ServerAddress>, u64) {
        let mut used: BTreeMap<(Option<Protocol>, ServerAddress), u64> = BTreeMap::new();
        for (key, at) in self.full_nat(family) {
            let protocol = match key {
                ServiceKey::Address { protocol, .. } => Some(protocol),
                ServiceKey::Mark { .. } => None,
            };
            for id in self.server_ids(&key, at) {
                let word = running.counts(id);
                let count = u64::from(counts::active(word)) + u64::from(counts::inactive(word));
                *used.entry((protocol, at)).or_default() += count;
            }
        }
        let most = used.into_iter().max_by_key(|(_, count)| *count);
        match most.filter(|(_, count)| *count > 0) {
            Some(((_, at), count)) => (Some(at), count),
            None => (None, 0),
        }
    }

    /// The servers of a family that use full NAT.
    fn full_nat(&self, family: Family) -> impl Iterator<Item = (ServiceKey, ServerAddress)> {
        self.table.services().flat_map(move |entry| {
            let key = entry.service.key;
            let servers = entry.servers.iter();
            let servers = servers.filter(move |server| {
                server.method == Method::FullNat && Family::from(server.at.address) == family
            });
            servers.map(move |server| (key, server.at))
        })
    }

    /// Warnings about local addresses, as sentences for an operator.
    #[must_use]
    pub fn local_warnings(&self, running: &dyn Running) -> Vec<Warning> {
        let mut warnings = Vec::new();
        for family in [Family::Ipv4, Family::Ipv6] {
            let none = self.locals_of(family).is_empty();
            if let Some((service, server)) = self.full_nat(family).next().filter(|_| none) {
                warnings.push(Warning::NoLocalAddress {
                    service,
                    server,
                    family,
                });
            }
        }
        for pool in self.local_pools(running) {
            if let Some(server) = pool.fullest
                && pool.used * 100 >= pool.ports * NEARLY_USED
            {
                warnings.push(Warning::LocalPortsNearlyUsed {
                    server,
                    used: pool.used,
                    ports: pool.ports,
                });
            }
        }
        for local in self.table.locals() {
            let address = local.address;
            if !self.local.contains(&address) {
                warnings.push(Warning::LocalAddressAbsent { address });
            }
            if let Some(service) = self.service_at(local) {
                warnings.push(Warning::LocalAddressServed { local, service });
            }
        }
        warnings
    }

    /// A service on an address and port that full NAT may use.
    fn service_at(&self, local: LocalAddress) -> Option<ServiceKey> {
        let mut services = self.table.services().map(|entry| entry.service.key);
        services.find(|key| match key {
            ServiceKey::Address { address, port, .. } => {
                let ports = local.ports.first..=local.ports.last;
                *address == local.address && (*port == 0 || ports.contains(port))
            }
            ServiceKey::Mark { .. } => false,
        })
    }
}
