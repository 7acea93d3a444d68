//! The order of a sorted listing.
//!
//! ipvsadm compares by 32-bit subtraction, so that marks and addresses in the upper half stand
//! before others or behind, depending on what they are compared with. That is no order in the
//! mathematical sense; to get the same listing, the sort must be the same too: glibc's merge sort.

use std::net::{IpAddr, Ipv4Addr};

use shunt_model::api::{ServerStatus, ServiceStatus};
use shunt_model::{Family, ServerAddress, ServiceKey};

pub(super) fn sort_services(services: Vec<ServiceStatus>) -> Vec<ServiceStatus> {
    merge_sort(services, &|a, b| {
        difference(
            &service_words(&a.service.key),
            &service_words(&b.service.key),
        )
    })
}

pub(super) fn sort_servers(servers: Vec<ServerStatus>) -> Vec<ServerStatus> {
    merge_sort(servers, &|a, b| server_difference(a.server.at, b.server.at))
}

/// By mark, family, protocol, address and port.
fn service_words(key: &ServiceKey) -> [u32; 8] {
    let (mark, protocol, address, port) = match *key {
        ServiceKey::Mark { mark, .. } => (mark.get(), 0, Ipv4Addr::UNSPECIFIED.into(), 0),
        ServiceKey::Address {
            protocol,
            address,
            port,
        } => (0, protocol.number().into(), address, port.into()),
    };
    let family = match key.family() {
        Family::Ipv4 => 0,
        Family::Ipv6 => 1,
    };
    let [a, b, c, d] = address_words(address);
    [mark, family, protocol, a, b, c, d, port]
}

/// By address and port. Of an IPv4 server, only the first word of another's address counts.
fn server_difference(a: ServerAddress, b: ServerAddress) -> i32 {
    let counted = match a.address {
        IpAddr::V4(_) => 1,
        IpAddr::V6(_) => 4,
    };
    let of_address = difference(
        &address_words(a.address)[..counted],
        &address_words(b.address)[..counted],
    );
    match of_address {
        0 => i32::from(a.port) - i32::from(b.port),
        of_address => of_address,
    }
}

/// The address as the kernel's union holds it.
fn address_words(address: IpAddr) -> [u32; 4] {
    match address {
        IpAddr::V4(address) => [address.to_bits(), 0, 0, 0],
        IpAddr::V6(address) => {
            let bits = address.to_bits();
            [96, 64, 32, 0].map(|shift| (bits >> shift) as u32)
        }
    }
}

/// The first difference, as a signed number.
fn difference(a: &[u32], b: &[u32]) -> i32 {
    let differences = a.iter().zip(b).map(|(a, b)| a.wrapping_sub(*b));
    let first = differences.into_iter().find(|&difference| difference != 0);
    first.unwrap_or(0).cast_signed()
}

/// Halves, sorts and merges as glibc's `qsort` does; of two equal ones the earlier stays first.
fn merge_sort<T>(mut left: Vec<T>, compare: &dyn Fn(&T, &T) -> i32) -> Vec<T> {
    if left.len() <= 1 {
        return left;
    }
    let right = left.split_off(left.len() / 2);
    let mut merged = Vec::with_capacity(left.len() + right.len());
    let mut left = merge_sort(left, compare).into_iter().peekable();
    let mut right = merge_sort(right, compare).into_iter().peekable();
    while let (Some(a), Some(b)) = (left.peek(), right.peek()) {
        let side = if compare(a, b) <= 0 {
            &mut left
        } else {
            &mut right
        };
        merged.extend(side.next());
    }
    merged.extend(left);
    merged.extend(right);
    merged
}
