//! Which addresses have any endpoint: one entry of the packet path says so, however many there are.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

/// The endpoints of services and masqueraded servers, by address and by the word of the entry that
/// says that there are any.
#[derive(Clone, Debug, Default)]
pub struct Addresses(BTreeMap<(IpAddr, u32), BTreeSet<u32>>);

impl Addresses {
    /// Notes that an address has this endpoint; true if it is the first.
    pub fn hold(&mut self, address: IpAddr, word: u32, endpoint: u32) -> bool {
        let held = self.0.entry((address, word)).or_default();
        held.insert(endpoint) && held.len() == 1
    }

    /// Whether an address has any.
    pub fn is_held(&self, address: IpAddr, word: u32) -> bool {
        self.0.contains_key(&(address, word))
    }

    /// An address has this endpoint no longer; true if it was the last.
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
