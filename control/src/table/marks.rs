//! The rules that mark packets. No two rules of the same origin have a place in common, nor has a
//! rule and a service: a packet to it would belong to both. Of rules that differ in origin, the
//! narrower is the one that counts.

use shunt_model::api::{Reason, Refusal};
use shunt_model::change::mark::Change;
use shunt_model::mark::{MarkRule, Ports, Target};
use shunt_model::{Family, Service, ServiceKey};

use super::rules::{self, refuse};
use super::{Applied, Table};

/// The most rules of a table.
pub(super) const MOST: usize = 4096;

impl Table {
    /// The rules, by mark.
    pub fn marks(&self) -> impl Iterator<Item = &MarkRule> {
        self.marks.iter()
    }

    pub(super) fn check_mark(&self, change: &Change) -> Result<(), Refusal> {
        match change {
            Change::Add { rule } => self.of_mark(rule),
            Change::Delete { rule } => self.has_mark(rule),
        }
    }

    pub(super) fn take_mark(&mut self, change: &Change) -> Result<Applied, Refusal> {
        match change {
            Change::Add { rule } => Ok(self.add_mark(rule)),
            Change::Delete { rule } => self.delete_mark(rule),
        }
    }

    fn add_mark(&mut self, rule: &MarkRule) -> Applied {
        self.marks.insert(*rule);
        Applied::MarkAdded { rule: *rule }
    }

    /// Whether a rule can be added.
    fn of_mark(&self, rule: &MarkRule) -> Result<(), Refusal> {
        let target = rule.target;
        rules::of_target(rule)?;
        let family = Family::from(target.address);
        if rule.origin.family().is_some_and(|other| other != family) {
            return refuse(
                Reason::OutOfRange,
                format!("{rule}: the network and the target are not of one family"),
            );
        }
        let overlaps = |other: &&MarkRule| {
            let same = (other.target.protocol, other.target.address, other.origin);
            same == (target.protocol, target.address, rule.origin)
                && other.target.ports.overlaps(target.ports)
        };
        if let Some(other) = self.marks.iter().find(overlaps) {
            return refuse(
                Reason::MarkExists,
                format!("{rule}: there is a rule already, {other}"),
            );
        }
        if let Some(key) = self.service_in(&target) {
            return refuse(
                Reason::MarkedPackets,
                format!("{rule}: service {key} has that address and port; delete it first"),
            );
        }
        if self.marks.len() >= MOST {
            return refuse(Reason::NoRoom, format!("there are {MOST} rules already"));
        }
        Ok(())
    }

    fn has_mark(&self, rule: &MarkRule) -> Result<(), Refusal> {
        if self.marks.contains(rule) {
            return Ok(());
        }
        refuse(Reason::NoSuchMark, format!("there is no rule {rule}"))
    }

    fn delete_mark(&mut self, rule: &MarkRule) -> Result<Applied, Refusal> {
        self.has_mark(rule)?;
        self.marks.remove(rule);
        Ok(Applied::MarkDeleted { rule: *rule })
    }

    /// A service that has an address and port of this target.
    fn service_in(&self, target: &Target) -> Option<ServiceKey> {
        let key = |port| ServiceKey::Address {
            protocol: target.protocol,
            address: target.address,
            port,
        };
        let Ports { first, last } = target.ports;
        self.entries
            .range(key(first)..=key(last))
            .map(|(key, _)| *key)
            .next()
    }

    /// Refuses a service whose packets are marked.
    pub(super) fn unmarked(&self, service: &Service) -> Result<(), Refusal> {
        let ServiceKey::Address {
            protocol,
            address,
            port,
        } = service.key
        else {
            return Ok(());
        };
        let ports = Ports {
            first: port,
            last: port,
        };
        let is_in = |rule: &&MarkRule| {
            (rule.target.protocol, rule.target.address) == (protocol, address)
                && rule.target.ports.overlaps(ports)
        };
        match self.marks.iter().find(is_in) {
            None => Ok(()),
            Some(rule) => refuse(
                Reason::MarkedPackets,
                format!("service {}: {rule}; delete that rule first", service.key),
            ),
        }
    }
}
