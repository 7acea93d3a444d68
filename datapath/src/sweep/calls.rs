//! Sweeps calls: the templates of a persistence engine.
//!
//! The packet path enters and renews calls. A sweep removes an expired call, and gives another
//! minute to a call whose last connection is live, as `ip_vs_conn_expire` does
//! (net/netfilter/ipvs/ip_vs_conn.c).

use std::hash::{DefaultHasher, Hash, Hasher};

use crate::connection::{self, Meta};
use crate::table::call::{Call, CallKey};
use crate::table::flows::{self, Key, Narrow, Wide};

use super::{Entries, Found, SOON, Tables, View};

/// A call with a live connection gets more time when it has this many ticks left: two sweeps.
const LAST_CALL: u32 = 2;

/// The server that a call names.
#[must_use]
pub fn server(call: &Call) -> u32 {
    call.value as u32 & 0xff_ffff
}

fn meta(call: &Call) -> Meta {
    Meta((call.value >> 32) as u32)
}

fn count(key: &CallKey, call: &Call, found: &mut Found) {
    found.calls += 1;
    found.services.insert(key.service);
    found.servers.insert(server(call));
}

impl<T: Tables> View<'_, T> {
    /// Counts a call that needs no change. False if [`Self::look_after_call`] must see it, after
    /// the iteration over the map.
    pub fn count_call(self, key: &CallKey, call: &Call, found: &mut Found) -> bool {
        let rest = connection::TEMPLATE_LIVES.saturating_sub(meta(call).age(self.now));
        if rest <= SOON || self.has_ended(server(call)) || self.is_dropped_call(key) {
            return false;
        }
        count(key, call, found);
        true
    }

    /// Removes a call that has expired, or gives it more time. Reads the call again, since a
    /// datagram may have renewed it.
    pub fn look_after_call(
        self,
        map: &impl Entries<CallKey, Call>,
        key: &CallKey,
        found: &mut Found,
    ) {
        let Some(call) = map.find(key) else {
            return;
        };
        let age = meta(&call).age(self.now);
        let expired = age > connection::TEMPLATE_LIVES || self.has_ended(server(&call));
        let held = !expired && self.connection_of_call(&call).is_some();
        if expired || self.is_dropped_call(key) && !held {
            found.expired += u64::from(expired);
            found.dropped += u64::from(!expired);
            map.delete(key);
            return;
        }
        count(key, &call, found);
        if held && connection::TEMPLATE_LIVES - age <= LAST_CALL {
            let meta = Meta::template(self.now, self.renewed(), connection::TEMPLATE);
            let value = flows::value(server(&call), 0, meta);
            map.replace(key, &Call { value, ..call });
        }
    }

    /// Ticks until a call expires; `None` if it has ended.
    #[must_use]
    pub fn rest_of_call(self, call: &Call) -> Option<u32> {
        if self.has_ended(server(call)) {
            return None;
        }
        connection::TEMPLATE_LIVES.checked_sub(meta(call).age(self.now))
    }

    /// Whether the last connection of a call is assured: it has had an answer or a second datagram.
    #[must_use]
    pub fn is_assured_call(self, call: &Call) -> bool {
        self.connection_of_call(call) == Some(connection::UDP)
    }

    /// Whether `drop_entry` selects a call (`ip_vs_random_dropentry`).
    fn is_dropped_call(self, key: &CallKey) -> bool {
        let Some(stretch) = self.stretch else {
            return false;
        };
        let mut hasher = DefaultHasher::new();
        key.hash(&mut hasher);
        stretch.has(hasher.finish() as u32, u32::MAX)
    }

    /// The state of the last connection of a call.
    fn connection_of_call(self, call: &Call) -> Option<connection::State> {
        let [first, a, b, tag] = call.connection;
        let address = [a, b];
        let key = Key {
            first,
            address,
            tag,
        };
        if first == 0 {
            return None;
        }
        // Only keys of IPv6 have an address beside their first word.
        let value = if address == [0, 0] {
            self.find::<Narrow>(&key, |_| true)?.value
        } else {
            self.find::<Wide>(&key, |_| true)?.value
        };
        let is_its = value as u32 & 0xff_ffff == server(call);
        is_its.then(|| Meta((value >> 32) as u32).state())
    }
}
