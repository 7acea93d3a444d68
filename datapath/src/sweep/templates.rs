//! Sweeps the templates of persistent clients.
//!
//! A template stays while its client has connections: shortly before it expires it gets another
//! minute, as from `ip_vs_conn_expire` (net/netfilter/ipvs/ip_vs_conn.c).

use std::collections::HashSet;

use crate::connection::{self, Meta};
use crate::table::family::{V4, V6};
use crate::table::flows::{Key, Layout, Narrow, Record, Wide};
use crate::template;

use super::{Tables, View, is_wide};

/// A template is watched when it has this many ticks left: several sweeps.
pub(super) const SOON: u32 = 8;
/// Seconds that a template gets while its client has connections.
const RENEWED_S: u64 = 60;

/// Whether a template is of IPv6, and its key.
type Named = (bool, Key);

/// The watched templates, from one sweep to the next.
#[derive(Clone, Debug, Default)]
pub struct Templates {
    /// Templates that expire soon, as the previous sweep saw them.
    expiring: HashSet<Named>,
    soon: HashSet<Named>,
    /// Templates among `expiring` whose client has a connection.
    held: HashSet<Named>,
    /// The tick at which the previous sweep ended, and the ticks between it and the one before.
    finished: u32,
    since: u32,
}

impl Templates {
    /// A held template gets more time when it has this many ticks left, since the next sweep could
    /// be too late. A template with more ticks left may have lost its connection by then.
    fn last_call(&self) -> u32 {
        self.since.saturating_add(1).min(SOON)
    }

    /// Notes the ticks since the previous sweep.
    fn pace(&mut self, now: u32) {
        self.since = now.wrapping_sub(self.finished) & connection::TICK_MASK;
        self.finished = now;
    }

    /// Notes a live template that expires soon.
    pub(super) fn meet<L: Layout>(&mut self, record: &Record, now: u32) {
        let rest = connection::TEMPLATE_LIVES.saturating_sub(record.meta.age(now));
        if rest <= SOON {
            self.soon.insert((is_wide::<L>(), record.key));
        }
    }

    /// Notes a live connection, which holds its client's template.
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

    /// Ends the sweep: held templates get more time.
    pub(super) fn finish<T: Tables>(&mut self, view: View<'_, T>) {
        self.pace(view.now);
        let last_call = self.last_call();
        for (is_wide, key) in std::mem::take(&mut self.held) {
            if is_wide {
                view.renew::<Wide>(&key, last_call);
            } else {
                view.renew::<Narrow>(&key, last_call);
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

    /// Gives a template more time if it has no more than `last_call` ticks left.
    fn renew<L: Layout>(self, key: &Key, last_call: u32) {
        let Some(mut entry) = self.find::<L>(key, |_| true) else {
            return;
        };
        let age = entry.meta().age(self.now);
        if connection::TEMPLATE_LIVES.saturating_sub(age) <= last_call {
            let meta = entry.meta().renewed(self.now, self.renewed());
            entry.update::<L>(meta);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // A held template gets its minute only at its end: a template of a few seconds does not live
    // for a minute from its first sweep on.
    #[test]
    fn more_time_is_given_when_the_next_sweep_could_be_too_late() {
        let mut templates = Templates::default();
        for (now, last_call) in [(1000, SOON), (1000, 1), (1001, 2), (1004, 4), (1040, SOON)] {
            templates.pace(now);
            assert_eq!(templates.last_call(), last_call, "at tick {now}");
        }
    }
}
