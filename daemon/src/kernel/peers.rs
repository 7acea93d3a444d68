//! Where frames of other directors come from that are servers of a service.

use anyhow::{Context, Result};
use aya::Pod;
use aya::maps::{HashMap, Map, MapData, MapError};
use shunt_datapath::entry::PeerKey;

#[repr(transparent)]
#[derive(Clone, Copy, Debug)]
struct Key(PeerKey);
// SAFETY: `repr(C)`, of integers, without padding that is not spelled out.
unsafe impl Pod for Key {}

#[derive(Debug)]
pub struct Peers(HashMap<MapData, Key, [u64; 2]>);

impl Peers {
    pub fn of(map: MapData) -> Result<Self> {
        let map = HashMap::try_from(Map::HashMap(map)).context("the map PEERS")?;
        Ok(Self(map))
    }

    /// A peer with its address, or none any more.
    pub fn set(&mut self, key: PeerKey, address: Option<[u64; 2]>) -> Result<()> {
        let set = match address {
            Some(address) => self.0.insert(Key(key), address, 0),
            None => match self.0.remove(&Key(key)) {
                // It went with an earlier packet path.
                Err(MapError::KeyNotFound) => Ok(()),
                other => other,
            },
        };
        set.context("cannot write a peer")
    }
}
