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
    pub made: Made,
    pub(super) services: Mapping,
    pub(super) wides: Mapping,
    pub(super) servers: Mapping,
    pub counts: Mapping,
    pub flows4: Mapping,
    pub flows6: Mapping,
    /// The words of [`shunt_datapath::region`].
    pub occupied4: Mapping,
    pub occupied6: Mapping,
    pub occupied: Mapping,
    /// The map of [`super::traffic`].
    pub traffic: Traffics,
    pub translations: Translations,
    pub calls: Calls,
}

impl Shared {
    #[must_use]
    pub fn server(&self, id: u32) -> Option<entry::Server> {
        self.servers.read(id as usize)
    }

    #[must_use]
    pub fn service(&self, id: u32) -> Option<entry::Service> {
        self.services.read(id as usize)
    }
}
