//! The sweep over tables in plain memory, as the daemon sweeps the kernel's.

use std::collections::BTreeSet;
use std::vec::Vec;

use crate::sweep::{Entries, Found, Memory, Stretch, Tables, View};
use crate::table::call::{Call, CallKey};
use crate::table::entry::{self, Server, Service};
use crate::table::translation::{Translation, Tuple};
use crate::table::{self, Shape, entered};

use super::{HostTables, HostWords};

impl HostTables {
    /// The tables as a sweep sees them at this moment. A tick is a second.
    #[must_use]
    pub fn view<'a>(
        &'a self,
        ended: &'a BTreeSet<u32>,
        stretch: Option<Stretch>,
    ) -> View<'a, &'a HostTables> {
        View {
            tables: self,
            settings: &self.settings,
            now: table::Tables::now(&self),
            tick_ns: 1_000_000_000,
            ended,
            stretch,
        }
    }

    /// Sweeps all tables once.
    pub fn sweep(
        &self,
        memory: &mut Memory,
        ended: &BTreeSet<u32>,
        stretch: Option<Stretch>,
    ) -> Found {
        let view = self.view(ended, stretch);
        let mut found = view.sweep(memory);
        for (index, (tuple, translation)) in self.all_translations().iter().enumerate() {
            let removed = view.translation(self, (tuple, translation), index, memory.turn());
            found.translations += u64::from(!removed);
        }
        let calls = self.calls.all().into_iter();
        let later = calls.filter(|(key, call)| !view.count_call(key, call, &mut found));
        for (key, _) in later.collect::<Vec<_>>() {
            view.look_after_call(&self.calls, &key, &mut found);
        }
        found
    }
}

impl<'a> Tables for &'a HostTables {
    type Words = HostWords<'a>;

    fn shape(self) -> Shape {
        self.shape
    }

    fn flows4(self, bucket: u32) -> Option<HostWords<'a>> {
        table::Tables::flows4(&self, bucket)
    }

    fn flows6(self, bucket: u32) -> Option<HostWords<'a>> {
        table::Tables::flows6(&self, bucket)
    }

    fn occupied4(self, region: u32) -> Option<HostWords<'a>> {
        table::Tables::occupied4(&self, region)
    }

    fn occupied6(self, region: u32) -> Option<HostWords<'a>> {
        table::Tables::occupied6(&self, region)
    }

    fn counts(self, server: u32) -> Option<HostWords<'a>> {
        table::Tables::counts(&self, server)
    }

    fn server(self, id: u32) -> Option<Server> {
        self.servers.get(id as usize).copied()
    }

    fn service_of(self, endpoint: u32) -> Option<Service> {
        let id = if endpoint & entry::WIDE == 0 {
            endpoint
        } else {
            *self
                .wide_services
                .get(entry::wide_number(endpoint) as usize)?
        };
        self.services.get(id as usize).copied()
    }
}

impl Entries<Tuple, Translation> for HostTables {
    fn find(&self, key: &Tuple) -> Option<Translation> {
        let all = self.all_translations().into_iter();
        all.filter(|(tuple, _)| tuple == key)
            .map(|(_, found)| found)
            .next()
    }

    fn enter(&self, key: &Tuple, value: &Translation) -> bool {
        table::Tables::translate(&self, key, value, true) == entered::DONE
    }

    fn replace(&self, key: &Tuple, value: &Translation) -> bool {
        let present = Entries::find(self, key).is_some();
        present && table::Tables::translate(&self, key, value, false) == entered::DONE
    }

    fn delete(&self, key: &Tuple) -> bool {
        let mut translated = self.translated.lock().expect("no panic in here");
        translated.remove(key).is_some()
    }
}

impl Entries<CallKey, Call> for super::Calls {
    fn find(&self, key: &CallKey) -> Option<Call> {
        let all = self.all().into_iter();
        all.filter(|(call, _)| call == key)
            .map(|(_, found)| found)
            .next()
    }

    fn enter(&self, key: &CallKey, value: &Call) -> bool {
        Entries::find(self, key).is_none() && self.put(key, value)
    }

    fn replace(&self, key: &CallKey, value: &Call) -> bool {
        Entries::find(self, key).is_some() && self.put(key, value)
    }

    fn delete(&self, key: &CallKey) -> bool {
        self.remove(key)
    }
}
