//! Which addresses have an endpoint. The packet path has one entry for each such address and
//! protocol, however many endpoints there are.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use shunt_datapath::entry::{endpoint_word, kind};
use shunt_model::ServiceKey;

/// The endpoints of services and masqueraded servers, by address and by the word of the address's
/// own entry.
#[derive(Clone, Debug, Default)]
pub(super) struct Addresses(BTreeMap<(IpAddr, u32), BTreeSet<u32>>);

impl Addresses {
    /// Adds an endpoint of an address; true if it is the first.
    pub(super) fn hold(&mut self, address: IpAddr, word: u32, endpoint: u32) -> bool {
        let held = self.0.entry((address, word)).or_default();
        held.insert(endpoint) && held.len() == 1
    }

    /// Whether an address has an endpoint.
    pub(super) fn is_held(&self, address: IpAddr, word: u32) -> bool {
        self.0.contains_key(&(address, word))
    }

    /// Removes an endpoint of an address; true if it was the last.
    pub(super) fn let_go(&mut self, address: IpAddr, word: u32, endpoint: u32) -> bool {
        let Some(held) = self.0.get_mut(&(address, word)) else {
            return false;
        };
        held.remove(&endpoint);
        let is_last = held.is_empty();
        if is_last {
            self.0.remove(&(address, word));
        }
        is_last
    }
}

/// The endpoint of a service: its address and word. `None` for a mark's service.
#[must_use]
pub(super) fn endpoint(key: &ServiceKey) -> Option<(IpAddr, u32)> {
    let ServiceKey::Address {
        protocol,
        address,
        port,
    } = key
    else {
        return None;
    };
    Some((
        *address,
        endpoint_word(port.to_be(), protocol.number(), kind::SERVICE),
    ))
}

/// The word of an address's own entry, which exists if the address has any endpoint of this
/// protocol.
#[must_use]
pub(super) fn address_word(key: &ServiceKey) -> u32 {
    match key {
        ServiceKey::Address { protocol, .. } => endpoint_word(0, protocol.number(), kind::ADDRESS),
        ServiceKey::Mark { .. } => 0,
    }
}
