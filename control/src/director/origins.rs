//! Mark endpoints that also match the origin: the source network or the device of a packet.
//!
//! If one rule of an endpoint matches the origin, all rules of that endpoint are here and it has no
//! ordinary endpoint: the packet path would find the ordinary one first and stop.

use std::collections::BTreeMap;
use std::net::IpAddr;

use shunt_datapath::entry::{ORIGINS, OriginKey, wide_flag};
use shunt_datapath::family::{V4, V6};
use shunt_model::Origin;
use shunt_model::api::{Reason, Refusal};
use shunt_model::mark::MarkRule;

use super::Director;
use super::entries::words;
use crate::network::Network;

/// Endpoint ids by key and prefix length in bits.
pub type Origins = BTreeMap<(OriginKey, u32), u32>;

/// The endpoints of all rules, each with the origins it accepts and the endpoint id for each.
pub(super) type RulesByEndpoint = BTreeMap<(IpAddr, u32), Vec<(Origin, u32)>>;

/// The packet path's keys for these rules. A rule for a missing device has no key.
pub(super) fn of_places<'a>(
    places: impl Iterator<Item = (&'a (IpAddr, u32), &'a Vec<(Origin, u32)>)>,
    network: &Network,
) -> Origins {
    let mut origins = Origins::new();
    for ((target, word), rules) in places {
        for (origin, id) in rules {
            if let Some(key) = key(*target, *word, *origin, network) {
                origins.insert(key, *id);
            }
        }
    }
    origins
}

fn key(target: IpAddr, word: u32, origin: Origin, network: &Network) -> Option<(OriginKey, u32)> {
    let interface = match origin.device {
        None => 0,
        Some(device) => {
            let mut links = network.links();
            links.find(|link| link.name == device.name())?.index
        }
    };
    let (source, length) = match origin.network {
        None => ([0, 0], 0),
        Some(network) => (words(network.address()), network.length()),
    };
    let target_words = words(target);
    let key = match target {
        IpAddr::V4(_) => {
            OriginKey::new::<V4>(target_words[0] as u32, word, source[0] as u32, interface)
        }
        IpAddr::V6(_) => OriginKey::new::<V6>(target_words, word, source, interface),
    };
    Some((key, OriginKey::FIXED + u32::from(length)))
}

/// Which further look-ups the packet path must make for these keys: [`wide_flag`].
pub(super) fn lookups(origins: &Origins) -> u32 {
    let of_one = |(key, _): &(OriginKey, u32)| {
        let port = match key.word as u16 {
            0 => wide_flag::ORIGIN_EVERY_PORT,
            _ => wide_flag::ORIGIN_PORT,
        };
        let device = match key.interface & !OriginKey::V6 {
            0 => 0,
            _ => wide_flag::ORIGIN_DEVICE,
        };
        port | device
    };
    origins.keys().map(of_one).fold(0, |all, one| all | one)
}

impl Director {
    /// Refuses a rule that has no room in the table of origins.
    pub(super) fn admit_origin(&self, rule: &MarkRule) -> Result<(), Refusal> {
        let place = |rule: &MarkRule| (rule.target.protocol, rule.target.address);
        let rules = || self.table.marks().chain([rule]);
        let is_here = |one: &&MarkRule| {
            let mut same = rules().filter(|other| place(other) == place(one));
            same.any(|other| !other.origin.is_anywhere())
        };
        if rules().all(|rule| rule.origin.is_anywhere()) {
            return Ok(());
        }
        let ports =
            |rule: &MarkRule| 1 + u64::from(rule.target.ports.last - rule.target.ports.first);
        let needed: u64 = rules().filter(is_here).map(ports).sum();
        if needed <= u64::from(ORIGINS) {
            return Ok(());
        }
        Err(Refusal {
            reason: Reason::NoRoom,
            text: format!(
                "{rule}: addresses with a rule that matches the origin would need {needed} ports, \
                 and there is room for {ORIGINS}; leave the ports out to mean every port"
            ),
        })
    }

    /// Whether any mark rule names a device.
    pub(super) fn minds_devices(&self) -> bool {
        self.table.marks().any(|rule| rule.origin.device.is_some())
    }
}
