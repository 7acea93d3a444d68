//! Templates of persistent clients, as a sweep meets them.
//!
//! A template lives on while its client has connections: shortly before its time is over it gets
//! another minute, as `ip_vs_conn_expire` gives it one (net/netfilter/ipvs/ip_vs_conn.c).

use std::collections::HashSet;

use crate::connection::{self, Meta};
use crate::family::{V4, V6};
use crate::flows::{Key, Layout, Narrow, Record, Wide};
use crate::template;

use super::{Tables, View, is_wide};

/// Ticks before its end from which a template is looked after: several sweeps.
pub(super) const SOON: u32 = 8;
/// Seconds that a template gets whose client has connections.
const RENEWED_S: u64 = 60;

/// Whether a template is of IPv6, and its key.
type Named = (bool, Key);

/// What one sweep leaves for the next.
#[derive(Clone, Debug, Default)]
pub struct Templates {
    /// Templates that end soon, as the sweep before saw them.
    expiring: HashSet<Named>,
    soon: HashSet<Named>,
    /// Templates among `expiring` whose client has a connection.
    held: HashSet<Named>,
}

impl Templates {
    /// Takes in a living template.
    pub(super) fn meet<L: Layout>(&mut self, record: &Record, now: u32) {
        let rest = connection::TEMPLATE_LIVES.saturating_sub(record.meta.age(now));
        if rest <= SOON {
            self.soon.insert((is_wide::<L>(), record.key));
        }
    }

    /// Takes in a living connection, which holds its client's template.
    pub(super) fn hold<L: Layout, T: Tables>(&mut self, view: View<'_, T>, record: &Record) {
        if self.expiring.is_empty() || !record.meta.has(Meta::CONTROLLED) {
            return;
        }
        let Some(service) = view.tables.service_of(record.key.endpoint::<L>()) else {
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

    /// Ends the sweep: templates that are held get more time.
    pub(super) fn finish<T: Tables>(&mut self, view: View<'_, T>) {
        for (is_wide, key) in std::mem::take(&mut self.held) {
            if is_wide {
                view.renew::<Wide>(&key);
            } else {
                view.renew::<Narrow>(&key);
            }
        }
        self.expiring = std::mem::take(&mut self.soon);
    }
}

impl<T: Tables> View<'_, T> {
    /// Ticks that a held template gets.
    pub(super) fn renewed(self) -> u32 {
        let ticks = RENEWED_S * 1_000_000_000 / self.tick_ns.max(1);
        u32::try_from(ticks).unwrap_or(SOON + 1)
    }

    /// Gives a template more time, unless a new connection did so in the meantime.
    fn renew<L: Layout>(self, key: &Key) {
        let Some(mut entry) = self.find::<L>(key, |_| true) else {
            return;
        };
        let age = entry.meta().age(self.now);
        if connection::TEMPLATE_LIVES.saturating_sub(age) <= SOON {
            let meta = Meta::template(self.now, self.renewed(), entry.meta().state());
            entry.update::<L>(meta);
        }
    }
}
