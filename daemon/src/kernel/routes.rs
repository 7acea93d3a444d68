//! The packet path's tries of networks and clients with prepared ways, and of mark endpoints.

use std::collections::BTreeMap;
use std::net::IpAddr;

use aya::Pod;
use aya::maps::lpm_trie::{Key, LpmTrie};
use aya::maps::{Map, MapData, MapError};
use shunt_control::network::routes::Prefix;
use shunt_datapath::entry::OriginKey;

/// Why a table of clients' networks cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the map {name}")]
    Map {
        name: &'static str,
        source: MapError,
    },
    #[error("cannot write the routes to IPv4 clients")]
    Routes4(#[source] MapError),
    #[error("cannot write the routes to IPv6 clients")]
    Routes6(#[source] MapError),
    #[error("cannot write the route to the client {prefix}")]
    Route { prefix: Prefix, source: MapError },
    #[error("cannot write who may ask for marked packets")]
    Origins(#[source] MapError),
}

fn of(name: &'static str) -> impl Fn(MapError) -> Error {
    move |source| Error::Map { name, source }
}

/// The tries of prepared ways of both families.
pub(super) struct Routes {
    v4: LpmTrie<MapData, [u8; 4], u32>,
    v6: LpmTrie<MapData, [u8; 16], u32>,
}

impl Routes {
    pub(super) fn of(v4: MapData, v6: MapData) -> Result<Self, Error> {
        Ok(Self {
            v4: LpmTrie::try_from(Map::LpmTrie(v4)).map_err(of("ROUTES4"))?,
            v6: LpmTrie::try_from(Map::LpmTrie(v6)).map_err(of("ROUTES6"))?,
        })
    }

    /// Replaces all networks of clients. An unchanged network is never missing meanwhile.
    pub(super) fn set_all(&mut self, routes: &[(Prefix, u32)]) -> Result<(), Error> {
        let mut wanted4 = BTreeMap::new();
        let mut wanted6 = BTreeMap::new();
        for (prefix, hop) in routes {
            let length = u32::from(prefix.length());
            match prefix.address() {
                IpAddr::V4(address) => wanted4.insert((length, address.octets()), *hop),
                IpAddr::V6(address) => wanted6.insert((length, address.octets()), *hop),
            };
        }
        replace(&mut self.v4, &wanted4).map_err(Error::Routes4)?;
        replace(&mut self.v6, &wanted6).map_err(Error::Routes6)
    }

    /// Sets the number of one network or client, or removes it.
    pub(super) fn set(&mut self, prefix: Prefix, number: Option<u32>) -> Result<(), Error> {
        let length = u32::from(prefix.length());
        let set = match prefix.address() {
            IpAddr::V4(address) => put(&mut self.v4, length, address.octets(), number),
            IpAddr::V6(address) => put(&mut self.v6, length, address.octets(), number),
        };
        set.map_err(|source| Error::Route { prefix, source })
    }
}

/// Mark endpoints that also match the source.
pub(super) struct Origins(LpmTrie<MapData, [u8; OriginKey::BYTES], u32>);

impl Origins {
    pub(super) fn of(map: MapData) -> Result<Self, Error> {
        let trie = LpmTrie::try_from(Map::LpmTrie(map)).map_err(of("ORIGINS"))?;
        Ok(Self(trie))
    }

    /// Replaces all entries. An unchanged entry is never missing meanwhile.
    pub(super) fn set_all(&mut self, origins: &[(OriginKey, u32, u32)]) -> Result<(), Error> {
        let mut wanted = BTreeMap::new();
        for (key, length, id) in origins {
            wanted.insert((*length, key.bytes()), *id);
        }
        replace(&mut self.0, &wanted).map_err(Error::Origins)
    }
}

/// Inserts one network into a trie, or removes it.
fn put<K: Pod>(
    trie: &mut LpmTrie<MapData, K, u32>,
    length: u32,
    address: K,
    number: Option<u32>,
) -> Result<(), MapError> {
    let key = Key::new(length, address);
    match number {
        Some(number) => trie.insert(&key, number, 0)?,
        None => match trie.remove(&key) {
            Err(MapError::KeyNotFound) => {}
            Err(MapError::SyscallError(error))
                if error.io_error.kind() == std::io::ErrorKind::NotFound => {}
            removed => removed?,
        },
    }
    Ok(())
}

/// Makes a trie hold the wanted entries. It writes added and changed entries first, then removes
/// the rest.
fn replace<K: Pod + Ord>(
    trie: &mut LpmTrie<MapData, K, u32>,
    wanted: &BTreeMap<(u32, K), u32>,
) -> Result<(), MapError> {
    let present = trie.iter().map(|entry| {
        let (key, hop) = entry?;
        Ok(((key.prefix_len(), key.data()), hop))
    });
    let present: BTreeMap<(u32, K), u32> = present.collect::<Result<_, MapError>>()?;
    for ((length, address), hop) in wanted {
        if present.get(&(*length, *address)) != Some(hop) {
            trie.insert(&Key::new(*length, *address), hop, 0)?;
        }
    }
    for (length, address) in present.into_keys() {
        if !wanted.contains_key(&(length, address)) {
            trie.remove(&Key::new(length, address))?;
        }
    }
    Ok(())
}
