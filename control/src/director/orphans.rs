//! Orphans: endpoints of deleted mark rules. Their connections go on, and nobody opens one there.
//!
//! IPVS finds a connection by its addresses and ports, whatever mark its packets carry. The packet
//! path finds it by its endpoint, so the endpoint stays while it has connections.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use shunt_datapath::entry::{self, LEFT, endpoint_word, kind};
use shunt_model::{Protocol, ServiceKey};

use super::snapshot::Step;
use super::{Director, Output, Write};

/// An endpoint: its address and its word.
pub(super) type At = (IpAddr, u32);
/// Endpoints with their ids.
pub(super) type Endpoints = BTreeMap<At, u32>;

/// An orphan is removed after this many consecutive scans that found no connection there.
const LOOKS: u8 = 2;

impl Director {
    /// Adds orphans to `wanted`: endpoints of `before` that no rule has, where connections may
    /// remain. `ruled` are the endpoints of all rules, whatever origin they match.
    pub(super) fn keep_orphans(
        &mut self,
        before: &Endpoints,
        ruled: &BTreeSet<At>,
        wanted: &mut Endpoints,
    ) {
        let looks = std::mem::take(&mut self.orphans);
        for (at, id) in before {
            let (address, word) = *at;
            let is_place = word >> 24 == u32::from(kind::SERVICE) && self.ids.has_place(*id);
            if !is_place || wanted.contains_key(at) || self.is_covered(*at, ruled) {
                continue;
            }
            wanted.insert(*at, id | LEFT);
            let of_address = endpoint_word(0, (word >> 16) as u8, kind::ADDRESS);
            wanted.insert((address, of_address), 1);
            self.orphans
                .insert(*at, looks.get(at).copied().unwrap_or_default());
            self.records_orphans = true;
        }
    }

    /// Whether a rule or a service has this port, or every port, of the address.
    fn is_covered(&self, (address, word): At, ruled: &BTreeSet<At>) -> bool {
        let words = [word, word & !0xffff];
        let mut places = words.into_iter().map(|word| (address, word));
        places.any(|at| ruled.contains(&at) || self.ordinary(at).is_some())
    }

    /// The endpoint id of the service that is defined at this address and port.
    pub(super) fn ordinary(&self, (address, word): At) -> Option<u32> {
        let key = ServiceKey::Address {
            protocol: Protocol::from_number((word >> 16) as u8)?,
            address,
            port: u16::from_be(word as u16),
        };
        let is_service = word >> 24 == u32::from(kind::SERVICE);
        let slot = self.ids.services.get(&key).filter(|_| is_service)?;
        Some(slot.ids.endpoint())
    }

    /// Takes in a scan that found these services and mark places in use. Removes orphans that
    /// stayed idle.
    pub(super) fn forget_orphans(&mut self, used: &BTreeSet<u32>) {
        let mut gone = Vec::new();
        for (at, looks) in &mut self.orphans {
            let id = self.marked.get(at).copied().unwrap_or_default();
            *looks = match used.contains(&entry::with_port(id & !LEFT, 0)) {
                true => 0,
                false => looks.saturating_add(1),
            };
            if *looks >= LOOKS {
                gone.push(*at);
            }
        }
        for at in &gone {
            let (address, word) = *at;
            self.orphans.remove(at);
            self.marked.remove(at);
            self.write(Write::EndpointRemove { address, word });
        }
        if !gone.is_empty() {
            self.renew_marks();
            let step = Step::default().with_orphans(self);
            self.outputs.push_back(Output::Remember(step));
        }
    }

    /// An upper bound of the orphans after the next change, which its journal record lists.
    #[must_use]
    pub fn count_orphans(&self) -> usize {
        self.orphans.len() + self.marked.len()
    }

    /// The orphans for the snapshot: address, word and id.
    pub(super) fn orphaned_endpoints(&self) -> Vec<(IpAddr, u32, u32)> {
        let id = |at: &At| self.marked.get(at).copied().unwrap_or_default();
        let orphans = self.orphans.keys();
        orphans.map(|at| (at.0, at.1, id(at) & !LEFT)).collect()
    }
}
