//! All that an operator can want of a director, and the changes that lead there.

use serde::{Deserialize, Serialize};

use crate::change::Change;
use crate::{LocalAddress, MarkRule, Server, Service, ServiceKey, Settings, Timeouts};

mod diff;

/// The services with their servers, the marks, the local addresses and the values that hold for
/// the whole director.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Wanted {
    /// The director's settings.
    pub settings: Settings,
    /// The timeouts of `ipvsadm --set`.
    pub timeouts: Timeouts,
    /// The rules that mark packets.
    pub marks: Vec<MarkRule>,
    /// The local addresses of full NAT.
    pub locals: Vec<LocalAddress>,
    /// In the order in which they are added. IPVS lists the last one first.
    pub services: Vec<Pool>,
}

/// A service and its servers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pool {
    /// The service without its servers.
    pub service: Service,
    /// In the order in which they are added. IPVS lists the last one first.
    pub servers: Vec<Server>,
}

impl Wanted {
    /// The changes that make this out of what is present. See `diff` for their order.
    #[must_use]
    pub fn changes(&self, present: &Wanted) -> Vec<Change> {
        diff::changes(present, self)
    }

    /// The service with this key, with its servers.
    pub fn pool_mut(&mut self, key: &ServiceKey) -> Option<&mut Pool> {
        self.services
            .iter_mut()
            .find(|pool| pool.service.key == *key)
    }
}
