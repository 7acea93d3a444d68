//! The sweep over the kernel's maps. [`shunt_datapath::sweep`] sweeps the arrays through their
//! mappings; this module walks the hash maps.

use std::sync::atomic::Ordering;

use shunt_datapath::entry;
use shunt_datapath::flows::Words;
use shunt_datapath::region;
use shunt_datapath::sweep::{Found, Memory, Tables, View};
use shunt_datapath::table::Shape;
use tracing::error;

use super::batch;
use super::mapping::BucketWords;
use super::rcu;
use super::tables::Shared;
use crate::chain::chain;

/// A view of the kernel's maps.
pub type Look<'a> = View<'a, &'a Shared>;

/// Sweeps all tables once.
pub fn sweep(look: Look<'_>, memory: &mut Memory) -> Found {
    let mut found = look.sweep(memory);
    if let Some(word) = occupied(look, region::table::TRANSLATIONS) {
        match translations(look, memory.turn()) {
            Ok(0) => memory.nothing_there(word),
            Ok(used) => found.translations = used,
            Err(error) => error!(error = chain(&error), "translations not swept"),
        }
    }
    if let Some(word) = occupied(look, region::table::CALLS) {
        match calls(look, &mut found) {
            Ok(()) if found.calls == 0 => memory.nothing_there(word),
            Ok(()) => {}
            Err(error) => error!(error = chain(&error), "calls not swept"),
        }
    }
    if memory.has_doubts() {
        // If the kernel offers no `membarrier`, the pause between two sweeps suffices: it is as
        // long as a hundred thousand walks of a packet.
        rcu::wait();
    }
    found
}

/// Sweeps all translations once, as sweep number `turn`. Returns how many stay.
fn translations(look: Look<'_>, turn: usize) -> Result<u64, batch::Error> {
    let (map, mut used) = (&look.tables.translations, 0);
    map.each(&mut |index, tuple, translation| {
        let removed = look.translation(map, (tuple, translation), index, turn);
        used += u64::from(!removed);
    })?;
    Ok(used)
}

/// Sweeps all calls once.
fn calls(look: Look<'_>, found: &mut Found) -> Result<(), batch::Error> {
    let (map, mut later) = (&look.tables.calls, Vec::new());
    map.each(&mut |key, call| {
        if !look.count_call(key, call, found) {
            later.push(*key);
        }
        true
    })?;
    for key in later {
        look.look_after_call(map, &key, found);
    }
    Ok(())
}

/// The word that marks a hash table, if it is set: the table may have entries.
fn occupied(look: Look<'_>, table: u32) -> Option<BucketWords<'_>> {
    let word = BucketWords(look.tables.occupied.value(table as usize)?);
    (word.load(0) != region::EMPTY).then_some(word)
}

impl<'a> Tables for &'a Shared {
    type Words = BucketWords<'a>;

    fn shape(self) -> Shape {
        Shape {
            endpoint4_mask: self.made.endpoint_mask(),
            endpoint6_mask: self.made.endpoint_mask(),
            flow4_mask: self.made.flow4_mask(),
            flow6_mask: self.made.flow6_mask(),
            seed: self.made.seed,
        }
    }

    fn flows4(self, bucket: u32) -> Option<BucketWords<'a>> {
        self.flows4.value(bucket as usize).map(BucketWords)
    }

    fn flows6(self, bucket: u32) -> Option<BucketWords<'a>> {
        self.flows6.value(bucket as usize).map(BucketWords)
    }

    fn occupied4(self, region: u32) -> Option<BucketWords<'a>> {
        self.occupied4.from(region as usize).map(BucketWords)
    }

    fn occupied6(self, region: u32) -> Option<BucketWords<'a>> {
        self.occupied6.from(region as usize).map(BucketWords)
    }

    fn counts(self, server: u32) -> Option<BucketWords<'a>> {
        self.counts.value(server as usize).map(BucketWords)
    }

    fn server(self, id: u32) -> Option<entry::Server> {
        Shared::server(self, id)
    }

    fn service_of(self, endpoint: u32) -> Option<entry::Service> {
        if endpoint & entry::WIDE == 0 {
            return self.service(endpoint);
        }
        let words = self.wides.value(entry::wide_number(endpoint) as usize)?;
        let service = words.first()?.load(Ordering::Acquire) as u32;
        self.service(service)
    }
}
