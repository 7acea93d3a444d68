//! Makes time pass by making all entries older.

use std::sync::atomic::{AtomicU64, Ordering};
use std::vec::Vec;

use crate::connection::{Meta, TICK_MASK};
use crate::table::flows::{GONE, Layout, Narrow, Wide};
use crate::table::translation::{Translation, Tuple, word};

use super::HostTables;

impl HostTables {
    /// Makes all entries older by `ticks`; the clock stays where it is. The kernel's tables can be
    /// aged in the same way, although the kernel's clock cannot be set.
    pub fn age(&self, ticks: u32) {
        age_flows::<Narrow>(&self.flows4, ticks);
        age_flows::<Wide>(&self.flows6, ticks);
        for value in self
            .fragments
            .lock()
            .expect("no panic in here")
            .values_mut()
        {
            value.tick = value.tick.wrapping_sub(ticks) & TICK_MASK;
        }
        self.allowance[0].store(0, Ordering::SeqCst);
        self.calls.age(ticks);
        for translation in self.translations.chunks(word::WORDS) {
            let time = translation[word::TIME].load(Ordering::SeqCst);
            let tick = (time as u32).wrapping_sub(ticks) & TICK_MASK;
            let time = time & !0xffff_ffff | u64::from(tick);
            translation[word::TIME].store(time, Ordering::SeqCst);
        }
    }

    /// All translations, as they are.
    #[must_use]
    pub fn all_translations(&self) -> Vec<(Tuple, Translation)> {
        let translated = self.translated.lock().expect("no panic in here");
        let read = |at: usize| {
            let words = &self.translations[at * word::WORDS..][..word::WORDS];
            let at = |index: usize| words[index].load(Ordering::SeqCst);
            Translation {
                to: Tuple {
                    source: [at(0), at(1)],
                    target: [at(2), at(3)],
                    ends: at(word::ENDS),
                },
                names: at(word::NAMES),
                time: at(word::TIME),
                reserved: [at(7), at(8), at(9)],
            }
        };
        let all = translated.iter();
        all.map(|(tuple, at)| (*tuple, read(*at))).collect()
    }
}

fn age_flows<L: Layout>(flows: &[AtomicU64], ticks: u32) {
    for entry in flows.chunks(L::STRIDE) {
        let last = &entry[L::STRIDE - 1];
        let value = last.load(Ordering::SeqCst);
        if entry[0].load(Ordering::SeqCst) > GONE {
            let meta = Meta((value >> 32) as u32);
            let aged = meta.seen(meta.tick().wrapping_sub(ticks) & TICK_MASK);
            let value = value & 0xffff_ffff | u64::from(aged.0) << 32;
            last.store(value, Ordering::SeqCst);
        }
    }
}
