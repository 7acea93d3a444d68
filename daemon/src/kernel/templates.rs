//! Templates of persistent clients, as a scan meets them.
//!
//! A template lives on while its client has connections: shortly before its time is over it gets
//! another minute, as `ip_vs_conn_expire` gives it one (net/netfilter/ipvs/ip_vs_conn.c).

use std::collections::{BTreeMap, HashSet};

use shunt_datapath::connection::{self, Meta};
use shunt_datapath::family::{V4, V6};
use shunt_datapath::flows::{self, Key, Layout, Narrow, Record, Wide};
use shunt_datapath::template;

use tracing::error;

use super::mapping::{BucketWords, Mapping};
use super::scan::Look;

/// Ticks before its end from which a template is looked after: several scans.
pub(super) const SOON: u32 = 8;
/// Seconds that a template gets whose client has connections.
pub(super) const AGAIN_S: u64 = 60;

/// Which table a template is in, and its key.
type Named = (bool, Key);

/// What one scan tells the next.
#[derive(Clone, Debug, Default)]
pub struct Templates {
    /// Templates that end soon, as the last scan saw them.
    expiring: HashSet<Named>,
    soon: HashSet<Named>,
    /// Those of them whose client has a connection.
    held: HashSet<Named>,
}

impl Templates {
    /// A template that is there.
    pub fn meet<L: Layout>(&mut self, record: &Record, now: u32) {
        let left = connection::TEMPLATE_LIVES.saturating_sub(record.meta.age(now));
        if left <= SOON {
            self.soon.insert((is_wide::<L>(), record.key));
        }
    }

    /// A connection that is there.
    pub fn hold<L: Layout>(&mut self, look: Look<'_>, record: &Record) {
        if self.expiring.is_empty() || !record.meta.has(Meta::CONTROLLED) {
            return;
        }
        let Some(service) = look.tables.service_of(record.key.endpoint::<L>()) else {
            return;
        };
        let key = if is_wide::<L>() {
            template::key::<V6>(&service, record.key.address)
        } else {
            template::key::<V4>(&service, (record.key.first >> 32) as u32)
        };
        let named = (is_wide::<L>(), key);
        if self.expiring.contains(&named) {
            self.held.insert(named);
        }
    }

    /// The scan is over.
    pub fn finish(&mut self, look: Look<'_>, tick_ns: u64) {
        let again = AGAIN_S * 1_000_000_000 / tick_ns.max(1);
        let again = u32::try_from(again).unwrap_or(SOON + 1);
        let tables = look.tables;
        for (is_wide, key) in std::mem::take(&mut self.held) {
            if is_wide {
                renew::<Wide>(look, &tables.flows6, tables.made.flow6_mask(), &key, again);
            } else {
                renew::<Narrow>(look, &tables.flows4, tables.made.flow4_mask(), &key, again);
            }
        }
        self.expiring = std::mem::take(&mut self.soon);
    }
}

fn is_wide<L: Layout>() -> bool {
    L::STRIDE == Wide::STRIDE
}

/// Gives a template more time, unless a new connection did so in the meantime.
fn renew<L: Layout>(look: Look<'_>, mapping: &Mapping, mask: u32, key: &Key, lives: u32) {
    let hash = flows::hash(key, look.tables.made.seed);
    for bucket in [flows::first(hash, mask), flows::second(hash, mask)] {
        let words = mapping.value(bucket as usize).unwrap_or_default();
        let (Some(mut entry), _) = flows::find::<L, _>(BucketWords(words), key) else {
            continue;
        };
        let age = entry.meta().age(look.now);
        if connection::TEMPLATE_LIVES.saturating_sub(age) <= SOON {
            entry.update::<L>(Meta::template(look.now, lives, entry.meta().state()));
        }
        return;
    }
}

impl Look<'_> {
    /// How many templates name each server.
    #[must_use]
    pub fn templates(self) -> BTreeMap<u32, u32> {
        let mut counts = BTreeMap::new();
        let mask = self.tables.made.flow4_mask();
        self.count_templates::<Narrow>(&self.tables.flows4, mask, &mut counts);
        let mask = self.tables.made.flow6_mask();
        self.count_templates::<Wide>(&self.tables.flows6, mask, &mut counts);
        if let Err(error) = self.tables.calls.templates(self, &mut counts) {
            error!(error = format!("{error:#}"), "calls not counted");
        }
        counts
    }

    fn count_templates<L: Layout>(
        self,
        mapping: &Mapping,
        mask: u32,
        counts: &mut BTreeMap<u32, u32>,
    ) {
        for bucket in 0..=mask {
            let Some(words) = mapping.value(bucket as usize) else {
                break;
            };
            for at in 0..L::SLOTS {
                let Some((record, _)) = flows::read::<L, _>(BucketWords(words), at) else {
                    continue;
                };
                let alive = record.meta.age(self.now) <= connection::TEMPLATE_LIVES;
                if alive && !record.key.is_back::<L>() && record.meta.is_template() {
                    *counts.entry(record.target).or_insert(0) += 1;
                }
            }
        }
    }
}
