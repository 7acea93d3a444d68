//! Endpoints that an earlier daemon wrote, and that no service of this one has.
//!
//! Where the journal was read whole they are leftovers of an end in the middle of a change, and go.
//! Where records were lost they belong to services that nobody remembers: those go on forwarding
//! until they are added again, or all services are deleted.

use std::collections::BTreeSet;
use std::net::IpAddr;

use shunt_control::director::Write;
use shunt_datapath::entry::{self, kind};
use shunt_model::{Protocol, ServiceKey};

type At = (IpAddr, u32);

/// Services that are named in a warning.
const NAMED: usize = 5;

/// All of them.
#[derive(Debug, Default)]
pub struct Unclaimed {
    endpoints: BTreeSet<At>,
    stays: bool,
    /// What the packet path must go on looking for, for their sake ([`entry::nat`]).
    masquerades: u32,
    wide: u32,
}

impl Unclaimed {
    /// All that stand in the packet path: their owners will write them again.
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

    /// A write, with what these need besides.
    pub fn with_theirs(&self, mut write: Write) -> Write {
        if let (Write::Settings(settings), true) = (&mut write, self.stays) {
            settings.masquerades |= self.masquerades;
            settings.wide |= self.wide;
        }
        write
    }

    /// Somebody claims an endpoint, or takes it out.
    pub fn follow(&mut self, write: &Write) {
        if let Write::EndpointAdd { address, word, .. } | Write::EndpointRemove { address, word } =
            write
        {
            self.endpoints.remove(&(*address, *word));
        }
    }

    /// They are wanted no longer, whoever had them.
    pub fn let_go(&mut self) {
        self.stays = false;
    }

    /// Those to be taken out of the packet path.
    pub fn take_leftovers(&mut self) -> BTreeSet<At> {
        match self.stays {
            true => BTreeSet::new(),
            false => std::mem::take(&mut self.endpoints),
        }
    }

    /// Those that the next daemon must leave alone too.
    pub fn kept(&self) -> BTreeSet<At> {
        match self.stays {
            true => self.endpoints.clone(),
            false => BTreeSet::new(),
        }
    }

    /// What an operator should know of them.
    pub fn warning(&self) -> Option<String> {
        let services: Vec<String> = self.kept().into_iter().filter_map(service).collect();
        if services.is_empty() {
            return None;
        }
        let named = services.iter().take(NAMED).cloned().collect::<Vec<_>>();
        let more = match services.len() - named.len() {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        Some(format!(
            "records of the table were lost: packets to {}{more} are forwarded as before; add \
             these services again, or delete all services to end that",
            named.join(", ")
        ))
    }
}

/// The service that an endpoint was of, if it was a service's.
fn service((address, word): At) -> Option<String> {
    if word >> 24 != u32::from(kind::SERVICE) {
        return None;
    }
    let key = ServiceKey::Address {
        protocol: Protocol::from_number((word >> 16) as u8)?,
        address,
        port: u16::from_be(word as u16),
    };
    Some(key.to_string())
}

#[cfg(test)]
mod tests {
    use shunt_datapath::entry::endpoint_word;

    use super::*;
    use crate::kernel::mapping::SettingsWords;

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
            let SettingsWords(none) = SettingsWords::default();
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
                assert!(unclaimed.warning().unwrap().contains("tcp 192.0.2.1:81"));
                unclaimed.let_go();
            }
            assert_eq!(unclaimed.take_leftovers(), other);
            assert_eq!(unclaimed.warning(), None);
        }
    }
}
