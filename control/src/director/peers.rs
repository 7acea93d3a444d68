//! Peers: other directors that are servers of a service beside this one. See
//! `datapath/src/peer.rs`.
//!
//! Which servers are directors is not configured, and need not be. If this director is a server of
//! the service, a frame from another server's MAC address with another source address was forwarded
//! by that server.

use std::collections::BTreeMap;

use shunt_datapath::entry::{self, PeerKey, method};
use shunt_model::ServiceKey;

use super::{Director, Write};

/// The room of the packet path. Peers beyond it are treated as clients.
const MOST: usize = 4096;

impl Director {
    /// Writes the peers of a service that changed, and whether it has any.
    pub(super) fn renew_peers(&mut self, key: &ServiceKey) {
        let Some(slot) = self.ids.services.get(key) else {
            return;
        };
        let service = slot.ids.id;
        let present = slot.servers.values().filter(|server| server.present);
        let entries: Vec<entry::Server> = present
            .filter_map(|server| self.written.get(&server.id).copied())
            .collect();
        let mut wanted = peers(service, &entries);
        let before = self.peers.remove(&service).unwrap_or_default();
        let others: usize = self.peers.values().map(BTreeMap::len).sum();
        while others + wanted.len() > MOST {
            wanted.pop_last();
        }
        for peer in before.keys().filter(|peer| !wanted.contains_key(peer)) {
            self.write(Write::Peer {
                key: *peer,
                address: None,
            });
        }
        for (peer, address) in &wanted {
            if before.get(peer) != Some(address) {
                self.write(Write::Peer {
                    key: *peer,
                    address: Some(*address),
                });
            }
        }
        let different = before.is_empty() != wanted.is_empty();
        if !wanted.is_empty() {
            self.peers.insert(service, wanted);
        }
        if different {
            self.write_service(key);
        }
    }

    /// Whether a service has peers.
    pub(super) fn has_peers(&self, service: u32) -> bool {
        self.peers.contains_key(&service)
    }
}

/// The MAC and IP addresses of a service's routed servers, if the director itself is one of its
/// servers.
fn peers(service: u32, entries: &[entry::Server]) -> BTreeMap<PeerKey, [u64; 2]> {
    let is_local = |entry: &entry::Server| entry.method == method::LOCAL;
    if !entries.iter().any(is_local) {
        return BTreeMap::new();
    }
    let routed = entries
        .iter()
        .filter(|entry| entry.method == method::ROUTE && entry.ways.is_usable());
    let peer = |entry: &entry::Server| {
        let key = PeerKey {
            mac: entry.ways.target & 0xffff_ffff_ffff,
            service,
            reserved: 0,
        };
        (key, entry.address)
    };
    routed.map(peer).collect()
}

#[cfg(test)]
mod tests {
    use shunt_datapath::entry::Ways;

    use super::*;

    fn server(method: u8, number: u8) -> entry::Server {
        entry::Server {
            method,
            address: [u64::from(number), 0],
            ways: Ways::new([2, 0, 0, 0, 0, number], [2, 0, 0, 0, 0, 99], 2, 1500),
            ..entry::Server::default()
        }
    }

    #[test]
    fn only_a_director_that_is_a_server_itself_has_peers() {
        let local = server(method::LOCAL, 1);
        let (routed, masqueraded) = (server(method::ROUTE, 2), server(method::MASQUERADE, 3));
        let unreached = entry::Server {
            ways: Ways::default(),
            ..server(method::ROUTE, 4)
        };

        assert!(peers(7, &[routed, masqueraded]).is_empty());
        let found = peers(7, &[local, routed, masqueraded, unreached]);
        let (key, address) = found.iter().next().expect("the routed one");
        assert_eq!(found.len(), 1);
        assert_eq!((key.service, *address), (7, [2, 0]));
        assert_eq!(key.mac.to_le_bytes(), [2, 0, 0, 0, 0, 2, 0, 0]);
    }
}
