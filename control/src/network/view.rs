//! The view: what the kernel said about links, addresses, routes and neighbours.

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::Input;
use super::addresses::Addresses;
use super::links::Links;
use super::neighbours::Neighbours;
use super::routes::Routes;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct View {
    pub links: Links,
    pub addresses: Addresses,
    pub routes: Routes,
    pub neighbours: Neighbours,
}

/// Which answers an event may have made different.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Different {
    /// Links, addresses or routes: any answer.
    pub routes: bool,
    pub addresses: bool,
    pub links: bool,
    /// Neighbours, or only how sure they are, which decides when to probe them.
    pub neighbours: BTreeSet<(u32, IpAddr)>,
    /// Those whose MAC addresses are different.
    pub moved: BTreeSet<IpAddr>,
}

impl Different {
    fn of_neighbour(neighbour: (u32, IpAddr), moved: bool) -> Self {
        Self {
            moved: moved.then_some(neighbour.1).into_iter().collect(),
            neighbours: BTreeSet::from([neighbour]),
            ..Self::default()
        }
    }

    pub fn any(&self) -> bool {
        self.routes || self.addresses || self.links || !self.neighbours.is_empty()
    }

    pub fn add(&mut self, other: Different) {
        self.routes |= other.routes;
        self.addresses |= other.addresses;
        self.links |= other.links;
        self.neighbours.extend(other.neighbours);
        self.moved.extend(other.moved);
    }
}

impl View {
    /// Whether any link has such a neighbour.
    pub fn has_neighbour(&self, address: IpAddr) -> bool {
        let mut links = self.links.iter();
        links.any(|link| self.neighbours.has(link.index, address))
    }

    /// Takes in one event. The marks of a repetition and time say nothing here.
    pub fn apply(&mut self, input: Input) -> Different {
        match input {
            Input::LinkChanged(link) => {
                let changed = self.links.insert(link);
                Different {
                    routes: changed,
                    links: changed,
                    ..Different::default()
                }
            }
            Input::LinkRemoved { interface } => {
                if !self.links.remove(interface) {
                    return Different::default();
                }
                // The kernel does not name the IPv4 routes that go with a device.
                self.addresses.remove_link(interface);
                self.routes.remove_link(interface);
                let neighbours = self.neighbours.remove_link(interface);
                Different {
                    routes: true,
                    addresses: true,
                    links: true,
                    moved: neighbours.iter().map(|(_, address)| *address).collect(),
                    neighbours,
                }
            }
            Input::AddressAdded(address) => {
                let changed = self.addresses.insert(address);
                Different {
                    routes: changed,
                    addresses: changed,
                    ..Different::default()
                }
            }
            Input::AddressRemoved { interface, address } => {
                let changed = self.addresses.remove(interface, address);
                Different {
                    routes: changed,
                    addresses: changed,
                    ..Different::default()
                }
            }
            Input::RouteAdded { route, replace } => {
                let changed = self.routes.insert(route, replace);
                Different {
                    routes: changed,
                    ..Different::default()
                }
            }
            Input::RouteRemoved(route) => {
                let changed = self.routes.remove(&route);
                Different {
                    routes: changed,
                    ..Different::default()
                }
            }
            Input::NeighbourChanged(neighbour) => {
                let name = (neighbour.interface, neighbour.address);
                let moved = self.neighbours.insert(neighbour);
                Different::of_neighbour(name, moved)
            }
            Input::NeighbourRemoved { interface, address } => {
                let moved = self.neighbours.remove(interface, address);
                Different::of_neighbour((interface, address), moved)
            }
            Input::ResyncBegin | Input::ResyncEnd | Input::Tick => Different::default(),
        }
    }
}
