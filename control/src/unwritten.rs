//! Writes that a table of the packet path refused.
//!
//! A change whose write is refused is itself refused and undone (`node/turn.rs`). A write that
//! follows from the network has nobody to refuse: it is kept here and put out again with the
//! sweeps, until the table takes it or a later write of the same place replaces it. There is at
//! most one for each place, so they are limited by the tables that the director computes.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::ops::Bound;

use shunt_datapath::entry::PeerKey;
use shunt_model::ServiceKey;
use shunt_model::change::{Change, mark, server, service};
use shunt_model::event::Fact;

use crate::director::Write;
use crate::network::routes::Prefix;

/// The most writes that one sweep puts out again.
const TRIED: usize = 64;
/// The most sweeps between two tries.
const LONGEST: u32 = 128;

/// What a write replaces, in the tables that can refuse one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Place {
    Endpoint(IpAddr, u32),
    Peer(PeerKey),
    Origins,
    Routes,
    Route(Prefix),
    Counters(u32),
}

#[derive(Clone, Debug)]
struct Owed {
    write: Write,
    why: String,
    /// It was part of a change that was undone: nobody misses it.
    quiet: bool,
}

/// The refused writes.
#[derive(Clone, Debug, Default)]
pub struct Unwritten {
    owed: BTreeMap<Place, Owed>,
    /// The write that was put out last, and whether it was quiet before.
    last: Option<(Place, Write, bool)>,
    /// The last place that a sweep tried again.
    tried: Option<Place>,
    /// Sweeps until the next try, and between two tries.
    rest: u32,
    pause: u32,
    is_told: bool,
}

impl Unwritten {
    /// Follows a write that is put out: it replaces earlier ones of its place.
    pub fn put_out(&mut self, write: &Write) {
        self.last = None;
        let Some(place) = place(write) else {
            return;
        };
        let before = self.owed.remove(&place);
        if let Write::Routes(_) = write {
            self.owed
                .retain(|place, _| !matches!(place, Place::Route(_)));
        }
        if let Write::Route { prefix, number } = write {
            self.patch_routes(*prefix, *number);
        }
        let quiet = before.is_some_and(|owed| owed.quiet);
        self.last = Some((place, write.clone(), quiet));
    }

    /// A list of all networks that is still to be written has the later state of each network.
    fn patch_routes(&mut self, prefix: Prefix, number: Option<u32>) {
        let owed = self.owed.get_mut(&Place::Routes);
        if let Some(Write::Routes(all)) = owed.map(|owed| &mut owed.write) {
            all.retain(|(known, _)| *known != prefix);
            all.extend(number.map(|number| (prefix, number)));
        }
    }

    /// The write that was put out last was refused. It is `quiet` if its change is undone.
    pub fn refused(&mut self, why: String, quiet: bool) {
        if let Some((place, write, was_quiet)) = self.last.take() {
            let quiet = quiet || was_quiet;
            self.owed.insert(place, Owed { write, why, quiet });
        }
    }

    /// The refused endpoints at the addresses of a change. The change does not write them again if
    /// the director holds them for written, so they are put out with it, and it is refused with
    /// them.
    #[must_use]
    pub fn of(&self, change: &Change) -> Vec<Write> {
        let Some(address) = address(change) else {
            return Vec::new();
        };
        let at = Place::Endpoint(address, 0)..=Place::Endpoint(address, u32::MAX);
        let owed = self.owed.range(at);
        owed.map(|(_, owed)| owed.write.clone()).collect()
    }

    /// What a sweep puts out again, and the event if what is refused begins or ends.
    pub fn due(&mut self) -> (Vec<Write>, Option<Fact>) {
        let loud = self.owed.values().find(|owed| !owed.quiet);
        let fact = match (loud, self.is_told) {
            (Some(owed), false) => Some(Fact::WritesRefused {
                why: owed.why.clone(),
            }),
            (None, true) => Some(Fact::WritesDone),
            (Some(_), true) | (None, false) => None,
        };
        self.is_told = loud.is_some();
        if self.owed.is_empty() {
            (self.rest, self.pause) = (0, 1);
            return (Vec::new(), fact);
        }
        if self.rest > 0 {
            self.rest -= 1;
            return (Vec::new(), fact);
        }
        self.rest = self.pause;
        self.pause = (self.pause * 2).clamp(1, LONGEST);
        let behind = self.tried.map_or(Bound::Unbounded, Bound::Excluded);
        let upto = self.tried.map_or(Bound::Unbounded, Bound::Included);
        let after = self.owed.range((behind, Bound::Unbounded));
        let before = self.owed.range((Bound::Unbounded, upto));
        let before = before.filter(|_| self.tried.is_some());
        let next = after.chain(before).take(TRIED);
        let next = next.map(|(place, owed)| (*place, owed.write.clone()));
        let (places, writes): (Vec<Place>, Vec<Write>) = next.unzip();
        self.tried = places.last().copied();
        (writes, fact)
    }
}

/// The place of a write that a table can refuse. All others go into arrays that have every place.
fn place(write: &Write) -> Option<Place> {
    match write {
        Write::EndpointAdd { address, word, .. } | Write::EndpointRemove { address, word } => {
            Some(Place::Endpoint(*address, *word))
        }
        Write::Peer { key, .. } => Some(Place::Peer(*key)),
        Write::Origins(_) => Some(Place::Origins),
        Write::Routes(_) => Some(Place::Routes),
        Write::Route { prefix, .. } => Some(Place::Route(*prefix)),
        Write::Forget { server } => Some(Place::Counters(*server)),
        Write::Server { .. }
        | Write::Standing { .. }
        | Write::Way { .. }
        | Write::Service { .. }
        | Write::Pool { .. }
        | Write::Switch { .. }
        | Write::Wide { .. }
        | Write::Local { .. }
        | Write::Answerer { .. }
        | Write::Settings(_)
        | Write::Hop { .. } => None,
    }
}

/// The address at which a change may need endpoints.
fn address(change: &Change) -> Option<IpAddr> {
    match change {
        Change::Service(service::Change::Add { service } | service::Change::Edit { service }) => {
            match service.key {
                ServiceKey::Address { address, .. } => Some(address),
                ServiceKey::Mark { .. } => None,
            }
        }
        Change::Server(
            server::Change::Add { server, .. } | server::Change::Edit { server, .. },
        ) => Some(server.at.address),
        Change::Mark(mark::Change::Add { rule } | mark::Change::Delete { rule }) => {
            Some(rule.target.address)
        }
        Change::Service(
            service::Change::Delete { .. } | service::Change::Flush | service::Change::Zero { .. },
        )
        | Change::Server(server::Change::Delete { .. })
        | Change::Local(_)
        | Change::Setting(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(number: Option<u32>) -> Write {
        let prefix = Prefix::new([10, 9, 0, 0].into(), 16);
        Write::Route { prefix, number }
    }

    fn refuse(unwritten: &mut Unwritten, write: &Write) {
        unwritten.put_out(write);
        unwritten.refused("full".to_owned(), false);
    }

    #[test]
    fn a_refused_write_is_tried_again_ever_more_rarely_until_it_is_taken() {
        let mut unwritten = Unwritten::default();
        refuse(&mut unwritten, &route(Some(7)));
        let why = "full".to_owned();
        let (mut tries, mut facts) = (Vec::new(), Vec::new());
        for sweep in 0..400 {
            let (writes, fact) = unwritten.due();
            facts.extend(fact);
            for write in writes {
                assert_eq!(write, route(Some(7)));
                tries.push(sweep);
                refuse(&mut unwritten, &write);
            }
        }
        assert_eq!(tries[..4], [0, 1, 3, 6]);
        assert!(
            tries.windows(2).all(|two| two[1] - two[0] <= 129),
            "{tries:?}"
        );
        assert_eq!(facts, [Fact::WritesRefused { why }]);

        unwritten.put_out(&route(Some(8)));

        assert_eq!(unwritten.due(), (Vec::new(), Some(Fact::WritesDone)));
        assert_eq!(unwritten.due(), (Vec::new(), None));
    }

    #[test]
    fn a_later_write_of_a_place_replaces_the_refused_one() {
        let mut unwritten = Unwritten::default();
        let all = |number| Write::Routes(vec![(Prefix::new([10, 9, 0, 0].into(), 16), number)]);
        refuse(&mut unwritten, &route(Some(7)));
        refuse(&mut unwritten, &all(7));
        unwritten.put_out(&route(Some(8)));
        assert_eq!(unwritten.due().0, [all(8)]);
        unwritten.put_out(&route(None));
        assert_eq!(unwritten.owed.len(), 1);
        unwritten.put_out(&all(9));
        assert!(unwritten.owed.is_empty());
    }

    #[test]
    fn each_refused_write_has_its_turn_and_a_sweep_has_a_limit() {
        let mut unwritten = Unwritten::default();
        for host in 0..200u8 {
            let (prefix, number) = (Prefix::host([10, 9, 0, host].into()), Some(1));
            refuse(&mut unwritten, &Write::Route { prefix, number });
        }
        let mut seen = std::collections::BTreeSet::new();
        for _ in 0..100 {
            let (writes, _) = unwritten.due();
            assert!(writes.len() <= TRIED);
            for write in &writes {
                seen.insert(format!("{write:?}"));
                refuse(&mut unwritten, write);
            }
        }
        assert_eq!(seen.len(), 200);
    }
}
