//! The view: what the kernel said about links, addresses, routes and neighbours.

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

/// Which answers an event may have made different.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Different {
    /// Links, addresses or rules: any answer.
    pub ways: bool,
    /// Routes to these networks: answers about what is in them.
    pub networks: BTreeSet<Prefix>,
    /// Next-hop objects: answers by routes that have them.
    pub objects: BTreeSet<u32>,
    pub rules: bool,
    pub addresses: bool,
    pub links: bool,
    /// Neighbours, or only how sure they are, which decides when to probe them.
    pub neighbours: BTreeSet<(u32, IpAddr)>,
    /// Those whose MAC addresses are different.
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

    /// Between two accounts.
    pub fn between(view: &View, account: &View) -> Self {
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

    pub fn any(&self) -> bool {
        *self != Self::default()
    }

    pub fn add(&mut self, other: Different) {
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
        // The kernel does not name the IPv4 routes that go with a device.
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

    /// Takes out the routes of objects that are gone, as the kernel does.
    fn remove_objects(&mut self, gone: BTreeSet<u32>) -> BTreeSet<Prefix> {
        let routes = &mut self.routes;
        let networks = gone.into_iter().map(|id| routes.remove_object(id));
        networks.flatten().collect()
    }

    /// Changes routes. The first one for a source network is as good as a rule, and the last.
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
