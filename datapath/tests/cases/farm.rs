//! The tables that the cases begin with. Addresses are those of the manual.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::atomic::Ordering;

use shunt_datapath::entry::{Ways, counts, method, scheduler};
use shunt_datapath::host::{HostTables, NewServer, Sizes, mac};

use super::packet::{End, SCTP, UDP};

pub(crate) const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::new(198, 51, 100, 9));
pub(crate) const CLIENT6: IpAddr = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0xc, 0, 0, 0, 0, 9));
pub(crate) const VIRTUAL: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 10));
pub(crate) const VIRTUAL6: IpAddr = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x10));
pub(crate) const SERVER: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 1, 0, 7));
pub(crate) const SERVER6: IpAddr = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 7));
pub(crate) const DIRECTOR: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 1, 0, 1));
pub(crate) const DIRECTOR6: IpAddr = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 1));

/// Interfaces: frames come in by 1; 2 leads to servers, 3 to clients.
pub(crate) const TO_SERVER: u32 = 2;
pub(crate) const TO_CLIENT: u32 = 3;

/// The two families.
pub(crate) const FAMILIES: [bool; 2] = [false, true];

pub(crate) fn client(v6: bool) -> End {
    (if v6 { CLIENT6 } else { CLIENT }, 40_000)
}

pub(crate) fn virtual_end(v6: bool) -> End {
    (if v6 { VIRTUAL6 } else { VIRTUAL }, 80)
}

/// A masqueraded server has another port.
pub(crate) fn server_end(v6: bool) -> End {
    (if v6 { SERVER6 } else { SERVER }, 8080)
}

pub(crate) fn to_server() -> Ways {
    Ways::new(mac(7), mac(3), TO_SERVER, 1500)
}

pub(crate) fn to_client() -> Ways {
    Ways::new(mac(8), mac(4), TO_CLIENT, 1500)
}

/// A server of this method; `v6` is its own family.
pub(crate) fn server(method: u8, v6: bool) -> NewServer {
    NewServer {
        method,
        address: server_end(v6).0,
        port: if method == method::MASQUERADE {
            8080
        } else {
            80
        },
        outer_source: if v6 { DIRECTOR6 } else { DIRECTOR },
        ways: to_server(),
        ..NewServer::default()
    }
}

/// Service 1 with server 1 by rr; hop 5 leads to clients.
pub(crate) fn one(v6: bool, protocol: u8, server: &NewServer) -> HostTables {
    let mut tables = none(v6, protocol);
    let id = tables.add_server(1, server);
    tables.set_pool(1, scheduler::RING, &[(id, 1)]);
    tables
}

/// Service 1 without a server.
pub(crate) fn none(v6: bool, protocol: u8) -> HostTables {
    let mut tables = HostTables::new(Sizes::default());
    let (address, port) = virtual_end(v6);
    tables.add_service(address, port, protocol, 0);
    tables.add_route(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0, 5, to_client());
    tables.add_route(IpAddr::V6(Ipv6Addr::UNSPECIFIED), 0, 6, to_client());
    tables
}

/// ActiveConn and InActConn of a server.
pub(crate) fn live(tables: &HostTables, server: usize) -> (u32, u32) {
    let word = tables.counts[server].load(Ordering::SeqCst);
    (counts::active(word), counts::inactive(word))
}

pub(crate) fn protocol_name(protocol: u8) -> &'static str {
    match protocol {
        UDP => "UDP",
        SCTP => "SCTP",
        _ => "TCP",
    }
}

pub(crate) fn family_name(v6: bool) -> &'static str {
    if v6 { "IPv6" } else { "IPv4" }
}
