//! The tables that several threads read: sweeps and listings run on other threads than the daemon's
//! task.

use shunt_datapath::entry;

use super::calls::Calls;
use super::mapping::Mapping;
use super::object::Made;
use super::traffic::Traffics;
use super::translations::Translations;

/// The mappings of those tables.
#[derive(Debug)]
pub struct Shared {
    /// What is known of the maps.
    pub made: Made,
    pub(super) services: Mapping,
    pub(super) wides: Mapping,
    pub(super) servers: Mapping,
    /// The live connections of each server ([`shunt_datapath::entry::counts`]).
    pub counts: Mapping,
    /// The buckets of IPv4 flows.
    pub flows4: Mapping,
    /// The buckets of IPv6 flows.
    pub flows6: Mapping,
    /// The words of [`shunt_datapath::region`].
    pub occupied4: Mapping,
    /// The same for the IPv6 flows.
    pub occupied6: Mapping,
    /// One such word for each of the other tables ([`shunt_datapath::region::table`]).
    pub occupied: Mapping,
    /// The map of [`super::traffic`].
    pub traffic: Traffics,
    /// The map of translations.
    pub translations: Translations,
    /// The map of calls.
    pub calls: Calls,
}

impl Shared {
    /// The entry of a server, as the packet path reads it.
    #[must_use]
    pub fn server(&self, id: u32) -> Option<entry::Server> {
        self.servers.read(id as usize)
    }

    /// The entry of a service, as the packet path reads it.
    #[must_use]
    pub fn service(&self, id: u32) -> Option<entry::Service> {
        self.services.read(id as usize)
    }
}
