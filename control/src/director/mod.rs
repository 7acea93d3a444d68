//! The director: from the operator's table and the state of the network it computes what the packet
//! path's tables must contain.
//!
//! Pure. A change or an event goes in and [`Write`]s come out. Their order keeps the packet path
//! consistent after each step: an entry is written before anything that points to it. Ids of
//! deleted services and servers stay taken until no flow uses them ([`Director::unused`]).

mod addresses;
mod admit;
mod allocator;
mod apply;
mod batch;
mod calls;
pub mod effects;
mod entries;
mod hops;
mod ids;
mod locals;
mod marks;
mod names;
pub mod origins;
mod orphans;
mod peers;
mod pools;
mod reach;
mod record;
mod running;
mod servers_by_address;
mod sizes;
mod slots;
mod snapshot;
#[cfg(test)]
mod tests;
mod write;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;
use std::time::Instant;

use shunt_datapath::entry::{self, Settings};
use shunt_model::event::Fact;
use shunt_model::next_hop::NextHop;
use shunt_model::{Server, ServerAddress, ServiceKey};

use crate::network::routes::Gateway;
use crate::network::{self, Network, attach};
use crate::table::Table;
use ids::{Ids, ServerSlot, ServiceSlot};
use pools::Pools;

pub use batch::records;
pub use hops::Remembered;
pub use names::Names;
pub use record::{Recollection, Record};
pub use running::Running;
pub use sizes::Sizes;
pub(crate) use slots::translates;
pub use slots::{NatKey, Nobodys};
pub use snapshot::{Snapshot, Step};
pub use write::Write;

/// What the caller must do.
#[derive(Clone, Debug, PartialEq)]
pub enum Output {
    /// Make this write, after all earlier ones.
    Write(Write),
    /// Make the kernel resolve this neighbour.
    Probe {
        /// The kernel's index of the link.
        interface: u32,
        /// The neighbour's address on that link.
        neighbour: IpAddr,
    },
    /// Attach programs to the devices again ([`Director::devices`]).
    Devices,
    /// Recompile the pool of this service ([`Director::renew`]).
    Pool(ServiceKey),
    /// Write this to the journal. It comes before the writes that it belongs to.
    Remember(Step),
    /// What happened, for people and programs.
    Event(Fact),
}

/// The packet path's clock: the length of a tick in nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Clock {
    /// The least power of two of jiffies that lasts a second or more.
    pub tick_ns: u64,
}

impl Clock {
    /// The ticks that last at least `seconds`, saturating.
    #[must_use]
    pub fn ticks(self, seconds: u32) -> u32 {
        let ns = u64::from(seconds) * 1_000_000_000;
        u32::try_from(ns.div_ceil(self.tick_ns.max(1))).unwrap_or(u32::MAX)
    }
}

/// The composed machine.
#[derive(Clone, Debug)]
pub struct Director {
    table: Table,
    network: Network,
    ids: Ids,
    pools: Pools,
    hops: hops::Hops,
    by_address: servers_by_address::ServersByAddress,
    calls: calls::Calls,
    clock: Clock,
    /// The server entries in the packet path, so that only differences are written.
    written: BTreeMap<u32, entry::Server>,
    /// All endpoints in the packet path.
    placed: admit::Placed,
    /// The endpoints of marks in the packet path.
    marked: BTreeMap<(IpAddr, u32), u32>,
    /// Endpoints in `marked` whose rule was deleted, with the number of consecutive scans of the
    /// flows that found no connection there.
    orphans: BTreeMap<orphans::At, u8>,
    /// There are or were orphans since the start, so each journal record lists all of them.
    records_orphans: bool,
    /// Deleted services that hide a service of every port, with the number of consecutive scans
    /// that found them so.
    hiding: BTreeMap<ServiceKey, u8>,
    /// Ids of masqueraded servers on the director itself, deleted ones included.
    here: BTreeSet<u32>,
    /// Mark endpoints that also match the source network or the device.
    origins: origins::Origins,
    /// The thresholds and the weight of each server in the packet path.
    standings: BTreeMap<u32, apply::Standing>,
    /// Servers without a known next hop.
    unreached: reach::Unreached,
    /// Services whose pools must be recompiled, and services for whose pools there was no room.
    stale: BTreeSet<ServiceKey>,
    crowded: BTreeSet<ServiceKey>,
    settings: Option<Settings>,
    fullness: effects::Fullness,
    /// The defences of the last event about them.
    defences: effects::Defences,
    /// The peers in the packet path, by service, and the services whose peers must be computed
    /// again.
    peers: BTreeMap<u32, BTreeMap<entry::PeerKey, [u64; 2]>>,
    mixed: BTreeSet<ServiceKey>,
    outputs: VecDeque<Output>,
    local: BTreeSet<IpAddr>,
    /// When the last network event came in.
    seen: Instant,
}

impl Director {
    /// A director that begins with this table and writes its settings first.
    #[must_use]
    pub fn new(table: Table, sizes: Sizes, clock: Clock, now: Instant) -> Self {
        let mut director = Self::silent(table, sizes, clock, now);
        director.settle();
        director
    }

    /// A director that has written nothing yet, not even the settings.
    fn silent(table: Table, sizes: Sizes, clock: Clock, now: Instant) -> Self {
        Self {
            table,
            network: Network::new(now),
            ids: Ids::new(sizes),
            pools: Pools::new(sizes.pool_words),
            hops: hops::Hops::default(),
            by_address: servers_by_address::ServersByAddress::default(),
            calls: calls::Calls::default(),
            clock,
            written: BTreeMap::new(),
            placed: admit::Placed::default(),
            marked: BTreeMap::new(),
            orphans: BTreeMap::new(),
            records_orphans: false,
            hiding: BTreeMap::new(),
            here: BTreeSet::new(),
            origins: origins::Origins::new(),
            standings: BTreeMap::new(),
            unreached: reach::Unreached::default(),
            stale: BTreeSet::new(),
            crowded: BTreeSet::new(),
            settings: None,
            fullness: effects::Fullness::default(),
            defences: effects::Defences::default(),
            peers: BTreeMap::new(),
            mixed: BTreeSet::new(),
            outputs: VecDeque::new(),
            local: BTreeSet::new(),
            seen: now,
        }
    }

    /// The operator's table, as all changes so far have made it.
    #[must_use]
    pub fn table(&self) -> &Table {
        &self.table
    }

    /// The network, as the events so far describe it.
    #[must_use]
    pub fn network(&self) -> &Network {
        &self.network
    }

    /// Each device with the hooks to attach its program to.
    pub fn devices(
        &self,
        setting: impl Fn(&network::Link) -> attach::Setting,
    ) -> Vec<(network::Link, attach::Choice)> {
        let choose = |link: &network::Link| {
            let choice = attach::choose(link, setting(link));
            (link.clone(), choice)
        };
        self.network.links().map(choose).collect()
    }

    /// Takes in a network event.
    pub fn network_event(&mut self, input: network::Input, now: Instant) {
        self.seen = now;
        self.network.handle(input, now);
    }

    /// When to call [`Director::network_event`] with a tick at the latest.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        let deadlines = [self.network.deadline(), self.hops_deadline()];
        deadlines.into_iter().flatten().min()
    }

    /// What the caller must do; call it until it returns `None`.
    pub fn poll(&mut self) -> Option<Output> {
        if let Some(output) = self.outputs.pop_front() {
            return Some(output);
        }
        while let Some(output) = self.network.poll() {
            match output {
                network::Output::Probe {
                    interface,
                    neighbour,
                } => {
                    return Some(Output::Probe {
                        interface,
                        neighbour,
                    });
                }
                network::Output::Changed { target } => self.reroute(target),
                network::Output::RulesChanged => self.renew_rules(),
                network::Output::RoutesChanged { networks } => self.renew_networks(networks),
                network::Output::WaysChanged => {
                    self.renew_hops();
                    self.renew_clients();
                }
                network::Output::NeighbourChanged {
                    interface,
                    neighbour,
                } => self.neighbour_changed(interface, neighbour),
                network::Output::AddressesChanged => self.addresses_changed(),
                network::Output::LinksChanged => {
                    self.outputs.push_back(Output::Devices);
                    if self.minds_devices() {
                        self.renew_marks();
                    }
                }
            }
            if let Some(output) = self.outputs.pop_front() {
                return Some(output);
            }
        }
        if self.rest_hops()
            && let Some(output) = self.outputs.pop_front()
        {
            return Some(output);
        }
        while let Some(key) = self.mixed.pop_first() {
            self.renew_peers(&key);
            if let Some(output) = self.outputs.pop_front() {
                return Some(output);
            }
        }
        // Pools come last, so that a pool is compiled once for many changed servers.
        self.stale.pop_first().map(Output::Pool)
    }

    fn write(&mut self, write: Write) {
        self.placed.follow(&write);
        self.outputs.push_back(Output::Write(write));
    }

    /// Writes the settings if they differ from those in the packet path.
    fn settle(&mut self) {
        self.note_defences();
        let settings = self.settings();
        if self.settings != Some(settings) {
            if self.looks_at_what_leaves() != entries::looks_at_what_leaves(&settings) {
                self.outputs.push_back(Output::Devices);
            }
            self.settings = Some(settings);
            self.write(Write::Settings(settings));
        }
    }

    /// Whether programs must also see the frames that leave devices.
    #[must_use]
    pub fn looks_at_what_leaves(&self) -> bool {
        self.settings
            .as_ref()
            .is_some_and(entries::looks_at_what_leaves)
    }

    /// The settings that the packet path must have.
    #[must_use]
    pub fn settings(&self) -> Settings {
        let defences = self.defences();
        let mut settings = entries::settings(&self.table, self.clock, &self.ids, defences);
        settings.wide |= origins::lookups(&self.origins);
        if self.calls.are_begun() {
            settings.masquerades |= entry::nat::CALLS;
        }
        if !self.here.is_empty() {
            settings.masquerades |= entry::nat::HERE;
        }
        settings
    }

    /// Rewrites the servers at this address.
    fn reroute(&mut self, target: IpAddr) {
        for (key, server) in self.servers_at(target) {
            self.write_server(&key, &server);
        }
    }

    fn neighbour_changed(&mut self, interface: u32, address: IpAddr) {
        self.renew_hop(Gateway { interface, address });
        self.renew_client(address);
    }

    fn addresses_changed(&mut self) {
        let local = self.network.addresses();
        let different: Vec<IpAddr> = local.symmetric_difference(&self.local).copied().collect();
        self.local = local;
        for address in different {
            self.reroute(address);
        }
        self.outputs.push_back(Output::Devices);
    }

    /// Takes in a scan of the connection table: the services and servers that some flow uses. Frees
    /// ids of deleted ones that no flow uses.
    pub fn unused(&mut self, used_services: &BTreeSet<u32>, used_servers: &BTreeSet<u32>) {
        self.uncover();
        self.forget_orphans(used_services);
        let freed = self.ids.release(used_services, used_servers);
        if freed.is_empty() {
            return;
        }
        for id in &freed.servers {
            self.written.remove(id);
            self.standings.remove(id);
            self.here.remove(id);
        }
        for (address, word) in &freed.endpoints {
            let (address, word) = (*address, *word);
            if !self.marked.contains_key(&(address, word)) {
                self.write(Write::EndpointRemove { address, word });
            }
        }
        let is_mark = |key: &ServiceKey| matches!(key, ServiceKey::Mark { .. });
        if freed.services.iter().any(is_mark) {
            self.renew_marks();
        }
        self.settle();
        let step = self.freed_ids(&freed);
        self.outputs.push_back(Output::Remember(step));
    }

    /// Whether [`Director::short_lists`] has anything to do.
    #[must_use]
    pub fn has_short_lists(&self) -> bool {
        self.pools.have_short_lists()
    }

    /// Whether the servers of this service are compared by a short list.
    #[must_use]
    pub fn is_short(&self, key: &ServiceKey) -> bool {
        let slot = self.ids.services.get(key);
        slot.is_some_and(|slot| self.pools.word(slot.ids.id).is_short())
    }

    /// The short lists of large pools, stamped with this tick. Call it every few milliseconds.
    #[must_use]
    pub fn short_lists(&self, running: &dyn Running, tick: u32) -> Vec<Write> {
        let lists = self.pools.short_lists(running, tick).into_iter();
        lists
            .map(|(base, words)| Write::Pool { base, words })
            .collect()
    }

    /// Frees the pool words that were abandoned before the last call. Pools without room are tried
    /// again.
    pub fn pools_settled(&mut self) {
        self.pools.settle();
        self.stale.append(&mut self.crowded);
    }

    /// All ids of a server, the current one first, to sum its counters.
    #[must_use]
    pub fn server_ids(&self, key: &ServiceKey, at: ServerAddress) -> Vec<u32> {
        let slot = self
            .ids
            .services
            .get(key)
            .and_then(|slot| slot.servers.get(&at));
        slot.map(|slot| slot.all().collect()).unwrap_or_default()
    }

    /// The ids of all servers of a service, deleted ones included.
    #[must_use]
    pub fn server_ids_of(&self, key: &ServiceKey) -> Vec<u32> {
        let slot = self.ids.services.get(key).into_iter();
        let servers = slot.flat_map(|slot| slot.servers.values());
        servers.flat_map(ServerSlot::all).collect()
    }

    /// One more than the greatest server id in use.
    #[must_use]
    pub fn server_ids_end(&self) -> u32 {
        self.ids.servers_end()
    }

    /// How a server is reached, as text for an operator.
    #[must_use]
    pub fn next_hop(&self, server: &Server) -> NextHop {
        entries::next_hop(&self.network, &self.local, server)
    }
}

impl ServiceSlot {
    /// The servers in the kernel's order, for the pool compiler.
    fn members(&self, entry: &crate::table::Entry) -> Vec<crate::pool::Member> {
        let member = |server: &Server| {
            let slot: &ServerSlot = self.servers.get(&server.at)?;
            Some(crate::pool::Member {
                id: slot.id,
                at: server.at,
                weight: server.weight,
                last_weight: slot.last_weight,
                limited: server.upper_threshold != 0,
            })
        };
        entry.servers.iter().filter_map(member).collect()
    }
}
