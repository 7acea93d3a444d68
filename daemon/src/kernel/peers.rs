//! The MAC addresses of servers that may be directors and forward frames to this one.

use aya::Pod;
use aya::maps::{HashMap, Map, MapData, MapError};
use shunt_datapath::entry::PeerKey;

#[repr(transparent)]
#[derive(Clone, Copy, Debug)]
struct Key(PeerKey);
// SAFETY: the type is `repr(C)` and consists of integers without implicit padding.
unsafe impl Pod for Key {}

#[derive(Debug)]
pub(super) struct Peers(HashMap<MapData, Key, [u64; 2]>);

/// Why the peers cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the map PEERS")]
    Map(#[source] MapError),
    #[error("cannot write a peer")]
    Write(#[source] MapError),
}

impl Peers {
    pub(super) fn of(map: MapData) -> Result<Self, Error> {
        let map = HashMap::try_from(Map::HashMap(map)).map_err(Error::Map)?;
        Ok(Self(map))
    }

    /// Sets the address of a peer, or removes the peer.
    pub(super) fn set(&mut self, key: PeerKey, address: Option<[u64; 2]>) -> Result<(), Error> {
        let set = match address {
            Some(address) => self.0.insert(Key(key), address, 0),
            None => match self.0.remove(&Key(key)) {
                // The entry went with an earlier packet path.
                Err(MapError::KeyNotFound) => Ok(()),
                other => other,
            },
        };
        set.map_err(Error::Write)
    }
}
