//! Ids of services, servers and NAT endpoints in the packet path: which are taken, and when each
//! may be freed.

use std::collections::{BTreeMap, BTreeSet};

use shunt_datapath::entry::{self, BACK, ID_LIMIT, endpoint_word, kind};
use shunt_model::service::Granularity;
use shunt_model::{Server, ServerAddress, ServiceKey};

use super::addresses::{self, Addresses};
use super::allocator::Allocator;
pub(super) use super::sizes::Sizes;
pub(super) use super::slots::{
    Freed, NatKey, Nobodys, Place, ServerSlot, ServiceIds, ServiceSlot, is_wide, pairs, port,
    translates,
};

/// A NAT endpoint that has an id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NatEndpoint {
    pub key: NatKey,
    pub id: u32,
}

/// The result of adding or editing a server.
#[derive(Clone, Debug)]
pub(super) struct Put {
    pub id: u32,
    /// The id was free before.
    pub fresh: bool,
    /// NAT endpoints that are not in the packet path yet.
    pub endpoints: Vec<NatEndpoint>,
}

/// Ids of deleted services and servers that the last scan of the flows found idle.
#[derive(Clone, Debug, Default)]
struct Idle {
    services: BTreeSet<u32>,
    servers: BTreeSet<u32>,
}

/// All ids that are taken.
#[derive(Clone, Debug)]
pub(super) struct Ids {
    idle: Idle,
    sizes: Sizes,
    pub services: BTreeMap<ServiceKey, ServiceSlot>,
    pub endpoints: BTreeMap<NatKey, u32>,
    used_services: Allocator,
    used_servers: Allocator,
    used_endpoints: Allocator,
    /// Stretches of ids for endpoints of every port: of services, with the service's id, and of
    /// masqueraded servers.
    wide_services: BTreeMap<u32, u32>,
    wide_endpoints: BTreeSet<u32>,
    pub addresses: Addresses,
    /// The number of servers that answer from an endpoint, including deleted ones with an id.
    answering: BTreeMap<NatKey, u32>,
    /// Endpoints of translated flows, endpoints of every port first.
    translating: BTreeSet<(bool, NatKey)>,
    /// Services with deleted parts, or with a server edited to another method, that flows may still
    /// use. [`Ids::release`] looks at these only.
    doubtful: BTreeSet<ServiceKey>,
}

impl Ids {
    pub(super) fn new(sizes: Sizes) -> Self {
        Self {
            idle: Idle::default(),
            sizes,
            services: BTreeMap::new(),
            endpoints: BTreeMap::new(),
            used_services: Allocator::default(),
            used_servers: Allocator::default(),
            used_endpoints: Allocator::default(),
            wide_services: BTreeMap::new(),
            wide_endpoints: BTreeSet::new(),
            addresses: Addresses::default(),
            answering: BTreeMap::new(),
            translating: BTreeSet::new(),
            doubtful: BTreeSet::new(),
        }
    }

    /// The number of free ids for services and templates. Id 0 is never used.
    pub(super) fn services_left(&self) -> usize {
        (self.sizes.services.min(ID_LIMIT) as usize - 1).saturating_sub(self.used_services.len())
    }

    pub(super) fn servers_left(&self) -> usize {
        (self.sizes.servers.min(ID_LIMIT) as usize - 1).saturating_sub(self.used_servers.len())
    }

    pub(super) fn servers_end(&self) -> u32 {
        self.used_servers.end()
    }

    /// The id of a service, and whether it was allocated by this call.
    pub(super) fn service(&mut self, key: &ServiceKey) -> (u32, bool) {
        if let Some(slot) = self.services.get(key) {
            // The service is present again, so a single idle scan must not free its id.
            self.idle.services.remove(&slot.ids.id);
            return (slot.ids.id, false);
        }
        let id = self.used_services.lowest();
        self.used_services.take(id);
        let mut ids = ServiceIds {
            id,
            ..ServiceIds::default()
        };
        if is_wide(key) {
            let number = (0..).find(|number| !self.wide_services.contains_key(number));
            let number = number.unwrap_or(0);
            self.wide_services.insert(number, id);
            ids.wide = entry::wide(number);
        }
        self.services.insert(*key, ServiceSlot::new(ids));
        (id, true)
    }

    /// The first id of a place of a mark's service, allocated if it has none. `None` if there is no
    /// room.
    pub(super) fn place(&mut self, key: &ServiceKey, place: Place) -> Option<u32> {
        let slot = self.services.get_mut(key)?;
        if let Some(base) = slot.places.get(&place) {
            return Some(*base);
        }
        let mut numbers = 0..entry::WIDES;
        let number = numbers.find(|number| !self.wide_services.contains_key(number))?;
        self.wide_services.insert(number, slot.ids.id);
        slot.places.insert(place, entry::wide(number));
        Some(entry::wide(number))
    }

    /// Allocates an id for a service's templates if they have none, and notes their granularity.
    pub(super) fn template(&mut self, key: &ServiceKey, granularity: Granularity) {
        let Some(slot) = self.services.get_mut(key) else {
            return;
        };
        slot.ids.granularity = Some(granularity);
        if slot.ids.template == 0 {
            slot.ids.template = self.used_services.lowest();
            self.used_services.take(slot.ids.template);
        }
    }

    /// Invalidates the targets that the scheduler of a service has cached (`done_svc` of lblc).
    pub(super) fn forget_targets(&mut self, key: &ServiceKey) {
        if let Some(slot) = self.services.get_mut(key) {
            slot.ids.epoch = slot.ids.epoch.wrapping_add(1);
        }
    }

    pub(super) fn slot_mut(
        &mut self,
        key: &ServiceKey,
        at: ServerAddress,
    ) -> Option<&mut ServerSlot> {
        self.services.get_mut(key)?.servers.get_mut(&at)
    }

    /// The id of a server. A server with another method than before gets another id, so that its
    /// connections keep the method they began with.
    pub(super) fn server(&mut self, key: &ServiceKey, server: &Server) -> Put {
        let fresh_id = self.used_servers.lowest();
        let Some(service) = self.services.get_mut(key) else {
            return Put {
                id: 0,
                fresh: false,
                endpoints: Vec::new(),
            };
        };
        let (mut fresh, first) = (false, !service.servers.contains_key(&server.at));
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
        // `__ip_vs_update_dest`: an added server has no earlier weight.
        if server.weight != 0 || !slot.present {
            slot.last_weight = server.weight;
        }
        slot.present = true;
        if slot.method != server.method {
            slot.method = server.method;
            slot.former.insert(0, slot.id);
            slot.id = fresh_id;
            fresh = true;
            self.doubtful.insert(*key);
        }
        let id = slot.id;
        self.idle.servers.remove(&id);
        if first {
            self.count_answering(key, server.at);
        }
        self.used_servers.take(id);
        let endpoints = self.answers_from(key, server);
        Put {
            id,
            fresh,
            endpoints,
        }
    }

    fn count_answering(&mut self, key: &ServiceKey, at: ServerAddress) {
        for answers in NatKey::of(key, at) {
            *self.answering.entry(answers).or_default() += 1;
        }
    }

    /// The endpoints that a server answers from and that had no id before.
    fn answers_from(&mut self, service: &ServiceKey, server: &Server) -> Vec<NatEndpoint> {
        if !server.method.rewrites() {
            return Vec::new();
        }
        let translated = translates(service, server.at, server.method);
        let keys = NatKey::of(service, server.at).into_iter();
        keys.filter_map(|key| self.endpoint(key, translated))
            .collect()
    }

    /// Answers of translated flows are found by their whole tuple, so all their endpoints share one
    /// id. An endpoint gets its own id when a server without translated flows answers from it too.
    fn endpoint(&mut self, key: NatKey, translated: bool) -> Option<NatEndpoint> {
        let before = self.endpoints.get(&key).copied();
        if translated {
            self.translating.insert((key.port != 0, key));
        }
        if before.is_some_and(|id| translated || id != BACK) {
            return None;
        }
        let id = if translated {
            0
        } else if key.port == 0 {
            let mut numbers = 0..;
            let number = numbers.find(|number| !self.wide_endpoints.contains(number));
            let number = number.unwrap_or(0);
            self.wide_endpoints.insert(number);
            entry::wide(number)
        } else {
            let id = self.used_endpoints.lowest();
            self.used_endpoints.take(id);
            id
        };
        self.endpoints.insert(key, id | BACK);
        Some(NatEndpoint { key, id: id | BACK })
    }

    /// Free stretches of ids for services of every port and places of marks.
    pub(super) fn stretches_left(&self) -> usize {
        (entry::WIDES as usize).saturating_sub(self.wide_services.len())
    }

    /// Free stretches of ids for masqueraded servers of every port.
    pub(super) fn answering_left(&self) -> usize {
        (entry::WIDES as usize).saturating_sub(self.wide_endpoints.len())
    }

    /// Free ids for endpoints that masqueraded servers answer from.
    pub(super) fn answers_left(&self) -> usize {
        let room = self.sizes.answers().min(ID_LIMIT) as usize - 1;
        room.saturating_sub(self.used_endpoints.len())
    }

    /// The most endpoints of IPv4 and of IPv6.
    pub(super) fn endpoints(&self) -> [usize; 2] {
        self.sizes.endpoints()
    }

    /// Whether the packet path must also look endpoints up by address alone.
    pub(super) fn has_wide(&self) -> bool {
        let translating = self.translating.first();
        !self.wide_services.is_empty()
            || !self.wide_endpoints.is_empty()
            || translating.is_some_and(|(has_port, _)| !has_port)
    }

    /// The endpoint id of a masqueraded server; 0 if it has none.
    pub(super) fn endpoint_of(&self, key: &ServiceKey, server: &Server) -> u32 {
        let keys = NatKey::of(key, server.at);
        let endpoint = keys.first().and_then(|key| self.endpoints.get(key));
        endpoint.copied().unwrap_or(0)
    }

    /// Whether and how the packet path looks for answers of servers: [`entry::nat`].
    pub(super) fn masquerades(&self) -> u32 {
        let mut nat = 0;
        if !self.endpoints.is_empty() {
            nat |= entry::nat::MASQUERADES;
        }
        if !self.translating.is_empty() {
            nat |= entry::nat::TRANSLATES;
        }
        nat
    }

    /// Whether the stretch that this id belongs to is taken.
    pub(super) fn has_place(&self, id: u32) -> bool {
        id & entry::WIDE != 0 && self.wide_services.contains_key(&entry::wide_number(id))
    }

    /// Part of this service was deleted or got another method: [`Ids::release`] looks at it.
    pub(super) fn doubt(&mut self, key: &ServiceKey) {
        self.doubtful.insert(*key);
    }

    /// Services with deleted parts that flows may still use.
    pub(super) fn doubtful(&self) -> impl Iterator<Item = (&ServiceKey, &ServiceSlot)> {
        let keys = self.doubtful.iter();
        keys.filter_map(|key| Some((key, self.services.get(key)?)))
    }

    /// Frees the ids of what is neither present nor used by a flow.
    ///
    /// A scan of the flows takes time. A scan that began before a deletion may have missed the
    /// youngest flows, so an id is freed only when two consecutive scans found it idle.
    pub(super) fn release(
        &mut self,
        used_services: &BTreeSet<u32>,
        used_servers: &BTreeSet<u32>,
    ) -> Freed {
        let idle = self.idle(used_services, used_servers);
        let before = std::mem::replace(&mut self.idle, idle);
        let is_used = |id: &u32| !before.servers.contains(id) || used_servers.contains(id);
        let mut freed = Freed::default();
        for key in std::mem::take(&mut self.doubtful) {
            let Some(slot) = self.services.get_mut(&key) else {
                continue;
            };
            let released = slot.release(&is_used);
            let flows = slot.all_ids().any(|id| used_services.contains(&id));
            let is_idle = !flows && before.services.contains(&slot.ids.id);
            let keep = slot.present || !slot.servers.is_empty() || !is_idle;
            if slot.is_doubtful() {
                self.doubtful.insert(key);
            }
            freed.servers.extend(released.ids);
            let different = released.different.into_iter();
            freed.slots.extend(different.map(|at| (key, at)));
            for at in released.gone {
                for answers in NatKey::of(&key, at) {
                    self.release_endpoint(answers, &mut freed);
                }
            }
            if !keep {
                self.release_service(&key, &mut freed);
            }
        }
        for id in &freed.servers {
            self.used_servers.give_back(*id);
        }
        freed
    }

    fn idle(&self, used_services: &BTreeSet<u32>, used_servers: &BTreeSet<u32>) -> Idle {
        let mut idle = Idle::default();
        let slots = self
            .doubtful
            .iter()
            .filter_map(|key| self.services.get(key));
        for slot in slots {
            if !slot.present && !slot.all_ids().any(|id| used_services.contains(&id)) {
                idle.services.insert(slot.ids.id);
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

    fn release_service(&mut self, key: &ServiceKey, freed: &mut Freed) {
        let Some(slot) = self.services.remove(key) else {
            return;
        };
        self.doubtful.remove(key);
        self.used_services.give_back(slot.ids.id);
        if slot.ids.template != 0 {
            self.used_services.give_back(slot.ids.template);
        }
        self.wide_services
            .retain(|_, service| *service != slot.ids.id);
        freed.services.push(*key);
        if let Some((address, word)) = addresses::endpoint(key) {
            freed.endpoints.push((address, word));
            let of_address = addresses::address_word(key);
            if self.addresses.let_go(address, of_address, word) {
                freed.endpoints.push((address, of_address));
            }
        }
    }

    /// Frees the endpoint of a deleted server if no other server answers from it.
    fn release_endpoint(&mut self, key: NatKey, freed: &mut Freed) {
        if let Some(count) = self.answering.get_mut(&key) {
            *count -= 1;
            if *count != 0 {
                return;
            }
        }
        self.answering.remove(&key);
        self.translating.remove(&(key.port != 0, key));
        let Some(id) = self.endpoints.remove(&key) else {
            return;
        };
        if id == BACK {
            // Endpoints of translated flows alone share this id.
        } else if id & entry::WIDE == 0 {
            self.used_endpoints.give_back(id & !BACK);
        } else {
            self.wide_endpoints.remove(&entry::wide_number(id));
        }
        freed.nat.push(key);
        let word = endpoint_word(key.port.to_be(), key.protocol, kind::MASQUERADED);
        freed.endpoints.push((key.address, word));
        let of_address = endpoint_word(0, key.protocol, kind::ADDRESS);
        if self.addresses.let_go(key.address, of_address, word) {
            freed.endpoints.push((key.address, of_address));
        }
    }

    /// Reserves ids without a known owner for the life of this director.
    pub(super) fn reserve(&mut self, nobodys: &Nobodys) {
        let services = nobodys.services.iter();
        services.for_each(|id| self.used_services.take(*id));
        let servers = nobodys.servers.iter();
        servers.for_each(|id| self.used_servers.take(*id));
        for id in &nobodys.endpoints {
            let number = entry::wide_number(*id);
            match (id & entry::WIDE != 0, id & BACK != 0) {
                (true, true) => drop(self.wide_endpoints.insert(number)),
                (true, false) => drop(self.wide_services.entry(number).or_insert(entry::NONE)),
                (false, true) => self.used_endpoints.take(id & !BACK),
                (false, false) => {}
            }
        }
    }

    /// Restores ids from a snapshot.
    pub(super) fn restore(
        &mut self,
        services: BTreeMap<ServiceKey, ServiceSlot>,
        endpoints: BTreeMap<NatKey, u32>,
    ) {
        for (key, slot) in &services {
            for (at, _) in slot.servers.iter() {
                self.count_answering(key, *at);
            }
            self.used_services.take(slot.ids.id);
            if slot.ids.template != 0 {
                self.used_services.take(slot.ids.template);
            }
            for base in slot.places.values().copied().chain([slot.ids.wide]) {
                if base != 0 {
                    let number = entry::wide_number(base);
                    self.wide_services.insert(number, slot.ids.id);
                }
            }
            for (at, server) in &slot.servers {
                server.all().for_each(|id| self.used_servers.take(id));
                if translates(key, *at, server.method) {
                    let keys = NatKey::of(key, *at).into_iter();
                    self.translating
                        .extend(keys.map(|key| (key.port != 0, key)));
                }
            }
            // Which services and servers are present is decided later.
            self.doubtful.insert(*key);
        }
        for id in endpoints.values() {
            if *id == BACK {
                continue;
            }
            if id & entry::WIDE == 0 {
                self.used_endpoints.take(id & !BACK);
            } else {
                self.wide_endpoints.insert(entry::wide_number(*id));
            }
        }
        self.services = services;
        self.endpoints = endpoints;
    }
}

#[cfg(test)]
mod tests {
    use shunt_model::{Method, Protocol};

    use super::*;

    /// The first scan began before the last flows came and ended after the server was deleted.
    #[test]
    fn an_id_goes_only_when_two_looks_in_a_row_found_it_idle() {
        let (mut ids, key, server) = one();
        let id = ids.server(&key, &server).id;
        let nothing = BTreeSet::new();
        ids.slot_mut(&key, server.at).unwrap().present = false;
        ids.doubt(&key);

        assert!(ids.release(&nothing, &nothing).is_empty());
        assert!(ids.release(&nothing, &BTreeSet::from([id])).is_empty());
        assert!(ids.release(&nothing, &nothing).is_empty());
        assert_eq!(ids.release(&nothing, &nothing).servers, [id]);
    }

    #[test]
    fn a_server_that_came_back_between_two_looks_is_not_idle() {
        let (mut ids, key, server) = one();
        let id = ids.server(&key, &server).id;
        let nothing = BTreeSet::new();
        ids.slot_mut(&key, server.at).unwrap().present = false;
        ids.doubt(&key);
        ids.release(&nothing, &nothing);

        assert_eq!(ids.server(&key, &server).id, id);
        ids.slot_mut(&key, server.at).unwrap().present = false;
        ids.doubt(&key);

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
