//! The local addresses of full NAT.

use std::net::IpAddr;

use shunt_model::api::{Reason, Refusal};
use shunt_model::change::local::Change;
use shunt_model::{Family, LocalAddress};

use super::rules::{of_local_address, refuse};
use super::{Applied, Table};

/// The most local addresses of a family.
pub(super) const MOST: usize = shunt_datapath::translation::LOCALS as usize;

impl Table {
    /// The local addresses, IPv4 before IPv6.
    pub fn locals(&self) -> impl Iterator<Item = LocalAddress> {
        let locals = self.locals.iter();
        locals.map(|(address, ports)| LocalAddress {
            address: *address,
            ports: *ports,
        })
    }

    pub(super) fn check_local(&self, change: &Change) -> Result<(), Refusal> {
        match change {
            Change::Set { local } => self.of_local(local),
            Change::Delete { address } => self.has_local(*address),
        }
    }

    pub(super) fn take_local(&mut self, change: &Change) -> Result<Applied, Refusal> {
        match change {
            Change::Set { local } => Ok(self.set_local(local)),
            Change::Delete { address } => self.delete_local(*address),
        }
    }

    fn set_local(&mut self, local: &LocalAddress) -> Applied {
        self.locals.insert(local.address, local.ports);
        let family = Family::from(local.address);
        Applied::LocalsChanged { family }
    }

    /// Whether there can be such a local address.
    fn of_local(&self, local: &LocalAddress) -> Result<(), Refusal> {
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

    fn has_local(&self, address: IpAddr) -> Result<(), Refusal> {
        if self.locals.contains_key(&address) {
            return Ok(());
        }
        refuse(
            Reason::NoSuchLocal,
            format!("there is no local address {address}"),
        )
    }

    fn delete_local(&mut self, address: IpAddr) -> Result<Applied, Refusal> {
        self.has_local(address)?;
        self.locals.remove(&address);
        let family = Family::from(address);
        Ok(Applied::LocalsChanged { family })
    }
}
