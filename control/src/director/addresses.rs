//! Which addresses have an endpoint. The packet path has one entry for each such address and
//! protocol, however many endpoints there are.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

/// The endpoints of services and masqueraded servers, by address and by the word of the address's
/// own entry.
#[derive(Clone, Debug, Default)]
pub struct Addresses(BTreeMap<(IpAddr, u32), BTreeSet<u32>>);

impl Addresses {
    /// Adds an endpoint of an address; true if it is the first.
    pub fn hold(&mut self, address: IpAddr, word: u32, endpoint: u32) -> bool {
        let held = self.0.entry((address, word)).or_default();
        held.insert(endpoint) && held.len() == 1
    }

    /// Whether an address has an endpoint.
    pub fn is_held(&self, address: IpAddr, word: u32) -> bool {
        self.0.contains_key(&(address, word))
    }

    /// Removes an endpoint of an address; true if it was the last.
    pub fn let_go(&mut self, address: IpAddr, word: u32, endpoint: u32) -> bool {
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
