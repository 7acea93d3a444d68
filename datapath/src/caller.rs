//! Processes on the director itself that connect to a virtual address.
//!
//! Their packets pass no device's hook, so the server is chosen when the process calls connect(2)
//! or sendmsg(2). From then on the process talks to the server directly, whatever the forwarding
//! method, and needs no entry. To schedulers and templates all such processes are one client, the
//! loopback address.

use crate::schedule::Client;
use crate::steps::Choices;
use crate::table::entry::{NONE, Server, endpoint_word, kind, method, server_flag, service_flag};
use crate::table::family::Family;
use crate::table::lookup;
use crate::verdict::Note;

/// The address and port (wire order) of the server that a process reaches in place of this target.
/// `None` if the target stays as it is.
#[inline(always)]
pub fn server<F: Family, T: Choices>(
    tables: &T,
    protocol: u8,
    target: F::Address,
    port: u16,
) -> Option<(F::Address, u16)> {
    let settings = tables.settings()?;
    let word = endpoint_word(port, protocol, kind::SERVICE);
    let endpoint = lookup::endpoint::<F, T>(tables, settings, target, word);
    if endpoint == NONE {
        return None;
    }
    let id = choose::<F, T>(tables, lookup::service_of(tables, endpoint), target);
    let (address, own) = place::<F>(tables.server(id)?)?;
    tables.count(Note::CallerServed.counter());
    // A server without a port of its own gets the port that the process asked for.
    Some((address, if own == 0 { port } else { own }))
}

#[inline(always)]
fn choose<F: Family, T: Choices>(tables: &T, service: u32, target: F::Address) -> u32 {
    let Some(entry) = tables.service(service) else {
        return NONE;
    };
    if entry.flags & service_flag::PRESENT == 0 {
        return NONE;
    }
    let loopback = F::loopback();
    if entry.persistence != 0 {
        let known = tables.recall::<F>(service, loopback, NONE);
        if known != NONE {
            return known;
        }
    }
    let client = Client {
        address: F::folded(loopback),
        port: 0,
        target: F::words(target),
    };
    let id = tables.schedule(service, client);
    if id != NONE && entry.persistence != 0 {
        return tables.recall::<F>(service, loopback, id);
    }
    id
}

/// The address and port of a server. `None` if the server is not in its pool. `None` for local,
/// since the director receives packets for the virtual address itself. `None` for the other address
/// family, which the process's socket cannot reach.
#[inline(always)]
fn place<F: Family>(server: &Server) -> Option<(F::Address, u16)> {
    let is_v6 = server.flags & server_flag::IPV6 != 0;
    if !server.is_present() || server.method == method::LOCAL || is_v6 != F::V6 {
        return None;
    }
    Some((F::from_words(server.address), server.port))
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;
    use crate::host::{HostTables, NewServer, Sizes};
    use crate::table::entry::{scheduler, server_flag};
    use crate::table::family::{V4, V6};
    use crate::wire::packet::{TCP, UDP};

    fn address(text: &str) -> [u64; 2] {
        match text.parse().unwrap() {
            IpAddr::V4(address) => [u64::from(u32::from_ne_bytes(address.octets())), 0],
            IpAddr::V6(address) => {
                let bytes = address.octets();
                let word = |half: &[u8]| u64::from_ne_bytes(half.try_into().unwrap());
                [word(&bytes[..8]), word(&bytes[8..])]
            }
        }
    }

    /// A service on port 80 of each family, each with two servers that are picked in turn.
    fn tables(method: u8) -> HostTables {
        let mut tables = HostTables::new(Sizes::default());
        for (vip, servers) in [
            ("192.0.2.1", ["10.1.0.1", "10.1.0.2"]),
            ("2001:db8::1", ["2001:db8:1::1", "2001:db8:1::2"]),
        ] {
            let service = tables.add_service(vip.parse().unwrap(), 80, TCP, 0);
            let servers = servers.map(|server| {
                let server = NewServer {
                    method,
                    address: server.parse().unwrap(),
                    port: 8080,
                    ..NewServer::default()
                };
                (tables.add_server(service, &server), 1)
            });
            tables.set_pool(service, scheduler::RING, &servers);
        }
        tables
    }

    fn asked4(tables: &HostTables, protocol: u8, port: u16) -> Option<(u32, u16)> {
        let target = address("192.0.2.1")[0] as u32;
        let found = server::<V4, _>(&tables, protocol, target, port.to_be());
        found.map(|(address, port)| (address, u16::from_be(port)))
    }

    fn four(text: &str) -> u32 {
        address(text)[0] as u32
    }

    #[test]
    fn a_process_gets_the_servers_in_turn_by_any_method() {
        for method in [
            method::MASQUERADE,
            method::ROUTE,
            method::TUNNEL,
            method::GUE,
            method::HERE,
        ] {
            let tables = tables(method);
            assert_eq!(asked4(&tables, TCP, 80), Some((four("10.1.0.1"), 8080)));
            assert_eq!(asked4(&tables, TCP, 80), Some((four("10.1.0.2"), 8080)));
            let target = address("2001:db8::1");
            let found = server::<V6, _>(&&tables, TCP, target, 80u16.to_be());
            let wanted = (address("2001:db8:1::1"), 8080u16.to_be());
            assert_eq!(found, Some(wanted));
        }
    }

    #[test]
    fn what_is_no_service_is_asked_itself() {
        let mut tables = tables(method::ROUTE);
        assert_eq!(asked4(&tables, TCP, 81), None);
        assert_eq!(asked4(&tables, UDP, 80), None);
        tables.services[1].flags &= !service_flag::PRESENT;
        assert_eq!(asked4(&tables, TCP, 80), None);
    }

    #[test]
    fn the_director_itself_and_the_other_family_are_not_redirected_to() {
        let mut tables = tables(method::ROUTE);
        tables.servers[1].method = method::LOCAL;
        tables.servers[2].flags |= server_flag::IPV6;
        assert_eq!(asked4(&tables, TCP, 80), None);
        assert_eq!(asked4(&tables, TCP, 80), None);
    }

    #[test]
    fn all_processes_are_one_client_of_a_persistent_service() {
        let mut tables = tables(method::ROUTE);
        tables.services[1].template = 40;
        tables.services[1].persistence = 300;
        tables.services[1].granularity = [u64::MAX, u64::MAX];
        let first = asked4(&tables, TCP, 80);
        assert_eq!(first, Some((four("10.1.0.1"), 8080)));
        assert_eq!(asked4(&tables, TCP, 80), first);
    }
}
