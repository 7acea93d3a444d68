//! Endpoints that an earlier daemon wrote, and that belong to no service of this one.
//!
//! If the journal was read whole, an interrupted change left them, and they are removed. If records
//! were lost, they may belong to lost services. Such a service goes on forwarding until it is added
//! again, or until all services are deleted.

use std::collections::BTreeSet;
use std::net::IpAddr;

use shunt_datapath::entry::{self, kind};
use shunt_model::change::{Change, service};
use shunt_model::warning::Warning;
use shunt_model::{Protocol, ServiceKey};

use crate::director::Write;

type At = (IpAddr, u32);

/// The most services that a warning names.
const NAMED: usize = 5;

/// The unclaimed endpoints.
#[derive(Clone, Debug, Default)]
pub struct Unclaimed {
    endpoints: BTreeSet<At>,
    stays: bool,
    /// The bits of [`entry::nat`] that the packet path must keep for them.
    masquerades: u32,
    wide: u32,
}

impl Unclaimed {
    /// Begins with all endpoints of the packet path. Services that write theirs again claim them.
    #[must_use]
    pub fn new(endpoints: Vec<At>, settings: &entry::Settings, stays: bool) -> Self {
        let (masquerades, wide) = match stays {
            true => (settings.masquerades, settings.wide),
            false => (0, 0),
        };
        Self {
            endpoints: endpoints.into_iter().collect(),
            stays,
            masquerades,
            wide,
        }
    }

    /// A write, with the bits added that these endpoints need.
    #[must_use]
    pub fn with_theirs(&self, mut write: Write) -> Write {
        if let (Write::Settings(settings), true) = (&mut write, self.stays) {
            settings.masquerades |= self.masquerades;
            settings.wide |= self.wide;
        }
        write
    }

    /// Follows a write that claims or removes an endpoint.
    pub fn follow(&mut self, write: &Write) {
        if let Write::EndpointAdd { address, word, .. } | Write::EndpointRemove { address, word } =
            write
        {
            self.endpoints.remove(&(*address, *word));
        }
    }

    /// Follows a change that was made. Who deletes all services also deletes the lost ones, so that
    /// their endpoints become leftovers.
    pub fn changed(&mut self, change: &Change) {
        if matches!(change, Change::Service(service::Change::Flush)) {
            self.stays = false;
        }
    }

    /// The endpoints that must be removed from the packet path.
    pub fn take_leftovers(&mut self) -> BTreeSet<At> {
        match self.stays {
            true => BTreeSet::new(),
            false => std::mem::take(&mut self.endpoints),
        }
    }

    /// The endpoints that the next daemon must keep too.
    #[must_use]
    pub fn kept(&self) -> BTreeSet<At> {
        match self.stays {
            true => self.endpoints.clone(),
            false => BTreeSet::new(),
        }
    }

    /// The warning about them for the operator.
    #[must_use]
    pub fn warning(&self) -> Option<Warning> {
        let services = self.kept().into_iter().filter_map(owner);
        let mut services: Vec<ServiceKey> = services.collect();
        if services.is_empty() {
            return None;
        }
        let more = services.len().saturating_sub(NAMED);
        services.truncate(NAMED);
        Some(Warning::ServicesForgotten { services, more })
    }
}

/// The service to which an endpoint belonged, if it belonged to one.
fn owner((address, word): At) -> Option<ServiceKey> {
    if word >> 24 != u32::from(kind::SERVICE) {
        return None;
    }
    Some(ServiceKey::Address {
        protocol: Protocol::from_number((word >> 16) as u8)?,
        address,
        port: u16::from_be(word as u16),
    })
}

#[cfg(test)]
mod tests {
    use shunt_datapath::connection::STATES;
    use shunt_datapath::entry::endpoint_word;

    use super::*;

    fn at(port: u16) -> At {
        let address = "192.0.2.1".parse().unwrap();
        (address, endpoint_word(port.to_be(), 6, kind::SERVICE))
    }

    fn claimed(port: u16) -> Write {
        let (address, word) = at(port);
        let id = 1;
        Write::EndpointAdd { address, word, id }
    }

    #[test]
    fn leftovers_go_and_what_was_forgotten_stays_until_all_is_deleted() {
        for stays in [false, true] {
            let none = entry::Settings {
                timeouts: [0; STATES],
                switches: 0,
                masquerades: 0,
                icmp_limit: 0,
                wide: 0,
                drop_rate: 0,
                reserved: 0,
            };
            let settings = entry::Settings {
                masquerades: 1,
                ..none
            };
            let mut unclaimed = Unclaimed::new(vec![at(80), at(81)], &settings, stays);
            unclaimed.follow(&claimed(80));
            let nothing = Write::Settings(none);
            let written = unclaimed.with_theirs(nothing.clone());
            let wanted = if stays {
                Write::Settings(settings)
            } else {
                nothing
            };
            assert_eq!(written, wanted);
            let other: BTreeSet<At> = [at(81)].into();
            if stays {
                assert!(unclaimed.take_leftovers().is_empty());
                assert_eq!(unclaimed.kept(), other);
                let services = vec!["tcp/192.0.2.1:81".parse().unwrap()];
                let wanted = Warning::ServicesForgotten { services, more: 0 };
                assert_eq!(unclaimed.warning(), Some(wanted));
                let zero = service::Change::Zero { key: None };
                unclaimed.changed(&Change::Service(zero));
                assert!(unclaimed.take_leftovers().is_empty());
                unclaimed.changed(&Change::Service(service::Change::Flush));
            }
            assert_eq!(unclaimed.take_leftovers(), other);
            assert_eq!(unclaimed.warning(), None);
        }
    }
}
