//! Next-hop objects (`ip nexthop`, Linux 5.3): paths that routes share by a number.
//!
//! When an object goes the kernel removes its routes. It reports no IPv4 routes then. With
//! `nexthop_compat_mode` off, routes carry only the object's number.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::path::{Gateway, Path};

/// One object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Object {
    /// The number by which routes and groups name it.
    pub id: u32,
    /// Where it leads.
    pub kind: Kind,
}

/// Where an object leads.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Kind {
    /// One path.
    Path(Path),
    /// Packets are dropped.
    Blackhole,
    /// Several objects. A group contains no groups.
    Group(Vec<u32>),
}

/// What a route with this object does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Resolved {
    Paths(Vec<Path>),
    Blackhole,
}

/// All objects, by number.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Objects(BTreeMap<u32, Kind>);

impl Objects {
    /// Adds or replaces an object; true if anything changed.
    pub(super) fn insert(&mut self, object: Object) -> bool {
        let Object { id, kind } = object;
        self.0.get(&id) != Some(&kind) && {
            self.0.insert(id, kind);
            true
        }
    }

    /// Removes an object and the groups it leaves empty. Returns the removed ones.
    pub(super) fn remove(&mut self, id: u32) -> BTreeSet<u32> {
        let mut gone = BTreeSet::new();
        if self.0.remove(&id).is_some() {
            gone.insert(id);
        }
        self.0.retain(|group, kind| {
            let Kind::Group(members) = kind else {
                return true;
            };
            members.retain(|member| *member != id);
            if members.is_empty() {
                gone.insert(*group);
            }
            !members.is_empty()
        });
        gone
    }

    /// Removes the objects that lead over a link. Returns the removed ones.
    pub(super) fn remove_link(&mut self, interface: u32) -> BTreeSet<u32> {
        let over = |kind: &Kind| matches!(kind, Kind::Path(path) if path.interface == interface);
        let over = self.0.iter().filter(|(_, kind)| over(kind));
        let over: Vec<u32> = over.map(|(id, _)| *id).collect();
        over.into_iter().flat_map(|id| self.remove(id)).collect()
    }

    /// The objects that differ between two accounts.
    pub(super) fn different(&self, other: &Self) -> BTreeSet<u32> {
        let ids = self.0.keys().chain(other.0.keys()).copied();
        ids.filter(|id| self.0.get(id) != other.0.get(id)).collect()
    }

    /// These objects, and the groups that contain one of them.
    pub(super) fn with_groups(&self, ids: BTreeSet<u32>) -> BTreeSet<u32> {
        let groups = self.0.iter().filter(|(_, kind)| match kind {
            Kind::Group(members) => members.iter().any(|member| ids.contains(member)),
            Kind::Path(_) | Kind::Blackhole => false,
        });
        let groups: Vec<u32> = groups.map(|(id, _)| *id).collect();
        ids.into_iter().chain(groups).collect()
    }

    /// Every router that some object names.
    pub(super) fn routers(&self) -> impl Iterator<Item = Gateway> {
        self.0.values().filter_map(|kind| match kind {
            Kind::Path(path) => path.router(),
            Kind::Blackhole | Kind::Group(_) => None,
        })
    }

    /// What an object stands for; `None` if it is not known.
    pub(super) fn resolve(&self, id: u32) -> Option<Resolved> {
        Some(match self.0.get(&id)? {
            Kind::Path(path) => Resolved::Paths(vec![*path]),
            Kind::Blackhole => Resolved::Blackhole,
            Kind::Group(members) => {
                let path = |member: &u32| match self.0.get(member) {
                    Some(Kind::Path(path)) => Some(*path),
                    Some(Kind::Blackhole | Kind::Group(_)) | None => None,
                };
                Resolved::Paths(members.iter().filter_map(path).collect())
            }
        })
    }
}
