//! The packet path's tables: this module carries out the director's writes and reads counters.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use aya::Pod;
use aya::maps::{Map, MapData, MapError, PerCpuArray, PerCpuValues};
use shunt_control::director::{Nobodys, Write};
use shunt_datapath::entry::{self, PoolWord};
use shunt_datapath::region;
use shunt_datapath::translation::Local;
use shunt_datapath::verdict::{Class, NAMES};
use shunt_model::Counters;
use shunt_model::api::Statistics;

use super::batch;
use super::calls::Calls;
use super::endpoints::{self, Endpoints};
use super::made::Made;
use super::mapping::{self, Mapping, SettingsWords};
use super::peers::{self, Peers};
use super::pinned::map;
use super::place::Place;
use super::routes::{self, Origins, Routes};
pub use super::shared::Shared;
use super::traffic;
use super::translations::Translations;

/// [`entry::Traffic`] as a map's value.
#[repr(transparent)]
#[derive(Clone, Copy)]
struct TrafficValue(entry::Traffic);
// SAFETY: integers only, no padding.
unsafe impl Pod for TrafficValue {}

/// What kept a caller from handing out a map.
type Cause = Box<dyn std::error::Error + Send + Sync>;

/// Why the tables cannot be opened or written.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the text of each variant describes it")]
pub enum Error {
    #[error("cannot get the map {name}")]
    Open { name: String, source: Cause },
    #[error("the map {name}")]
    Map {
        name: &'static str,
        source: MapError,
    },
    #[error(transparent)]
    Mapping(#[from] mapping::Error),
    #[error(transparent)]
    Held(#[from] batch::Error),
    #[error(transparent)]
    Traffic(#[from] traffic::Error),
    #[error(transparent)]
    Routes(#[from] routes::Error),
    #[error(transparent)]
    Peers(#[from] peers::Error),
    #[error(transparent)]
    Endpoints(#[from] endpoints::Full),
    #[error("the packet path has no place for {0}")]
    NoPlace(String),
    #[error("cannot tell how many CPUs there are from {0}")]
    Cpus(&'static str, #[source] io::Error),
    #[error("cannot make zeros")]
    Zeros(#[source] io::Error),
    #[error("cannot zero counters")]
    Zero(#[source] MapError),
}

fn of(name: &'static str) -> impl Fn(MapError) -> Error {
    move |source| Error::Map { name, source }
}

/// All tables.
pub struct Tables {
    /// The tables that other threads read too.
    pub shared: Arc<Shared>,
    endpoints: Endpoints,
    pub(super) pools: Mapping,
    pub(super) standings: Mapping,
    settings: Mapping,
    hops: Mapping,
    locals: Mapping,
    answerers: Mapping,
    routes: Routes,
    origins: Origins,
    peers: Peers,
    traffic: PerCpuArray<MapData, TrafficValue>,
    outcomes: PerCpuArray<MapData, u64>,
}

impl Tables {
    /// Opens the tables of a pinned packet path.
    pub fn open(place: &Place, made: Made) -> Result<Self, Error> {
        Self::of(made, |name| map(place, name))
    }

    /// Opens the tables of a loaded packet path. `map` returns each map once.
    pub fn of<E: Into<Cause>>(
        made: Made,
        map: impl Fn(&str) -> Result<MapData, E>,
    ) -> Result<Self, Error> {
        let map = |name: &str| {
            map(name).map_err(|cause| Error::Open {
                name: name.to_owned(),
                source: cause.into(),
            })
        };
        let mapped = |name: &str, stride: usize| -> Result<Mapping, Error> {
            Ok(Mapping::new(&map(name)?, stride)?)
        };
        let per_cpu = |name: &str| -> Result<Map, Error> { Ok(Map::PerCpuArray(map(name)?)) };
        let counted = map("TRAFFIC")?;
        let traffic = traffic::hold(&counted)?;
        let seed = made.seed;
        Ok(Self {
            shared: Arc::new(Shared {
                made,
                wides: mapped("WIDE_SERVICES", 1)?,
                services: mapped("SERVICES", size_of::<entry::Service>() / 8)?,
                servers: mapped("SERVERS", size_of::<entry::Server>() / 8)?,
                counts: mapped("COUNTS", 1)?,
                flows4: mapped("FLOWS4", 8)?,
                flows6: mapped("FLOWS6", 8)?,
                occupied4: mapped("OCCUPIED4", 1)?,
                occupied6: mapped("OCCUPIED6", 1)?,
                occupied: mapped("OCCUPIED", 1)?,
                traffic,
                translations: Translations::hold(&map("TRANSLATIONS")?)?,
                calls: Calls::hold(&map("CALLS")?)?,
            }),
            endpoints: Endpoints::of(mapped("ENDPOINTS4", 8)?, mapped("ENDPOINTS6", 8)?, seed),
            pools: mapped("POOLS", 1)?,
            standings: mapped("STANDINGS", entry::standing::WORDS)?,
            settings: mapped("SETTINGS", size_of::<entry::Settings>() / 8)?,
            hops: mapped("HOPS_TO_CLIENTS", 3)?,
            locals: mapped("LOCALS", size_of::<Local>() / 8)?,
            answerers: mapped("ANSWERERS", 1)?,
            routes: Routes::of(map("ROUTES4")?, map("ROUTES6")?)?,
            origins: Origins::of(map("ORIGINS")?)?,
            peers: Peers::of(map("PEERS")?)?,
            traffic: PerCpuArray::try_from(Map::PerCpuArray(counted)).map_err(of("TRAFFIC"))?,
            outcomes: PerCpuArray::try_from(per_cpu("COUNTERS_OF_OUTCOMES")?)
                .map_err(of("COUNTERS_OF_OUTCOMES"))?,
        })
    }

    /// What is known of the maps.
    #[must_use]
    pub fn made(&self) -> &Made {
        &self.shared.made
    }

    /// Marks every region as one that may have entries, because another packet path entered some.
    pub fn occupy_all(&self) {
        let shared = &self.shared;
        for mapping in [&shared.occupied4, &shared.occupied6, &shared.occupied] {
            for at in 0..mapping.len() as u32 {
                store(mapping, at, region::ENTERED);
            }
        }
    }

    /// The ids of services and servers in the tables.
    #[must_use]
    pub fn ids(&self) -> Nobodys {
        let is_there = |mapping: &Mapping, id: usize| {
            let words = mapping.value(id).unwrap_or_default();
            words.iter().any(|word| word.load(Ordering::Relaxed) != 0)
        };
        let of = |mapping: &Mapping| {
            let ids = (1..mapping.len()).filter(|id| is_there(mapping, *id));
            ids.map(|id| id as u32).collect()
        };
        Nobodys {
            services: of(&self.shared.services),
            servers: of(&self.shared.servers),
            endpoints: self.endpoints.ids(),
        }
    }

    /// All endpoints in the packet path.
    #[must_use]
    pub fn endpoints(&self) -> Vec<(IpAddr, u32)> {
        self.endpoints.all()
    }

    /// The settings that are in force.
    #[must_use]
    pub fn settings(&self) -> entry::Settings {
        let SettingsWords(settings) = self.settings.read(0).unwrap_or_default();
        settings
    }

    /// The pool that a service uses at present.
    #[must_use]
    pub fn pool_of(&self, service: u32) -> PoolWord {
        let entry: entry::Service = self
            .shared
            .services
            .read(service as usize)
            .unwrap_or_default();
        PoolWord(entry.pool)
    }

    /// Carries out one write.
    pub fn write(&mut self, write: &Write) -> Result<(), Error> {
        let done = match write {
            Write::Server { id, entry } => self.shared.servers.write(*id as usize, *entry),
            Write::Standing {
                id,
                bounds,
                weight,
                anew,
            } => self.stand(*id, *bounds, *weight, *anew),
            Write::Way { id, ways } => match self.shared.server(*id) {
                Some(entry) => self.shared.servers.write(
                    *id as usize,
                    entry::Server {
                        ways: *ways,
                        ..entry
                    },
                ),
                None => false,
            },
            Write::Service { id, entry } => self.shared.services.write(*id as usize, *entry),
            Write::Pool { base, words } => {
                let mut words = words.iter().zip(*base..);
                words.all(|(word, at)| store(&self.pools, at, *word))
            }
            Write::Wide { number, service } => {
                store(&self.shared.wides, *number, u64::from(*service))
            }
            Write::Switch { service, pool } => store(&self.shared.services, *service, *pool),
            Write::EndpointAdd { address, word, id } => {
                self.endpoints.add(*address, *word, *id)?;
                true
            }
            Write::EndpointRemove { address, word } => {
                self.endpoints.remove(*address, *word);
                true
            }
            Write::Hop { number, ways } => self
                .hops
                .write(*number as usize, entry::Hop { ways: *ways }),
            Write::Routes(routes) => {
                self.routes.set_all(routes)?;
                true
            }
            Write::Route { prefix, number } => {
                self.routes.set(*prefix, *number)?;
                true
            }
            Write::Origins(origins) => {
                self.origins.set_all(origins)?;
                true
            }
            Write::Peer { key, address } => {
                self.peers.set(*key, *address)?;
                true
            }
            Write::Answerer { endpoint, server } => {
                store(&self.answerers, *endpoint, u64::from(*server))
            }
            Write::Local { place, local } => self.locals.write(*place as usize, *local),
            Write::Settings(settings) => self.settings.write(0, SettingsWords(*settings)),
            Write::Forget { server } => {
                self.forget(*server)?;
                true
            }
        };
        if !done {
            return Err(Error::NoPlace(format!("{write:?}")));
        }
        Ok(())
    }

    /// Writes a server's standing; false if the table has no such server.
    fn stand(&self, id: u32, bounds: u64, weight: u32, anew: bool) -> bool {
        let Some([limits, overloaded, weights, _]) = self.standings.value(id as usize) else {
            return false;
        };
        limits.store(bounds, Ordering::Release);
        weights.store(u64::from(weight), Ordering::Release);
        if anew {
            overloaded.store(0, Ordering::Release);
        }
        true
    }

    /// Sets the counters of a server to zero.
    pub fn forget(&mut self, server: u32) -> Result<(), Error> {
        let cpus = aya::util::nr_cpus().map_err(|(what, error)| Error::Cpus(what, error))?;
        let zero = vec![TrafficValue(entry::Traffic::default()); cpus];
        let values = PerCpuValues::try_from(zero).map_err(Error::Zeros)?;
        self.traffic.set(server, values, 0).map_err(Error::Zero)
    }

    /// The counters of a server, over all CPUs.
    #[must_use]
    pub fn counters(&self, server: u32) -> Counters {
        let Ok(values) = self.traffic.get(&server, 0) else {
            return Counters::default();
        };
        let mut total = Counters::default();
        for TrafficValue(traffic) in values.iter() {
            total += Counters {
                connections: traffic.connections,
                in_packets: traffic.in_packets,
                out_packets: traffic.out_packets,
                in_bytes: traffic.in_bytes,
                out_bytes: traffic.out_bytes,
            };
        }
        total
    }

    /// The live counts of a server.
    #[must_use]
    pub fn live(&self, server: u32) -> (u32, u32) {
        match self.shared.counts.value(server as usize) {
            Some([word, ..]) => {
                let word = word.load(Ordering::Relaxed);
                (entry::counts::active(word), entry::counts::inactive(word))
            }
            _ => (0, 0),
        }
    }

    /// The counter of every outcome, by name.
    #[must_use]
    pub fn statistics(&self) -> Statistics {
        let mut statistics = Statistics::default();
        for ((class, name), at) in NAMES.iter().zip(0u32..) {
            let total = match self.outcomes.get(&at, 0) {
                Ok(values) => values.iter().sum(),
                Err(_) => 0,
            };
            let map = match class {
                Class::Verdict => &mut statistics.verdicts,
                Class::Drop => &mut statistics.drops,
                Class::Note => &mut statistics.notes,
            };
            map.insert((*name).to_owned(), total);
        }
        statistics
    }

    /// The counter of one note, by name.
    #[must_use]
    pub fn note(&self, name: &str) -> u64 {
        let at = NAMES.iter().position(|known| *known == (Class::Note, name));
        let values = at.and_then(|at| self.outcomes.get(&(at as u32), 0).ok());
        values.map_or(0, |values| values.iter().sum())
    }
}

/// Stores the first word of an entry atomically. False if there is no such entry.
fn store(mapping: &Mapping, at: u32, value: u64) -> bool {
    match mapping.value(at as usize) {
        Some([word, ..]) => {
            word.store(value, Ordering::Release);
            true
        }
        _ => false,
    }
}
