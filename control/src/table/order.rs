//! The order in which IPVS lists its services: by hash bucket, within a bucket the newest first.
//!
//! Scripts compare listings made with `--nosort`, so the order is kept though nothing here hashes.

use std::cmp::Reverse;
use std::net::IpAddr;

use shunt_model::ServiceKey;

/// Where a service stands in the listing. Services by mark stand after all services by address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    by_mark: bool,
    bucket: u8,
    newest_first: Reverse<u64>,
}

impl Place {
    /// How many services were added before.
    pub(super) fn number(self) -> u64 {
        self.newest_first.0
    }

    /// `number` counts the services in the order in which they were added.
    pub(super) fn new(key: &ServiceKey, number: u64, namespace: u8) -> Self {
        Self {
            by_mark: matches!(key, ServiceKey::Mark { .. }),
            bucket: bucket(key) ^ namespace,
            newest_first: Reverse(number),
        }
    }
}

/// What the kernel mixes in is a part of the address of the network namespace's structure, which
/// lies on a page of its own; so the order differs from boot to boot. This is a frequent one.
pub(super) const NAMESPACE: u8 = 0x70;

/// `ip_vs_svc_hashkey` and `ip_vs_svc_fwm_hashkey` of `ip_vs_ctl.c`: 256 buckets.
fn bucket(key: &ServiceKey) -> u8 {
    let hash = match *key {
        ServiceKey::Address {
            protocol,
            address,
            port,
        } => {
            let port = u32::from(port);
            u32::from(protocol.number()) ^ fold(address) ^ (port >> 8) ^ port
        }
        ServiceKey::Mark { mark, .. } => mark.get(),
    };
    hash.to_le_bytes()[0]
}

fn fold(address: IpAddr) -> u32 {
    match address {
        IpAddr::V4(address) => address.to_bits(),
        IpAddr::V6(address) => {
            let bits = address.to_bits();
            ((bits >> 96) ^ (bits >> 64) ^ (bits >> 32) ^ bits) as u32
        }
    }
}
