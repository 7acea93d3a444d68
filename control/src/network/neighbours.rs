//! Neighbours: the hardware address of each address on a link, from the kernel's tables (ARP, RFC
//! 826, and neighbour discovery, RFC 4861).

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::links::Mac;

/// The state of an entry: the five of RFC 4861, 7.3.2, and four of the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum State {
    /// The kernel has just made the entry (`NUD_NONE`).
    None,
    /// The kernel has asked and has no answer.
    Incomplete,
    /// The neighbour has answered within the last seconds.
    Reachable,
    /// The answer is old, and nothing is wrong.
    Stale,
    /// The kernel waits for a sign of the neighbour before it asks again.
    Delay,
    /// The kernel asks the neighbour again.
    Probe,
    /// The neighbour has not answered.
    Failed,
    /// The link needs no resolution.
    NoArp,
    /// Set by an operator.
    Permanent,
}

impl State {
    /// Whether frames may be sent to the hardware address of the entry.
    #[must_use]
    pub fn is_usable(self) -> bool {
        match self {
            State::Reachable | State::Stale | State::Delay | State::Probe => true,
            State::NoArp | State::Permanent => true,
            State::None | State::Incomplete | State::Failed => false,
        }
    }
}

/// One entry of a neighbour table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Neighbour {
    /// The kernel's index of the link.
    pub interface: u32,
    /// The neighbour's address.
    pub address: IpAddr,
    /// `None` while it is not known.
    pub mac: Option<Mac>,
    /// Whether the kernel trusts the hardware address.
    pub state: State,
}

/// All neighbours, by link and address.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Neighbours(BTreeMap<(u32, IpAddr), (State, Option<Mac>)>);

impl Neighbours {
    /// Adds or replaces an entry; true if the answer of [`Neighbours::mac`] changed.
    pub(super) fn insert(&mut self, neighbour: Neighbour) -> bool {
        let Neighbour {
            interface,
            address,
            mac,
            state,
        } = neighbour;
        let before = self.mac(interface, address);
        self.0.insert((interface, address), (state, mac));
        before != self.mac(interface, address)
    }

    /// Removes an entry; true if there was one.
    pub(super) fn remove(&mut self, interface: u32, address: IpAddr) -> bool {
        self.0.remove(&(interface, address)).is_some()
    }

    pub(super) fn has(&self, interface: u32, address: IpAddr) -> bool {
        self.0.contains_key(&(interface, address))
    }

    /// The links and addresses of all neighbours.
    pub(super) fn all(&self) -> impl Iterator<Item = (u32, IpAddr)> {
        self.0.keys().copied()
    }

    /// The neighbours on a link within a range of addresses.
    pub(super) fn within(
        &self,
        interface: u32,
        range: &std::ops::RangeInclusive<IpAddr>,
    ) -> impl Iterator<Item = IpAddr> {
        let range = (interface, *range.start())..=(interface, *range.end());
        self.0.range(range).map(|((_, address), _)| *address)
    }

    /// Removes the neighbours on a link and returns them.
    pub(super) fn remove_link(&mut self, interface: u32) -> BTreeSet<(u32, IpAddr)> {
        let mut gone = BTreeSet::new();
        self.0.retain(|&(link, address), _| {
            if link == interface {
                gone.insert((link, address));
            }
            link != interface
        });
        gone
    }

    /// The neighbours whose entries differ between two accounts.
    pub(super) fn different(&self, other: &Self) -> BTreeSet<(u32, IpAddr)> {
        let names = self.0.keys().chain(other.0.keys()).copied();
        names
            .filter(|name| self.0.get(name) != other.0.get(name))
            .collect()
    }

    pub(super) fn state(&self, interface: u32, address: IpAddr) -> State {
        self.0
            .get(&(interface, address))
            .map_or(State::None, |&(state, _)| state)
    }

    /// The hardware address, if frames may be sent to it.
    pub(super) fn mac(&self, interface: u32, address: IpAddr) -> Option<Mac> {
        let &(state, mac) = self.0.get(&(interface, address))?;
        mac.filter(|_| state.is_usable())
    }
}
