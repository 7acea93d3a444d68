//! How the director knows its neighbours: for each address, which link, which hardware address,
//! which size of packet.
//!
//! [`Network`] hears what the kernel says about links, addresses, routes and neighbours, and
//! answers [`Network::next_hop`]. It says which neighbours the kernel must resolve or confirm for
//! the targets in [`Network::watch`], and when an answer about one is different. It never asks the
//! kernel itself. Its tables are as large as the kernel's, which limits them.

pub mod addresses;
pub mod attach;
pub mod links;
pub mod neighbours;
pub mod next_hop;
mod probes;
pub mod routes;
#[cfg(test)]
mod tests;
mod view;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;
use std::time::Instant;

pub use addresses::Address;
pub use links::{Link, Mac};
pub use neighbours::Neighbour;
pub use next_hop::{NextHop, Route};

use next_hop::{Decision, decide};
use probes::Probes;
use view::{Different, View};

/// What the machine can hear.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// A link came or is different.
    LinkChanged(Link),
    LinkRemoved {
        interface: u32,
    },
    AddressAdded(Address),
    AddressRemoved {
        interface: u32,
        address: IpAddr,
    },
    /// `replace`: it takes the place of another, as after `ip route replace`.
    RouteAdded {
        route: routes::Entry,
        replace: bool,
    },
    RouteRemoved(routes::Entry),
    NeighbourChanged(Neighbour),
    NeighbourRemoved {
        interface: u32,
        address: IpAddr,
    },
    /// All that follows is a full account. Answers stay as they are until its end.
    ResyncBegin,
    /// The account is complete: what it did not name is gone.
    ResyncEnd,
    /// Nothing but time went by.
    Tick,
}

/// What the caller must do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Make the kernel resolve or confirm this neighbour.
    Probe { interface: u32, neighbour: IpAddr },
    /// The answer about this watched target is different: ask again.
    Changed { target: IpAddr },
    /// The machine's own addresses are different: ask [`Network::addresses`] again.
    AddressesChanged,
    /// A link came, went or is different: ask [`Network::links`] again.
    LinksChanged,
    /// Networks or their gateways are different: ask [`Network::gateways`] again.
    RoutesChanged,
    /// The answer about any target that is not watched may be different.
    WaysChanged,
    /// A neighbour's MAC address is different, or whether it is known.
    NeighbourChanged { neighbour: IpAddr },
}

/// A target.
#[derive(Debug, Default)]
struct Watched {
    answer: Vec<Route>,
    neighbours: Vec<(u32, IpAddr)>,
}

/// What the kernel knows about the network, and what we want of it.
#[derive(Debug)]
pub struct Network {
    view: View,
    /// A full account under way, which takes the place of `view` when it is complete.
    account: Option<View>,
    /// The targets, what was answered last, and the neighbours that they may be reached by.
    watched: BTreeMap<IpAddr, Watched>,
    /// The targets that a neighbour leads to.
    led: BTreeMap<(u32, IpAddr), BTreeSet<IpAddr>>,
    /// The networks and their gateways as they were told last.
    gateways: Vec<routes::Lead>,
    probes: Probes,
    /// What must be looked at again before the next output.
    different: Different,
    /// At most two for each target, one for each neighbour and four more: it is filled only when
    /// empty.
    outputs: VecDeque<Output>,
    now: Instant,
}

impl Network {
    #[must_use]
    pub fn new(now: Instant) -> Self {
        Self {
            view: View::default(),
            account: None,
            watched: BTreeMap::new(),
            led: BTreeMap::new(),
            gateways: Vec::new(),
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
            // A second beginning means that the first account was lost on the way.
            (Input::ResyncBegin, _) => self.account = Some(View::default()),
            (Input::ResyncEnd, None) => {}
            (Input::ResyncEnd, Some(account)) => {
                let neighbours = self.view.neighbours.different(&account.neighbours);
                self.different.add(Different {
                    routes: account != self.view,
                    addresses: account.addresses != self.view.addresses,
                    links: account.links != self.view.links,
                    moved: neighbours.iter().map(|(_, address)| *address).collect(),
                    neighbours,
                });
                self.view = account;
            }
            (input, Some(mut account)) => {
                account.apply(input);
                self.account = Some(account);
            }
            (input, None) => self.different.add(self.view.apply(input)),
        }
    }

    /// What the caller must do; until none. Many events may come before: answers are compared once.
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

    /// When to call again at the latest, with [`Input::Tick`] if there is nothing else.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        self.probes.deadline()
    }

    /// Keeps the neighbours on the way to this target alive from here on, and says when an answer
    /// about it is different from the one at this moment.
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

    /// Ends what [`Network::watch`] began. A difference that was not said yet is said all the same.
    pub fn leave(&mut self, target: IpAddr) {
        if let Some(watched) = self.watched.remove(&target) {
            for neighbour in watched.neighbours {
                self.unlead(neighbour, target);
            }
        }
    }

    /// How `to` is reached. Of several ways of equal cost, the first whose neighbour is known.
    #[must_use]
    pub fn next_hop(&self, to: IpAddr) -> Route {
        self.next_hop_spread(to, 0)
    }

    /// How `to` is reached, spread over ways of equal cost by a hash.
    #[must_use]
    pub fn next_hop_spread(&self, to: IpAddr, hash: u64) -> Route {
        let mut routes = next_hop::routes(&self.view, to);
        let place = hash % routes.len() as u64; // There is at least one.
        routes.swap_remove(place as usize)
    }

    /// Whether the kernel takes an address for that of many, as its table of local routes has it:
    /// `inet_addr_type`.
    #[must_use]
    pub fn is_of_many(&self, address: IpAddr) -> bool {
        next_hop::is_of_many(&self.view, address)
    }

    /// The addresses of this machine.
    #[must_use]
    pub fn addresses(&self) -> BTreeSet<IpAddr> {
        self.view.addresses.all()
    }

    /// Every network of the main table, with the gateway that leads there.
    #[must_use]
    pub fn gateways(&self) -> Vec<routes::Lead> {
        self.gateways.clone()
    }

    /// The neighbours that the kernel knows, whatever it knows of them.
    #[must_use]
    pub fn neighbours(&self) -> Vec<IpAddr> {
        self.view.neighbours.all()
    }

    /// Whether the kernel knows such a neighbour on any link.
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
        if different.routes {
            let gateways = self.view.routes.gateways();
            if gateways != self.gateways {
                self.gateways = gateways;
                self.outputs.push_back(Output::RoutesChanged);
            }
            self.outputs.push_back(Output::WaysChanged);
            let targets: Vec<IpAddr> = self.watched.keys().copied().collect();
            for target in targets {
                self.find_neighbours(target);
                self.compare(target);
            }
        }
        for neighbour in different.neighbours {
            if let Some(targets) = self.led.get(&neighbour) {
                let (interface, address) = neighbour;
                let state = self.view.neighbours.state(interface, address);
                self.probes.see(neighbour, state, self.now);
                for target in targets.clone() {
                    self.compare(target);
                }
            }
        }
        let moved = different.moved.into_iter();
        let moved = moved.map(|neighbour| Output::NeighbourChanged { neighbour });
        self.outputs.extend(moved);
    }

    /// Says so if the answer about a target is different.
    fn compare(&mut self, target: IpAddr) {
        let answer = next_hop::routes(&self.view, target);
        if let Some(watched) = self.watched.get_mut(&target)
            && watched.answer != answer
        {
            watched.answer = answer;
            self.outputs.push_back(Output::Changed { target });
        }
    }

    /// Each neighbour that a target may be reached by is kept alive. All ways of equal cost are:
    /// one that is never probed could never be taken.
    fn find_neighbours(&mut self, target: IpAddr) {
        let neighbours: Vec<(u32, IpAddr)> = match decide(&self.view, target) {
            Decision::Ways(ways) => ways
                .iter()
                .filter(|way| way.link.needs_neighbour())
                .map(|way| (way.link.index, way.neighbour))
                .collect(),
            Decision::Local | Decision::Unreachable(_) => Vec::new(),
        };
        let Some(watched) = self.watched.get_mut(&target) else {
            return;
        };
        if watched.neighbours == neighbours {
            return;
        }
        let before = std::mem::replace(&mut watched.neighbours, neighbours.clone());
        for neighbour in neighbours {
            self.led.entry(neighbour).or_default().insert(target);
            let state = self.view.neighbours.state(neighbour.0, neighbour.1);
            self.probes.see(neighbour, state, self.now);
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
            self.probes.forget(neighbour);
        }
    }
}
