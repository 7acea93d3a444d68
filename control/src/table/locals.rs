//! The local addresses of full NAT.

use std::net::IpAddr;

use shunt_model::api::{Reason, Refusal};
use shunt_model::{Family, LocalAddress};

use super::rules::{of_local_address, refuse};
use super::{Applied, Table};

/// The most local addresses of a family.
pub const MOST: usize = shunt_datapath::translation::LOCALS as usize;

impl Table {
    /// The local addresses, IPv4 before IPv6.
    pub fn locals(&self) -> impl Iterator<Item = LocalAddress> {
        let locals = self.locals.iter();
        locals.map(|(address, ports)| LocalAddress {
            address: *address,
            ports: *ports,
        })
    }

    pub(super) fn set_local(&mut self, local: &LocalAddress) -> Applied {
        self.locals.insert(local.address, local.ports);
        let family = Family::from(local.address);
        Applied::LocalsChanged { family }
    }

    /// Whether there can be such a local address.
    pub(super) fn of_local(&self, local: &LocalAddress) -> Result<(), Refusal> {
        of_local_address(local)?;
        let family = Family::from(local.address);
        let same = |address: &&IpAddr| Family::from(**address) == family;
        let is_new = !self.locals.contains_key(&local.address);
        if is_new && self.locals.keys().filter(same).count() >= MOST {
            return refuse(
                Reason::NoRoom,
                format!("there are {MOST} local addresses of that family already"),
            );
        }
        Ok(())
    }

    pub(super) fn delete_local(&mut self, address: IpAddr) -> Result<Applied, Refusal> {
        if self.locals.remove(&address).is_some() {
            let family = Family::from(address);
            return Ok(Applied::LocalsChanged { family });
        }
        refuse(
            Reason::NoSuchServer,
            format!("there is no local address {address}"),
        )
    }
}
