//! The view: what the kernel said about links, addresses, routes and neighbours.

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
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Different {
    pub routes: bool,
    pub addresses: bool,
    pub links: bool,
    /// Only how sure a neighbour is, which decides when to probe it.
    pub states: bool,
}

impl Different {
    pub const ALL: Different = Different {
        routes: true,
        addresses: true,
        links: true,
        states: true,
    };

    pub fn any(self) -> bool {
        self.routes || self.addresses || self.links || self.states
    }

    pub fn add(&mut self, other: Different) {
        self.routes |= other.routes;
        self.addresses |= other.addresses;
        self.links |= other.links;
        self.states |= other.states;
    }
}

impl View {
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
                self.neighbours.remove_link(interface);
                Different::ALL
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
                let changed = self.neighbours.insert(neighbour);
                Different {
                    routes: changed,
                    states: true,
                    ..Different::default()
                }
            }
            Input::NeighbourRemoved { interface, address } => {
                let changed = self.neighbours.remove(interface, address);
                Different {
                    routes: changed,
                    states: true,
                    ..Different::default()
                }
            }
            Input::ResyncBegin | Input::ResyncEnd | Input::Tick => Different::default(),
        }
    }
}
