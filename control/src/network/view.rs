//! The view: the kernel's links, addresses, routes, rules and neighbours, from its events.

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::Input;
use super::addresses::Addresses;
use super::links::Links;
use super::neighbours::Neighbours;
use super::objects::Objects;
use super::routes::{Prefix, Routes};
use super::rules::Rules;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct View {
    pub links: Links,
    pub addresses: Addresses,
    pub routes: Routes,
    pub objects: Objects,
    pub rules: Rules,
    pub neighbours: Neighbours,
}

/// The answers that an event may have changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Different {
    /// Links, addresses or rules changed: any answer may differ.
    pub ways: bool,
    /// Networks whose routes changed: answers about addresses in them may differ.
    pub networks: BTreeSet<Prefix>,
    /// Next-hop objects that changed: answers by their routes may differ.
    pub objects: BTreeSet<u32>,
    pub rules: bool,
    pub addresses: bool,
    pub links: bool,
    /// Neighbours whose entry or state changed. The state decides when to probe.
    pub neighbours: BTreeSet<(u32, IpAddr)>,
    /// Neighbours whose MAC address changed.
    pub moved: BTreeSet<(u32, IpAddr)>,
}

impl Different {
    fn of_neighbour(neighbour: (u32, IpAddr), moved: bool) -> Self {
        Self {
            moved: moved.then_some(neighbour).into_iter().collect(),
            neighbours: BTreeSet::from([neighbour]),
            ..Self::default()
        }
    }

    fn of_network(network: Prefix, different: bool) -> Self {
        Self {
            networks: different.then_some(network).into_iter().collect(),
            ..Self::default()
        }
    }

    fn of_rules(different: bool) -> Self {
        Self {
            ways: different,
            rules: different,
            ..Self::default()
        }
    }

    /// The differences between two accounts.
    pub(super) fn between(view: &View, account: &View) -> Self {
        let neighbours = view.neighbours.different(&account.neighbours);
        let (links, addresses) = (
            view.links != account.links,
            view.addresses != account.addresses,
        );
        let sources = |view: &View| view.routes.mind_sources();
        let rules = view.rules != account.rules || sources(view) != sources(account);
        Self {
            ways: links || addresses || rules,
            networks: view.routes.different(&account.routes),
            objects: view.objects.different(&account.objects),
            rules,
            addresses,
            links,
            moved: neighbours.clone(),
            neighbours,
        }
    }

    pub(super) fn any(&self) -> bool {
        *self != Self::default()
    }

    pub(super) fn add(&mut self, other: Different) {
        let mut other = other;
        self.ways |= other.ways;
        self.networks.append(&mut other.networks);
        self.objects.append(&mut other.objects);
        self.rules |= other.rules;
        self.addresses |= other.addresses;
        self.links |= other.links;
        self.neighbours.append(&mut other.neighbours);
        self.moved.append(&mut other.moved);
    }
}

impl View {
    /// Whether any link has this neighbour.
    pub(super) fn has_neighbour(&self, address: IpAddr) -> bool {
        let mut links = self.links.iter();
        links.any(|link| self.neighbours.has(link.index, address))
    }

    /// Takes in one event. The begin and end of an account and ticks change nothing here.
    pub(super) fn apply(&mut self, input: Input) -> Different {
        match input {
            Input::LinkChanged(link) => {
                let changed = self.links.insert(link);
                Different {
                    ways: changed,
                    links: changed,
                    ..Different::default()
                }
            }
            Input::LinkRemoved { interface } => self.remove_link(interface),
            Input::AddressAdded(address) => {
                let changed = self.addresses.insert(address);
                Different {
                    ways: changed,
                    addresses: changed,
                    ..Different::default()
                }
            }
            Input::AddressRemoved { interface, address } => {
                let changed = self.addresses.remove(interface, address);
                Different {
                    ways: changed,
                    addresses: changed,
                    ..Different::default()
                }
            }
            Input::RouteAdded { route, replace } => {
                let network = route.prefix;
                self.minding(|routes| Different::of_network(network, routes.insert(route, replace)))
            }
            Input::RouteRemoved(route) => {
                let network = route.prefix;
                self.minding(|routes| Different::of_network(network, routes.remove(&route)))
            }
            Input::RuleAdded(rule) => Different::of_rules(self.rules.insert(rule)),
            Input::RuleRemoved(rule) => Different::of_rules(self.rules.remove(&rule)),
            Input::ObjectChanged(object) => {
                let id = object.id;
                let changed = self.objects.insert(object);
                Different {
                    objects: changed.then_some(id).into_iter().collect(),
                    ..Different::default()
                }
            }
            Input::ObjectRemoved { id } => {
                let groups = self.objects.with_groups(BTreeSet::from([id]));
                let gone = self.objects.remove(id);
                let networks = self.remove_objects(gone);
                Different {
                    objects: groups,
                    networks,
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

    fn remove_link(&mut self, interface: u32) -> Different {
        if !self.links.remove(interface) {
            return Different::default();
        }
        // The kernel does not report the IPv4 routes that go with a device.
        self.addresses.remove_link(interface);
        let mut networks = self.routes.remove_link(interface);
        let gone = self.objects.remove_link(interface);
        networks.append(&mut self.remove_objects(gone));
        let neighbours = self.neighbours.remove_link(interface);
        Different {
            ways: true,
            networks,
            addresses: true,
            links: true,
            moved: neighbours.clone(),
            neighbours,
            ..Different::default()
        }
    }

    /// Removes the routes of removed objects, as the kernel does.
    fn remove_objects(&mut self, gone: BTreeSet<u32>) -> BTreeSet<Prefix> {
        let routes = &mut self.routes;
        let networks = gone.into_iter().map(|id| routes.remove_object(id));
        networks.flatten().collect()
    }

    /// Changes routes. The first and the last route for a source network count as a change of
    /// rules.
    fn minding(&mut self, change: impl FnOnce(&mut Routes) -> Different) -> Different {
        let before = self.routes.mind_sources();
        let different = change(&mut self.routes);
        let rules = before != self.routes.mind_sources();
        Different {
            rules,
            ways: rules,
            ..different
        }
    }
}
