//! The network as the kernel has it: for each address the link, the hardware address and the MTU.
//!
//! [`Network`] takes in the kernel's events about links, addresses, routes and neighbours, and
//! answers [`Network::next_hop`]. It asks the caller to probe the neighbours on the way to the
//! targets of [`Network::watch`], and reports when an answer about a target changes. It never asks
//! the kernel itself. Its tables are as large as the kernel's, which limits them.

pub mod addresses;
pub mod attach;
pub mod links;
pub mod neighbours;
pub mod next_hop;
pub mod objects;
mod path;
mod probes;
pub mod routes;
pub mod rules;
#[cfg(test)]
mod tests;
mod view;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;
use std::time::Instant;

use serde::{Deserialize, Serialize};

pub use addresses::Address;
pub use links::{Link, Mac};
pub use neighbours::Neighbour;
pub use next_hop::{NextHop, Route};

use neighbours::State;
use next_hop::{Decision, decide};
use probes::Probes;
use routes::{Gateway, Lead, Prefix};
use view::{Different, View};

/// The events that the machine takes in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Input {
    /// A link appeared or changed.
    LinkChanged(Link),
    /// A link went, with its addresses, routes and neighbours.
    LinkRemoved {
        /// The kernel's index of the link.
        interface: u32,
    },
    /// An address was added to a link, or its properties changed.
    AddressAdded(Address),
    /// An address was removed from a link.
    AddressRemoved {
        /// The kernel's index of the link.
        interface: u32,
        /// The removed address.
        address: IpAddr,
    },
    /// `replace`: it replaces another route, as after `ip route replace`.
    RouteAdded {
        /// The route as it is from here on.
        route: routes::RouteEntry,
        /// Whether another route of the same place goes.
        replace: bool,
    },
    /// A route was removed from its table.
    RouteRemoved(routes::RouteEntry),
    /// A policy rule was added.
    RuleAdded(rules::Rule),
    /// A policy rule was removed.
    RuleRemoved(rules::Rule),
    /// A next-hop object appeared or changed.
    ObjectChanged(objects::Object),
    /// A next-hop object was removed, with the routes that name it.
    ObjectRemoved {
        /// The object's number.
        id: u32,
    },
    /// An entry of the kernel's neighbour tables appeared or changed.
    NeighbourChanged(Neighbour),
    /// An entry of the kernel's neighbour tables went.
    NeighbourRemoved {
        /// The kernel's index of the link.
        interface: u32,
        /// The neighbour's address.
        address: IpAddr,
    },
    /// A full account of the network begins. Answers stay as they are until its end.
    ResyncBegin,
    /// The account is complete. What it did not name is gone.
    ResyncEnd,
    /// Only time passed.
    Tick,
}

/// What the caller must do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Make the kernel resolve or confirm this neighbour.
    Probe {
        /// The kernel's index of the link.
        interface: u32,
        /// The neighbour's address on that link.
        neighbour: IpAddr,
    },
    /// The answer about this watched target changed: ask again.
    Changed {
        /// The address that is watched.
        target: IpAddr,
    },
    /// The machine's own addresses changed: ask [`Network::addresses`] again.
    AddressesChanged,
    /// A link appeared, went or changed: ask [`Network::links`] again.
    LinksChanged,
    /// Policy rules changed: ask [`Network::is_plain`] again.
    RulesChanged,
    /// The routes to these networks changed: ask [`Network::lead`] again. Answers about targets in
    /// them may have changed too.
    RoutesChanged {
        /// The networks, which may overlap.
        networks: Vec<Prefix>,
    },
    /// The answer about any target that is not watched may have changed.
    WaysChanged,
    /// A neighbour's MAC address changed, became known or was lost.
    NeighbourChanged {
        /// The kernel's index of the link.
        interface: u32,
        /// The neighbour's address on that link.
        neighbour: IpAddr,
    },
}

/// A watched target: the last answer, and the neighbours that it may be reached by.
#[derive(Clone, Debug, Default)]
struct Watched {
    answer: Vec<Route>,
    neighbours: Vec<(u32, IpAddr)>,
}

/// The kernel's network, and the targets and neighbours that the caller needs.
#[derive(Clone, Debug)]
pub struct Network {
    view: View,
    /// A full account under way. It replaces `view` when it is complete.
    account: Option<View>,
    /// The watched targets.
    watched: BTreeMap<IpAddr, Watched>,
    /// The watched targets of each neighbour.
    led: BTreeMap<(u32, IpAddr), BTreeSet<IpAddr>>,
    /// Neighbours that are kept alive without a target ([`Network::keep`]).
    kept: BTreeSet<(u32, IpAddr)>,
    probes: Probes,
    /// The changes that the next [`Network::poll`] reviews.
    different: Different,
    /// At most two outputs for each target, one for each neighbour and four more: it is filled only
    /// when empty.
    outputs: VecDeque<Output>,
    now: Instant,
}

impl Network {
    /// A network without links, until the first account.
    #[must_use]
    pub fn new(now: Instant) -> Self {
        Self {
            view: View::default(),
            account: None,
            watched: BTreeMap::new(),
            led: BTreeMap::new(),
            kept: BTreeSet::new(),
            probes: Probes::default(),
            different: Different::default(),
            outputs: VecDeque::new(),
            now,
        }
    }

    /// Takes in one event.
    pub fn handle(&mut self, input: Input, now: Instant) {
        self.now = now;
        match (input, self.account.take()) {
            // A second beginning means that the first account was lost.
            (Input::ResyncBegin, _) => self.account = Some(View::default()),
            (Input::ResyncEnd, None) => {}
            (Input::ResyncEnd, Some(account)) => {
                self.different.add(Different::between(&self.view, &account));
                self.view = account;
            }
            (input, Some(mut account)) => {
                account.apply(input);
                self.account = Some(account);
            }
            (input, None) => self.different.add(self.view.apply(input)),
        }
    }

    /// What the caller must do; call it until it returns `None`. Answers are compared once for all
    /// events since the last call.
    pub fn poll(&mut self) -> Option<Output> {
        if self.outputs.is_empty() && self.different.any() {
            self.review();
        }
        if let Some(output) = self.outputs.pop_front() {
            return Some(output);
        }
        let (interface, neighbour) = self.probes.poll(self.now)?;
        Some(Output::Probe {
            interface,
            neighbour,
        })
    }

    /// When to call again at the latest, with [`Input::Tick`] if there is no other event.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        self.probes.deadline()
    }

    /// Watches a target: its neighbours are kept alive, and [`Output::Changed`] reports when the
    /// answer differs from the present one.
    pub fn watch(&mut self, target: IpAddr, now: Instant) {
        self.now = now;
        if self.watched.contains_key(&target) {
            return;
        }
        let answer = next_hop::routes(&self.view, target);
        let neighbours = Vec::new();
        self.watched.insert(target, Watched { answer, neighbours });
        self.find_neighbours(target);
    }

    /// Ends [`Network::watch`]. A change that is already queued is still reported.
    pub fn leave(&mut self, target: IpAddr) {
        if let Some(watched) = self.watched.remove(&target) {
            for neighbour in watched.neighbours {
                self.unlead(neighbour, target);
            }
        }
    }

    /// How `to` is reached. Of several next hops of equal cost, the first whose neighbour is known.
    #[must_use]
    pub fn next_hop(&self, to: IpAddr) -> Route {
        self.next_hop_spread(to, 0)
    }

    /// How `to` is reached, spread by a hash over next hops of equal cost.
    #[must_use]
    pub fn next_hop_spread(&self, to: IpAddr, hash: u64) -> Route {
        let mut routes = next_hop::routes(&self.view, to);
        let place = hash % routes.len() as u64; // There is at least one.
        routes.swap_remove(place as usize)
    }

    /// Whether several next hops of equal cost lead to an address.
    #[must_use]
    pub fn has_several_ways(&self, to: IpAddr) -> bool {
        matches!(decide(&self.view, to), Decision::Ways(ways) if ways.len() > 1)
    }

    /// Whether an address is broadcast or multicast by the kernel's table of local routes
    /// (`inet_addr_type`).
    #[must_use]
    pub fn is_of_many(&self, address: IpAddr) -> bool {
        next_hop::is_of_many(&self.view, address)
    }

    /// The addresses of this machine.
    #[must_use]
    pub fn addresses(&self) -> BTreeSet<IpAddr> {
        self.view.addresses.all()
    }

    /// How a gateway is reached on its own link.
    #[must_use]
    pub fn by_gateway(&self, gateway: Gateway) -> Route {
        next_hop::by_gateway(&self.view, gateway)
    }

    /// The gateway and MTU of a network of the main table; `None` if the table has no such network.
    #[must_use]
    pub fn lead(&self, network: Prefix) -> Option<Lead> {
        self.view.routes.lead(network, &self.view.objects)
    }

    /// Every network of a family in the main table.
    pub fn networks(&self, v4: bool) -> impl Iterator<Item = Prefix> {
        self.view.routes.networks(v4)
    }

    /// The number of networks of a family in the main table.
    #[must_use]
    pub fn count_networks(&self, v4: bool) -> usize {
        self.view.routes.count(v4)
    }

    /// Whether the main table alone decides about packets of a family, whatever their source and
    /// device.
    #[must_use]
    pub fn is_plain(&self, v4: bool) -> bool {
        self.view.rules.is_plain(v4) && (v4 || !self.view.routes.mind_sources())
    }

    /// Every router that a route or a next-hop object of any table names.
    #[must_use]
    pub fn gateways(&self) -> BTreeSet<Gateway> {
        let of_objects = self.view.objects.routers();
        self.view.routes.routers().chain(of_objects).collect()
    }

    /// The kernel's neighbours in any state: link and address.
    pub fn neighbours(&self) -> impl Iterator<Item = (u32, IpAddr)> {
        self.view.neighbours.all()
    }

    /// The addresses of neighbours in a network, on any link.
    #[must_use]
    pub fn neighbours_in(&self, network: Prefix) -> Vec<IpAddr> {
        let range = network.range();
        let links = self.view.links.iter();
        let found = links.flat_map(|link| self.view.neighbours.within(link.index, &range));
        found.collect()
    }

    /// Keeps these neighbours alive. Replaces the earlier set.
    pub fn keep(&mut self, neighbours: BTreeSet<(u32, IpAddr)>, now: Instant) {
        self.now = now;
        let before = std::mem::replace(&mut self.kept, neighbours);
        for gone in before.difference(&self.kept) {
            if !self.led.contains_key(gone) {
                self.probes.forget(*gone);
            }
        }
        for neighbour in self.kept.difference(&before) {
            self.probes.see(*neighbour, self.state(*neighbour), now);
        }
    }

    /// Whether the kernel has this neighbour on any link.
    #[must_use]
    pub fn has_neighbour(&self, address: IpAddr) -> bool {
        self.view.has_neighbour(address)
    }

    /// The links of this machine, by index.
    pub fn links(&self) -> impl Iterator<Item = &Link> {
        self.view.links.iter()
    }

    fn review(&mut self) {
        let different = std::mem::take(&mut self.different);
        if different.links {
            self.outputs.push_back(Output::LinksChanged);
        }
        if different.addresses {
            self.outputs.push_back(Output::AddressesChanged);
        }
        if different.rules {
            self.outputs.push_back(Output::RulesChanged);
        }
        let mut networks = different.networks;
        if !different.objects.is_empty() {
            let objects = self.view.objects.with_groups(different.objects);
            let users = self.view.routes.users(|id| objects.contains(&id));
            networks.extend(users);
        }
        let targets: BTreeSet<IpAddr> = match different.ways {
            true => self.watched.keys().copied().collect(),
            false => self.watched_in(&networks).collect(),
        };
        if !networks.is_empty() {
            let networks = networks.into_iter().collect();
            self.outputs.push_back(Output::RoutesChanged { networks });
        }
        if different.ways {
            self.outputs.push_back(Output::WaysChanged);
        }
        for target in targets {
            self.find_neighbours(target);
            self.compare(target);
        }
        if different.links {
            self.see_kept();
        }
        for neighbour in different.neighbours {
            let targets = self.led.get(&neighbour).cloned();
            if targets.is_some() || self.kept.contains(&neighbour) {
                self.probes.see(neighbour, self.state(neighbour), self.now);
            }
            for target in targets.into_iter().flatten() {
                self.compare(target);
            }
        }
        let moved = different.moved.into_iter();
        let moved = moved.map(|(interface, neighbour)| Output::NeighbourChanged {
            interface,
            neighbour,
        });
        self.outputs.extend(moved);
    }

    fn watched_in(&self, networks: &BTreeSet<Prefix>) -> impl Iterator<Item = IpAddr> {
        let watched = |network: &Prefix| self.watched.range(network.range());
        networks.iter().flat_map(watched).map(|(target, _)| *target)
    }

    /// Links changed, so it may differ whether they resolve neighbours.
    fn see_kept(&mut self) {
        for neighbour in &self.kept {
            let state = state(&self.view, *neighbour);
            self.probes.see(*neighbour, state, self.now);
        }
    }

    fn state(&self, neighbour: (u32, IpAddr)) -> State {
        state(&self.view, neighbour)
    }

    /// Reports a changed answer about a target.
    fn compare(&mut self, target: IpAddr) {
        let answer = next_hop::routes(&self.view, target);
        if let Some(watched) = self.watched.get_mut(&target)
            && watched.answer != answer
        {
            watched.answer = answer;
            self.outputs.push_back(Output::Changed { target });
        }
    }

    /// Keeps each neighbour alive that a target may be reached by, including those of unused ways
    /// of equal cost: without probes they could never be used.
    fn find_neighbours(&mut self, target: IpAddr) {
        let neighbours: Vec<(u32, IpAddr)> = match decide(&self.view, target) {
            Decision::Ways(ways) => ways
                .iter()
                .filter(|way| way.link.has_neighbours())
                .map(|way| (way.link.index, way.neighbour))
                .collect(),
            Decision::Local | Decision::Unreachable(_) => Vec::new(),
        };
        let Some(watched) = self.watched.get_mut(&target) else {
            return;
        };
        if watched.neighbours == neighbours {
            for neighbour in neighbours {
                self.probes
                    .see(neighbour, state(&self.view, neighbour), self.now);
            }
            return;
        }
        let before = std::mem::replace(&mut watched.neighbours, neighbours.clone());
        for neighbour in neighbours {
            self.led.entry(neighbour).or_default().insert(target);
            self.probes.see(neighbour, self.state(neighbour), self.now);
        }
        for neighbour in before {
            let led_by = &self.watched[&target].neighbours; // It was there above.
            if !led_by.contains(&neighbour) {
                self.unlead(neighbour, target);
            }
        }
    }

    fn unlead(&mut self, neighbour: (u32, IpAddr), target: IpAddr) {
        let Some(targets) = self.led.get_mut(&neighbour) else {
            return;
        };
        targets.remove(&target);
        if targets.is_empty() {
            self.led.remove(&neighbour);
            if !self.kept.contains(&neighbour) {
                self.probes.forget(neighbour);
            }
        }
    }
}

/// The kernel's state of a neighbour. A link that resolves nobody has nothing to confirm.
fn state(view: &View, (interface, address): (u32, IpAddr)) -> State {
    match view.links.get(interface) {
        Some(link) if !link.resolves() => State::NoArp,
        Some(_) | None => view.neighbours.state(interface, address),
    }
}
