//! Reads all flows and changes none: counts them, or visits each.

use std::collections::BTreeMap;

use crate::connection;
use crate::table::flows::{self, Layout, Narrow, Record, Wide};

use super::{Tables, View, is_wide};

impl<T: Tables> View<'_, T> {
    /// How many connections are in each state.
    #[must_use]
    pub fn states(self) -> [u64; connection::STATES] {
        let mut counts = [0; connection::STATES];
        let mut count = |record: &Record, _| {
            if let Some(count) = counts.get_mut(record.meta.state() as usize) {
                *count += 1;
            }
            true
        };
        let _ = self.living::<Narrow>(&mut count) && self.living::<Wide>(&mut count);
        counts
    }

    /// How many templates name each server.
    #[must_use]
    pub fn templates(self) -> BTreeMap<u32, u32> {
        let mut counts = BTreeMap::new();
        let mut count = |record: &Record, _| {
            if record.meta.is_template() {
                *counts.entry(record.target).or_insert(0) += 1;
            }
            true
        };
        let _ = self.living::<Narrow>(&mut count) && self.living::<Wide>(&mut count);
        counts
    }

    /// Calls `each` with every live connection and template and the ticks that it has left. Ends
    /// with false when `each` returns false.
    pub fn living<L: Layout>(self, each: &mut dyn FnMut(&Record, u32) -> bool) -> bool {
        let regions = self.occupied::<L>();
        for bucket in regions.flat_map(|(region, _)| self.buckets::<L>(region)) {
            let Some(words) = self.bucket::<L>(bucket) else {
                break;
            };
            for at in 0..L::SLOTS {
                let Some((record, _)) = flows::read::<L, _>(words, at) else {
                    continue;
                };
                if record.key.is_back::<L>() {
                    continue;
                }
                let limit = self.limit(record.meta.state());
                let Some(rest) = limit.checked_sub(record.meta.age(self.now)) else {
                    continue;
                };
                if !each(&record, rest) {
                    return false;
                }
            }
        }
        true
    }
}

/// The client's address in two words, IPv4 in the low half of the first, wire order.
#[must_use]
pub fn client<L: Layout>(record: &Record) -> [u64; 2] {
    if is_wide::<L>() {
        record.key.address
    } else {
        [record.key.first >> 32, 0]
    }
}
